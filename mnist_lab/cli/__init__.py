"""The commands' arguments, a file each. None imports torch before its arguments are known to be valid."""
