"""The images: where they come from, how they are prepared, in which order they are seen."""
