"""Scores of a file from those of its windows, and of the faces in them."""

from __future__ import annotations

from collections.abc import Mapping

from .configuration_detector import LOG_ODDS_NAMES, SCORE_NAMES
from .media_windows import LogOddsOverTime, MeanOverTime

SHORT_SECONDS = 0.5
"""A face that is there for less decides about a file only where no other is there for longer; our own choice."""

Scores = dict[str, float | None]


def most_suspicious(rows: list[dict]) -> dict:
    """Return the row with the highest `score`; of equal ones, that with the highest `video_score`."""
    return max(rows, key=suspicion)


def suspicion(scores: Mapping[str, float | None]) -> tuple[float, float]:
    """Return the key by which faces are ranked: the clip's score with this face, then that of the face alone."""
    overall, seen = scores["score"], scores["video_score"]
    return (-1.0 if overall is None else overall, -1.0 if seen is None else seen)


class RunningScores:
    """The mean over time and the largest of each score, and of its log-odds where these are known, in bounded memory."""

    def __init__(self) -> None:
        self._means = {name: MeanOverTime() for name in SCORE_NAMES.values()}
        self._largest: Scores = dict.fromkeys([*self._means, *LOG_ODDS_NAMES.values()])
        self._log_odds = {name: LogOddsOverTime() for name in LOG_ODDS_NAMES.values()}
        self.start: float | None = None
        self.end = 0.0

    def add(self, start: float, end: float, scores: Mapping[str, float | None]) -> None:
        """Take the scores of a window, in the order of the windows' starts."""
        self.start = start if self.start is None else self.start
        self.end = max(self.end, end)
        for name, mean in self._means.items():
            if scores[name] is not None:
                mean.add(start, end, scores[name])
                self._keep_largest(name, scores[name])
        for part, name in LOG_ODDS_NAMES.items():
            if scores[SCORE_NAMES[part]] is None or name not in self._log_odds:
                continue
            if scores.get(name) is None:  # then those of the file are not known either
                del self._log_odds[name]
                self._largest[name] = None
            else:
                self._log_odds[name].add(start, end, scores[name])
                self._keep_largest(name, scores[name])

    def _keep_largest(self, name: str, value: float) -> None:
        largest = self._largest[name]
        self._largest[name] = value if largest is None else max(largest, value)

    @property
    def seconds(self) -> float:
        """Time from the start of the first window to the end of the last."""
        return 0.0 if self.start is None else self.end - self.start

    def values(self, how: str) -> Scores:
        """Return the scores: `how` is `"mean"` over time, or `"max"`."""
        if how == "max":
            return dict(self._largest)
        values = {name: mean.value for name, mean in self._means.items()}
        known = {name: mean.value for name, mean in self._log_odds.items()}
        return values | dict.fromkeys(LOG_ODDS_NAMES.values()) | known


class FileScores:
    """
    Scores of a file, put together window by window in bounded memory.

    A row is one pass of the network: a window, or with faces one face in a window. The file's `video_score` and `score` are
    those of its most suspicious face, whose windows count by the time for which it is there. Faces share the sound:
    `audio_score` comes from all windows. Without a face that was scored, all three come from all windows.

    Args:
        independent_parts (`bool`): Whether `score` is that of the more suspicious part, see
            [`AVDetectorConfig.independent_parts`].
    """

    def __init__(self, independent_parts: bool):
        self.independent_parts = independent_parts
        self.whole = RunningScores()
        self.faces: dict[int, RunningScores] = {}

    def add(self, rows: list[dict]) -> dict:
        """
        Take the rows of the next window, and return the most suspicious one.

        Args:
            rows (`list[dict]`): `start` and `end` in seconds and the three scores; with faces also `face` (the face's number,
                None without one), `seen_from` and `seen_to`.
        """
        worst = most_suspicious(rows)
        self.whole.add(worst["start"], worst["end"], worst)
        for row in rows:
            face = row.get("face")
            if face is not None and row["score"] is not None:
                scores = self.faces.setdefault(face, RunningScores())
                scores.add(row["seen_from"], row["seen_to"], row)
        return worst

    def of_face(self, face: int, how: str = "mean") -> Scores:
        """Return the scores of a face and of the sound that it shares; all None for one that was not scored."""
        if face not in self.faces:
            return dict.fromkeys([*SCORE_NAMES.values(), *LOG_ODDS_NAMES.values()])
        return self._with_sound(face, self.whole.values(how), how)

    def _with_sound(self, face: int, heard: Scores, how: str) -> Scores:
        sound = {name: heard[name] for name in ("audio_score", "audio_log_odds")}
        return self._combined({**self.faces[face].values(how), **sound})

    def deciding_face(self, how: str = "mean") -> int | None:
        """Return the most suspicious face; None if none was scored."""
        heard = self.whole.values(how)
        lasting = [face for face, scores in self.faces.items() if scores.seconds >= SHORT_SECONDS]
        return max(
            lasting or self.faces,
            key=lambda face: (suspicion(self._with_sound(face, heard, how)), -face),
            default=None,
        )

    def forget(self, before: float, most: int) -> None:
        """Forget the faces that were gone `before` that many seconds, but for the `most` most suspicious ones.

        Nothing is done before twice as many have gathered.
        """
        gone = [face for face, scores in self.faces.items() if scores.end < before]
        if len(gone) < 2 * most:
            return
        kept = set()
        for how in ("mean", "max"):
            rank = {
                face: (self.faces[face].seconds >= SHORT_SECONDS, suspicion(self.of_face(face, how)))
                for face in gone
            }
            kept.update(sorted(gone, key=rank.__getitem__, reverse=True)[: most // 2])
        for face in set(gone) - kept:
            del self.faces[face]

    def of_file(self, how: str = "mean") -> Scores:
        """Return the file's scores."""
        face = self.deciding_face(how)
        return self._combined(self.whole.values(how)) if face is None else self.of_face(face, how)

    def _combined(self, scores: Scores) -> Scores:
        parts = [part for part in ("video", "audio") if scores[SCORE_NAMES[part]] is not None]
        if self.independent_parts and parts:
            scores["score"] = max(scores[SCORE_NAMES[part]] for part in parts)
            known = [scores[LOG_ODDS_NAMES[part]] for part in parts]
            scores["log_odds"] = None if None in known else max(known)
        return scores
