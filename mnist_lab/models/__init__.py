"""The five tutorials' networks, one a file; each is a Classifier."""
