"""Scoring a dataset: in one process or many, resumable, with every prediction in one file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from accelerate import PartialState
from datasets import Dataset, Video

from dataset_scripts.files import write_whole, written_whole
from dataset_scripts.json_lines import JSONLines, read_json_lines

from ..configuration_detector import LOG_ODDS_NAMES, SCORE_NAMES
from ..inference.engines import Engine, LocalEngine
from ..inference.gate import block_size
from ..inference.pipeline import AVDeepfakeDetectionPipeline
from ..inference.sharding import Shard
from .evaluation_error import EvaluationError
from .metrics import SureScores
from .pace import telling_pace

PREDICTIONS = "predictions.parquet"
"""Name of the file of predictions in the folder of an evaluation."""
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
RESULTS = (*SCORE_NAMES.values(), *LOG_ODDS_NAMES.values(), "duration", "windows", "warnings", "error")
OF_A_GATE = ("decided_by", "gate_score")
PROPERTIES = "properties"
"""Column with the properties of each clip's file, so that what they alone reach can be told without the files."""
NUM_FACES = "num_faces"
"""Number of faces found in a clip; None where the detector looked at whole frames."""
_ABOUT = b"av-deepfake-detection"
_WINDOW = pa.struct([("start", pa.float64()), ("end", pa.float64()), ("score", pa.float64())])
_TYPES = {
    "split": pa.string(),
    **dict.fromkeys(("label", "video_label", "audio_label"), pa.int8()),
    **dict.fromkeys(
        (*SCORE_NAMES.values(), *LOG_ODDS_NAMES.values(), "duration", "gate_score"), pa.float64()
    ),
    "decided_by": pa.string(),
    NUM_FACES: pa.int32(),
    "fake_segments": pa.list_(pa.list_(pa.float64())),
    "windows": pa.list_(_WINDOW),
    "warnings": pa.list_(pa.string()),
    "error": pa.struct([("type", pa.string()), ("message", pa.string())]),
}


class PredictionsError(EvaluationError):
    """Predictions that cannot be used as asked; the message says what to change."""


@dataclass(frozen=True)
class Work:
    """
    Who scores what.

    Args:
        engine ([`Engine`], *optional*): Scores the clips with the detector. This process if left out.
        shard ([`Shard`], *optional*): The share of the clips, by their `path`. All if left out.
    """

    engine: Engine | None = None
    shard: Shard | None = None


