"""`python -m modeling_avlmm export`: a dataset as files that plain `datasets` loads; see [`dataset_scripts.export`]."""

from dataset_scripts.export import export

HELP = "write, and upload, a dataset that plain `datasets` loads, media included"
DESCRIPTION = export.__doc__
add_arguments = export.add_arguments
run = export.run
