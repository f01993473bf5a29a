"""The people of a case: facts about their faces, and pictures from the file of their most suspicious moments."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

from ..explain.people import NUMBERS, Person, faces_sentence, most_suspicious, people_of, shared_sound
from ..explain.words import clock, count_of
from ..media import MediaError, MediaReader
from ..media_links import is_link
from ..pipeline_inputs import split_source

COLOURS = ("#0b7f7d", "#7b4fd0", "#c2318a", "#4c7f22", "#8f5f33", "#4c5fd7")
"""A colour for each person, readable under white text and unlike those of the verdicts. From the seventh on they repeat."""
PORTRAIT, PORTRAIT_MARGIN = 144, 1.5
"""Side of a portrait in pixels, and how far it reaches beyond the face's box."""
FRAME = 640
"""Longer side of a marked frame, pixels."""
MOST_FRAMES = 3
MOST_LISTED = 8
"""People of a list: those with the highest scores."""
MOST_NAMED = 8
APART = 1.0
"""Marked frames are at least this far apart, seconds; our own choice."""
_INSTANT = 0.04


@dataclass(frozen=True)
class Mark:
    """A box on a picture, in percent of its width and height, with the number of the person in it."""

    number: int
    colour: str
    left: float
    top: float
    width: float
    height: float


@dataclass(frozen=True)
class MarkedFrame:
    """A frame of the file with a box around each face of its moment."""

    time: float
    image: str
    marks: list[Mark] = field(default_factory=list)

    @property
    def words(self) -> str:
        """The frame in words, for readers who do not see it."""
        boxed = " and ".join(f"person {mark.number}" for mark in self.marks)
        return f"Frame at {clock(self.time)} with a box around {boxed}"


@dataclass
class PeopleSection:
    """
    The section of a case on the faces that were found.

    Attributes:
        sentences (`list[str]`): How many, whose picture decides, the sound that they share, and what a number means.
        people (`list[Person]`): The most suspicious ones, in order of their numbers.
        left_out (`int`): People that are not listed.
        portraits (`dict[int, str]`): `data:` address of a picture of a person, by number.
        frames (`list[MarkedFrame]`): The most suspicious moments.
        unread (`str`, *optional*): The reason why there are no pictures.
    """

    sentences: list[str]
    people: list[Person]
    left_out: int = 0
    portraits: dict[int, str] = field(default_factory=dict)
    frames: list[MarkedFrame] = field(default_factory=list)
    unread: str | None = None


def people_section(source: Any, result: dict, trim_leading_silence: bool = False) -> PeopleSection | None:
    """
    Collect what a case says on people.

    Args:
        source (path, `bytes`, ...): The pipeline's input. A link is not fetched once more, so it gives no pictures.
        result (`dict`): The pipeline's result.
        trim_leading_silence (`bool`, *optional*, defaults to `False`): As the detector read the file: its clock begins there.

    Returns:
        [`PeopleSection`], *optional*: None if the detector looks at whole frames.
    """
    people = people_of(result)
    if people is None:
        return None
    sentences = [faces_sentence(people, result)]
    if len(people) > 1:
        sentences += [*shared_sound(result), NUMBERS]
    listed = most_suspicious(people, MOST_LISTED)
    section = PeopleSection(sentences, listed, len(people) - len(listed))
    media, audio = split_source(source)
    if is_link(media):
        section.unread = "There are no pictures: a link would have to be fetched once more."
        return section
    try:
        with MediaReader(media, audio=audio, trim_leading_silence=trim_leading_silence) as reader:
            section.portraits = portraits(reader, listed)
            section.frames = marked_frames(reader, people)
    except MediaError as error:
        section.unread = f"There are no pictures: {error.reason}."
    return section


def colour_of(number: int) -> str:
    """Return the colour of a person's number."""
    return COLOURS[(number - 1) % len(COLOURS)]


def moment_of(person: Person) -> float:
    """Return the time in a person's most suspicious window at which their face was seen, closest to its middle, seconds."""
    strongest = person.strongest or {"start": person.start, "end": person.end}
    middle = (strongest["start"] + strongest["end"]) / 2
    return min((seen["time"] for seen in person.boxes), key=lambda time: abs(time - middle), default=middle)


