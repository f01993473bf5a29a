"""The pipeline's result on a file, from the rows that the network scored."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Any

from .configuration_detector import LOG_ODDS_NAMES, SCORE_NAMES, AVDetectorConfig
from .face_windows import NO_FACE, NO_FACE_AT, WindowFace
from .media_errors import PlacedWarning, merged_warnings
from .modeling_outputs import calibrated
from .pipeline_scores import FileScores

UNCERTAIN = "uncertain"
"""Label of a score in the model's `abstain_band`, on request."""
NO_VERDICT = "NoVerdictError"
"""Type of the error of a file that was read, but has no score."""
OVERFLOW = "its activations overflowed, as on material that is nothing like what it was trained on"
MOST_SPANS = 5
MANY_FACES = 10
"""Scored faces of a file from which on a warning says that one score is high by chance; our own choice."""
BY_CHANCE = "the score is the highest of {} faces: of so many, one is high by chance more often"
SHARED_SOUND = "faces that are on screen together are scored with the same sound: a listener's lips do not match the speaker's voice"


@dataclass(frozen=True)
class Settings:
    """
    How scores of rows make a verdict on a file.

    Args:
        aggregate (`str`): `"mean"` over time, or `"max"`.
        threshold, temperature (`float`, *optional*): In place of those of the configuration.
        abstain (`bool`): Give the label `"uncertain"` to a score in the `abstain_band`.
        min_face_size (`float`): Longer side of the smallest face that is scored, in pixels.
    """

    aggregate: str = "mean"
    threshold: float | None = None
    temperature: float | None = None
    abstain: bool = False
    min_face_size: float = 0.0


def place_of(face: WindowFace | None) -> dict:
    """Return the entries of a row that say which face it is and when it is there."""
    return {} if face is None else {"face": face.index, "seen_from": face.start, "seen_to": face.end}


def file_result(rows: list[dict], config: AVDetectorConfig, settings: Settings) -> dict:
    """
    Return the result on a file.

    Args:
        rows (`list[dict]`): What the network scored, window by window, and an error of reading at the end.
        config ([`AVDetectorConfig`]): The detector's configuration.
        settings ([`Settings`]): The call's.
    """
    # A file that breaks off keeps the verdict on what came before; the error says where it stopped.
    error, people = rows[-1].get("error"), rows[-1].get("people")
    rows = [row for row in rows if "error" not in row]
    scores = FileScores(config.independent_parts)
    windows = [scores.add(list(same)) for _, same in groupby(rows, key=itemgetter("window"))]
    raw = scores.of_file(settings.aggregate)
    found = verdict(raw, config, settings.threshold, settings.temperature)
    for row in rows:
        row.update(calibrated_scores(row, config, settings.temperature))
    warnings = merged_warnings(text for row in rows for text in row["warnings"])
    faces = None
    if people is not None:
        faces = _scored_faces(people.entries(), rows, scores, config, settings)
        warnings = _with_faces(warnings, faces, rows, config, settings)
    if found["score"] is None and rows:
        message = f"{rows[0]['name']}: {_no_verdict(rows, warnings)}"
        error = error or {"type": NO_VERDICT, "message": message}
    elif without := [row for row in rows if row["judged"] and row["score"] is None]:
        warnings.append(_no_number(without))
    low, high = config.abstain_band or (1.0, 0.0)
    if found["score"] is not None and low <= found["score"] <= high:
        if settings.abstain:
            found["label"] = UNCERTAIN
        warnings.append(f"the score is in the range [{low:.3g}, {high:.3g}] where verdicts are uncertain")
    last = rows[-1] if rows else {}
    return {
        **found,
        **calibrated_log_odds(raw, config, settings.temperature),
        "abstain_band": config.abstain_band if settings.abstain else None,
        "independent_parts": config.independent_parts,
        "windows": [{key: w[key] for key in ("start", "end", *SCORE_NAMES.values())} for w in windows],
        "faces": faces,
        **(timeline(windows) if config.gives_frame_scores else {}),
        **{name: last.get(name) for name in ("name", "duration", "has_video", "has_audio")},
        "num_frames": sum(row["num_frames"] for row in rows),
        "warnings": ([config.notice] if config.notice else []) + warnings,
        "error": error,
    }


def verdict(
    raw: Mapping[str, float | None],
    config: AVDetectorConfig,
    threshold: float | None = None,
    temperature: float | None = None,
) -> dict:
    """
    Return the verdict on a file.

    Args:
        raw (`Mapping[str, float | None]`): The file's `score`, `video_score` and `audio_score`, not calibrated.
        config ([`AVDetectorConfig`]): The detector's configuration.
        threshold, temperature (`float`, *optional*): In place of those of the configuration.

    Returns:
        `dict`: `label` (None without a score), the calibrated scores and `threshold`.
    """
    threshold = config.threshold if threshold is None else threshold
    scores = calibrated_scores(raw, config, temperature)
    label = None if scores["score"] is None else config.id2label[int(scores["score"] >= threshold)]
    return {"label": label, **scores, "threshold": threshold}


