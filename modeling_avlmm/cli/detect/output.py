"""Output of `detect`, written file by file: a table for people, JSON lines, CSV, and progress."""

import csv
import json
import sys
import time
from collections.abc import Callable, Collection, Iterator
from typing import TextIO

from tqdm import tqdm

from dataset_scripts.text_files import printable

from ...explain.people import most_suspicious, people_of, person_line
from ...explain.words import PART_NAMES, count_of, hours, no_verdict
from ...inference.credentials import describe_credentials, has_credentials
from ...pipeline_scores import suspicion
from .inputs import columns

MOST_PEOPLE = 10
"""People of a file that a table names."""
EVERY = 100
"""Files between two lines of progress when stderr is not a terminal."""

CSV_COLUMNS = (
    "file",
    "label",
    "score",
    "video_score",
    "audio_score",
    "log_odds",
    "video_log_odds",
    "audio_log_odds",
    "threshold",
    "duration",
    "has_video",
    "has_audio",
    "windows",
    "highest_window_start",
    "highest_window_end",
    "highest_window_score",
    "faces",
    "highest_face_start",
    "highest_face_end",
    "highest_face_score",
    "credentials",
    "warnings",
    "error",
)
OF_A_GATE = ("decided_by", "gate_score")
FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""Beginnings of a cell that a spreadsheet takes for a formula."""


class ResultLines:
    """A JSON object a line, with everything that the pipeline returns."""

    def __init__(self, write: Callable[[str], None]):
        self.write = write

    def add(self, file: str, result: dict) -> None:
        """Write a file's result."""
        self.write(json.dumps({"file": file, **result}))


WIDEST = 60
"""Columns that names are padded to at most: one very long name does not widen every line."""


class ResultTable:
    """
    A table for people. With a gate it names the detector behind each verdict.

    Args:
        write (`Callable`): Prints a line.
        width (`int`): Columns of the widest file name.
        gated (`bool`): Whether there is a gate.
        notices (`Collection[str]`): Warnings that every result has, and that were told already.
    """

    def __init__(self, write: Callable[[str], None], width: int, gated: bool, notices: Collection[str] = ()):
        self.write, self.width, self.gated, self.notices = write, min(width, WIDEST), gated, notices
        self._line("file", "verdict", "score", PART_NAMES["video"], PART_NAMES["audio"], "seconds", "by")

    def add(self, file: str, result: dict) -> None:
        """Write a file's result."""
        self._line(
            printable(file),
            result["label"] or ("no verdict" if no_verdict(result) else "unreadable"),
            *(_number(result[name], 3) for name in ("score", "video_score", "audio_score")),
            _number(result["duration"], 1),
            result.get("decided_by", ""),
        )
        if len(result["windows"]) > 1:
            for window in result["windows"]:
                span = f"  {window['start']:.1f} - {window['end']:.1f} s"
                self.write(f"{self._first(span)}  {'':<10}  {_number(window['score'], 3):>6}")
        for line in people_lines(result):
            self.write(f"  {line}")
        if has_credentials(result):
            self.write(f"  content credentials: {printable(describe_credentials(result['credentials']))}")
        for note in result["warnings"]:
            if note not in self.notices:
                self.write(f"  {printable(note)}")
        if result["error"] is not None:
            self.write(f"  {printable(result['error']['message'])}")

    def _line(
        self, file: str, verdict: str, score: str, picture: str, sound: str, seconds: str, by: str
    ) -> None:
        last = f"  {by}" if self.gated else ""
        self.write(
            f"{self._first(file)}  {verdict:<10}  {score:>6}  {picture:>7}  {sound:>6}  {seconds:>8}{last}"
        )

    def _first(self, text: str) -> str:
        return text + " " * (self.width - columns(text))


def people_lines(result: dict) -> Iterator[str]:
    """Yield a line for each person of a file with several, of many only for the most suspicious."""
    people = people_of(result) or []
    if len(people) < 2:
        return
    for person in most_suspicious(people, MOST_PEOPLE):
        yield person_line(person)
    if len(people) > MOST_PEOPLE:
        yield f"and {count_of(len(people) - MOST_PEOPLE, 'face')} with lower scores or none"


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


class ResultCSV:
    """
    A line for each file, for a spreadsheet or pandas, with an empty cell where there is no value.

    A name, warning or error that a spreadsheet would run as a formula (`=cmd|...`) gets a `'` in front; numbers do not.
    """

    def __init__(self, stream: TextIO, gated: bool):
        self.stream = stream
        self.columns = (*CSV_COLUMNS, *OF_A_GATE) if gated else CSV_COLUMNS
        self.lines = csv.writer(stream, lineterminator="\n")
        self.lines.writerow(self.columns)
        stream.flush()

    def add(self, file: str, result: dict) -> None:
        """Write a file's result."""
        scored = [window for window in result["windows"] if window["score"] is not None]
        highest = max(scored, key=lambda window: window["score"], default={})
        row = {
            **result,
            "file": _text(printable(file)),
            "windows": len(result["windows"]),
            **{f"highest_window_{name}": highest.get(name) for name in ("start", "end", "score")},
            **_face_cells(result),
            "credentials": _text(printable(describe_credentials(result["credentials"])))
            if has_credentials(result)
            else None,
            "warnings": _text("; ".join(map(printable, result["warnings"]))),
            "error": _text(printable(result["error"]["message"])) if result["error"] else None,
        }
        self.lines.writerow(row.get(name) for name in self.columns)
        self.stream.flush()


def _face_cells(result: dict) -> dict:
    """Return the number of faces, and the span and score of the most suspicious one; None for what there is not."""
    faces = result.get("faces")  # a result of an older release, from a journal, has none
    scored = [face for face in faces or () if face["score"] is not None]
    highest = max(scored, key=suspicion, default={"start": None, "end": None, "video_score": None})
    return {
        "faces": None if faces is None else len(faces),
        "highest_face_start": highest["start"],
        "highest_face_end": highest["end"],
        "highest_face_score": highest["video_score"],
    }


def _text(cell: str) -> str:
    return f"'{cell}" if cell.startswith(FORMULA) else cell


class FileProgress:
    """
    The progress of a run, on stderr: a bar if that is a terminal, otherwise a line now and then.

    Args:
        total (`int`): Files to look at.
        done (`int`): Files that an earlier run has looked at.
        visible (`bool`): Whether to show anything.
    """

    def __init__(self, total: int, done: int = 0, visible: bool = True):
        self.total, self.before, self.count = total, done, 0
        self.begin = time.monotonic()
        self.lines = visible and not sys.stderr.isatty()
        self.bar = None
        if visible and not self.lines:
            self.bar = tqdm(total=total, initial=done, unit="file", file=sys.stderr, dynamic_ncols=True)

    def write(self, line: str) -> None:
        """Print a line to stdout, above the bar."""
        if self.bar is not None and sys.stdout.isatty():
            self.bar.write(line, file=sys.stdout)
        else:
            print(line, flush=True)

    def step(self) -> None:
        """Count a file that this run has looked at."""
        self.count += 1
        if self.bar is not None:
            self.bar.update()
        elif self.lines and self.count % EVERY == 0:
            rate = self.count / max(time.monotonic() - self.begin, 1e-9)
            left = max(0, self.total - self.before - self.count) / rate
            print(
                f"  {self.before + self.count}/{self.total} files, {rate:.1f} files/s, ETA {hours(left)}",
                file=sys.stderr,
                flush=True,
            )

    def close(self) -> None:
        """End the bar."""
        if self.bar is not None:
            self.bar.close()
