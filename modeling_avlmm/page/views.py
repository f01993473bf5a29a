"""What the page says: verdicts in words, the timeline, and the HTML of both."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Any

import jinja2

from ..explain.attribution import Attribution
from ..explain.regions import BAND_NAMES, REGION_NAMES
from ..explain.words import describe_disagreement, headline
from .session import Visit, minutes

PART_TITLES = {"score": "Clip", "video_score": "Picture", "audio_score": "Sound"}
MARKS = {"fake": "triangle", "real": "circle", "uncertain": "diamond"}
PART_THRESHOLD = 0.5
"""For picture and sound, as in the reports of `evaluate_avd.py`: a detector's own threshold is for the whole clip."""
PASSAGES = 4

MEANINGS = {
    "fake": "The score is at or above {threshold}, from which this detector calls a clip fake.",
    "real": "The score is below {threshold}, from which this detector calls a clip fake. "
    "A forgery of a kind it was not trained on can look like this too.",
    "uncertain": "The score lies between {low} and {high}, where too many of this detector's verdicts were wrong. "
    "Take it as no verdict.",
}


@cache
def _templates() -> jinja2.Environment:
    folder = files(__package__) / "assets"
    loader = jinja2.FunctionLoader(lambda name: (folder / name).read_text(encoding="utf-8"))
    environment = jinja2.Environment(
        loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters |= {"clock": clock, "score": score_text}
    return environment


def asset(name: str) -> str:
    """The text of a file of `assets`."""
    return (files(__package__) / "assets" / name).read_text(encoding="utf-8")


def render(template: str, /, **values: Any) -> str:
    """A template of `assets`, filled; every value is escaped."""
    return _templates().get_template(template).render(**values)


def clock(seconds: float) -> str:
    """`83.5` as `1:23.5`."""
    whole, rest = divmod(round(seconds, 1), 60)
    hours, whole = divmod(int(whole), 60)
    return f"{hours}:{whole:02d}:{rest:04.1f}" if hours else f"{whole}:{rest:04.1f}"


def score_text(score: float | None) -> str:
    return "none" if score is None else f"{score:.2f}"


def notice(kind: str, text: str) -> str:
    """A message above the result: `kind` is `"error"` or `"busy"`."""
    return render("notice.html", kind=kind, text=text) if text else ""


def verdict_view(visit: Visit, detector: Any) -> str:
    """The verdict in words, with those on picture and sound, warnings and what was looked at."""
    result, config = visit.result, detector.model.config
    label = result["label"]
    band = getattr(config, "abstain_band", None) or (None, None)
    numbers = {
        "threshold": score_text(result["threshold"]),
        "low": score_text(band[0]),
        "high": score_text(band[1]),
    }
    demonstration = getattr(config, "notice", None)
    return render(
        "verdict.html",
        visit=visit,
        result=result,
        label=label,
        mark=MARKS.get(label),
        headline=headline(result),
        meaning=MEANINGS[label].format(**numbers) if label else "",
        parts=[_part(result, name, title, label) for name, title in PART_TITLES.items()],
        demonstration=demonstration,
        warnings=[text for text in result["warnings"] if text != demonstration],
        length=minutes(visit.info.duration) if visit.info.duration >= 10 else f"{visit.info.duration:.1f} s",
        model=model_name(detector),
    )


def _part(result: dict, name: str, title: str, label: str | None) -> dict[str, Any]:
    score = result[name]
    threshold = result["threshold"] if name == "score" else PART_THRESHOLD
    if score is None:
        # Which of the two it is matters to the reader: nothing there, or nothing said.
        missing = {"video_score": "has_video", "audio_score": "has_audio"}.get(name)
        absent = missing is not None and result[missing] is False
        verdict = ("no picture" if name == "video_score" else "no sound") if absent else "not judged"
        return {"title": title, "score": None, "verdict": verdict, "threshold": threshold, "mark": None}
    verdict = label if name == "score" and label else ("fake" if score >= threshold else "real")
    return {
        "title": title,
        "score": score,
        "verdict": verdict,
        "threshold": threshold,
        "mark": MARKS[verdict],
    }


def player_view(
    visit: Visit, mel: str | None, offset: float = 0.0, sound_marks: list[dict] | None = None
) -> str:
    """
    The clip, its timeline and the picture of its sound, on one axis of time.

    Args:
        mel (`str`, *optional*): Of [`mel_picture`].
        offset (`float`, *optional*, defaults to 0): The player's time at the detector's zero, seconds.
        sound_marks (`list[dict]`, *optional*): Of [`sound_marks`].
    """
    result = visit.result
    duration = (result["duration"] if result else None) or visit.info.duration
    rows, cells = [], []
    if result and result["windows"]:
        cells = timeline(result["windows"], duration, result["threshold"])
        present = [name for name in PART_TITLES if any(cell[name]["score"] is not None for cell in cells)]
        rows = [(name, PART_TITLES[name]) for name in present]
    return render(
        "player.html",
        visit=visit,
        address=address(visit, visit.clip.name),
        duration=duration,
        offset=offset,
        rows=rows,
        cells=cells,
        passages=passages(cells),
        mismatch=mismatch(result, duration) if result else None,
        threshold=result["threshold"] if result else None,
        part_threshold=PART_THRESHOLD,
        ticks=ticks(duration),
        mel=mel,
        heard=sound_passages(cells, duration) if mel else [],
        marks=sound_marks or [],
        playable=visit.playable(),
    )


def closeup_view(found: Attribution) -> str:
    """What the detector reacts to, with the limits of knowing that."""
    from .pictures import heat_pictures

    pictures = [] if found.picture is None else heat_pictures(found.frames, found.picture)
    for picture in pictures:
        picture["time"] = float(found.frame_times[picture["index"]])
    tables = []
    for title, values, names in (
        ("Picture", found.regions, REGION_NAMES),
        ("Sound", found.bands, BAND_NAMES),
    ):
        top = max(max(values.values(), default=0.0), 1e-9)
        rows = [
            {"name": names.get(name, name), "value": value, "percent": 100 * max(value, 0.0) / top}
            for name, value in values.items()
        ]
        if rows:
            tables.append((title, rows))
    return render("closeup.html", found=found, pictures=pictures, tables=tables)


def timeline(windows: list[dict], duration: float, threshold: float) -> list[dict[str, Any]]:
    """
    The windows of a verdict as cells of a timeline.

    Returns:
        `list[dict]`: `start` and `end` of the window in seconds; `left` and `width` in percent, up to the next window's
        start where windows overlap; and for each of the three scores `score` and `fake`.
    """
    cells = []
    for number, window in enumerate(windows):
        start = window["start"]
        stop = (
            min(window["end"], windows[number + 1]["start"]) if number + 1 < len(windows) else window["end"]
        )
        cell = {"start": start, "end": window["end"]}
        cell |= {"left": 100 * start / duration, "width": 100 * max(stop - start, 0.0) / duration}
        for name in PART_TITLES:
            limit = threshold if name == "score" else PART_THRESHOLD
            score = window[name]
            cell[name] = {"score": score, "fake": score is not None and score >= limit}
        cells.append(cell)
    return cells


def mismatch(result: dict, duration: float) -> dict[str, str] | None:
    """
    The line of a detector that compares picture and sound frame by frame.

    Returns:
        `dict[str, str]`: `points` of an SVG polyline in a box of 100 x 100, and `words`; None without such a line.
    """
    if not result.get("timeline"):
        return None
    points = " ".join(
        f"{100 * point['time'] / duration:.3f},{100 - 100 * point['disagreement']:.2f}"
        for point in result["timeline"]
    )
    return {"points": points, "words": describe_disagreement(result)}


def passages(cells: list[dict]) -> list[dict[str, Any]]:
    """The windows that are fake in any part, most suspicious first."""
    found = []
    for cell in cells:
        parts = [name for name in PART_TITLES if cell[name]["fake"]]
        if parts:
            strongest = max(cell[name]["score"] for name in parts)
            found.append(
                {**cell, "parts": [PART_TITLES[name].lower() for name in parts], "strongest": strongest}
            )
    return sorted(found, key=lambda cell: -cell["strongest"])[:PASSAGES]


def sound_passages(cells: list[dict], duration: float) -> list[dict[str, float]]:
    """Stretches whose sound is called fake: neighbours are one; `left` and `width` in percent."""
    found: list[dict[str, float]] = []
    for cell in cells:
        if not cell["audio_score"]["fake"]:
            continue
        if found and cell["start"] <= found[-1]["end"] + 1e-6:
            found[-1]["end"] = cell["end"]
            found[-1]["score"] = max(found[-1]["score"], cell["audio_score"]["score"])
        else:
            found.append({"start": cell["start"], "end": cell["end"], "score": cell["audio_score"]["score"]})
    for passage in found:
        passage["left"] = 100 * passage["start"] / duration
        passage["width"] = 100 * (passage["end"] - passage["start"]) / duration
    return found


def ticks(duration: float) -> list[dict[str, float]]:
    """Round times along the axis, at most seven."""
    steps = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600)
    step = next((step for step in steps if duration / step <= 6), 2 * steps[-1])
    return [
        {"time": number * step, "left": 100 * number * step / duration}
        for number in range(int(duration / step + 1e-9) + 1)
    ]


def address(visit: Visit, name: str) -> str:
    """Where the browser finds a file of the visit."""
    return f"/clip/{visit.token}/{name}"


def model_name(detector: Any) -> str:
    """The detector as a person knows it."""
    name = str(detector.model.config._name_or_path or detector.model.config.model_type)
    if name.rstrip("/").endswith("modeling_avlmm/default_model"):
        return "the package's demonstration detector"
    return name
