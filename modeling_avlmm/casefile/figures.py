"""The figures of a case, drawn with matplotlib and turned into SVG that takes the colours of its page."""

import re
from collections.abc import Callable
from io import StringIO

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure, SubFigure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from ..evaluation.plots import COLOURS, FAKE, STYLE
from ..explain.attribution import Attribution
from ..explain.people import Person
from ..explain.words import PART_NAMES, clock, threshold_in
from .people import colour_of

INK, PAPER, THRESHOLD = "#1c2834", "#fefefd", "#5d6d7f"
"""Placeholders for colours of the page. They are odd values, so that no other colour is replaced by accident."""
DASHES = {"overall": "-", "video": "--", "audio": ":"}
MARKS = {"overall": "o", "video": "s", "audio": "^"}
PLAIN = {
    **STYLE,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.facecolor": "none",
    "xtick.color": INK,
    "ytick.color": INK,
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
    "text.parse_math": False,  # file names may hold a dollar sign
}
MOST_POINTS = 400
"""Windows that a timeline draws. Of more, it draws the highest of each group of neighbours."""
LEAST_COLOUR = {"score": 0.05, "log_odds": 0.2}
"""A map whose changes are all smaller than this stays pale, so that noise does not look like a finding."""

Draw = Callable[[Figure | SubFigure], None]


def svg(draw: Draw, width: float, height: float) -> str:
    """
    Return a figure as SVG whose ink and score colours are variables of the page's style.

    Args:
        draw (`Callable`): Draws on a matplotlib figure.
        width, height (`float`): Inches.
    """
    with matplotlib.rc_context(PLAIN):
        figure = Figure(figsize=(width, height), layout="constrained")
        draw(figure)
        text = StringIO()
        figure.savefig(
            text, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None}
        )
    drawn = "".join(text.getvalue().partition("<svg")[1:])
    drawn = re.sub(r"<metadata>.*?</metadata>", "", drawn, flags=re.S)
    names = {
        INK: "ink",
        PAPER: "paper",
        THRESHOLD: "muted",
        **{colour: part for part, colour in COLOURS.items()},
    }
    for colour, name in names.items():
        drawn = drawn.replace(colour, f"var(--{name})")
    return drawn.replace("<svg ", '<svg aria-hidden="true" focusable="false" ', 1)


def draw_timeline(figure: Figure | SubFigure, result: dict) -> None:
    """Draw the scores of every window over time, with the threshold and the band of uncertain scores."""
    axes = figure.subplots()
    windows = result["windows"]
    for part, name in (("overall", "score"), ("video", "video_score"), ("audio", "audio_score")):
        scored = [(w["start"], w["end"], w[name]) for w in windows if w[name] is not None]
        if not scored:
            continue
        scored = _thinned(scored)
        times = [(start + end) / 2 for start, end, _ in scored]
        few = len(scored) <= 40
        axes.plot(
            times,
            [score for _, _, score in scored],
            color=COLOURS[part],
            linestyle=DASHES[part],
            marker=MARKS[part] if few else None,
            markersize=4,
            linewidth=1.8 if part == "overall" else 1.2,
            label="whole" if part == "overall" else PART_NAMES[part],
        )
    if band := result.get("abstain_band"):
        axes.axhspan(*band, color=THRESHOLD, alpha=0.15, linewidth=0)
    axes.axhline(result["threshold"], color=THRESHOLD, linewidth=1, linestyle=(0, (6, 3)))
    axes.annotate(
        f"threshold {result['threshold']:.2f}",
        (1, result["threshold"]),
        xycoords=("axes fraction", "data"),
        xytext=(0, 3),
        textcoords="offset points",
        ha="right",
        fontsize=7.5,
        color=THRESHOLD,
    )
    axes.set(ylim=(-0.03, 1.06), xlim=(0, windows[-1]["end"]), ylabel="score (1 = fake)")
    axes.set_yticks((0, 0.25, 0.5, 0.75, 1))
    _time_axis(axes, windows[-1]["end"])
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, borderaxespad=0.2, handlelength=3)


UNCERTAIN_COLOUR = "#b9770f"
MOST_NUMBERS = 16
"""Windows in a row of [`draw_people`] up to which each has its score written in it."""


