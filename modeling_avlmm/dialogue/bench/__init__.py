"""A benchmark of what a detector answers, beside what it scores."""
