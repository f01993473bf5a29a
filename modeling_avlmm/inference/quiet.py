"""Keeping the progress bars of libraries off the terminal."""

import sys


def quiet_libraries() -> None:
    """Turn off progress bars for loading weights and preparing tables; those for downloads stay."""
    from huggingface_hub.utils import enable_progress_bars
    from transformers.utils import logging

    logging.disable_progress_bar()
    enable_progress_bars()
    if datasets := sys.modules.get("datasets"):  # where a command uses it: it takes a second to import
        datasets.disable_progress_bars()