def calibrated_scores(
    raw: Mapping[str, float | None], config: AVDetectorConfig, temperature: float | None = None
) -> dict[str, float | None]:
    """Return `score`, `video_score` and `audio_score`, each with its log-odds divided by its temperature."""
    own = config.temperature or {}
    return {
        name: calibrated(
            raw[name],
            own.get(part, 1.0) if temperature is None else temperature,
            raw.get(LOG_ODDS_NAMES[part]),
        )
        for part, name in SCORE_NAMES.items()
    }


def calibrated_log_odds(
    raw: Mapping[str, float | None], config: AVDetectorConfig, temperature: float | None = None
) -> dict[str, float | None]:
    """Return `log_odds`, `video_log_odds` and `audio_log_odds`, each divided by its temperature; None where not known."""
    own = config.temperature or {}
    divisors = {part: own.get(part, 1.0) if temperature is None else temperature for part in LOG_ODDS_NAMES}
    return {
        name: None if raw[name] is None else raw[name] / divisors[part]
        for part, name in LOG_ODDS_NAMES.items()
    }


def timeline(windows: list[dict]) -> dict:
    """Return `timeline` and `disagreement` of a file, from the `frames` of its windows; overlapping ones are averaged."""
    values: dict[float, list[float]] = {}
    for window in windows:
        for time, value in window.get("frames", ()):
            values.setdefault(round(time, 3), []).append(value)
    line = [{"time": time, "disagreement": sum(v) / len(v)} for time, v in sorted(values.items())]
    mean = sum(point["disagreement"] for point in line) / len(line) if line else None
    return {"disagreement": mean, "timeline": line}


def _scored_faces(
    found: list[dict], rows: list[dict], scores: FileScores, config: AVDetectorConfig, settings: Settings
) -> list[dict[str, Any]]:
    """Return the faces of a result, from those that were found and the calibrated rows."""
    windows: dict[int, list[dict]] = {face["index"]: [] for face in found}
    for row in rows:
        if "face" in row:
            windows[row["face"]].append({key: row[key] for key in ("start", "end", "video_score")})
    faces = []
    for face in found:
        raw = scores.of_face(face["index"], settings.aggregate)
        own = calibrated_scores(raw, config, settings.temperature)
        about = {key: face[key] for key in ("index", "start", "end", "size")}
        faces.append(
            {
                **about,
                "video_score": own["video_score"],
                "score": own["score"],
                "windows": windows[face["index"]],
                "boxes": face["boxes"],
            }
        )
    return faces


def _with_faces(
    warnings: list[str], faces: list[dict], rows: list[dict], config: AVDetectorConfig, settings: Settings
) -> list[str]:
    """Return a file's warnings with those about its faces."""
    if not faces:
        kept = [w for w in warnings if not (isinstance(w, PlacedWarning) and w.template == NO_FACE_AT)]
        return [*kept, NO_FACE] if any(row["has_video"] for row in rows) else kept
    without = [face for face in faces if not face["windows"]]
    small = sum(face["size"] < settings.min_face_size for face in without)
    told = (
        (small, f"smaller than {settings.min_face_size:g} pixels"),
        (len(without) - small, "not the largest"),
    )
    notes = [f"{count} face{'s' * (count > 1)} not scored: {why}" for count, why in told if count]
    if (scored := len(faces) - len(without)) >= MANY_FACES:
        notes.append(BY_CHANCE.format(scored))
    at_once = max(Counter(row["window"] for row in rows if "face" in row).values(), default=0)
    if at_once > 1 and rows[0]["has_audio"] and not config.independent_parts:
        notes.append(SHARED_SOUND)
    return [*warnings, *notes]


def _no_verdict(rows: list[dict], warnings: list[str]) -> str:
    """Return the message about a file that was read, but has no score."""
    if judged := [row for row in rows if row["judged"]]:
        return _no_number(judged)
    reasons = warnings or [row["nothing"] for row in rows]
    return f"there is nothing to score: {'; '.join(dict.fromkeys(reasons))}"


def _no_number(windows: list[dict]) -> str:
    """Return the message about windows that the network gave no number for."""
    spans = ", ".join(f"{w['start']:.1f} to {w['end']:.1f} s" for w in windows[:MOST_SPANS])
    more = f" and {len(windows) - MOST_SPANS} more" if len(windows) > MOST_SPANS else ""
    return f"the network gave no number for {spans}{more}: {OVERFLOW}"
