"""The commands, one file for each subject. None imports torch before it knows that its arguments are valid."""
