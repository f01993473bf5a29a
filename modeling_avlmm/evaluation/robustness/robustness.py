"""How much a detector's verdicts change when clips are compressed, resized, muted, delayed, ...

Each condition (a perturbation at one level) scores the whole split again and is compared with the untouched clips. Labels
stay as they were. For most perturbations this asks whether a verdict survives what happens to any clip on its way through
the world. The *diagnoses* (`delay`, `audio_swap`, `mute`, `no_audio`, `no_video`) take away or contradict what a verdict
should rest on: a genuine clip with another clip's sound is no longer consistent, so a lower score there is no fault by
itself. They tell what the detector relies on.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from datasets import Dataset, Video

from ...configuration_detector import PARTS
from ..metrics import detection_metrics
from ..predictions import labels_and_scores
from .perturbations import PERTURBATIONS, Perturbation, PerturbationError, check_ffmpeg, perturb

Score = Callable[[Any, str], list[dict]]


class PerturbedFile:
    """
    A binary file object that perturbs its clip when it is first read: one input of the pipeline.

    The copy on disk has no name any more when the first byte is read and is gone with the last one, so a run needs disk
    for the clips that are being read and for no others. Reading raises [`PerturbationError`] or another [`MediaError`]
    where there is nothing to read, which the pipeline turns into the `error` of that clip's prediction. Travels between
    processes before it is read.

    Args:
        row (`Mapping`): A row in the package's schema; `video` and `audio` as paths or undecoded media.
        perturbation (`str`), severity (`int`), seed (`int`): As for [`perturb`].
        other (`Mapping`, *optional*): The row whose sound is taken.
    """

    def __init__(
        self, row: Mapping, perturbation: str, severity: int, other: Mapping | None = None, seed: int = 0
    ):
        self.row, self.perturbation, self.severity, self.other, self.seed = (
            row,
            perturbation,
            severity,
            other,
            seed,
        )
        self.name = f"{row['path']} ({perturbation}, level {severity})"
        self._opened = None
        self._at_end = False

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_opened": None, "_at_end": False}

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        """Back to the start, which is all that a reader of media asks for."""
        if offset or whence:
            raise OSError(f"{self.name} can be read again from its start only.")
        self.close()
        return 0

    def close(self) -> None:
        """Drops the copy. The next read makes it again."""
        if self._opened is not None:
            self._opened.close()
        self._opened, self._at_end = None, False

    def read(self, size: int = -1) -> bytes:
        if self._at_end:
            return b""
        if self._opened is None:
            self._opened = self._perturb()
        data = self._opened.read(size)
        if size < 0 or (size and not data):
            self.close()
            self._at_end = True
        return data

    def _perturb(self) -> Any:
        with tempfile.TemporaryDirectory(prefix="perturbed-") as folder:
            video, audio, _ = _media(self.row, folder, "own")
            other = None
            if self.perturbation == "audio_swap":
                if self.other is None:
                    reason = "is the only clip, so there is no other sound to give it"
                    raise PerturbationError(self.name, reason, "Score more than one clip")
                *_, other = _media(self.other, folder, "other")
            copy = perturb(
                video or audio,
                self.perturbation,
                self.severity,
                Path(folder) / "copy",
                audio=audio if video else None,
                other=other,
                seed=self.seed,
            )
            # Not in a `with`: the folder goes, and the open file stays readable until it is closed.
            return open(copy, "rb")


class PerturbedRows(torch.utils.data.Dataset):
    """
    The rows of a dataset with a [`PerturbedFile`] in place of `video` and no separate `audio`: nothing is done until a
    row's file is read. A clip's seed depends on `seed` and on its `path` only, not on its place.

    Args:
        dataset (`Dataset` or `Sequence[Mapping]`): Rows in the package's schema, undecoded.
        perturbation (`str`), severity (`int`), seed (`int`): As for [`perturb`].
        donors (`Sequence[int]`, *optional*): For each row the place of the one whose sound it gets.
    """

    def __init__(
        self,
        dataset: Dataset | Sequence[Mapping],
        perturbation: str,
        severity: int,
        seed: int = 0,
        donors: Sequence[int] | None = None,
    ):
        PERTURBATIONS[perturbation].value(severity)
        self.dataset, self.perturbation, self.severity = dataset, perturbation, severity
        self.seed, self.donors = seed, donors

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> dict:
        row = self.dataset[index]
        other = None if self.donors is None else self.dataset[self.donors[index]]
        digest = hashlib.sha256(f"{self.seed}/{row['path']}".encode()).digest()
        seed = int.from_bytes(digest[:4], "big") % 2**31
        return {
            **row,
            "video": PerturbedFile(row, self.perturbation, self.severity, other, seed),
            "audio": None,
        }


def run_robustness(
    score: Score,
    dataset: Dataset | Sequence[Mapping],
    output_dir: str | Path,
    perturbations: str | Sequence[str] | None = "all",
    severities: Sequence[int] | None = None,
    threshold: float = 0.5,
    clean: list[dict] | None = None,
    seed: int = 0,
) -> dict:
    """
    Scores a split under each perturbation and level, and compares with the untouched clips.

    Writes `robustness.json` into `output_dir` after each condition. What was scored before a run was stopped is not
    scored again if `score` keeps it. A clip that cannot be perturbed or read is counted and ends nothing.

    Args:
        score (`Callable[[rows, str], list[dict]]`):
            Scores rows (a [`PerturbedRows`], or `dataset` itself) under a name that can be a file's: `"clean"`,
            `"h264_3"`, `"delay_-2"`. Returns a prediction for each row: `path`, `label`, `video_label`, `audio_label`,
            `score`, `video_score`, `audio_score`, `error`, as [`predict`] does.
        dataset (`Dataset` or `Sequence[Mapping]`): The split, rows in the package's schema.
        output_dir (`str` or `Path`): Where `robustness.json` goes.
        perturbations (`Sequence[str]`, *optional*, defaults to `"all"`): Names of [`PERTURBATIONS`].
        severities (`Sequence[int]`, *optional*):
            Levels, on both sides where there are two. All of them if left out. What has one level only always runs.
        threshold (`float`, *optional*, defaults to 0.5): Score from which a clip is called fake, as chosen on clean
            validation clips: a deployed detector does not choose it anew for each condition.
        clean (`list[dict]`, *optional*): Predictions of the untouched clips, where there are some already.
        seed (`int`, *optional*, defaults to 0): Of everything random, the partners of `audio_swap` included.

    Returns:
        `dict`: `threshold`, `seed`, `clips`, `clean` and `conditions`, a list of dicts:

        - **perturbation**, **severity**, **value**, **unit**, **tracks**, **diagnosis** -- What was done.
        - **n** -- Clips that are readable when untouched; the shares below are of these.
        - **unreadable** -- Share that no verdict was given on, **failed** -- the part of it that could not be perturbed,
          such as a clip without sound that was to be delayed.
        - **flipped** -- Share of the clips with both verdicts whose verdict is another one than when untouched.
        - **auc** -- `overall`, `video`, `audio`; **clean_auc** -- the same of the same clips, untouched;
          **balanced_accuracy**, **recall_fake**, **recall_real** -- at `threshold`. None where undefined.

        `clean` has `n`, `unreadable`, `auc`, `balanced_accuracy`, `recall_fake` and `recall_real`.

    Raises:
        ValueError: for an unknown perturbation or level, paths that occur twice, or no readable clip.
        PerturbationError: where there is no ffmpeg.
    """
    check_ffmpeg()
    conditions = choose_conditions(perturbations, severities)
    output_dir = Path(output_dir)
    if isinstance(dataset, Dataset):
        if "video" in dataset.column_names:
            dataset = dataset.cast_column("video", Video(decode=False))
        names = [name for name in ("path", "identity", "source") if name in dataset.column_names]
        about = dataset.select_columns(names).to_list()
    else:
        about = [{name: row.get(name) for name in ("path", "identity", "source")} for row in dataset]
    paths = [row["path"] for row in about]
    if len(set(paths)) < len(paths):
        raise ValueError("Two rows have the same path, which is the key of a prediction.")
    clean = _in_order(score(dataset, "clean") if clean is None else clean, paths, "clean")
    if all(prediction["score"] is None for prediction in clean):
        raise ValueError(f"None of the {len(clean)} untouched clips could be read.")
    donors = choose_donors(about, seed)
    result = {"threshold": threshold, "seed": seed, "clips": len(paths), "clean": _clean(clean, threshold)}
    result["conditions"] = []
    for perturbation, severity in conditions:
        name = f"{perturbation.name}_{severity}"
        partners = donors if perturbation.name == "audio_swap" else None
        rows = PerturbedRows(dataset, perturbation.name, severity, seed, partners)
        predictions = _in_order(score(rows, name), paths, name)
        result["conditions"].append(_condition(perturbation, severity, clean, predictions, threshold))
        if PartialState().is_main_process:
            output_dir.mkdir(parents=True, exist_ok=True)
            text = json.dumps(result, indent=2) + "\n"
            (output_dir / "robustness.json").write_text(text, encoding="utf-8")
    return result


def choose_conditions(
    perturbations: str | Sequence[str] | None = "all", severities: Sequence[int] | None = None
) -> list[tuple[Perturbation, int]]:
    """
    The conditions that the arguments of [`run_robustness`] mean, in the order of [`PERTURBATIONS`].

    Raises:
        ValueError: for an unknown perturbation, or one that has none of the levels.
    """
    if perturbations in (None, "all"):
        perturbations = list(PERTURBATIONS)
    elif isinstance(perturbations, str):
        perturbations = [perturbations]
    for name in perturbations:
        if name not in PERTURBATIONS:
            near = difflib.get_close_matches(str(name), PERTURBATIONS, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ValueError(
                f"There is no perturbation {name!r}.{hint} There are: {', '.join(PERTURBATIONS)}, or 'all'."
            )
    conditions = []
    for name, perturbation in PERTURBATIONS.items():
        if name not in perturbations:
            continue
        levels = list(perturbation.severities)
        if severities is not None and len(levels) > 1:
            levels = [level for level in levels if abs(level) in severities]
            if not levels:
                raise ValueError(
                    f"{name} has the severities {list(perturbation.severities)}, none of {list(severities)}."
                )
        conditions += [(perturbation, level) for level in levels]
    return conditions


def choose_donors(rows: Sequence[Mapping], seed: int = 0) -> list[int] | None:
    """
    For each row another one to take the sound from; each gives it once. None where there is one row only.

    Of another identity (or another genuine source, where identities are unknown) for every row, unless more than half of
    the rows share one: a fake's own source may have the very same sound, and nothing would be swapped.
    """
    if len(rows) < 2:
        return None
    draw = np.random.default_rng(seed)
    groups: dict[Any, list[int]] = {}
    for place in draw.permutation(len(rows)).tolist():
        row = rows[place]
        groups.setdefault(row.get("identity") or row.get("source") or row["path"], []).append(place)
    # One group after the other in a ring: a step as long as the largest group leaves every group.
    ring = [place for group in groups.values() for place in group]
    step = max(map(len, groups.values()))
    step = step if step < len(rows) else 1
    donors = [0] * len(rows)
    for position, place in enumerate(ring):
        donors[place] = ring[(position + step) % len(ring)]
    return donors


def _media(row: Mapping, folder: str, name: str) -> tuple[Any, Any, Any]:
    """Paths of a row's clip and its separate sound file, and of the one of them that is heard."""
    video, audio = (
        _path(row.get(track), Path(folder) / f"{name}_{track}", row["path"]) for track in ("video", "audio")
    )
    if video is None and audio is None:
        raise PerturbationError(row["path"], "has neither 'video' nor 'audio'", "Fill one of them")
    return video, audio, audio or video


