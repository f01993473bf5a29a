"""The figures of a case, each with a title, a caption and a description in words."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np

from ..explain.attribution import Attribution
from ..explain.people import fake_passages, most_suspicious, people_of, person_at
from ..explain.regions import BAND_NAMES, REGION_NAMES
from ..explain.words import capital, clock, describe_disagreement, describe_windows
from .figures import (
    Draw,
    draw_disagreement,
    draw_people,
    draw_picture,
    draw_ranking,
    draw_sound,
    draw_timeline,
    full_colour,
    svg,
)
from .people import MOST_LISTED

LAYOUTS = {
    "landmarks": ", placed by the landmarks of the face",
    "box": ", under a fixed layout of the given face box",
    "frame": ", under a fixed layout of a face crop",
}
"""End of a caption about regions, by what they are placed by."""
WIDE, NARROW = 7.4, 5.2
"""Widths of figures, inches."""


@dataclass
class Plot:
    """
    A figure of a report.

    Attributes:
        title, caption (`str`): What it shows.
        words (`str`): The same in words, for readers who do not see it.
        draw (`Callable`): Draws it on a matplotlib figure.
        width, height (`float`): Inches.
    """

    title: str
    caption: str
    words: str
    draw: Draw
    width: float
    height: float

    @property
    def svg(self) -> str:
        """The figure as SVG, in the colours of the page it stands on."""
        return svg(self.draw, self.width, self.height)


def timeline_plot(result: dict) -> Plot:
    """Plot the scores of a file's windows over time."""
    return Plot(
        "Over time",
        "Score of each window. Solid with circles: the whole; dashed with squares: the picture; dotted with triangles: the sound."
        + (" Grey: scores without a verdict on the whole." if result.get("abstain_band") else ""),
        describe_windows(result),
        partial(draw_timeline, result=result),
        WIDE,
        2.6,
    )


def people_plot(result: dict) -> Plot | None:
    """Plot who is suspicious when, one row a person; None unless a person with a score is followed over several windows."""
    people = most_suspicious(people_of(result) or [], MOST_LISTED)
    if not any(person.strongest for person in people) or (len(people) == 1 and len(people[0].windows) == 1):
        return None
    return Plot(
        "Who is suspicious when",
        "A row for each person, named by number. The line at its foot: when the face is seen; bars: the score of its picture in "
        "each window; hatched: called fake; dashes: called fake from here.",
        " ".join(fake_passages(person) for person in people),
        partial(draw_people, people=people, result=result),
        WIDE,
        0.75 + 0.5 * len(people),
    )


def disagreement_plot(result: dict) -> Plot:
    """Plot how far picture and sound disagree over time, for a detector that compares them."""
    return Plot(
        "Picture against sound",
        "How far the picture of each frame disagrees with the sound of its moment.",
        describe_disagreement(result),
        partial(draw_disagreement, result=result),
        WIDE,
        1.8,
    )


def attribution_plots(found: Attribution, result: dict) -> list[Plot]:
    """
    Plot the maps and rankings of an attribution: picture and face regions, sound and frequency bands.

    Args:
        found ([`Attribution`]): The attribution.
        result (`dict`): The pipeline's result, for the names of people.
    """
    plots = []
    if found.picture is not None:
        plots += [
            _picture_plot(found, result),
            _ranking_plot(found, "By region of the face", found.regions, REGION_NAMES),
        ]
    if found.sound is not None:
        plots += [_sound_plot(found), _ranking_plot(found, "By band of the sound", found.bands, BAND_NAMES)]
    return plots


def _picture_plot(found: Attribution, result: dict) -> Plot:
    count, rows, columns = found.picture.shape
    step, r, c = _strongest(found.picture)
    height, width = found.frames.shape[1:3]
    colours = (
        f"Orange: the {_falls(found)} without this cell; purple: the opposite."
        if _covering(found)
        else "Orange: this cell raised the log-odds; purple: it lowered them."
    )
    if found.places is not None:
        person = person_at(result, found.frame_times, found.places)
        name = "a face" if person is None else person.name
        colours = f"Frames are cut out around {name}; below each, its place in the whole picture. {colours}"
    place = f"at {clock(found.frame_times[step])}, row {r + 1} of {rows} from the top and column {c + 1} of {columns} from the left"
    return Plot(
        "In the picture",
        f"{colours} The outlined cell is the strongest of its step; full colour is a change of {full_colour(found):.3f}.",
        _largest(found, found.picture[step, r, c], place, "cell"),
        partial(draw_picture, found=found),
        WIDE if count > 1 else 3.2,
        min(4.2, 7.0 / max(count, 2) * height / width + 0.75) + (0 if found.places is None else 0.7),
    )


def _sound_plot(found: Attribution) -> Plot:
    band, step = _strongest(found.sound)
    low, high = found.band_edges_hz[band : band + 2]
    place = f"between {low:.0f} and {high:.0f} Hz around {clock(found.times[step])}"
    caption = (
        f"Below, how far the {_falls(found)} without a band of frequencies in a passage (the outlined one most); above, without "
        "the whole passage."
        if _covering(found)
        else "Below, how far each band of frequencies in a passage moved the log-odds (the outlined one most); above, all of "
        "the passage."
    )
    words = _largest(found, found.sound[band, step], place, "band of a passage")
    return Plot("In the sound", caption, words, partial(draw_sound, found=found), WIDE, 3.4)


def _ranking_plot(found: Attribution, title: str, values: dict[str, float], names: dict[str, str]) -> Plot:
    regions = names is REGION_NAMES
    thing, layout = ("region", LAYOUTS[found.placed]) if regions else ("band", "")
    if _covering(found):
        gone = "covered" if regions else "taken out"
        caption = f"How far the {_falls(found)} when a {thing} is {gone} all through{layout}."
        axis = "drop when covered"
    else:
        caption = f"How far each {thing} moved the log-odds{layout or ', all through'}."
        axis = "share of the log-odds"
    words = ", ".join(f"{names.get(name, name)} {value:+.3f}" for name, value in values.items())
    draw = partial(draw_ranking, values=values, names=names, axis=axis)
    return Plot(title, caption, f"{capital(words)}.", draw, NARROW, 0.7 + 0.27 * len(values))


def _covering(found: Attribution) -> bool:
    return found.method == "occlusion"


def _falls(found: Attribution) -> str:
    return "score falls" if found.measure == "score" else "log-odds fall"


def _largest(found: Attribution, value: float, place: str, thing: str) -> str:
    if value <= 0:
        return f"There is no {thing} that raises it."
    return f"The largest {'drop' if _covering(found) else 'share'}, {value:+.3f}, is {place}."


def _strongest(values: np.ndarray) -> tuple[int, ...]:
    return tuple(int(index) for index in np.unravel_index(values.argmax(), values.shape))
