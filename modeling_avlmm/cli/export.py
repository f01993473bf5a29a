"""`python -m modeling_avlmm export`: a dataset as files that plain `datasets` loads; see [`dataset_scripts.export`]."""

from dataset_scripts.export import command_line

HELP = "write, and upload, a dataset that plain `datasets` loads, media included"
DESCRIPTION = command_line.__doc__
add_arguments = command_line.add_arguments
run = command_line.run
