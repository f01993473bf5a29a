"""Look for shortcuts, leaks and duplicates in a dataset."""