def _path(source: Any, target: Path, name: str) -> Path | None:
    """The path of undecoded media; bytes are written to `target` first."""
    if isinstance(source, Mapping):
        source = source.get("bytes") if source.get("bytes") is not None else source.get("path")
    if isinstance(source, bytes):
        target.write_bytes(source)
        return target
    if source is None or isinstance(source, str | Path):
        return None if source is None else Path(source)
    advice = "Give a path, or bytes; cast a `datasets.Video` column to `Video(decode=False)`"
    raise PerturbationError(name, f"a {type(source).__name__} cannot be perturbed", advice)


def _in_order(predictions: list[dict], paths: list[str], name: str) -> list[dict]:
    by_path = {prediction["path"]: prediction for prediction in predictions}
    if len(predictions) != len(paths) or set(by_path) != set(paths):
        raise ValueError(
            f"The predictions of {name} ({len(predictions)}) are not those of the {len(paths)} clips of the dataset."
        )
    return [by_path[path] for path in paths]


def _metrics(predictions: list[dict], threshold: float) -> dict:
    """AUC of the three parts, and what depends on the threshold."""
    found: dict[str, Any] = {"auc": {}}
    for part in PARTS:
        labels, scores = labels_and_scores(predictions, part)
        metrics = detection_metrics(labels, scores, threshold) if labels else {}
        found["auc"][part] = metrics.get("auc")
        if part == "overall":
            found |= {key: metrics.get(key) for key in ("balanced_accuracy", "recall_fake", "recall_real")}
    return found


