"""`python -m modeling_avlmm detect`: tells whether files are deepfakes."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ...inference.auto import DEFAULT_MODEL, default_model
from .inputs import Survey, is_folder, shown, survey, walk
from .output import CSV, JSONLines, Progress, Table
from .resume import TRIES, Journal, JournalError, run_identity

if TYPE_CHECKING:
    from ...pipeline_avd import AVDeepfakeDetectionPipeline
    from .overview import DetectReport

DESCRIPTION = (
    "Tells whether files are deepfakes. Folders are searched for media. Ends with 0 when all was read, 1 when something "
    "could not be, 2 on wrong usage, 130 when it was stopped."
)
STOPPED = 130
SETTINGS = ("threshold", "window_seconds", "hop_seconds", "aggregate")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `python -m modeling_avlmm detect`; how a detector is loaded is the caller's to add."""
    parser.add_argument(
        "files", nargs="+", metavar="FILE", help="video or sound: a file, a folder or an http(s) link"
    )
    parser.add_argument(
        "--all-files", action="store_true", help="try every file of a folder, whatever its ending"
    )
    parser.add_argument(
        "--model",
        default=os.environ.get(DEFAULT_MODEL),
        help=f"folder or Hub id of a detector [${DEFAULT_MODEL}, or else this package's demonstration detector]",
    )
    parser.add_argument(
        "--gate", metavar="MODEL", help="small detector that answers for the files it is sure of"
    )
    parser.add_argument(
        "--gate-band",
        nargs=2,
        type=float,
        metavar=("LOW", "HIGH"),
        help="the gate is sure of scores below LOW and above HIGH [the gate's abstain band]",
    )
    output = parser.add_argument_group("output")
    output.add_argument("--json", action="store_true", help="one JSON object a line, with the timeline")
    output.add_argument(
        "--csv", metavar="OUT.csv", help="one line a file, for a spreadsheet; - for standard output"
    )
    output.add_argument("--report", type=Path, metavar="OUT.html", help="one page for all files")
    output.add_argument(
        "--case", type=Path, metavar="FOLDER", help="a case report for each file, HTML and PDF, in FOLDER"
    )
    output.add_argument(
        "--attribute", action="store_true", help="in case reports, show what the detector looked at (slow)"
    )
    output.add_argument(
        "--resume",
        type=Path,
        metavar="JOURNAL.jsonl",
        help="keep results there, and go on from what is there",
    )
    verdict = parser.add_argument_group("verdict")
    verdict.add_argument(
        "--threshold", type=float, help="score from which a file is called fake [the model's own]"
    )
    verdict.add_argument(
        "--window-seconds", type=float, help="length of a window [as long as one pass takes]"
    )
    verdict.add_argument(
        "--hop-seconds", type=float, help="from one window's start to the next's [--window-seconds]"
    )
    verdict.add_argument(
        "--aggregate", choices=("mean", "max"), help="the file's score from its windows' [mean]"
    )
    verdict.add_argument(
        "--abstain", action="store_true", help="say 'uncertain' in the detector's range of uncertain scores"
    )
    verdict.add_argument("--batch-size", type=int, default=1, help="windows of one pass [%(default)s]")


def check(options: argparse.Namespace, error: Callable[[str], None]) -> None:
    """Calls `error` with what options contradict one another."""
    if options.gate_band and not options.gate:
        error("--gate-band says when a gate is sure: give the gate, --gate MODEL")
    if options.json and options.csv == "-":
        error("--json and --csv - both want standard output: give --csv a file")
    if options.attribute and not options.case:
        error("--attribute is shown in case reports: give their folder, --case FOLDER")
    if options.batch_size < 1:
        error("--batch-size must be at least 1")
    for name in ("csv", "report", "resume"):
        path = getattr(options, name)
        if path is None or path == "-":
            continue
        if not Path(path).absolute().parent.is_dir():
            error(f"--{name}: there is no folder {Path(path).absolute().parent}")
        if Path(path).is_dir():
            error(f"--{name}: {path} is a folder; name a file")
        if any(
            not is_folder(file) and os.path.abspath(file) == os.path.abspath(path) for file in options.files
        ):
            error(f"--{name}: {path} is one of the files to look at")