def predict(
    detector: AVDeepfakeDetectionPipeline,
    dataset: Dataset | torch.utils.data.Dataset,
    journal: str | Path,
    rows: Sequence[dict] | None = None,
    done: Mapping[str, dict] | None = None,
    batch_size: int = 1,
    num_workers: int = 0,
    work: Work = Work(),
    **options,
) -> list[dict]:
    """
    Score every clip of a dataset. Under `accelerate launch` each process scores its share, and a shard is a share of its own.

    Each verdict is appended at once to the process's own `<journal>.<rank>of<processes>.jsonl`. Started again, a run
    scores what is missing. It continues at the start of a batch, so that every clip is in the same batch as in a run
    that was never stopped, and has the same score to the last bit.

    Scores are the network's own, without the detector's temperature: calibration is part of a report. With a gate they
    are calibrated, because two networks give them, and each prediction has `decided_by` and `gate_score`.

    Args:
        detector ([`AVDeepfakeDetectionPipeline`]): The detector.
        dataset (`Dataset` or `torch.utils.data.Dataset`): Rows in the package's schema.
        journal (`str` or `Path`): Path of the journals, without their ending.
        rows (`Sequence[dict]`, *optional*):
            For each clip the columns to keep, `path` (unique) and labels among them. Taken from `dataset` if left out.
        done (`Mapping[str, dict]`, *optional*): Predictions of an earlier run by `path`, which are not scored again.
        batch_size, num_workers (`int`), options: As for the pipeline.
        work ([`Work`], *optional*): What scores the clips, and the share of them that is scored.

    Returns:
        `list[dict]`: for each clip (of a shard, for those that were scored) its row with `score`, `video_score`, `audio_score` (None where there is none), their
        `log_odds`, `video_log_odds`, `audio_log_odds` (None where a pipeline of a repository's own code gives none), `duration`, `num_faces` (None for whole frames), `windows`, `warnings` and `error`, in the order of `dataset`. The
        same in every process.

    Raises:
        ValueError: for two rows with one `path`.
    """
    state = PartialState()
    journal = Path(journal)
    if rows is None:
        rows = kept_columns(dataset)
    if isinstance(dataset, Dataset) and "video" in dataset.column_names:
        dataset = dataset.cast_column("video", Video(decode=False))
    if len({row["path"] for row in rows}) < len(rows):
        raise ValueError("Two rows have the same path, which is the key of a prediction.")
    # The pipeline of a repository's own code has no gate.
    gated = isinstance(detector, AVDeepfakeDetectionPipeline) and detector.gate is not None
    rank, of = state.process_index, state.num_processes
    if work.shard is not None:
        rank, of = work.shard.number - 1, work.shard.of
    own = journal.with_name(f"{journal.name}.{rank}of{of}.jsonl")

    # A run of another number of processes may have left journals; those of this number are resumed by their owners.
    done = dict(done or {})
    for file in journals(journal):
        if not file.name.endswith(f"of{of}.jsonl"):
            done |= read_journal(file)
    missing = [index for index, row in enumerate(rows) if row["path"] not in done]
    if work.shard is None:
        share = missing[rank::of]
    else:
        share = [index for index in missing if work.shard.holds(rows[index]["path"])]
    block = block_size(batch_size, num_workers) if gated else None
    todo = _resume(own, [rows[index]["path"] for index in share], batch_size, block)
    share = [index for index in share if rows[index]["path"] in todo]
    state.wait_for_everyone()

    engine = work.engine or LocalEngine(detector)
    results = engine.results(
        torch.utils.data.Subset(dataset, share),
        batch_size=batch_size,
        num_workers=num_workers,
        **({} if gated else {"temperature": 1.0}),
        **options,
    )
    # Shares are of one size, so the main process speaks for all.
    results = telling_pace(
        results, len(share), "clips", processes=state.num_processes, silent=not state.is_main_process
    )
    with JSONLines(own) as lines:
        for place, result in results:
            lines.append(_entry(rows[share[place]]["path"], result, gated))
    state.wait_for_everyone()
    for file in journals(journal):
        done |= read_journal(file)
    # Labels are today's, also for clips that were scored before one was corrected.
    return [{**done[row["path"]], **row} for row in rows if work.shard is None or row["path"] in done]


def _entry(path: str, result: dict, gated: bool) -> dict:
    names = (*RESULTS, *OF_A_GATE) if gated else RESULTS
    # The pipeline of a repository's own code may know no faces and no log-odds.
    entry = {"path": path, **{name: result.get(name) for name in names}}
    found = result.get("faces")
    entry[NUM_FACES] = None if found is None else len(found)
    entry["windows"] = [{key: w[key] for key in ("start", "end", "score")} for w in result["windows"]]
    return entry


def _resume(file: Path, paths: list[str], batch_size: int, block: int | None) -> set[str]:
    """Cut a journal back to its last whole batch, or block of a gate, and return which of `paths` are to be scored."""
    entries = list(read_journal(file).values())
    if not entries:
        file.unlink(missing_ok=True)
        return set(paths)
    # If the dataset changed since, everything scored stays, and batches are new.
    if [entry["path"] for entry in entries] == paths[: len(entries)]:
        kept = items = 0
        for number, entry in enumerate(entries, start=1):
            # Batches hold windows and, where a file breaks off, its error in place of one.
            items += len(entry["windows"]) + (entry["error"] is not None)
            whole = items % batch_size == 0 if block is None else number % block == 0
            if whole or number == len(paths):
                kept = number
        entries = entries[:kept]
    write_whole(file, "".join(json.dumps(entry) + "\n" for entry in entries))
    return set(paths) - {entry["path"] for entry in entries}


