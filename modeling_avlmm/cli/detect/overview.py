"""One page for all files of a run, of bounded size however many there are."""

import heapq
from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from ...casefile.case import detector_facts, template
from ...casefile.figures import describe_timeline, draw_disagreement, draw_timeline, svg
from ...explain.words import (
    WHAT_IT_IS_NOT,
    calibration,
    capital,
    deciding,
    describe_disagreement,
    headline,
    part_rows,
    verdict_line,
)
from ...inference.provenance import environment
from ...pipeline_avd import AVDeepfakeDetectionPipeline
from .inputs import Survey, shown

MOST_FILES = 500
"""Files on a page, those with the highest scores; and unreadable ones that it names."""


@dataclass
class Row:
    """What a page keeps of a file; its timeline is drawn already."""

    name: str
    label: str
    headline: str
    score: float
    threshold: float
    duration: float
    parts: list[dict]
    words: str
    warnings: list[str]
    decided_by: str | None
    timeline: str | None
    timeline_words: str | None
    disagreement: str | None
    disagreement_words: str | None


class DetectReport:
    """
    Takes results one by one, and writes the page at the end.

    Args:
        detector ([`AVDeepfakeDetectionPipeline`]): Whose results they are.
        found ([`Survey`]): What there was to look at.
    """

    def __init__(self, detector: AVDeepfakeDetectionPipeline, found: Survey):
        self.detector, self.found = detector, found
        self.counts: Counter = Counter()
        self.threshold: float | None = None
        self.unreadable: list[str] = []
        # The lowest of those kept is on top. Of equal scores the first files stay.
        self._rows: list[tuple[float, int, Row]] = []

    def add(self, file: str, result: dict) -> None:
        """Takes a file's result."""
        self.counts["files"] += 1
        self.threshold = result["threshold"] if self.threshold is None else self.threshold
        self.counts[result["label"] or "unreadable"] += 1
        if result["label"] is None:
            if len(self.unreadable) < MOST_FILES:
                self.unreadable.append(shown(result["error"]["message"]))
            return
        place = (result["score"], -self.counts["files"])
        if len(self._rows) >= MOST_FILES and place < self._rows[0][:2]:
            return
        entry = (*place, self._row(file, result))
        (heapq.heappushpop if len(self._rows) >= MOST_FILES else heapq.heappush)(self._rows, entry)

    def _row(self, file: str, result: dict) -> Row:
        config = deciding(self.detector, result).model.config
        many, compared = len(result["windows"]) > 1, bool(result.get("timeline"))
        warnings = [shown(text) for text in result["warnings"] if text != config.notice]
        if result["error"] is not None:
            warnings.append(f"Reading stopped: {shown(result['error']['message'])}")
        return Row(
            name=shown(file),
            label=result["label"],
            headline=headline(result),
            score=result["score"],
            threshold=result["threshold"],
            duration=result["duration"],
            parts=part_rows(result),
            words=verdict_line(result, config),
            warnings=warnings,
            decided_by=result.get("decided_by"),
            timeline=svg(lambda figure: draw_timeline(figure, result), 8.6, 2.4) if many else None,
            timeline_words=describe_timeline(result) if many else None,
            disagreement=svg(lambda figure: draw_disagreement(figure, result), 8.6, 1.6)
            if compared
            else None,
            disagreement_words=describe_disagreement(result) if compared else None,
        )

    def write(self, path: Path, stopped: bool = False) -> None:
        """Writes the page; `stopped` says that files are missing from it."""
        rows = [row for *_, row in sorted(self._rows, key=lambda entry: entry[:2], reverse=True)]
        readable = self.counts["files"] - self.counts["unreadable"]
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
            left_out=readable - len(rows),
            unreadable=self.unreadable,
            calibration=calibration(self.detector.model.config),
            what_it_is_not=WHAT_IT_IS_NOT,
            detector=detector_facts(self.detector, {"threshold": threshold}),
            software=[(name, str(value)) for name, value in environment().items()],
            time=datetime.now(timezone.utc).isoformat(timespec="seconds").replace("+00:00", "Z"),
        )
        path.write_text(page, encoding="utf-8")
