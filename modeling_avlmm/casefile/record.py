"""What a case states in a form that a program can check again: hashes, fingerprints, versions and scores."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import shutil
import subprocess
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from dataset_scripts.files import sha256_of

from ..configuration_detector import SCORE_NAMES
from ..evaluation.audit.file_properties import decoded_hash
from ..explain.words import deciding
from ..inference.credentials import read_credentials
from ..inference.provenance import detector_identity, environment
from ..media import MediaError, MediaReader
from ..media_links import is_link
from ..pipeline_avd import AVDeepfakeDetectionPipeline

FORMAT = 1
META = "avlmm-case"
"""Name of the `<meta>` of an HTML case that holds the record."""
TOLERANCE = 1e-4
"""Difference of scores that other hardware and versions account for; our own choice."""
STREAMS = {"video": "v", "audio": "a"}
HASH_SECONDS = 3600.0
"""Longest time for the hash of a decoded stream; our own choice."""
SETTINGS: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("threshold", "window_seconds", "hop_seconds"), (int, float)),
    "aggregate": str,
    "faces": str,
    "abstain": bool,
}
"""Options of the pipeline's call that a case keeps, as the verdict depends on them, and their types."""


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
        counts (`bool`): Whether a difference says that file or verdict are others.
    """

    name: str
    then: str
    now: str
    differs: bool
    counts: bool = True


def make_record(
    file: Any,
    name: str,
    result: dict,
    sha256: str | None,
    detector: AVDeepfakeDetectionPipeline,
    settings: Mapping[str, Any] | None = None,
) -> dict:
    """
    Return what a case states, as JSON holds it.

    Args:
        file (path, URL, `bytes`, ...): The pipeline's input.
        name (`str`): The file, as the case calls it.
        result (`dict`): The pipeline's result.
        sha256 (`str`, *optional*): Of the file.
        detector ([`AVDeepfakeDetectionPipeline`]): The pipeline.
        settings (`Mapping`, *optional*): Options of the call that gave the result. Its windows tell of them if left out.
    """
    judge = deciding(detector, result)
    model = judge.model.name_or_path
    windows = [{key: w[key] for key in ("start", "end", *SCORE_NAMES.values())} for w in result["windows"]]
    told = _settings_of(result) if settings is None else settings
    record = {
        "format": FORMAT,
        "file": {"name": name, "sha256": sha256, "streams": stream_hashes(file)},
        "credentials": result.get("credentials"),
        "detector": {
            "name": Path(model).name if os.path.isdir(model) else model,
            **detector_identity(judge.model, judge.processor),
            "threshold": result["threshold"],
            "temperature": judge.model.config.temperature,
        },
        "settings": {key: told[key] for key in SETTINGS if told.get(key) is not None},
        "label": result["label"],
        "scores": {key: result[key] for key in SCORE_NAMES.values()},
        "windows": windows,
        "software": _software(),
    }
    return json.loads(json.dumps(record))  # as it is read back


def stream_hashes(file: Any) -> dict[str, str | None]:
    """Return the SHA-256 of picture and sound, decoded by FFmpeg; None where there is none, or it cannot be decoded to its end."""
    hashes: dict[str, str | None] = dict.fromkeys(STREAMS)
    if not isinstance(file, str | Path) or is_link(file) or not shutil.which("ffmpeg"):
        return hashes
    try:
        with MediaReader(file) as reader:  # it refuses playlists, of which FFmpeg would open every file
            there = {"video": reader.info.has_video, "audio": reader.info.has_audio}
    except MediaError:  # the case says so elsewhere
        return hashes
    for name, kind in STREAMS.items():
        if there[name]:
            with contextlib.suppress(MediaError):
                hashes[name] = decoded_hash(os.path.abspath(file), kind, HASH_SECONDS) or None
    return hashes


def _settings_of(result: dict) -> dict:
    """Return options of a call that gives the windows and the label of a result."""
    windows = result["windows"]
    told = {"threshold": result["threshold"], "abstain": result.get("abstain_band") is not None}
    if len(windows) > 1:
        told["window_seconds"] = round(windows[0]["end"] - windows[0]["start"], 6)
        told["hop_seconds"] = round(windows[1]["start"] - windows[0]["start"], 6)
    return told


def _software() -> dict[str, str]:
    """Return the versions that hashes and scores depend on."""
    found = environment()
    if shutil.which("ffmpeg"):
        said = subprocess.run(
            ["ffmpeg", "-version"], capture_output=True, stdin=subprocess.DEVNULL, check=False
        )
        found["ffmpeg"] = said.stdout.decode(errors="replace").partition("Copyright")[0].strip()
    return found


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
        newer = record["format"] > FORMAT
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise CaseError(
            f"{path} is no case report of this package, or one of an older release, which cannot be verified"
        ) from error
    if newer:
        raise CaseError(f"{path} was written by a newer release of this package: verify it with that one")
    if wrong := [name for name, whole in _WHOLE.items() if not whole(record.get(name))]:
        raise CaseError(f"{path} is damaged: in its record, {', '.join(wrong)} cannot be used")
    return record


def _texts(value: Any) -> bool:
    return value is None or isinstance(value, str)


def _numbers(value: Any, names: Collection[str]) -> bool:
    kinds = (int, float, type(None))
    return isinstance(value, dict) and all(isinstance(value.get(name), kinds) for name in names)


def _spans(value: Any) -> bool:
    return isinstance(value, list) and all(
        _numbers(window, SCORE_NAMES.values())
        and all(isinstance(window.get(end), int | float) for end in ("start", "end"))
        for window in value
    )


_WHOLE: dict[str, Callable[[Any], bool]] = {
    "file": lambda file: (
        isinstance(file, dict)
        and isinstance(file.get("name"), str)
        and _texts(file.get("sha256"))
        and isinstance(file.get("streams"), dict)
    ),
    "credentials": lambda found: found is None or isinstance(found, dict),
    "detector": lambda about: isinstance(about, dict) and isinstance(about.get("name"), str),
    "settings": lambda told: (
        isinstance(told, dict)
        and all(name in SETTINGS and isinstance(value, SETTINGS[name]) for name, value in told.items())
    ),
    "label": _texts,
    "scores": lambda scores: _numbers(scores, SCORE_NAMES.values()),
    "windows": _spans,
    "software": lambda versions: isinstance(versions, dict),
}
"""Parts of a record, each with what tells whether it can be used: anybody can write a case."""


def check_file(record: dict, file: str | Path) -> Iterator[Check]:
    """Yield what the case states about the file: its bytes, its decoded streams, and its content credentials."""
    then, sha256, now = record["file"], sha256_of(file), stream_hashes(file)
    yield _stated("SHA-256 of the file", then["sha256"], sha256)
    same = then["sha256"] == sha256
    for name, title in (("video", "decoded picture"), ("audio", "decoded sound")):
        check = _stated(f"SHA-256 of the {title}", then["streams"].get(name), now[name])
        if check.differs and same:
            check.name += ", of the same bytes: FFmpeg decodes them differently here"
            check.counts = False
        yield check
    before, found = record["credentials"], read_credentials(file)
    if before is None or found is None:
        reason = "the case did not look at them" if before is None else "c2pa-python is not installed"
        yield Check("content credentials", "", f"not compared: {reason}", False)
        return
    for name, title in (("state", "content credentials"), ("signer", "signer"), ("claims", "claims")):
        # Of a file without credentials, one line says it all.
        if name == "state" or before.get(name) or found[name]:
            yield _compared(title, _listed(before.get(name)), _listed(found[name]))


def check_detector(record: dict, file: str | Path, detector: AVDeepfakeDetectionPipeline) -> Iterator[Check]:
    """Yield what the case states about the detector, and what it says about the file now."""
    stated, identity = record["detector"], detector_identity(detector.model, detector.processor)
    identity = identity | {"temperature": detector.model.config.temperature}
    for name, value in identity.items():
        yield _compared(f"detector, {name}", stated.get(name), value)
    # Another network was asked; a changed calibration of the same one is seen in the scores, too.
    if any(identity[name] != stated.get(name) for name in identity if name != "temperature"):
        yield Check("verdict", "", "not computed again, as this is another detector", False)
        return
    settings = dict(record["settings"])
    if not detector.model.config.abstain_band:  # a gate that decided need not have one
        settings.pop("abstain", None)
    yield from _check_verdict(record, detector(str(file), on_error="return", **settings))


def _check_verdict(record: dict, result: dict) -> Iterator[Check]:
    """Yield windows, scores, threshold and label of a case beside those of a result of now."""
    windows, again = record["windows"], result["windows"]
    if result["error"] is not None and windows and not again:
        yield Check("verdict", "as stated", result["error"]["message"], True)
        return
    spans = [[(round(w["start"], 3), round(w["end"], 3)) for w in part] for part in (windows, again)]
    if spans[0] != spans[1]:
        yield Check("windows", f"{len(windows)} windows", f"{len(again)} others", True)
    else:
        yield _close(f"scores of {len(windows)} windows", windows, again)
    yield _close("scores of the file", [record["scores"]], [result])
    yield _compared("threshold", record["detector"].get("threshold"), result["threshold"])
    yield _compared("verdict", record["label"], result["label"])


def _close(name: str, then: list[dict], now: list[dict]) -> Check:
    """Return the check whether scores are the same but for what hardware does."""
    worst = max(
        (
            _difference(one[key], two[key])
            for one, two in zip(then, now, strict=True)
            for key in SCORE_NAMES.values()
        ),
        default=0.0,
    )
    told = f"differ by at most {worst:.2g}" if math.isfinite(worst) else "are there for other parts"
    return Check(name, "as stated", told, worst > TOLERANCE)


def check_software(record: dict) -> Iterator[Check]:
    """Yield the versions that the case states, and those of now. They explain other numbers, and are none of the findings."""
    now = _software()
    for name in dict.fromkeys([*record["software"], *now]):
        check = _compared(f"version, {name}", record["software"].get(name), now.get(name))
        yield replace(check, counts=False)


def _difference(one: float | None, two: float | None) -> float:
    if one is None or two is None:
        return 0.0 if one is two else math.inf
    return abs(one - two)


def _listed(value: Any) -> Any:
    return (", ".join(map(str, value)) or None) if isinstance(value, list) else value


def _compared(name: str, then: Any, now: Any) -> Check:
    return Check(name, *("none" if value is None else str(value) for value in (then, now)), then != now)


def _stated(name: str, then: str | None, now: str | None) -> Check:
    """Return the check of a hash; a case of a link, and one made without FFmpeg, state none."""
    if then is None:
        return Check(name, "", "the case states none" if now else "none", False)
    return _compared(name, then, now)


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
