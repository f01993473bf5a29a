"""Measure what a detector answers, not only what it scores."""
