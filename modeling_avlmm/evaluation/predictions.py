"""Scores a dataset with a detector: by one process or many, resumable, nothing lost, everything in one file."""

import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from accelerate import PartialState
from datasets import Dataset, Video

from ..inference.gate import block_size
from ..pipeline_avd import SCORE_NAMES, AVDeepfakeDetectionPipeline

LABEL_OF = {"score": "label", "video_score": "video_label", "audio_score": "audio_label"}
KEPT = (
    "path",
    "label",
    "video_label",
    "audio_label",
    "generator",
    "audio_generator",
    "language",
    "identity",
    "source",
    "fake_segments",
)
RESULTS = (*SCORE_NAMES.values(), "duration", "windows", "warnings", "error")
OF_A_GATE = ("decided_by", "gate_score")
_ABOUT = b"av-deepfake-detection"
_WINDOW = pa.struct([("start", pa.float64()), ("end", pa.float64()), ("score", pa.float64())])
_TYPES = {
    "split": pa.string(),
    **dict.fromkeys(("label", "video_label", "audio_label"), pa.int8()),
    **dict.fromkeys((*SCORE_NAMES.values(), "duration", "gate_score"), pa.float64()),
    "decided_by": pa.string(),
    "fake_segments": pa.list_(pa.list_(pa.float64())),
    "windows": pa.list_(_WINDOW),
    "warnings": pa.list_(pa.string()),
    "error": pa.struct([("type", pa.string()), ("message", pa.string())]),
}


class PredictionsError(ValueError):
    """A file of predictions that cannot be used as asked; the message says what to change."""


def predict(
    detector: AVDeepfakeDetectionPipeline,
    dataset: Dataset | torch.utils.data.Dataset,
    journal: str | Path,
    rows: Sequence[dict] | None = None,
    done: Mapping[str, dict] | None = None,
    batch_size: int = 1,
    num_workers: int = 0,
    progress_seconds: float = 10.0,
    **options,
) -> list[dict]:
    """
    Scores every clip of a dataset. Under `accelerate launch` each process scores its share.

    Each verdict is appended at once to the process's own `<journal>.<rank>of<processes>.jsonl`. Started again, a run
    scores what is missing. It goes on where a batch began, so that every clip is in the same batch as in a run that
    was never stopped, and has the same score to the last bit. Scores are those of the network, without the detector's
    temperature: calibration is part of a report. With a gate they are calibrated, as two networks give them, and each
    prediction has `decided_by` and `gate_score`.

    Args:
        detector ([`AVDeepfakeDetectionPipeline`]): What scores.
        dataset (`Dataset` or `torch.utils.data.Dataset`): What is scored: rows in the package's schema.
        journal (`str` or `Path`): Where the journals are, without their ending.
        rows (`Sequence[dict]`, *optional*):
            For each clip what is kept of it, `path` (unique) and labels. Taken from `dataset` if left out.
        done (`Mapping[str, dict]`, *optional*): Predictions of an earlier run by `path`; these are not scored again.
        batch_size, num_workers (`int`), options: As for the pipeline.
        progress_seconds (`float`, *optional*, defaults to 10): Time between progress lines.

    Returns:
        `list[dict]`: for each clip its row with `score`, `video_score`, `audio_score` (None where there is none),
        `duration`, `windows`, `warnings` and `error`, in the order of `dataset`. The same in every process.
    """
    state = PartialState()
    journal = Path(journal)
    if rows is None:
        rows = kept_columns(dataset)
    if isinstance(dataset, Dataset) and "video" in dataset.column_names:
        dataset = dataset.cast_column("video", Video(decode=False))
    if len({row["path"] for row in rows}) < len(rows):
        raise ValueError("Two rows have the same path, which is the key of a prediction.")
    journal.parent.mkdir(parents=True, exist_ok=True)
    own = _journal(journal, state.process_index, state.num_processes)

    # What other numbers of processes left behind; what processes of this number did is in their own journals.
    done = dict(done or {})
    for file in journals(journal):
        if not file.name.endswith(f"of{state.num_processes}.jsonl"):
            done |= read_journal(file)
    missing = [index for index, row in enumerate(rows) if row["path"] not in done]
    share = missing[state.process_index :: state.num_processes]
    before = read_journal(own)
    gated = getattr(detector, "gate", None) is not None
    block = block_size(batch_size, num_workers) if gated else None
    todo = _resume(own, before, [rows[index]["path"] for index in share], batch_size, block)
    share = [index for index in share if rows[index]["path"] in todo]
    state.wait_for_everyone()

    begin = last = time.monotonic()
    results = detector(
        torch.utils.data.Subset(dataset, share),
        batch_size=batch_size,
        num_workers=num_workers,
        on_error="return",
        **({} if gated else {"temperature": 1.0}),
        **options,
    )
    names = (*RESULTS, *OF_A_GATE) if gated else RESULTS
    with open(own, "a", encoding="utf-8") as lines:
        for count, (index, result) in enumerate(zip(share, results, strict=True), start=1):
            entry = {"path": rows[index]["path"], **{name: result[name] for name in names}}
            entry["windows"] = [{key: w[key] for key in ("start", "end", "score")} for w in result["windows"]]
            lines.write(json.dumps(entry) + "\n")
            lines.flush()
            if state.is_main_process and time.monotonic() - last > progress_seconds:
                last = time.monotonic()
                rate = count / (last - begin)
                left = (len(share) - count) / rate
                # Shares are of one size, so the main process speaks for all.
                print(
                    f"  {count * state.num_processes}/{len(share) * state.num_processes} clips, "
                    f"{rate * state.num_processes:.1f} clips/s, {left:.0f} s left",
                    flush=True,
                )
    state.wait_for_everyone()
    for file in journals(journal):
        done |= read_journal(file)
    # Labels are the dataset's of today, also for clips that were scored before one was corrected.
    return [{**done[row["path"]], **row} for row in rows]


