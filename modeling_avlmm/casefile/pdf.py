"""A case as PDF: pages set line by line with matplotlib, which draws the plots already."""

from __future__ import annotations

from datetime import datetime
from functools import lru_cache
from io import BytesIO
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib
from matplotlib.backends.backend_pdf import PdfPages
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.ft2font import LoadFlags
from matplotlib.image import imread
from matplotlib.lines import Line2D

from ..evaluation.plots import COLOURS
from ..explain.words import capital, how_attributed
from .figures import INK, PLAIN, THRESHOLD

if TYPE_CHECKING:
    from .case import Case, Plot

WIDTH, HEIGHT = 8.27, 11.69
"""A4, inches."""
LEFT, TOP, BOTTOM = 0.85, 0.8, 0.85
BODY, SMALL = 9.5, 8.0
LEADING = 1.45
DPI = 220
ACCENT = "#8f2d1b"
SIGNS = {"fake": "▲", "real": "○", "uncertain": "◇", None: "■"}


def write_pages(case: Case, path: Path) -> None:
    """Writes the pages of a case; see [`write_pdf`]."""
    about = {
        "Title": drawable(f"Case report: {case.name}"),
        "CreationDate": datetime.fromisoformat(case.time.replace("Z", "+00:00")),
    }
    with (
        matplotlib.rc_context({**PLAIN, "font.family": "DejaVu Sans"}),
        PdfPages(path, metadata=about) as pdf,
    ):
        pages = _Pages(pdf, case)
        _verdict(pages, case)
        if case.plots:
            pages.heading("Over time")
            for plot in case.plots:
                pages.plot(plot)
        if case.attribution:
            _attribution(pages, case)
        if case.conversation:
            pages.heading("Questions and answers")
            pages.text(
                "Answers of a language model. They can be fluent and wrong; none of them is a finding of its own.",
                SMALL,
            )
            for who, said in case.conversation:
                pages.text(who, SMALL, colour=THRESHOLD, keep=3)
                for line in said.splitlines():
                    pages.text(line)
        for title, rows in (
            ("The file", case.file),
            ("The detector", case.detector),
            ("The software", case.software),
        ):
            pages.heading(title)
            for name, value in rows:
                pages.row(name, value)
        pages.close()


def _verdict(pages: _Pages, case: Case) -> None:
    result = case.result
    pages.text(case.name, 15, bold=True)
    pages.space(0.06)
    if case.notice:
        pages.text(f"Before you read on: {case.notice}.", BODY, colour=ACCENT, bold=True)
        pages.space(0.06)
    pages.text(
        f"{SIGNS[result['label']]} {case.headline}",
        19,
        colour=ACCENT if result["label"] == "fake" else INK,
    )
    if result["score"] is not None:
        pages.text(
            f"score {result['score']:.3f}, threshold {result['threshold']:.3f}", BODY, colour=THRESHOLD
        )
    pages.space(0.1)
    for row in case.parts:
        pages.score(row)
    pages.heading("What this means, and what it does not")
    for line in case.meaning[1 if case.notice else 0 :]:
        pages.text(line)
        pages.space(0.05)
    if case.warnings:
        pages.heading("What was odd about the file")
        for line in case.warnings:
            pages.text(f"• {capital(line)}")


def _attribution(pages: _Pages, case: Case) -> None:
    found = case.attribution
    pages.heading("What the detector reacted to")
    pages.text(how_attributed(found))
    for plot in case.attribution_plots:
        pages.plot(plot, plot.title)
    pages.text("What this can and cannot show", BODY, bold=True, keep=3)
    for line in found.limits:
        pages.text(f"• {line}")