def journals(stem: str | Path) -> list[Path]:
    """Return the journals of a stopped run."""
    stem = Path(stem)
    return sorted(stem.parent.glob(f"{stem.name}.*of*.jsonl"))


def read_journal(path: Path) -> dict[str, dict]:
    """Return the verdicts of a journal by `path`; empty where there is no file."""
    return {entry["path"]: entry for entry in read_json_lines(path)}


def kept_columns(dataset: Dataset, more: Sequence[str] = ()) -> list[dict]:
    """Return the columns that predictions keep of a dataset: labels, and those that a report breaks them down by."""
    return dataset.select_columns([name for name in (*KEPT, *more) if name in dataset.column_names]).to_list()


def kind_of_fake(row: dict) -> str:
    """Return the generators of a fake's picture and sound, as one name."""
    names = (row.get("generator"), row.get("audio_generator"))
    return " + ".join(dict.fromkeys(name for name in names if name not in (None, "real"))) or "unknown"


def judged(predictions: list[dict], part: str) -> list[dict]:
    """Return the predictions with a label and a score of a part: `overall`, `video` or `audio`."""
    score = SCORE_NAMES[part]
    return [p for p in predictions if p[score] is not None and p.get(LABEL_OF[score]) is not None]


def labels_and_scores(predictions: list[dict], part: str) -> tuple[list[int], list[float]]:
    """Return labels and scores of the predictions that have both."""
    score, known = SCORE_NAMES[part], judged(predictions, part)
    return [p[LABEL_OF[score]] for p in known], [p[score] for p in known]


def labels_and_ranked_scores(
    predictions: list[dict], part: str
) -> tuple[list[int], list[float] | SureScores]:
    """Return labels and scores of the predictions that have both, the scores with their log-odds where all are known."""
    labels, scores = labels_and_scores(predictions, part)
    log_odds = [p.get(LOG_ODDS_NAMES[part]) for p in judged(predictions, part)]
    return labels, scores if None in log_odds else SureScores(scores, log_odds)


def write_predictions(path: str | Path, predictions: list[dict], about: dict) -> None:
    """
    Write predictions as Parquet, whole or not at all.

    Args:
        path (`str` or `Path`): The file.
        predictions (`list[dict]`): Predictions as from [`predict`], each with its `split`.
        about (`dict`): Facts that a report needs to know, kept in the file's metadata.
    """
    names = list(dict.fromkeys(name for entry in predictions for name in entry))
    first = [name for name in ("split", *KEPT, *RESULTS) if name in names]
    columns = {}
    for name in [*first, *(name for name in names if name not in first)]:
        values = [entry.get(name) for entry in predictions]
        columns[name] = pa.array(values, _TYPES.get(name, pa.string() if name in KEPT else None))
    table = pa.table(columns).replace_schema_metadata({_ABOUT: json.dumps(about).encode()})
    with written_whole(path) as partial:
        pq.write_table(table, partial)


def read_predictions(path: str | Path) -> tuple[list[dict], dict]:
    """
    Read the file that [`write_predictions`] wrote.

    Returns:
        `tuple[list[dict], dict]`: the predictions, and the facts about them.

    Raises:
        PredictionsError: when there is no such file, or another program wrote it.
    """
    path = Path(path)
    if not path.is_file():
        raise PredictionsError(f"There is no file {path}.")
    try:
        table = pq.read_table(path)
        about = json.loads((table.schema.metadata or {}).get(_ABOUT, b"null"))
    except (OSError, ValueError, pa.ArrowException) as error:
        raise PredictionsError(f"{path} is no Parquet file that can be read: {error}") from error
    if not isinstance(about, dict):
        raise PredictionsError(f"{path} was not written by evaluate_avd.py: it does not say whose it is.")
    return table.to_pylist(), about