def run(options: argparse.Namespace) -> int:
    """Runs the command and returns its exit status."""
    found = survey(options.files, options.all_files)
    tell_what_is_there(found)
    if not found.files:
        print("avlmm: there is nothing to look at", file=sys.stderr)
        return 2
    # Loading takes seconds; `--help` and wrong usage do not wait for it.
    import modeling_avlmm  # noqa: F401

    from ...inference.loading import DetectorError, load_detector

    try:
        if not options.model:
            print(
                f"avlmm: no model was named, so this is the demonstration detector of the package. Give --model, or set "
                f"{DEFAULT_MODEL}.",
                file=sys.stderr,
            )
        loading = (options.device, options.dtype, options.trust_remote_code, options.gate, options.gate_band)
        detector, zero_shot = load_detector(options.model or default_model(), *loading)
        if zero_shot:
            print("avlmm: this backbone was not trained to detect anything.", file=sys.stderr)
        with contextlib.ExitStack() as stack:
            return Run(options, detector, found, stack).go()
    except (DetectorError, JournalError, ValueError) as error:
        print(f"avlmm: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # `detect ... | head`: the reader has seen enough
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 (what Python flushes at its end)
        return 1
    except OSError as error:  # of what is written: a file that cannot be read is a result
        print(f"avlmm: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:  # while the detector was loaded
        print("avlmm: stopped before the first file", file=sys.stderr)
        return STOPPED


def tell_what_is_there(found: Survey) -> None:
    for line in found.unlisted:
        print(f"avlmm: {line}", file=sys.stderr)
    if not found.folders:
        return
    line = f"avlmm: {found.files} files to look at"
    if others := found.others.total():
        most = ", ".join(f"{shown(suffix)} {count}" for suffix, count in found.others.most_common(5))
        more = ", ..." if len(found.others) > 5 else ""
        line += f"; {others} others left out ({most}{more}), which --all-files would try"
    print(line, file=sys.stderr)


class Run:
    """One run: what goes to the detector, and where results go. Nothing of a result is kept but what the outputs keep."""

    def __init__(
        self,
        options: argparse.Namespace,
        detector: AVDeepfakeDetectionPipeline,
        found: Survey,
        stack: contextlib.ExitStack,
    ):
        self.options, self.detector, self.found = options, detector, found
        self.given = {name: getattr(options, name) for name in SETTINGS if getattr(options, name) is not None}
        self.given["abstain"] = options.abstain
        # What is wrong with the options is told before any file is touched.
        detector._sanitize_parameters(**self.given)
        self.failed = bool(found.unlisted)
        self.count, self.stopped, self.complete = 0, False, False
        # Files on their way through the detector, and before them those that it need not read.
        self.waiting: deque[tuple[str, bool]] = deque()
        self.journal: Journal | None = None
        done = 0
        if options.resume:
            self.journal = Journal(options.resume, run_identity(detector, self.given))
            # What was begun when an error or the user ended the run is not to blame for its end.
            stack.callback(lambda: self.journal.close(stopped=not self.complete))
            done = sum(file in self.journal for file in self._files()) if len(self.journal) else 0
        if done:
            print(f"avlmm: {done} of {found.files} files were done before", file=sys.stderr)
        self.progress = Progress(found.files, done, bool(found.folders))
        stack.callback(self.progress.close)
        self.outputs = list(self._outputs(stack))
        self.report: DetectReport | None = None
        if options.report:
            from .overview import DetectReport

            self.report = DetectReport(detector, found)

    def _files(self) -> Iterator[str]:
        return walk(self.options.files, self.options.all_files)

    def _outputs(self, stack: contextlib.ExitStack) -> Iterator[JSONLines | Table | CSV]:
        gated = self.detector.gate is not None
        if self.options.json:
            yield JSONLines(self.progress.write)
        elif self.options.csv != "-":
            yield Table(self.progress.write, self.found.width, gated)
        if self.options.csv == "-":
            yield CSV(sys.stdout, gated)
        elif self.options.csv:
            path = Path(self.options.csv)
            yield CSV(stack.enter_context(path.open("w", encoding="utf-8", newline="")), gated)

    def go(self) -> int:
        """Looks at every file; returns the exit status."""
        results = self.detector(
            self._to_look_at(), batch_size=self.options.batch_size, on_error="return", **self.given
        )
        try:
            for result in results:
                self._take_over()
                file, _ = self.waiting.popleft()
                if self.journal is not None:
                    self.journal.finish(file, result)
                self._give(file, result)
            self._take_over()
            self.complete = True
        except KeyboardInterrupt:
            self.stopped = True
        if self.report:
            self.report.write(self.options.report, self.stopped)
        if self.stopped:
            self.progress.close()
            go_on = (
                "The same command goes on from there."
                if self.journal is not None
                else "With --resume JOURNAL.jsonl a run can go on where it was stopped."
            )
            print(f"avlmm: stopped after {self.count} of {self.found.files} files. {go_on}", file=sys.stderr)
            return STOPPED
        return 1 if self.failed else 0

    def _to_look_at(self) -> Iterator[str]:
        """The files that the detector has to read; those between them are put in line for `_take_over`."""
        for file in self._files():
            known = self.journal is not None and (file in self.journal or self.journal.crashed(file))
            self.waiting.append((file, known))
            if known:
                # At once: a million files that were done before do not wait for the first that was not.
                self._take_over()
                continue
            if self.journal is not None:
                self.journal.begin(file)
            yield file

    def _take_over(self) -> None:
        """Gives out what is known without reading, up to the next file that the detector reads."""
        while self.waiting and self.waiting[0][1]:
            file, _ = self.waiting.popleft()
            result = self.journal.result(file)
            self._give(file, result or given_up(file, self.detector), taken_over=result is not None)

    def _give(self, file: str, result: dict, taken_over: bool = False) -> None:
        self.failed |= result["error"] is not None
        self.count += 1
        for output in self.outputs:
            output.add(file, result)
        if self.report:
            self.report.add(file, result)
        if self.options.case and result["label"] is not None:
            self._write_case(file, result, taken_over)
        self.progress.step(taken_over)

    def _write_case(self, file: str, result: dict, taken_over: bool) -> None:
        from ...casefile.case import build_case, case_stem, write_html, write_pdf
        from ...explain.attribution import attribute
        from ...explain.words import deciding

        stem = self.options.case / case_stem(file)
        page, pages = Path(f"{stem}.html"), Path(f"{stem}.pdf")
        if taken_over and page.exists() and pages.exists():
            return
        self.options.case.mkdir(parents=True, exist_ok=True)
        looked_at = attribute(deciding(self.detector, result), file) if self.options.attribute else None
        case = build_case(file, result, detector=self.detector, attribution=looked_at)
        write_html(case, page)
        write_pdf(case, pages)


def given_up(file: str, detector: AVDeepfakeDetectionPipeline) -> dict:
    """The result of a file that seems to end the process that reads it."""
    message = (
        f"{file}: {TRIES} runs ended while this file was being read, so it was left out. It may crash FFmpeg, or take more "
        "memory than there is. Name it alone, without --resume, to try again."
    )
    result = detector.postprocess([{"error": {"type": "ProcessEnded", "message": message}}])
    return {**result, "decided_by": "gate", "gate_score": None} if detector.gate is not None else result
