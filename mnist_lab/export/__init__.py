"""A run's network in files for use elsewhere, each checked, with a model card."""