def portraits(reader: MediaReader, people: list[Person]) -> dict[int, str]:
    """
    Cut out the face of each person at their most suspicious moment.

    Returns:
        `dict[int, str]`: `data:` address of a JPEG by the person's number. A person without boxes has none.

    Raises:
        MediaError: if the file cannot be read.
    """
    found = {}
    for person in people:
        time = moment_of(person)
        box = person.box_at(time)
        if box is not None:
            found[person.number] = address(_portrait(frame_at(reader, time), box))
    return found


def marked_frames(reader: MediaReader, people: list[Person], limit: int = MOST_FRAMES) -> list[MarkedFrame]:
    """
    Return frames of the most suspicious moments, with the faces of everybody on screen.

    Args:
        reader ([`MediaReader`]): The file.
        people (`list[Person]`): Everybody in it.
        limit (`int`, *optional*, defaults to 3): Frames at most, in order of time.

    Raises:
        MediaError: if the file cannot be read.
    """
    times: list[float] = []
    scored = [person for person in people if person.strongest is not None]
    for person in sorted(scored, key=lambda person: -person.strongest["score"]):
        time = moment_of(person)
        if len(times) < limit and all(abs(time - other) >= APART for other in times):
            times.append(time)
    return [_marked(frame_at(reader, time), time, people) for time in sorted(times)]


def frame_at(reader: MediaReader, time: float) -> Image.Image:
    """Return the frame on screen at a time, upright."""
    start = min(max(time, 0.0), max(reader.info.duration - _INSTANT, 0.0))
    clip = reader.read(start=start, end=start + _INSTANT, fps=1.0, with_audio=False)
    return Image.fromarray(np.ascontiguousarray(clip.frames[0].permute(1, 2, 0).numpy()))


def _portrait(frame: Image.Image, box: tuple[float, float, float, float]) -> Image.Image:
    width, height = frame.size
    left, top, right, bottom = box[0] * width, box[1] * height, box[2] * width, box[3] * height
    side = min(max(right - left, bottom - top) * PORTRAIT_MARGIN, width, height)
    x = min(max((left + right - side) / 2, 0.0), width - side)
    y = min(max((top + bottom - side) / 2, 0.0), height - side)
    return frame.resize((PORTRAIT, PORTRAIT), Image.Resampling.BICUBIC, box=(x, y, x + side, y + side))


def _marked(frame: Image.Image, time: float, people: list[Person]) -> MarkedFrame:
    marks = []
    for person in people:
        box = person.box_at(time)
        if box is not None:
            left, top, right, bottom = (100 * side for side in box)
            marks.append(Mark(person.number, colour_of(person.number), left, top, right - left, bottom - top))
    frame.thumbnail((FRAME, FRAME), Image.Resampling.BICUBIC)
    return MarkedFrame(time, address(frame), marks)


def address(image: Image.Image) -> str:
    """Return a picture as the `data:` address of a JPEG."""
    data = io.BytesIO()
    image.save(data, "jpeg", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(data.getvalue()).decode('ascii')}"


def face_facts(result: dict, width: int | None = None, height: int | None = None) -> list[tuple[str, str]]:
    """
    Return facts about the faces of a file: how many, the size of the smallest, and those that were not scored. There are
    none where the detector looks at whole frames.

    Args:
        result (`dict`): The pipeline's result.
        width, height (`int`, *optional*): Size of the upright picture in pixels; without it, no face has a size.
    """
    people = people_of(result)
    if people is None:
        return []
    if not people:
        return [("Faces", "none found")]
    sizes = {person.number: face_size(person, width, height) for person in people if width and person.boxes}
    found = count_of(len(people), "face")
    if sizes:
        number, (across, down) = min(sizes.items(), key=lambda item: item[1][0] * item[1][1])
        which = "" if len(people) == 1 else f"the smallest (person {number}) "
        found += f", {which}{across} x {down} pixels"
    facts = [("Faces", found)]
    unscored = [
        f"{person.name}, {person.span}"
        + (" ({} x {} pixels)".format(*sizes[person.number]) if person.number in sizes else "")
        for person in people
        if person.score is None
    ]
    if unscored:
        more = f", and {len(unscored) - MOST_NAMED} more" if len(unscored) > MOST_NAMED else ""
        facts.append(("Faces not scored", "; ".join(unscored[:MOST_NAMED]) + more))
    return facts


def face_size(person: Person, width: int, height: int) -> tuple[int, int]:
    """Return the median width and height of a face's box, in pixels of an upright picture of this size."""
    boxes = np.array([seen["box"] for seen in person.boxes])
    across, down = np.median(boxes[:, 2:] - boxes[:, :2], axis=0) * (width, height)
    return round(float(across)), round(float(down))
