"""A package, so that its conftest.py and test_distributed.py have names of their own beside those of other folders."""
