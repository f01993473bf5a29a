"""`python -m modeling_avlmm export`: a dataset as files that plain `datasets` loads; see [`dataset_scripts.export`]."""

from dataset_scripts.export import command_line

HELP = "write, and upload, a dataset that plain `datasets` loads, media included"
DESCRIPTION = (
    "Write a dataset of this package, media included, as Parquet or WebDataset files that plain `datasets` loads. Each clip is "
    "stored once, however many protocols are exported. After a stop, the same command continues."
)
add_arguments = command_line.add_arguments
run = command_line.run
