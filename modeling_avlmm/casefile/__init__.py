"""The case file of one clip, as HTML and PDF."""
