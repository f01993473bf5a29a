"""Write and upload a dataset that plain `datasets` loads, media inside."""
