"""A package, because tests/config has a test_distributed.py, too."""
