"""Scores a dataset with a detector: resumable, nothing lost, everything in files."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

from datasets import Dataset, Video

from ..pipeline_avd import SCORE_NAMES, AVDeepfakeDetectionPipeline
from .metrics import detection_metrics

LABEL_OF = {"score": "label", "video_score": "video_label", "audio_score": "audio_label"}
KEPT = ("path", "label", "video_label", "audio_label", "generator", "audio_generator", "language", "identity")


def predict(
    detector: AVDeepfakeDetectionPipeline,
    dataset: Dataset,
    output_file: str | Path,
    batch_size: int = 1,
    num_workers: int = 0,
    progress_seconds: float = 10.0,
) -> list[dict]:
    """
    Scores every clip of a dataset, one line a clip in `output_file`.

    Clips that are in the file already are not scored again, so a run that was stopped goes on. A clip that cannot be
    read gets a line with its `error`.

    Args:
        detector ([`AVDeepfakeDetectionPipeline`]): What scores.
        dataset (`Dataset`): Rows in the package's schema.
        output_file (`str` or `Path`): JSON lines: `path`, labels, scores, `warnings`, `error`.
        batch_size, num_workers (`int`): As for the pipeline.
        progress_seconds (`float`, *optional*, defaults to 10): Time between progress lines.

    Returns:
        `list[dict]`: the predictions of `dataset`, in its order.
    """
    output_file = Path(output_file)
    output_file.parent.mkdir(parents=True, exist_ok=True)
    done = load_predictions(output_file)
    if "video" in dataset.column_names:
        dataset = dataset.cast_column("video", Video(decode=False))
    paths = dataset["path"]
    if len(set(paths)) < len(paths):
        raise ValueError("Two rows have the same path, which is the key of a prediction.")
    missing = dataset.select([index for index, path in enumerate(paths) if path not in done])
    rows = missing.select_columns([name for name in KEPT if name in missing.column_names])
    begin = last = time.monotonic()
    results = detector(iter(missing), batch_size=batch_size, num_workers=num_workers, on_error="return")
    with open(output_file, "a", encoding="utf-8") as lines:
        for count, (row, result) in enumerate(zip(rows, results, strict=True), start=1):
            kept = {name: result[name] for name in (*SCORE_NAMES.values(), "duration", "warnings", "error")}
            done[row["path"]] = {**row, **kept}
            lines.write(json.dumps(done[row["path"]]) + "\n")
            lines.flush()
            if time.monotonic() - last > progress_seconds:
                last = time.monotonic()
                rate = count / (last - begin)
                print(
                    f"  {count}/{len(missing)} clips, {rate:.1f} clips/s, {(len(missing) - count) / rate:.0f} s left",
                    flush=True,
                )
    # Labels are the dataset's of today, also for clips that were scored before one was corrected.
    known = dataset.select_columns([name for name in KEPT if name in dataset.column_names])
    return [{**done[row["path"]], **row} for row in known]


def load_predictions(path: str | Path) -> dict[str, dict]:
    """Predictions by `path`; empty where there is no file. A last line that was cut off by a kill is ignored."""
    path = Path(path)
    if not path.is_file():
        return {}
    predictions = {}
    text = path.read_text(encoding="utf-8")
    whole, _, rest = text.rpartition("\n")
    if rest:
        # The cut line is scored again; what follows must start on a line of its own.
        path.write_text(whole + "\n" if whole else "", encoding="utf-8")
    for line in whole.splitlines():
        entry = json.loads(line)
        predictions[entry["path"]] = entry
    return predictions


def evaluate_detector(predictions: list[dict], threshold: float = 0.5) -> dict:
    """
    Metrics of predictions: overall, of picture and sound where labelled, and by generator.

    Args:
        predictions (`list[dict]`): As returned by [`predict`].
        threshold (`float`, *optional*, defaults to 0.5): For the overall verdict, as chosen on validation data.

    Returns:
        `dict`: `overall`, `video`, `audio` ([`detection_metrics`] or None), `by_generator` (each kind of fake against
        all genuine clips), `unreadable` (paths), `cut_short` (paths of files that broke off and were scored on what
        came before).
    """
    read = [p for p in predictions if p["score"] is not None]
    report = {
        "unreadable": [p["path"] for p in predictions if p["score"] is None],
        "cut_short": [p["path"] for p in read if p["error"] is not None],
    }
    for part, score_name in SCORE_NAMES.items():
        label_name = LABEL_OF[score_name]
        known = [p for p in read if p[score_name] is not None and p[label_name] is not None]
        labels, scores = [p[label_name] for p in known], [p[score_name] for p in known]
        report[part] = (
            detection_metrics(labels, scores, threshold if part == "overall" else 0.5) if known else None
        )
    report["by_generator"] = dict(_by_generator(read, threshold))
    return report


def _by_generator(predictions: list[dict], threshold: float) -> Iterator[tuple[str, dict]]:
    real = [p for p in predictions if p["label"] == 0]
    kinds: dict[str, list[dict]] = {}
    for p in predictions:
        if p["label"] == 1:
            names = dict.fromkeys(
                n for n in (p.get("generator"), p.get("audio_generator")) if n not in (None, "real")
            )
            kinds.setdefault(" + ".join(names) or "unknown", []).append(p)
    for kind, fakes in sorted(kinds.items()):
        both = real + fakes
        yield kind, detection_metrics([p["label"] for p in both], [p["score"] for p in both], threshold)
