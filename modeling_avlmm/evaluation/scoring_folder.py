"""The folder of a scoring run: its name, and a marker that says whose results it holds."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable
from pathlib import Path

from dataset_scripts.files import write_whole

from ..inference.provenance import environment
from .evaluation_error import EvaluationError


def claim_folder(
    folder: Path, run: dict, changes: Callable[[dict], list[str]], holds: str, results: str
) -> dict:
    """
    Mark a folder as a run's, or check that it is.

    Args:
        folder (`Path`): The folder.
        run (`dict`): Description of the run, with `model`, `dataset` and `protocol`.
        changes (`Callable[[dict], list[str]]`):
            Takes the description that the folder was marked with and returns the names of the fields that differ.
        holds (`str`): What such a folder holds, for messages: `"predictions"`.
        results (`str`): Name of the file with the results.

    Returns:
        `dict`: `environment` and `date` of the run's first start.

    Raises:
        EvaluationError: when the folder is another run's, or has results but no marker.
    """
    marker = folder / "run.json"
    if marker.is_file():
        before = json.loads(marker.read_text(encoding="utf-8"))
        if changed := changes(before):
            raise EvaluationError(
                f"{folder} holds {holds} of {before['model']} on {before['dataset']}/{before['protocol']}; this run "
                f"differs in {', '.join(changed)}. Give another --output-dir, or delete that folder."
            )
        return {key: before[key] for key in ("environment", "date")}
    if (folder / results).is_file():
        raise EvaluationError(
            f"{folder} holds {holds}, but no run.json that says whose. Give another --output-dir."
        )
    started = {
        "environment": environment(),
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
    }
    write_whole(marker, json.dumps(run | started, indent=2) + "\n")
    return started
