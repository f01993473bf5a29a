"""What a case states in a form that a program can check again: hashes, fingerprints, versions and scores."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from dataset_scripts.files import sha256_of

from ..configuration_detector import SCORE_NAMES
from ..evaluation.audit.file_properties import decoded_hash
from ..explain.words import deciding
from ..inference.credentials import read_credentials
from ..inference.provenance import detector_identity, environment
from ..media import MediaError
from ..media_sources import is_link
from ..pipeline_avd import AVDeepfakeDetectionPipeline

FORMAT = 1
META = "avlmm-case"
"""Name of the `<meta>` of an HTML case that holds the record."""
TOLERANCE = 1e-4
"""Difference of scores that other hardware and versions account for; our own choice."""
STREAMS = {"video": "v", "audio": "a"}


class CaseError(ValueError):
    """A case that cannot be verified; the message says why."""


@dataclass
class Check:
    """
    One statement of a case and what it is now.

    Args:
        name (`str`): What is stated.
        then, now (`str`): What the case says, and what was found.
        differs (`bool`): Whether the two differ.
    """

    name: str
    then: str
    now: str
    differs: bool


def make_record(
    file: Any, name: str, result: dict, sha256: str | None, detector: AVDeepfakeDetectionPipeline
) -> dict:
    """
    Return what a case states, as JSON holds it.

    Args:
        file (path, URL, `bytes`, ...): The pipeline's input.
        name (`str`): The file, as the case calls it.
        result (`dict`): The pipeline's result.
        sha256 (`str`, *optional*): Of the file.
        detector ([`AVDeepfakeDetectionPipeline`]): The pipeline.
    """
    judge = deciding(detector, result)
    windows = [{key: w[key] for key in ("start", "end", *SCORE_NAMES.values())} for w in result["windows"]]
    record = {
        "format": FORMAT,
        "file": {"name": name, "sha256": sha256, "streams": stream_hashes(file)},
        "credentials": result.get("credentials"),
        "detector": {
            **detector_identity(judge.model, judge.processor),
            "threshold": result["threshold"],
            "temperature": judge.model.config.temperature,
        },
        "scores": {key: result[key] for key in SCORE_NAMES.values()},
        "windows": windows,
        "software": environment(),
    }
    return json.loads(json.dumps(record))  # as it is read back


def stream_hashes(file: Any) -> dict[str, str | None]:
    """Return the SHA-256 of the first minute of picture and sound, decoded by FFmpeg; None where there is none to hash."""
    hashes: dict[str, str | None] = dict.fromkeys(STREAMS)
    if not isinstance(file, str | Path) or is_link(file) or not shutil.which("ffmpeg"):
        return hashes
    for name, kind in STREAMS.items():
        try:
            hashes[name] = decoded_hash(os.path.abspath(file), kind) or None
        except MediaError:  # the track is not there, or cannot be decoded: the case says so elsewhere
            continue
    return hashes


def read_record(path: str | Path) -> dict:
    """
    Read the record of a case that `detect --case` or the page wrote as HTML.

    Raises:
        CaseError: for a file that is no such case, or was written by a newer release.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        hint = ". A PDF cannot be verified: give the HTML beside it" if path.suffix.lower() == ".pdf" else ""
        raise CaseError(f"{path} cannot be read as a case: {reason}{hint}") from error
    finder = _Finder()
    finder.feed(text)
    try:
        record = json.loads(finder.content or "")
        if record["format"] > FORMAT:
            raise CaseError(f"{path} was written by a newer release of this package: verify it with that one")
        missing = {"file", "detector", "scores", "windows", "software"} - set(record)
    except (ValueError, TypeError, KeyError) as error:
        if isinstance(error, CaseError):
            raise
        raise CaseError(
            f"{path} is no case report of this package, or one of an older release, which cannot be verified"
        ) from error
    if missing:
        raise CaseError(f"{path} is damaged: its record has no {', '.join(sorted(missing))}")
    return record


def check_file(record: dict, file: str | Path) -> Iterator[Check]:
    """Yield what the case states about the file: its bytes, its decoded streams, and its content credentials."""
    then = record["file"]
    yield _compared("SHA-256 of the file", then.get("sha256"), sha256_of(file))
    now = stream_hashes(file)
    for name, title in (("video", "picture"), ("audio", "sound")):
        yield _compared(f"decoded {title}, first minute", (then.get("streams") or {}).get(name), now[name])
    before, found = record.get("credentials"), read_credentials(file)
    if before is not None and found is not None:
        yield _compared("content credentials", before.get("state"), found["state"])


def check_detector(record: dict, file: str | Path, detector: AVDeepfakeDetectionPipeline) -> Iterator[Check]:
    """Yield what the case states about the detector, and the scores that it gives to the same windows of the file now."""
    identity = detector_identity(detector.model, detector.processor)
    for name, value in identity.items():
        yield _compared(f"detector, {name}", record["detector"].get(name), value)
    windows = record["windows"]
    if not windows or any(identity[name] != record["detector"].get(name) for name in identity):
        return
    result = detector(str(file), on_error="return", **_windows_of(windows))
    again = result["windows"]
    if result["error"] is not None and not again:
        yield Check(f"scores of {len(windows)} windows", "as stated", result["error"]["message"], True)
        return
    spans = [[(round(w["start"], 3), round(w["end"], 3)) for w in part] for part in (windows, again)]
    if spans[0] != spans[1]:
        yield Check("windows", f"{len(windows)} windows", f"{len(again)} others", True)
        return
    worst = max(
        (
            _difference(one[name], two[name])
            for one, two in zip(windows, again, strict=True)
            for name in SCORE_NAMES.values()
        ),
        default=0.0,
    )
    told = f"differ by at most {worst:.2g}" if math.isfinite(worst) else "are there for other parts"
    yield Check(f"scores of {len(windows)} windows", "as stated", told, worst > TOLERANCE)


def check_software(record: dict) -> Iterator[Check]:
    """Yield the versions that the case states, and those of now."""
    now = environment()
    for name in dict.fromkeys([*record["software"], *now]):
        yield _compared(f"version, {name}", record["software"].get(name), now.get(name))


def _windows_of(windows: list[dict]) -> dict:
    """Return the options of the pipeline that give these windows; none for a file in one."""
    if len(windows) < 2:
        return {}
    return {
        "window_seconds": round(windows[0]["end"] - windows[0]["start"], 6),
        "hop_seconds": round(windows[1]["start"] - windows[0]["start"], 6),
    }


def _difference(one: float | None, two: float | None) -> float:
    if one is None or two is None:
        return 0.0 if one is two else math.inf
    return abs(one - two)


def _compared(name: str, then: Any, now: Any) -> Check:
    return Check(name, *("none" if value is None else str(value) for value in (then, now)), then != now)


class _Finder(HTMLParser):
    """Finds the record in a page."""

    content: str | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Take note of the record's `<meta>`."""
        found = dict(attrs)
        if tag == "meta" and found.get("name") == META and self.content is None:
            self.content = found.get("content")


def short_hash(text: str) -> str:
    """Return the beginning of a hash, for a line in a terminal."""
    return text[:16] if len(text) == len(hashlib.sha256().hexdigest()) else text