def _clean(clean: list[dict], threshold: float) -> dict:
    read = [prediction for prediction in clean if prediction["score"] is not None]
    return {"n": len(read), "unreadable": (len(clean) - len(read)) / len(clean), **_metrics(read, threshold)}


def _condition(
    perturbation: Perturbation, severity: int, clean: list[dict], predictions: list[dict], threshold: float
) -> dict:
    pairs = [(a, b) for a, b in zip(clean, predictions, strict=True) if a["score"] is not None]
    both = [(a, b) for a, b in pairs if b["score"] is not None]
    failed = sum(b["score"] is None and _kind(b) == PerturbationError.__name__ for _, b in pairs)
    flipped = sum((a["score"] >= threshold) != (b["score"] >= threshold) for a, b in both)
    untouched = [a for a, _ in both]
    return {
        "perturbation": perturbation.name,
        "severity": severity,
        "value": perturbation.value(severity),
        "unit": perturbation.unit,
        "tracks": list(perturbation.tracks),
        "diagnosis": perturbation.diagnosis,
        "n": len(pairs),
        "unreadable": (len(pairs) - len(both)) / len(pairs),
        "failed": failed / len(pairs),
        "flipped": flipped / len(both) if both else None,
        **_metrics([b for _, b in both], threshold),
        "clean_auc": _metrics(untouched, threshold)["auc"],
    }


def _kind(prediction: dict) -> str | None:
    return (prediction.get("error") or {}).get("type")
