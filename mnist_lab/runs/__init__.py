"""Read and write run folders and sweep folders. Imports no torch."""