def draw_people(figure: Figure | SubFigure, people: list[Person], result: dict) -> None:
    """Draw a row for each person: when they are seen, and the score of their picture in every window."""
    axes = figure.subplots()
    duration = result["duration"]
    limit = threshold_in(result, "video")
    for row, person in enumerate(people):
        floor = len(people) - 1 - row
        colour = colour_of(person.number)
        axes.plot(
            (person.start, person.end), (floor, floor), color=colour, linewidth=2.5, solid_capstyle="butt"
        )
        dashes = {"color": THRESHOLD, "linewidth": 0.8, "linestyle": (0, (4, 3))}
        if person.strongest:
            axes.plot((person.start, person.end), (floor + 0.8 * limit,) * 2, zorder=1, **dashes)
        for window in person.windows:
            if window["score"] is not None:
                _person_bar(axes, window, floor, numbered=len(person.windows) <= MOST_NUMBERS)
    names = [f"{person.number} {person.place}" if person.place else str(person.number) for person in people]
    axes.set_yticks([len(people) - 1 - row + 0.4 for row in range(len(people))], names)
    for tick in axes.get_yticklabels():
        tick.set_fontweight("bold")
    axes.set(ylim=(-0.1, len(people)), xlim=(0, duration))
    axes.tick_params(left=False)
    axes.grid(False)
    axes.spines["left"].set_visible(False)
    _time_axis(axes, duration)


def _person_bar(axes: Axes, window: dict, floor: int, numbered: bool) -> None:
    looks = {
        "fake": {"facecolor": FAKE, "alpha": 0.75, "hatch": "////", "edgecolor": "white"},
        "uncertain": {"facecolor": UNCERTAIN_COLOUR, "alpha": 0.7},
    }.get(window["label"], {"facecolor": THRESHOLD, "alpha": 0.35})
    length = window["end"] - window["start"]
    bar = {"width": 0.985 * length, "align": "edge", "bottom": floor, "linewidth": 0, "zorder": 2}
    axes.bar(window["start"], 0.8 * window["score"], **bar, **looks)
    if numbered:
        axes.annotate(
            f"{window['score']:.2f}",
            (window["start"] + length / 2, floor + 0.8 * window["score"]),
            xytext=(0, 1.5),
            textcoords="offset points",
            ha="center",
            fontsize=6.5,
        )


def draw_disagreement(figure: Figure | SubFigure, result: dict) -> None:
    """Draw how far picture and sound disagree, frame by frame."""
    axes = figure.subplots()
    line = _thinned([(point["time"], point["time"], point["disagreement"]) for point in result["timeline"]])
    times, _, values = zip(*line, strict=True)
    axes.fill_between(times, values, color=THRESHOLD, alpha=0.3)
    axes.plot(times, values, color=INK, linewidth=1)
    axes.set(ylim=(-0.03, 1.06), xlim=(0, max(result["duration"], times[-1])), ylabel="disagreement")
    axes.set_yticks((0, 0.5, 1))
    _time_axis(axes, result["duration"])


def _time_axis(axes: Axes, end: float) -> None:
    axes.xaxis.set_major_formatter(lambda seconds, _: clock(max(seconds, 0)).removesuffix(".0"))
    axes.set_xlabel("time (h:min:s)" if end >= 3600 else "time (min:s)")


def _thinned(scored: list[tuple[float, float, float]]) -> list[tuple[float, float, float]]:
    if len(scored) <= MOST_POINTS:
        return scored
    groups = np.array_split(np.arange(len(scored)), MOST_POINTS)
    return [max((scored[i] for i in group), key=lambda window: window[2]) for group in groups]


def full_colour(found: Attribution) -> float:
    """Return the change of a cell that is drawn in full colour."""
    return max(float(np.abs(found.picture).max()), LEAST_COLOUR[found.measure])


def draw_picture(figure: Figure | SubFigure, found: Attribution) -> None:
    """Draw the frames in grey, the change of the score in colour, and an outline around each step's strongest cell. Below a
    frame that is a crop, draw its place in the whole picture."""
    count = len(found.picture)
    rows = 1 if found.places is None else 2
    grid = figure.subplots(rows, count, squeeze=False, gridspec_kw={"height_ratios": (6, 1)[:rows]})
    for step in range(count):
        _step_picture(grid[0, step], found, step)
        if found.places is not None:
            _whole_picture(grid[1, step], found.places[step], found.aspect)


def _whole_picture(axes: Axes, place: np.ndarray, aspect: float) -> None:
    """Draw the outline of the whole picture and a box at the place of a crop."""
    left, top, right, bottom = (float(side) for side in place)
    axes.add_patch(Rectangle((0, 0), 1, 1, fill=False, edgecolor=THRESHOLD, linewidth=1, clip_on=False))
    axes.add_patch(Rectangle((left, top), right - left, bottom - top, facecolor=THRESHOLD, linewidth=0))
    axes.set(xlim=(0, 1), ylim=(1, 0), xticks=(), yticks=(), aspect=1 / aspect)
    axes.spines[:].set_visible(False)
    axes.grid(False)


