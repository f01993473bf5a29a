"""The people of a result: one number for each face that was followed, with a place, a verdict, and sentences about them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from .segments import join_segments
from .words import HEADLINES, PART_NAMES, capital, clock, count_of, label_of

SEEN_AROUND = 0.1
"""A face that was seen at one instant is shown this long before and after it, seconds: half a step at 5 frames a second."""
NUMBERS = (
    "A number stands for one face for as long as it is followed. After a cut, or when somebody comes back, the same person has a "
    "new number."
)
"""The limit of what a number tells; to be shown where several people are."""
MOST_PASSAGES = 6
"""Passages of a person that are named in a sentence."""
_ACROSS = {2: ("left", "right"), 3: ("left", "middle", "right")}
_ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth")
MOST_MOMENTS = 60
"""Moments of a face at which its place is looked up."""
_DOWN = {2: ("top", "bottom"), 3: ("top", "middle", "bottom")}


@dataclass(frozen=True)
class Person:
    """
    One face of a file, followed over time: an entry of a result's `faces`, with the words for it.

    Attributes:
        number (`int`): From 1, in order of appearance.
        place (`str`, *optional*): `left`, `right`, ... among the faces on screen at the same time; None for one alone.
        start, end (`float`): First and last moment, seconds.
        score (`float`, *optional*): P(fake) of this face's picture; None if it was not scored.
        label (`str`, *optional*): `"fake"`, `"real"`, `"uncertain"`, or None without a score.
        windows (`list[dict]`): `start` and `end` within the person's time, `score` and `label`.
        boxes (`list[dict]`): `time` and `box` (left, top, right, bottom as fractions of the upright picture).
    """

    number: int
    place: str | None
    start: float
    end: float
    score: float | None
    label: str | None
    windows: list[dict] = field(default_factory=list)
    boxes: list[dict] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The person in a sentence: `person 1 (left)`."""
        return f"person {self.number}" + (f" ({self.place})" if self.place else "")

    @property
    def span(self) -> str:
        """The person's time in words: `0:03.0 to 0:07.4`."""
        return f"{clock(self.start)} to {clock(self.end)}"

    @property
    def verdict(self) -> str:
        """The verdict in words: `called fake`, `not called fake`, `uncertain` or `not scored`."""
        return verdict_words(self.label)

    @property
    def strongest(self) -> dict | None:
        """The window with the highest score; None if none was scored."""
        scored = [window for window in self.windows if window["score"] is not None]
        return max(scored, key=lambda window: window["score"], default=None)

    def box_at(self, time: float) -> tuple[float, float, float, float] | None:
        """Return the box at a time, between the two nearest; None when the face is not on screen."""
        if not self.boxes or not self.start - SEEN_AROUND <= time <= self.end + SEEN_AROUND:
            return None
        times = [seen["time"] for seen in self.boxes]
        sides = np.array([seen["box"] for seen in self.boxes], dtype=np.float64).T
        left, top, right, bottom = (float(np.interp(time, times, side)) for side in sides)
        return left, top, right, bottom


def people_of(result: dict) -> list[Person] | None:
    """
    Return the people of a result, in order of their numbers.

    Args:
        result (`dict`): A result of the pipeline.

    Returns:
        `list[Person]`, *optional*: empty if no face was found; None if the detector looks at whole frames, or the file has no
        picture.
    """
    faces = result.get("faces")  # a result of an older release, read from a file, has none
    if faces is None or not result["has_video"]:
        return None
    return [
        Person(
            number=face["index"] + 1,
            place=place,
            start=face["start"],
            end=face["end"],
            score=face["video_score"],
            label=label_of(face["video_score"], result, "video"),
            windows=_windows(face, result),
            boxes=face["boxes"],
        )
        for face, place in sorted(zip(faces, places(faces), strict=True), key=lambda pair: pair[0]["index"])
    ]


def person_at(result: dict, times: np.ndarray, places: np.ndarray) -> Person | None:
    """
    Return the person whose face is closest to the middle of some places; None if nobody is on screen at these times.

    Args:
        result (`dict`): A result of the pipeline.
        times (`np.ndarray` of shape `(T,)`): Seconds.
        places (`np.ndarray` of shape `(T, 4)`): Left, top, right, bottom as fractions of the picture.
    """
    distances = {}
    for person in people_of(result) or ():
        boxes = [person.box_at(float(time)) for time in times]
        apart = [
            np.add(box[:2], box[2:]) - place[:2] - place[2:]
            for box, place in zip(boxes, places, strict=True)
            if box
        ]
        if apart:
            distances[person.number] = float(np.hypot(*np.transpose(apart)).mean()), person
    return min(distances.values(), key=lambda found: found[0], default=(0.0, None))[1]


def places(faces: list[dict]) -> list[str | None]:
    """
    Name the place of each face among those on screen at the same time.

    It is the most frequent one over the face's time, from left to right; from top to bottom where the faces of a moment are
    further apart that way. Four and more across are counted: `second from the left`.
    """
    tracks = [_Centres(face) for face in faces]
    return [_usual_place(track, [other for other in tracks if other is not track]) for track in tracks]


class _Centres:
    """Centres of a face's boxes over time."""

    def __init__(self, face: dict):
        self.start, self.end = face["start"], face["end"]
        self.times = np.array([seen["time"] for seen in face["boxes"]], dtype=np.float64)
        boxes = np.array([seen["box"] for seen in face["boxes"]], dtype=np.float64).reshape(-1, 4)
        self.centres = (boxes[:, :2] + boxes[:, 2:]) / 2

    def at(self, times: np.ndarray) -> np.ndarray:
        """Return the centres at times (T,), shape (T, 2); NaN where the face is not on screen."""
        centres = np.stack([np.interp(times, self.times, side) for side in self.centres.T], axis=1)
        centres[(times < self.start) | (times > self.end)] = np.nan
        return centres


