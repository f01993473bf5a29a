"""A benchmark of real recordings: ranking overall, within people and on matched files, beside file properties alone."""