def kept_columns(dataset: Dataset, more: Sequence[str] = ()) -> list[dict]:
    """What predictions keep of a dataset's rows: labels, and the columns by which a report breaks them down."""
    return dataset.select_columns([name for name in (*KEPT, *more) if name in dataset.column_names]).to_list()


def kind_of_fake(row: dict) -> str:
    """What made a fake: the generators of picture and sound."""
    names = (row.get("generator"), row.get("audio_generator"))
    return " + ".join(dict.fromkeys(name for name in names if name not in (None, "real"))) or "unknown"


def judged(predictions: list[dict], part: str) -> list[dict]:
    """Those that have a label and a score of a part of the verdict: `overall`, `video` or `audio`."""
    score = SCORE_NAMES[part]
    return [p for p in predictions if p[score] is not None and p.get(LABEL_OF[score]) is not None]


def labels_and_scores(predictions: list[dict], part: str) -> tuple[list[int], list[float]]:
    """Labels and scores of those that have both."""
    score, known = SCORE_NAMES[part], judged(predictions, part)
    return [p[LABEL_OF[score]] for p in known], [p[score] for p in known]


def _journal(stem: Path, rank: int, processes: int) -> Path:
    return stem.with_name(f"{stem.name}.{rank}of{processes}.jsonl")


def journals(stem: str | Path) -> list[Path]:
    """The journals that a stopped run left."""
    stem = Path(stem)
    return sorted(stem.parent.glob(f"{stem.name}.*of*.jsonl"))


def read_journal(path: Path) -> dict[str, dict]:
    """Verdicts by `path`; empty where there is no file. A last line that was cut off by a kill is no verdict."""
    if not path.is_file():
        return {}
    whole = path.read_text(encoding="utf-8").rpartition("\n")[0]
    return {entry["path"]: entry for entry in map(json.loads, whole.splitlines())}


def _resume(
    file: Path, before: dict[str, dict], paths: list[str], batch_size: int, block: int | None = None
) -> set[str]:
    """What of `paths` is still to be scored, after cutting the journal back to the last whole batch, or block of a gate."""
    if not before:
        file.unlink(missing_ok=True)
        return set(paths)
    entries = list(before.values())
    if [entry["path"] for entry in entries] == paths[: len(entries)]:
        kept = items = 0
        for number, entry in enumerate(entries, start=1):
            # What went into batches: the file's windows and, where it broke off, the error in place of one.
            items += len(entry["windows"]) + (entry["error"] is not None)
            whole = items % batch_size == 0 if block is None else number % block == 0
            if whole or number == len(paths):
                kept = number
        entries = entries[:kept]
    # The dataset changed since: what is there stays, and batches are new.
    temporary = file.with_suffix(".tmp")
    temporary.write_text("".join(json.dumps(entry) + "\n" for entry in entries), encoding="utf-8")
    os.replace(temporary, file)
    return set(paths) - {entry["path"] for entry in entries}


def write_predictions(path: str | Path, predictions: list[dict], about: dict) -> None:
    """
    Writes predictions as Parquet, whole or not at all.

    Args:
        path (`str` or `Path`): The file.
        predictions (`list[dict]`): As of [`predict`], each with its `split`.
        about (`dict`): What a report has to know of them; kept in the file's metadata.
    """
    path = Path(path)
    names = list(dict.fromkeys(name for entry in predictions for name in entry))
    first = [name for name in ("split", *KEPT, *RESULTS) if name in names]
    columns = {}
    for name in [*first, *(name for name in names if name not in first)]:
        values = [entry.get(name) for entry in predictions]
        columns[name] = pa.array(values, _TYPES.get(name, pa.string() if name in KEPT else None))
    table = pa.table(columns).replace_schema_metadata({_ABOUT: json.dumps(about).encode()})
    temporary = path.with_name(path.name + ".tmp")
    pq.write_table(table, temporary)
    os.replace(temporary, path)


def read_predictions(path: str | Path) -> tuple[list[dict], dict]:
    """
    Reads what [`write_predictions`] wrote: the predictions, and what a report has to know of them.

    Raises:
        PredictionsError: when there is no such file, or it is none of this package.
    """
    path = Path(path)
    if not path.is_file():
        raise PredictionsError(f"There is no file {path}.")
    try:
        table = pq.read_table(path)
    except pa.ArrowInvalid as error:
        raise PredictionsError(f"{path} is no Parquet file: {error}") from error
    about = (table.schema.metadata or {}).get(_ABOUT)
    if about is None:
        raise PredictionsError(f"{path} was not written by evaluate_avd.py: it does not say whose it is.")
    return table.to_pylist(), json.loads(about)
