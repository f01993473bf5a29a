"""The HTML overview of a `detect` run: one page for all files, of bounded size."""

import heapq
from collections import Counter
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path

from dataset_scripts.files import write_whole
from dataset_scripts.text_files import printable

from ...casefile.captions import Plot, disagreement_plot, people_plot, timeline_plot
from ...casefile.facts import detector_facts, utc
from ...casefile.pages import template
from ...explain.people import NUMBERS, describe_people
from ...explain.words import WHAT_IT_IS_NOT, calibration, capital, deciding, headline, part_rows, verdict_line
from ...inference.credentials import describe_credentials, has_credentials
from ...inference.provenance import environment
from ...pipeline_avd import AVDeepfakeDetectionPipeline
from .inputs import Survey

MOST_FILES = 500
"""Files on the page, those with the highest scores. As many unreadable ones are named."""


@dataclass
class FilePlot:
    """A figure of a file, drawn already: the result it shows is not kept."""

    title: str
    svg: str
    words: str


@dataclass
class FileEntry:
    """A file on the page."""

    name: str
    label: str
    headline: str
    score: float
    threshold: float
    duration: float
    parts: list[dict]
    words: str
    people: list[str]
    credentials: str | None
    warnings: list[str]
    decided_by: str | None
    plots: list[FilePlot]


class Overview:
    """
    The page of a run: takes results one by one, and is written at the end.

    Args:
        detector ([`AVDeepfakeDetectionPipeline`]): The detector that gives the results.
        found ([`Survey`]): Counts of what there was to look at.
    """

    def __init__(self, detector: AVDeepfakeDetectionPipeline, found: Survey):
        self.detector, self.found = detector, found
        self.counts: Counter = Counter()
        self.threshold: float | None = None
        self.unreadable: list[str] = []
        # A heap: the lowest score that is kept comes first. Of equal scores the first files stay.
        self._entries: list[tuple[float, int, FileEntry]] = []

    def add(self, file: str, result: dict) -> None:
        """Take the result of a file."""
        self.counts["files"] += 1
        self.threshold = result["threshold"] if self.threshold is None else self.threshold
        self.counts[result["label"] or "unreadable"] += 1
        if result["label"] is None:
            if len(self.unreadable) < MOST_FILES:
                told = describe_credentials(result["credentials"]) if has_credentials(result) else None
                line = result["error"]["message"] + (f" (content credentials: {told})" if told else "")
                self.unreadable.append(printable(line))
            return
        place = (result["score"], -self.counts["files"])
        full = len(self._entries) >= MOST_FILES
        if full and place < self._entries[0][:2]:
            return
        (heapq.heappushpop if full else heapq.heappush)(self._entries, (*place, self._entry(file, result)))

    def _entry(self, file: str, result: dict) -> FileEntry:
        config = deciding(self.detector, result).model.config
        warnings = [printable(text) for text in result["warnings"] if text != config.notice]
        if result["error"] is not None:
            warnings.append(f"Reading stopped: {printable(result['error']['message'])}")
        plots = []
        if len(result["windows"]) > 1:
            plots.append(_drawn(timeline_plot(result), 2.4))
        if plot := people_plot(result):
            plots.append(_drawn(plot, plot.height))
        if result.get("timeline"):
            plots.append(_drawn(disagreement_plot(result), 1.6))
        return FileEntry(
            name=printable(file),
            label=result["label"],
            headline=headline(result),
            score=result["score"],
            threshold=result["threshold"],
            duration=result["duration"],
            parts=part_rows(result),
            words=verdict_line(result, config),
            people=describe_people(result),
            credentials=printable(describe_credentials(result["credentials"]))
            if has_credentials(result)
            else None,
            warnings=warnings,
            decided_by=result.get("decided_by"),
            plots=plots,
        )

    def write(self, path: Path, stopped: bool = False) -> None:
        """Write the page; `stopped` tells that files are missing from it."""
        rows = [row for *_, row in sorted(self._entries, key=lambda entry: entry[:2], reverse=True)]
        detectors = [self.detector, *([self.detector.gate.detector] if self.detector.gate else [])]
        notices = dict.fromkeys(d.model.config.notice for d in detectors if d.model.config.notice)
        threshold = self.threshold if self.threshold is not None else self.detector.model.config.threshold
        page = template("detect.html").render(
            counts=self.counts,
            total=self.found.files,
            stopped=stopped,
            others=self.found.others.total(),
            unlisted=[capital(line) for line in self.found.unlisted],
            notices=[capital(notice) for notice in notices],
            rows=rows,
            numbers=NUMBERS if any(len(row.people) > 1 for row in rows) else None,
            left_out=self.counts["files"] - self.counts["unreadable"] - len(rows),
            unreadable=self.unreadable,
            calibration=calibration(self.detector.model.config),
            what_it_is_not=WHAT_IT_IS_NOT,
            detector=detector_facts(self.detector, {"threshold": threshold}),
            software=[(name, str(value)) for name, value in environment().items()],
            time=utc(datetime.now(timezone.utc)),
        )
        write_whole(path, page)


def _drawn(plot: Plot, height: float) -> FilePlot:
    return FilePlot(plot.title, replace(plot, width=8.6, height=height).svg, plot.words)
