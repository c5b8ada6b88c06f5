"""Tests of trained networks on the test set, as it is and corrupted."""
