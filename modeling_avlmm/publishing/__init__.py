"""Write and upload a detector that others load in one line."""
