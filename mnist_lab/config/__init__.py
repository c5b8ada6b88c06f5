"""Configurations: composed, checked, compared."""