class _Pages:
    """A cursor that goes down the page, and on to the next."""

    def __init__(self, pdf: PdfPages, case: Case):
        self.pdf, self.case, self.number, self.figure = pdf, case, 0, None
        self._next()

    def _next(self) -> None:
        self._finish()
        self.number += 1
        self.figure = Figure(figsize=(WIDTH, HEIGHT), facecolor="white")
        self.y = HEIGHT - TOP
        self._at(LEFT, HEIGHT - 0.5, "Case report: audio-visual deepfake detection", SMALL, THRESHOLD)
        self._at(WIDTH - LEFT, HEIGHT - 0.5, self.case.time, SMALL, THRESHOLD, ha="right")
        self._line(HEIGHT - 0.57, INK, 1.0)

    def _finish(self) -> None:
        if self.figure is None:
            return
        mark = (
            f"SHA-256 {self.case.sha256}"
            if self.case.sha256
            else "no SHA-256: what was looked at is no file here"
        )
        self._at(LEFT, 0.45, mark, 6.5, THRESHOLD)
        self._at(WIDTH - LEFT, 0.45, f"page {self.number}", SMALL, THRESHOLD, ha="right")
        self.pdf.savefig(self.figure)
        self.figure = None

    def close(self) -> None:
        self._finish()

    def _at(self, x: float, y: float, text: str, size: float, colour: str = INK, **options) -> None:
        self.figure.text(
            x / WIDTH, y / HEIGHT, drawable(text), fontsize=size, color=colour, va="baseline", **options
        )

    def _line(
        self, y: float, colour: str, width: float, x: tuple[float, float] = (LEFT, WIDTH - LEFT)
    ) -> None:
        self.figure.add_artist(
            Line2D([x[0] / WIDTH, x[1] / WIDTH], [y / HEIGHT] * 2, color=colour, linewidth=width)
        )

    def need(self, inches: float) -> None:
        """Goes to the next page where less than this is left."""
        if self.y - inches < BOTTOM:
            self._next()

    def space(self, inches: float) -> None:
        self.y -= inches

    def heading(self, text: str) -> None:
        self.need(1.2)
        self.space(0.22)
        self._line(self.y + 0.06, "#c5cbd0", 0.6)
        self.space(0.16)
        self._at(LEFT, self.y, text, 12, fontweight="bold")
        self.space(0.1)

    def text(
        self,
        text: str,
        size: float = BODY,
        colour: str = INK,
        bold: bool = False,
        x: float = LEFT,
        keep: int = 1,
    ) -> None:
        """A paragraph, broken where the line ends; `keep` lines stay on one page."""
        step = size * LEADING / 72
        self.need(keep * step)
        for line in broken(text, WIDTH - LEFT - x, size, bold):
            self.need(step)
            self.y -= step
            self._at(x, self.y + 0.3 * size / 72, line, size, colour, fontweight="bold" if bold else "normal")

    def row(self, name: str, value: str) -> None:
        """A name and its value beside it."""
        step = SMALL * LEADING / 72
        begin = LEFT + 1.75
        lines = broken(value, WIDTH - LEFT - begin, SMALL)
        self.need(step)
        for number, line in enumerate(lines):
            self.need(step)
            self.y -= step
            if number == 0:
                self._at(LEFT, self.y, name, SMALL, THRESHOLD)
            self._at(begin, self.y, line, SMALL)

    def score(self, row: dict) -> None:
        """A part's score on its scale, and what it means."""
        words = broken(row["meaning"], WIDTH - LEFT - 4.35, SMALL)
        height = max(0.3, len(words) * SMALL * LEADING / 72 + 0.1)
        self.need(height)
        middle = self.y - 0.12
        self._at(LEFT, middle - 0.04, row["title"], BODY)
        if row["score"] is not None:
            self._at(LEFT + 1.55, middle - 0.04, f"{row['score']:.3f}", BODY, ha="right")
            begin, end = LEFT + 1.75, LEFT + 3.3
            self._line(middle, THRESHOLD, 0.8, (begin, end))
            at = begin + (end - begin) * row["threshold"]
            self.figure.add_artist(
                Line2D(
                    [at / WIDTH] * 2,
                    [(middle - 0.07) / HEIGHT, (middle + 0.07) / HEIGHT],
                    color=INK,
                    linewidth=1.2,
                )
            )
            at = begin + (end - begin) * row["score"]
            self.figure.add_artist(
                Line2D(
                    [at / WIDTH], [middle / HEIGHT], marker="o", markersize=5.5, color=COLOURS[row["part"]]
                )
            )
        for number, line in enumerate(words):
            self._at(4.35, middle - 0.04 - number * SMALL * LEADING / 72, line, SMALL)
        self.y -= height

    def plot(self, plot: Plot, title: str | None = None) -> None:
        """A plot as wide as the page allows, with its caption."""
        scale = min(1.0, (WIDTH - 2 * LEFT) / plot.width)
        width, height = plot.width * scale, plot.height * scale
        caption = f"{plot.caption} {plot.words}"
        lines = broken(caption, WIDTH - 2 * LEFT, SMALL)
        self.need(height + len(lines) * SMALL * LEADING / 72 + (0.4 if title else 0.1))
        if title:
            self.space(0.12)
            self.text(title, BODY, bold=True)
        # As a picture: matplotlib lays out a figure by itself, not a part of a page.
        drawn = Figure(figsize=(plot.width, plot.height), dpi=DPI, layout="constrained", facecolor="white")
        plot.draw(drawn)
        pixels = BytesIO()
        drawn.savefig(pixels, format="png", facecolor="white")
        pixels.seek(0)
        at = (LEFT / WIDTH, (self.y - height) / HEIGHT, width / WIDTH, height / HEIGHT)
        axes = self.figure.add_axes(at)
        axes.imshow(imread(pixels), aspect="auto", interpolation="antialiased")
        axes.set_axis_off()
        self.y -= height
        self.text(caption, SMALL, colour=THRESHOLD)
        self.space(0.08)


def broken(text: str, width: float, size: float, bold: bool = False) -> list[str]:
    """Lines of a text that are at most `width` inches wide; a word that is wider is broken, like a hash."""
    most = width * 72 / size
    lines, line, used = [], "", 0.0
    for word in drawable(text).split():
        taken = sum(_advance(c, bold) for c in word)
        if line and used + _advance(" ", bold) + taken <= most:
            line, used = f"{line} {word}", used + _advance(" ", bold) + taken
            continue
        if line:
            lines.append(line)
        line, used = word, taken
        while used > most and len(line) > 1:
            fitting = sum(end <= most for end in accumulate(_advance(c, bold) for c in line)) or 1
            lines.append(line[:fitting])
            line = line[fitting:]
            used = sum(_advance(c, bold) for c in line)
    return [*lines, line]


@lru_cache(maxsize=4096)
def _advance(letter: str, bold: bool) -> float:
    """How far a letter moves the pen, as a fraction of the size."""
    font = get_font(findfont(FontProperties(family="DejaVu Sans", weight="bold" if bold else "normal")))
    font.set_size(100, 72)
    return font.load_char(ord(letter), flags=LoadFlags.NO_HINTING).linearHoriAdvance / 65536 / 100


@lru_cache
def _known() -> frozenset[int]:
    return frozenset(get_font(findfont("DejaVu Sans")).get_charmap())


def drawable(text: str) -> str:
    """A text that the font of the pages has: other characters as their number, as in `\\u4e2d`; the HTML report has them."""
    return "".join(c if ord(c) in _known() else c.encode("unicode_escape").decode() for c in text)
