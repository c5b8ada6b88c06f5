"""Digits in a person's own images: read, find, classify."""
