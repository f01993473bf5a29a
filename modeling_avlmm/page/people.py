"""The people of a clip on the page: boxes over the player, and a list with a small timeline for each."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from ..casefile.people import colour_of
from ..explain.people import (
    NUMBERS,
    SEEN_AROUND,
    Person,
    faces_sentence,
    fake_passages,
    most_suspicious,
    people_of,
    shared_sound,
)
from ..explain.words import threshold_in

MOST_LISTED = 12
"""People of the list: those with the highest scores. All have boxes."""
MOST_BOXES, LEAST_BOXES = 9000, 30
"""Boxes that are sent to the browser for all people together, and at least for each."""


@dataclass
class PeopleView:
    """
    The people of a clip, laid out.

    Attributes:
        found (`str`): How many faces were found, and which one decides.
        notes (`list[str]`): The sound that they share, and what a number means.
        rows (`list[dict]`): The people listed: `person`, `colour`, `portrait` (`data:` address or None), `seek` (seconds, of
            their most suspicious window), `words` (the timeline in words) and `cells`, with `left` and `width` in percent.
        left_out (`int`): People that are not listed.
        threshold (`float`): Score from which a person's picture is called fake.
        boxes (`str`): JSON for the page's script: a list of everybody's number, colour, times, boxes and windows.
    """

    found: str
    notes: list[str]
    rows: list[dict[str, Any]]
    left_out: int
    threshold: float
    boxes: str


def people_view(result: dict, portraits: dict[int, str]) -> PeopleView | None:
    """
    Lay out the people of a result.

    Args:
        result (`dict`): The pipeline's result.
        portraits (`dict[int, str]`): Pictures of people by their number.

    Returns:
        [`PeopleView`], *optional*: None where the detector looks at whole frames.
    """
    people = people_of(result)
    if people is None:
        return None
    listed = listed_people(people)
    duration = result["duration"]
    return PeopleView(
        found=faces_sentence(people, result),
        notes=[*shared_sound(result), NUMBERS] if len(people) > 1 else [],
        rows=[_row(person, portraits.get(person.number), duration) for person in listed],
        left_out=len(people) - len(listed),
        threshold=threshold_in(result, "video"),
        boxes=json.dumps([_track(person, len(people)) for person in people], separators=(",", ":")),
    )


def listed_people(people: list[Person]) -> list[Person]:
    """Return the people of the list."""
    return most_suspicious(people, MOST_LISTED)


def _row(person: Person, portrait: str | None, duration: float) -> dict[str, Any]:
    strongest = person.strongest
    cells = [
        {
            **window,
            "left": 100 * window["start"] / duration,
            "width": 100 * (window["end"] - window["start"]) / duration,
        }
        for window in person.windows
        if window["score"] is not None
    ]
    return {
        "person": person,
        "colour": colour_of(person.number),
        "portrait": portrait,
        "seek": person.start if strongest is None else strongest["start"],
        "words": fake_passages(person),
        "left": 100 * person.start / duration,
        "width": 100 * (person.end - person.start) / duration,
        "cells": cells,
    }


def _track(person: Person, count: int) -> dict[str, Any]:
    """Return what the page's script draws of a person."""
    most = max(LEAST_BOXES, MOST_BOXES // count)
    step = max(1, -(-len(person.boxes) // most))
    boxes = person.boxes[::step]
    if person.boxes and boxes[-1] is not person.boxes[-1]:
        boxes.append(person.boxes[-1])
    return {
        "number": person.number,
        "name": person.name,
        "colour": colour_of(person.number),
        "start": round(person.start - SEEN_AROUND, 3),
        "end": round(person.end + SEEN_AROUND, 3),
        "boxes": [[round(seen["time"], 3), *seen["box"]] for seen in boxes],
        "windows": [
            [
                round(w["start"], 3),
                round(w["end"], 3),
                None if w["score"] is None else round(w["score"], 4),
                w["label"],
            ]
            for w in person.windows
        ],
    }
