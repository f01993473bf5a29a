"""The scores of a recording that is still going on: a row for each window, and the verdict so far."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ..configuration_detector import SCORE_NAMES, AVDetectorConfig
from ..face_windows import FaceWindows, WindowFace
from ..media import Clip
from ..media_errors import NothingToScoreError
from ..pipeline_results import OVERFLOW, calibrated_scores, place_of, verdict
from ..pipeline_scores import FileScores, suspicion
from ..processing_clips import VerdictProcessor

BATCH = 4
"""Rows in a pass, if many are ready at once."""
MOST_FACES = 100
"""Faces that are remembered when they are gone: the most suspicious ones."""
TOLD_FACES = 20
"""Faces in a summary."""
NO_NUMBER = f"the network gave no number for some windows: {OVERFLOW}"
NO_FACE = "in some windows no face was found that is large enough: their picture was not scored"

Scores = dict[str, list[float | None]]


class StreamScores:
    """
    Scores of the windows of one recording, in bounded memory.

    Args:
        score (`Callable`): Function from a batch to columns of P(fake).
        config ([`AVDetectorConfig`]): The detector's configuration.
        processor ([`VerdictProcessor`]): Its processor.
        warnings (`list[str]`): Gets what is to be told, each text once.
    """

    def __init__(
        self,
        score: Callable[[Mapping], Scores],
        config: AVDetectorConfig,
        processor: VerdictProcessor,
        warnings: list[str],
    ):
        self._score, self.config, self.processor = score, config, processor
        self.warnings = warnings
        self.people: FaceWindows | None = processor.face_windows()
        self.scores = FileScores(config.independent_parts)
        self.count, self.seconds, self.faces = 0, 0.0, 0

    def add(self, clips: Iterable[Clip]) -> list[dict]:
        """Score the next windows, and return a row for each."""
        results, waiting, rows = [], [], 0
        for clip in clips:
            self.count, self.seconds = self.count + 1, clip.end
            waiting.append(self._rows(clip))
            rows += len(waiting[-1])
            if rows >= BATCH:
                results += self._judge(waiting)
                waiting, rows = [], 0
        return results + self._judge(waiting)

    def _rows(self, clip: Clip) -> list[dict]:
        """Return what the network takes of a window: the window, or a row for each face in it."""
        faces: list[WindowFace | None] = [None]
        if self.people is not None:
            chosen, notes = self.people.choose(clip)
            faces = list(chosen) or faces
            if notes:
                self._tell(NO_FACE)
        rows = []
        for face in faces:
            row = {"start": clip.start, "end": clip.end, **place_of(face)}
            row |= dict.fromkeys(SCORE_NAMES.values())
            if face is not None:
                row["box"] = _box(face, clip)
            part = clip if self.people is None else self.processor.part(clip, face)
            with contextlib.suppress(NothingToScoreError):  # the row stays without scores
                row["encoded"] = self.processor.encode(part)
            rows.append(row)
        return rows

    def _judge(self, windows: list[list[dict]]) -> list[dict]:
        judged = [row for rows in windows for row in rows if "encoded" in row]
        if judged:
            columns = self._score(self.processor.collate([row.pop("encoded") for row in judged]))
            for place, row in enumerate(judged):
                row.update({name: column[place] for name, column in columns.items()})
                if row["score"] is None:
                    self._tell(NO_NUMBER)
        return [self._result(rows) for rows in windows]

    def _result(self, rows: list[dict]) -> dict:
        """Return the row of a window, and forget the faces that are long gone."""
        worst = self.scores.add(rows)
        result = {"start": worst["start"], "end": worst["end"], **calibrated_scores(worst, self.config)}
        if self.people is None:
            return result
        shown = sorted((row for row in rows if "face" in row), key=suspicion, reverse=True)
        result["faces"] = [
            {
                "index": row["face"],
                **{name: calibrated_scores(row, self.config)[name] for name in ("video_score", "score")},
                "box": row["box"],
            }
            for row in shown
        ]
        self.faces = max([self.faces, *(1 + face for face in self.people.found.faces)])
        gone = worst["start"] - self.processor.max_seconds
        self.people.found.forget(gone)
        self.scores.forget(gone, MOST_FACES)
        return result

    def _tell(self, text: str) -> None:
        if text not in self.warnings:
            self.warnings.append(text)

    def summary(self) -> dict[str, Any]:
        """Return the verdict so far; see [`StreamingDetector.summary`]."""
        largest = calibrated_scores(self.scores.of_file("max"), self.config)
        return {
            **verdict(self.scores.of_file(), self.config),
            **{f"max_{name}": value for name, value in largest.items()},
            "windows": self.count,
            "seconds": self.seconds,
            **({} if self.people is None else {"faces": self._faces(), "faces_found": self.faces}),
            "warnings": list(dict.fromkeys(self.warnings)),
        }

    def _faces(self) -> list[dict]:
        raw = {face: self.scores.of_face(face) for face in self.scores.faces}
        worst = sorted(raw, key=lambda face: suspicion(raw[face]), reverse=True)[:TOLD_FACES]
        return [
            {
                "index": face,
                "start": self.scores.faces[face].start,
                "end": self.scores.faces[face].end,
                **{
                    name: calibrated_scores(raw[face], self.config)[name] for name in ("video_score", "score")
                },
            }
            for face in worst
        ]


def _box(face: WindowFace, clip: Clip) -> list[float]:
    """Return where a face is last seen in a window, as fractions of the picture's width and height."""
    height, width = clip.frames.shape[-2:]
    times = clip.timestamps.numpy() + clip.start
    box = face.track.box_at(times[face.track.covers(times)][-1:])[0]
    return [round(float(side), 4) for side in box / [width, height, width, height]]
