"""Trained networks on the test set: tested, also on corrupted images, compared in pairs, and combined."""
