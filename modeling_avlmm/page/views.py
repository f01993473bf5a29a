"""The HTML of the page: the verdict, the player with its timeline, and a close look at one passage."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Any

import jinja2
import numpy as np

from ..configuration_detector import SCORE_NAMES
from ..explain.attribution_maps import Attribution
from ..explain.people import person_at
from ..explain.regions import BAND_NAMES, REGION_NAMES
from ..explain.segments import join_segments
from ..explain.words import (
    NO_PROBABILITY,
    PART_NOUNS,
    PART_TITLES,
    capital,
    clock,
    deciding,
    describe_disagreement,
    headline,
    label_of,
    minutes,
    score_sentence,
    threshold_in,
)
from ..inference.credentials import describe_credentials
from ..inference.default_model import embedded_title
from ..pipeline_avd import AVDeepfakeDetectionPipeline
from .people import people_view
from .pictures import heat_pictures
from .session import Visit

MARKS = {"fake": "triangle", "real": "circle", "uncertain": "diamond"}
"""A shape for each label, so that colour is not the only sign."""
PASSAGES = 4
"""Suspicious passages that are listed."""
UNKNOWN_FAKES = "A forgery of a kind that the detector was not trained on can look like this too."


@cache
def _templates() -> jinja2.Environment:
    folder = files(__package__) / "assets"
    loader = jinja2.FunctionLoader(lambda name: (folder / name).read_text(encoding="utf-8"))
    environment = jinja2.Environment(
        loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters |= {"capital": capital, "clock": clock, "score": score_text}
    return environment


def asset(name: str) -> str:
    """Return the text of a file of `assets`."""
    return (files(__package__) / "assets" / name).read_text(encoding="utf-8")


def render(template: str, /, **values: Any) -> str:
    """Fill a template of `assets`; every value is escaped."""
    return _templates().get_template(template).render(**values)


def score_text(score: float | None) -> str:
    """Return a score with two decimals, or `none`."""
    return "none" if score is None else f"{score:.2f}"


def notice(kind: str, text: str) -> str:
    """Return the HTML of a message above the result; `kind` is `"error"` or `"busy"`."""
    return render("notice.html", kind=kind, text=text) if text else ""


def verdict_view(visit: Visit, detector: AVDeepfakeDetectionPipeline) -> str:
    """Return the HTML of the verdict: in words, by part, with warnings and facts about the file."""
    result, config = visit.result, detector.model.config
    label = result["label"]
    sentence = score_sentence(result, deciding(detector, result).model.config)
    return render(
        "verdict.html",
        visit=visit,
        result=result,
        label=label,
        mark=MARKS.get(label),
        headline=headline(result),
        meaning=f"{sentence} {UNKNOWN_FAKES}" if label == "real" else sentence,
        no_probability=NO_PROBABILITY,
        parts=[_part(result, part) for part in PART_NOUNS],
        demonstration=config.notice,
        warnings=[text for text in result["warnings"] if text != config.notice],
        length=minutes(visit.info.duration) if visit.info.duration >= 10 else f"{visit.info.duration:.1f} s",
        model=model_name(detector),
        credentials=describe_credentials(result["credentials"]) if result.get("credentials") else None,
    )


def _part(result: dict, part: str) -> dict[str, Any]:
    score = result[SCORE_NAMES[part]]
    # The label of the file is the pipeline's own.
    label = result["label"] if part == "overall" else label_of(score, result, part)
    row = {"title": capital(PART_NOUNS[part]), "score": score, "label": label, "mark": MARKS.get(label)}
    if score is None:
        absent = part != "overall" and result[f"has_{part}"] is False
        words = f"no {PART_NOUNS[part]}" if absent else "not judged"
    else:
        words = label
    return {**row, "words": words, "threshold": threshold_in(result, part)}


def player_view(
    visit: Visit,
    mel: str | None,
    offset: float = 0.0,
    sound_marks: list[dict] | None = None,
    portraits: dict[int, str] | None = None,
) -> str:
    """
    Return the HTML of the player, the timeline and the spectrogram, all on one axis of time.

    Args:
        mel (`str`, *optional*): Address of the picture that [`mel_picture`] gives.
        offset (`float`, *optional*, defaults to 0): The player's time at the detector's zero, seconds.
        sound_marks (`list[dict]`, *optional*): Boxes that [`sound_marks`] gives.
        portraits (`dict[int, str]`, *optional*): Pictures of people by their number.
    """
    result = visit.result
    duration = (result["duration"] if result else None) or visit.info.duration
    rows, cells = [], []
    if result and result["windows"]:
        cells = timeline(result, duration)
        rows = [
            {"name": name, "title": PART_NOUNS[part], "threshold": threshold_in(result, part)}
            for part, name in SCORE_NAMES.items()
            if any(cell[name]["score"] is not None for cell in cells)
        ]
    people = people_view(result, portraits or {}) if result else None
    labels = {cell[name]["label"] for cell in cells for name in SCORE_NAMES.values()}
    labels |= {cell["label"] for row in (people.rows if people else ()) for cell in row["cells"]}
    return render(
        "player.html",
        visit=visit,
        address=address(visit, visit.clip.name),
        duration=duration,
        offset=offset,
        rows=rows,
        people=people,
        verdict_marks=MARKS,
        cells=cells,
        uncertain="uncertain" in labels,
        passages=passages(cells),
        mismatch=mismatch(result, duration) if result else None,
        ticks=ticks(duration),
        mel=mel,
        heard=sound_passages(cells, duration) if mel else [],
        marks=sound_marks or [],
        playable=visit.playable(),
    )


def closeup_view(found: Attribution, result: dict) -> str:
    """
    Return the HTML of an attribution: marked frames, shares by region and band, and the method's limits.

    Args:
        found ([`Attribution`]): What the detector reacts to. Frames that are crops of a face are shown with their place.
        result (`dict`): The pipeline's result, for the names of people.
    """
    pictures = [] if found.picture is None else heat_pictures(found.frames, found.picture)
    for picture in pictures:
        picture["time"] = float(found.frame_times[picture["index"]])
        picture["place"] = None if found.places is None else _percent(found.places[picture["index"]])
    tables = []
    for title, values, names in (
        (PART_TITLES["video"], found.regions, REGION_NAMES),
        (PART_TITLES["audio"], found.bands, BAND_NAMES),
    ):
        top = max(max(values.values(), default=0.0), 1e-9)
        rows = [
            {"name": names.get(name, name), "value": value, "percent": 100 * max(value, 0.0) / top}
            for name, value in values.items()
        ]
        if rows:
            tables.append((title, rows))
    person = None if found.places is None else person_at(result, found.frame_times, found.places)
    name = "a face" if person is None else person.name
    return render("closeup.html", found=found, pictures=pictures, tables=tables, person=name)


def _percent(place: np.ndarray) -> dict[str, float]:
    left, top, right, bottom = (100 * float(side) for side in place)
    return {"left": left, "top": top, "width": right - left, "height": bottom - top}


def timeline(result: dict, duration: float) -> list[dict[str, Any]]:
    """
    Lay out the windows of a result as cells of a timeline.

    Returns:
        `list[dict]`: `start` and `end` of the window in seconds; `left` and `width` in percent, up to the next window's
        start where windows overlap; and under the name of each of the three scores its `score` and `label`.
    """
    windows, cells = result["windows"], []
    for number, window in enumerate(windows):
        start = window["start"]
        stop = (
            min(window["end"], windows[number + 1]["start"]) if number + 1 < len(windows) else window["end"]
        )
        cell = {"start": start, "end": window["end"]}
        cell |= {"left": 100 * start / duration, "width": 100 * max(stop - start, 0.0) / duration}
        for part, name in SCORE_NAMES.items():
            cell[name] = {"score": window[name], "label": label_of(window[name], result, part)}
        cells.append(cell)
    return cells


def mismatch(result: dict, duration: float) -> dict[str, str] | None:
    """
    Return the line of a detector that compares picture and sound frame by frame.

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
    """Return the windows that are called fake in any part, the most suspicious first."""
    found = []
    for cell in cells:
        fake = {
            PART_NOUNS[part]: cell[name]["score"]
            for part, name in SCORE_NAMES.items()
            if cell[name]["label"] == "fake"
        }
        if fake:
            found.append({**cell, "parts": list(fake), "strongest": max(fake.values())})
    return sorted(found, key=lambda cell: -cell["strongest"])[:PASSAGES]