def _step_picture(axes: Axes, found: Attribution, step: int) -> None:
    _, rows, columns = found.picture.shape
    largest = full_colour(found)
    height, width = found.frames.shape[1:3]
    grey = found.frames[step].astype(float) @ (0.299, 0.587, 0.114)
    axes.imshow(
        grey / 255,
        cmap="gray",
        vmin=0,
        vmax=1.25,
        extent=(0, columns, rows, 0),
        aspect=height / width * columns / rows,
    )
    overlay = np.zeros((rows, columns, 4))
    for r in range(rows):
        for c in range(columns):
            value = np.clip(found.picture[step, r, c] / largest, -1, 1)
            overlay[r, c] = to_rgba("#e66101" if value > 0 else "#5e3c99", min(0.75, abs(value) * 0.75))
    axes.imshow(
        overlay,
        extent=(0, columns, rows, 0),
        aspect=height / width * columns / rows,
        interpolation="nearest",
    )
    r, c = np.unravel_index(found.picture[step].argmax(), (rows, columns))
    axes.set_title(clock(found.frame_times[step]), fontsize=9)
    if found.picture[step, r, c] > 0:
        axes.add_patch(Rectangle((c, r), 1, 1, fill=False, edgecolor="white", linewidth=2.6))
        axes.add_patch(Rectangle((c, r), 1, 1, fill=False, edgecolor="black", linewidth=1.1))
        axes.set_xlabel(f"largest {found.picture[step, r, c]:+.3f}\nrow {r + 1}, column {c + 1}", fontsize=8)
    else:
        axes.set_xlabel("nothing lowers it", fontsize=8)
    axes.set(xticks=(), yticks=())
    axes.spines[:].set_visible(False)
    axes.grid(False)


def draw_sound(figure: Figure | SubFigure, found: Attribution) -> None:
    """Draw the change of the score without a band of a passage, and above it without the whole passage."""
    top, axes = figure.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": (1, 2.4)})
    steps = len(found.times)
    edges = np.linspace(found.start, found.end, steps + 1)
    if steps > 1:
        half = (found.times[1] - found.times[0]) / 2
        edges = np.concatenate([found.times - half, [found.times[-1] + half]])
    top.bar(found.times, found.passages, np.diff(edges) * 0.92, color=COLOURS["audio"])
    top.axhline(0, color=INK, linewidth=0.8)
    covering = found.method == "occlusion"
    top.set_ylabel("silenced" if covering else "passage", fontsize=8)
    largest = max(float(np.abs(found.sound).max()), LEAST_COLOUR[found.measure])
    places = np.arange(len(found.sound) + 1)
    drawn = axes.pcolormesh(edges, places, found.sound, cmap="PuOr_r", vmin=-largest, vmax=largest)
    drawn.set_rasterized(True)
    ticks = [f"{hz / 1000:g}" for hz in found.band_edges_hz]
    axes.set_yticks(places, ticks, fontsize=7.5)
    axes.set(ylabel="kHz", xlabel="time (min:s)")
    axes.xaxis.set_major_formatter(lambda seconds, _: clock(max(seconds, 0)))
    band, step = np.unravel_index(found.sound.argmax(), found.sound.shape)
    if found.sound[band, step] > 0:
        corner, width = (edges[step], places[band]), edges[step + 1] - edges[step]
        # Dark on light, as the map keeps its colours on a dark page.
        for colour, line in (("white", 2.6), ("black", 1.2)):
            axes.add_patch(Rectangle(corner, width, 1, fill=False, edgecolor=colour, linewidth=line))
    axes.grid(False)
    figure.colorbar(drawn, ax=axes, label="drop" if covering else "share", pad=0.01)


def draw_ranking(
    figure: Figure | SubFigure,
    values: dict[str, float],
    names: dict[str, str],
    axis: str = "drop when covered",
) -> None:
    """Draw values as bars with their numbers, the largest on top."""
    axes = figure.subplots()
    places = np.arange(len(values))[::-1]
    axes.barh(
        places,
        list(values.values()),
        color=["#e66101" if v > 0 else "#5e3c99" for v in values.values()],
        height=0.62,
    )
    axes.set_yticks(places, [names.get(name, name) for name in values])
    axes.axvline(0, color=INK, linewidth=0.8)
    low, high = min(0.0, *values.values()), max(0.0, *values.values())
    room = max(high - low, 1e-12) * 0.22
    axes.set_xlim(low - room, high + room)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    for place, value in zip(places, values.values(), strict=True):
        axes.annotate(
            f"{value:+.3f}",
            (value, place),
            xytext=(4 if value >= 0 else -4, 0),
            textcoords="offset points",
            va="center",
            ha="left" if value >= 0 else "right",
            fontsize=8,
        )
    axes.grid(False)
    axes.spines["left"].set_visible(False)
    axes.tick_params(left=False)
    axes.set_xlabel(axis)