def _usual_place(track: _Centres, others: list[_Centres]) -> str | None:
    """Return the most frequent place of a face among the others."""
    beside = [
        other
        for other in others
        if len(other.times) and other.start <= track.end and track.start <= other.end
    ]
    if not beside or not len(track.times):
        return None
    times = track.times[:: -(-len(track.times) // MOST_MOMENTS)]
    own = track.at(times)
    around = np.stack([other.at(times) for other in beside])
    named = [
        _place(centre, there[~np.isnan(there[:, 0])])
        for centre, there in zip(own, around.swapaxes(0, 1), strict=True)
    ]
    return Counter(named).most_common(1)[0][0]


def _place(own: np.ndarray, others: np.ndarray) -> str | None:
    """Return the place of a centre (2,) among others (N, 2)."""
    if not len(others):
        return None
    spread = np.ptp(np.vstack([own, others]), axis=0)
    axis = int(spread[1] > spread[0])
    rank = int((others[:, axis] < own[axis]).sum())
    words = (_ACROSS, _DOWN)[axis].get(1 + len(others))
    if words:
        return words[rank]
    ordinal = _ORDINALS[rank] if rank < len(_ORDINALS) else f"{rank + 1}th"
    return f"{ordinal} from the {('left', 'top')[axis]}"


def _windows(face: dict, result: dict) -> list[dict]:
    """Return the windows of a face within its time, with their labels."""
    cut = []
    for window in face["windows"]:
        start, end = max(window["start"], face["start"]), min(window["end"], face["end"])
        score = window["video_score"]
        cut.append(
            {
                "start": start,
                "end": max(start, end),
                "score": score,
                "label": label_of(score, result, "video"),
            }
        )
    return cut


def verdict_words(label: str | None) -> str:
    """Return a person's verdict in a sentence."""
    return "not scored" if label is None else HEADLINES[label].lower()


def person_line(person: Person) -> str:
    """Return one line on a person: `person 1 (left), 0:00.0 to 0:09.8: called fake, 0.91; highest 0.95 from 0:03.0 to 0:06.0`."""
    line = f"{person.name}, {person.span}: {person.verdict}"
    if person.score is None:
        return line
    line += f", {person.score:.2f}"
    strongest = person.strongest
    if len(person.windows) > 1 and strongest is not None:
        line += f"; highest {strongest['score']:.2f} from {clock(strongest['start'])} to {clock(strongest['end'])}"
    return line


def describe_people(result: dict, limit: int = 6) -> list[str]:
    """
    Return sentences on the faces of a file: how many, who is suspicious when, and the sound that they share. `NUMBERS` is for
    whoever shows several people.

    Args:
        result (`dict`): A result of the pipeline.
        limit (`int`, *optional*, defaults to 6): People that are named: those with the highest scores, in order of number.

    Returns:
        `list[str]`: empty if the detector looks at whole frames.
    """
    people = people_of(result)
    if people is None:
        return []
    lines = [faces_sentence(people, result)]
    if len(people) > 1:
        lines += [f"{capital(person_line(person))}." for person in most_suspicious(people, limit)]
        if len(people) > limit:
            lines.append(f"{len(people) - limit} more have lower scores or none.")
        lines += shared_sound(result)
    return lines


def faces_sentence(people: list[Person], result: dict) -> str:
    """Return a sentence on how many faces were found, and on whose picture the score of the picture is."""
    if not people:
        return "No face was found in the picture."
    scored = [person.score for person in people if person.score is not None]
    if len(people) == 1:
        (person,) = people
        return f"One face was found, from {person.span}{'' if scored else '; it was not scored'}."
    found = f"{count_of(len(people), 'face')} were found"
    if not scored:
        return f"{found}; none was scored."
    person = deciding_person(people, result)
    return f"{found}." if person is None else f"{found}; the picture's score is that of {person.name}."


def deciding_person(people: list[Person], result: dict) -> Person | None:
    """Return the person whose picture's score is the file's; None if none was scored, or several have that score."""
    found = [
        person for person in people if person.score is not None and person.score == result["video_score"]
    ]
    return found[0] if len(found) == 1 else None


def fake_passages(person: Person) -> str:
    """Return a sentence on the passages in which a person is called fake: `Person 1 (left): called fake from ...`."""
    if person.score is None:
        return f"{capital(person.name)}: not scored."
    spans = join_segments((w["start"], w["end"]) for w in person.windows if w["label"] == "fake")
    named = ", ".join(f"{clock(start)} to {clock(end)}" for start, end in spans[:MOST_PASSAGES])
    more = f" and {len(spans) - MOST_PASSAGES} more passages" if len(spans) > MOST_PASSAGES else ""
    found = f"called fake from {named}{more}" if spans else "called fake in no window"
    return f"{capital(person.name)}: {found}."


def most_suspicious(people: list[Person], limit: int) -> list[Person]:
    """Return the people with the highest scores, at most `limit`, in order of their numbers."""
    chosen = sorted(people, key=lambda p: (p.score is None, -(p.score or 0.0), p.number))[:limit]
    return sorted(chosen, key=lambda person: person.number)


def shared_sound(result: dict) -> list[str]:
    """Return a sentence on the sound that all people of a file share; none if it was not scored."""
    score = result["audio_score"]
    if score is None:
        return []
    verdict = verdict_words(label_of(score, result, "audio"))
    return [
        f"The {PART_NAMES['audio']} is scored once for all of them: {verdict}, {score:.2f}. Whose voice it is, is not known."
    ]
