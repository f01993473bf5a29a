"""Publish a detector: the folder or Hub repository, its model card, and a check that it works without this package."""
