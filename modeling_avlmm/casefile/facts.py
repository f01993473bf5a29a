"""Facts of a case: the file, its container and its tracks, and the detector that judged it."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from huggingface_hub import try_to_load_from_cache

from dataset_scripts.files import sha256_of
from dataset_scripts.text_files import printable

from ..evaluation.audit.file_properties import probe_file
from ..explain.words import PART_TITLES, clock, deciding
from ..inference.credentials import describe_credentials
from ..inference.provenance import detector_identity
from ..media import MediaError, MediaReader
from ..media_links import is_link
from ..media_sources import name_of
from ..pipeline_avd import AVDeepfakeDetectionPipeline
from ..pipeline_inputs import split_source
from ..processing_clips import ClipProcessor
from .people import face_facts

Facts = list[tuple[str, str]]

NO_C2PA = "not looked at; pip install 'modeling-avlmm[c2pa]' reads them, not on Windows"
TAGS = (
    "encoder",
    "creation_time",
    "major_brand",
    "com.apple.quicktime.make",
    "com.apple.quicktime.model",
    "title",
    "comment",
)
"""Tags of a container that may tell its origin. Anyone can write anything there."""


def title_of(source: Any) -> str:
    """Return the name of a pipeline input. Unprintable characters, such as those that reverse a line, are escaped."""
    media, _ = split_source(source)
    return printable(name_of(media))


def utc(time: datetime) -> str:
    """Return a time as ISO 8601 in UTC, to the second: `2026-01-02T03:04:05Z`."""
    return time.astimezone(timezone.utc).isoformat(timespec="seconds").replace("+00:00", "Z")


def file_facts(source: Any, result: dict) -> tuple[str | None, Facts]:
    """
    Return the SHA-256 of a pipeline input, None where there are no bytes to hash, and facts about the file.

    Args:
        source (path, URL, `bytes`, ...): The pipeline's input.
        result (`dict`): The pipeline's result, for the faces that were found.
    """
    media, audio = split_source(source)
    if isinstance(media, Mapping) and not {"frames", "audio", "array"} & set(media):
        media = media["bytes"] if media.get("bytes") is not None else media.get("path")
    sha256, hashed = _hash_facts(media)
    facts = [("Name", title_of(source)), *hashed]
    if isinstance(audio, str | Path) and not is_link(audio):
        facts.append(("Separate sound", f"{printable(str(audio))} (SHA-256 {sha256_of(audio)})"))
    if isinstance(media, str | Path) and not is_link(media):
        found = result.get("credentials")
        facts.append(("Content credentials", printable(describe_credentials(found)) if found else NO_C2PA))
    if not is_link(media):  # a link would be fetched once more, and may lead to another file by now
        facts += [*_container_facts(media), *_track_facts(media, audio, result)]
    else:
        facts += face_facts(result)
    return sha256, facts


def _hash_facts(media: Any) -> tuple[str | None, Facts]:
    if isinstance(media, bytes):
        sha256 = hashlib.sha256(media).hexdigest()
        return sha256, [("SHA-256", sha256), ("Size", _size(len(media)))]
    if is_link(media):
        advice = (
            "a link was read, and what it leads to can change. Save the file and look at that to have one."
        )
        return None, [("SHA-256", f"none: {advice}")]
    if isinstance(media, str | Path):
        sha256, about = sha256_of(media), os.stat(media)
        changed = utc(datetime.fromtimestamp(about.st_mtime, timezone.utc))
        return sha256, [("SHA-256", sha256), ("Size", _size(about.st_size)), ("Changed", changed)]
    return None, [("SHA-256", "none: frames and samples were given, not a file")]


def _container_facts(media: Any) -> Facts:
    if not isinstance(media, str | Path) or not shutil.which("ffprobe"):
        return []
    try:
        container = probe_file(str(Path(media).absolute())).get("format", {})
    except MediaError as error:
        return [("Container", f"not known: {error.reason}")]
    tags = {name.lower(): value for name, value in container.get("tags", {}).items()}
    return [
        ("Container", str(container.get("format_long_name") or container.get("format_name"))),
        *((f"Tag {name.rpartition('.')[2]}", str(tags[name])) for name in TAGS if name in tags),
    ]


def _track_facts(media: Any, audio: Any, result: dict) -> Facts:
    try:
        with MediaReader(media, audio=audio) as reader:
            info = reader.info
    except MediaError as error:
        return [("Tracks", f"cannot be read: {error.reason}")]
    picture = sound = "none"
    if info.has_video:
        codec = f"{info.video_codec}, " if info.video_codec else ""
        picture = (
            f"{codec}{info.width} x {info.height}, {info.average_fps:.3g} frames/s, {info.num_frames} frames"
        )
    if info.has_audio:
        codec = f"{info.audio_codec}, " if info.audio_codec else ""
        sound = f"{codec}{info.sampling_rate} Hz"
    facts = [
        ("Length", f"{clock(info.duration)} ({info.duration:.3f} s)"),
        (PART_TITLES["video"], picture),
        (PART_TITLES["audio"], sound),
    ]
    if info.has_audio and info.has_video and abs(info.av_offset) > 0.001:
        facts.append(("Sound starts", f"{info.av_offset:+.3f} s after the picture"))
    return facts + face_facts(result, info.width, info.height)


def detector_facts(detector: AVDeepfakeDetectionPipeline, result: dict) -> Facts:
    """Return facts that identify the detector of a result, so that the same one can be asked again."""
    judge = deciding(detector, result)
    config, name = judge.model.config, judge.model.name_or_path
    identity = detector_identity(judge.model, judge.processor)
    temperature = ", ".join(f"{part} {value:.3f}" for part, value in (config.temperature or {}).items())
    facts = [
        ("Model", Path(name).name if os.path.isdir(name) else name or "not loaded from anywhere"),
        ("Revision", revision_of(name)),
        ("Kind", type(judge.model).__name__),
        *((f"Fingerprint, {key}", value) for key, value in identity.items() if key != "dtype"),
        ("Numbers", identity["dtype"]),
        ("Looks at", _looks_at(judge.processor)),
        ("Threshold", f"{result['threshold']:.4f}"),
        ("Temperature", temperature or "none: not calibrated"),
    ]
    if band := config.abstain_band:
        facts.append(("Uncertain scores", f"{band[0]:.4f} to {band[1]:.4f}"))
    if detector.gate is not None:
        facts.append(("Gate", _gate_fact(detector.gate.band, result)))
    return facts


def _looks_at(processor: ClipProcessor) -> str:
    if processor.faces == "off":
        return "whole frames"
    which = "the largest face" if processor.faces == "largest" else "every face by itself"
    return (
        f"{which}: a square of {processor.face_margin:g} times the longer side of the face's box; faces below "
        f"{processor.min_face_size:g} pixels are not scored"
    )


def _gate_fact(band: tuple[float, float], result: dict) -> str:
    sure = f"sure below {band[0]:.3f} and above {band[1]:.3f}"
    if "decided_by" not in result:
        return sure
    score = "-" if result["gate_score"] is None else f"{result['gate_score']:.4f}"
    decided = (
        "its own verdict stands" if result["decided_by"] == "gate" else "not sure, so the model was asked"
    )
    return f"score {score}, {sure}: {decided}"


def revision_of(name: str) -> str:
    """Return the commit of a model's repository, as far as it is known."""
    if not name or os.path.isdir(name):
        return "none: a folder, not a repository"
    cached = try_to_load_from_cache(name, "config.json")
    if not isinstance(cached, str):
        return "not known"
    # transformers does not keep the revision that it loaded. It is certain where the cache holds only one.
    snapshots = sorted(path.name for path in Path(cached).parents[1].iterdir())
    return snapshots[0] if len(snapshots) == 1 else "not known: one of " + ", ".join(snapshots)


def _size(count: int) -> str:
    value, unit = float(count), "bytes"
    for larger in ("KiB", "MiB", "GiB"):
        if value < 1024:
            break
        value, unit = value / 1024, larger
    return f"{count} bytes" if unit == "bytes" else f"{value:.1f} {unit} ({count} bytes)"