def sound_passages(cells: list[dict], duration: float) -> list[dict[str, float]]:
    """Return the stretches whose sound is called fake, with their highest score; `left` and `width` in percent."""
    fake = [cell for cell in cells if cell["audio_score"]["label"] == "fake"]
    return [
        {
            "start": start,
            "end": end,
            "score": max(cell["audio_score"]["score"] for cell in fake if start <= cell["start"] < end),
            "left": 100 * start / duration,
            "width": 100 * (end - start) / duration,
        }
        for start, end in join_segments((cell["start"], cell["end"]) for cell in fake)
    ]


def ticks(duration: float) -> list[dict[str, float]]:
    """Return round times along the axis, at most seven."""
    steps = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600)
    step = next((step for step in steps if duration / step <= 6), 2 * steps[-1])
    return [
        {"time": number * step, "left": 100 * number * step / duration}
        for number in range(int(duration / step + 1e-9) + 1)
    ]


def address(visit: Visit, name: str) -> str:
    """Return the address of a file of the visit."""
    return f"/clip/{visit.token}/{name}"


def model_name(detector: AVDeepfakeDetectionPipeline) -> str:
    """Return the name of a detector for people."""
    config = detector.model.config
    name = str(config.name_or_path or config.model_type)
    return embedded_title(name) or name
