"""One run of `detect`: files go to the detector in order, and results to the outputs."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ...inference.engines import Engine, ended_with_process
from ...media_links import is_link
from ...pipeline_avd import AVDeepfakeDetectionPipeline
from ..console import STOPPED, tell
from .inputs import Survey, walk
from .output import FileProgress, ResultCSV, ResultLines, ResultTable
from .result_folder import ResultFolder
from .resume import TRIES, Journal, run_identity

if TYPE_CHECKING:
    from .overview import Overview
    from .parquet import ResultParquet

SETTINGS = ("threshold", "window_seconds", "hop_seconds", "aggregate", "faces")
"""Options that are passed on to the pipeline where they are given."""


class DetectionRun:
    """
    A run over files. Results are streamed to the outputs and not kept in memory.

    Args:
        options (`argparse.Namespace`): The command's options.
        detector ([`AVDeepfakeDetectionPipeline`]): The detector that results are of.
        engine ([`Engine`]): Scores the files with it.
        found ([`Survey`]): Counts of the files to look at.
        stack (`contextlib.ExitStack`): Closes the journal, the progress bar and the outputs.

    Raises:
        ValueError: when the pipeline refuses an option, before any file is touched.
        JournalError: when the journal cannot be used.
    """

    def __init__(
        self,
        options: argparse.Namespace,
        detector: AVDeepfakeDetectionPipeline,
        engine: Engine,
        found: Survey,
        stack: contextlib.ExitStack,
    ):
        self.options, self.detector, self.engine, self.found = options, detector, engine, found
        self.given = {name: getattr(options, name) for name in SETTINGS if getattr(options, name) is not None}
        has_band = bool(detector.model.config.abstain_band)
        self.given["abstain"] = has_band if options.abstain is None else options.abstain
        detector._sanitize_parameters(**self.given)
        self.failed = bool(found.unlisted)
        self.count, self.stopped, self.complete = 0, False, False
        # Files whose results were not handed out yet, each with its number if the engine has it; and the results that came
        # before those of earlier files.
        self.waiting: deque[tuple[str, int | None]] = deque()
        self.begun: dict[int, str] = {}
        self.arrived: dict[int, dict] = {}
        self.folder = None if options.output_dir is None else ResultFolder(options.output_dir, options.shard)
        self.journal: Journal | None = None
        self.table: ResultParquet | None = None
        done = self._open_journal(stack)
        self.progress = FileProgress(found.files, done, bool(found.folders) or self.folder is not None)
        stack.callback(self.progress.close)
        self.outputs = list(self._outputs(stack))
        self.with_pdf = False
        if options.case:
            from ...casefile.pdf import MISSING, pdf_available  # here, as matplotlib takes a second to import

            self.with_pdf = pdf_available()
            if not self.with_pdf:
                tell(f"case reports are written as HTML only. {MISSING}")
        self.report: Overview | None = None
        if options.report:
            from .overview import Overview  # as for the PDF

            self.report = Overview(detector, found)

    def _open_journal(self, stack: contextlib.ExitStack) -> int:
        """Open the journal, if there is to be one, and return how many of the files it has."""
        path = self.options.resume if self.folder is None else self.folder.journal
        if path is None:
            return 0
        identity = run_identity(self.detector, self.given)
        self.journal = Journal(path, identity)
        stack.push(self._close_journal)
        if self.folder is not None and (shards := self.folder.take_over(self.journal, identity)):
            tell(f"results of {shards} shards were taken over")
            stack.callback(self._forget_shards)  # after the table is closed, which is opened later
        done = sum(file in self.journal for file in self._files()) if len(self.journal) else 0
        if done:
            tell(f"{done} of {self.found.files} files were done before")
        return done

    def _close_journal(self, kind: type[BaseException] | None, *_: object) -> None:
        # When the user or the disk ends the run, the files that were begun did not cause it. Any other error may be one's.
        blameless = kind is None or issubclass(kind, (OSError, KeyboardInterrupt))
        self.journal.close(stopped=blameless and not self.complete)

    def _forget_shards(self) -> None:
        if self.complete:
            self.folder.forget_shards()

    def _files(self) -> Iterator[str]:
        return walk(self.options.files, self.options.all_files, shard=self.options.shard)

    def _outputs(
        self, stack: contextlib.ExitStack
    ) -> Iterator[ResultLines | ResultTable | ResultCSV | ResultParquet]:
        gated = self.detector.gate is not None
        detectors = [self.detector, self.detector.gate.detector] if gated else [self.detector]
        notices = [detector.model.config.notice for detector in detectors]
        if self.options.json:
            yield ResultLines(self.progress.write)
        elif self.options.csv != "-":
            yield ResultTable(self.progress.write, self.found.width, gated, notices)
        if self.options.csv == "-":
            yield ResultCSV(sys.stdout, gated)
        elif self.options.csv:
            path = Path(self.options.csv)
            yield ResultCSV(stack.enter_context(path.open("w", encoding="utf-8", newline="")), gated)
        if self.folder is not None:
            from .parquet import ResultParquet  # here, as pyarrow takes a moment to import

            self.table = stack.enter_context(ResultParquet(self.folder.table))
            yield self.table

    def go(self) -> int:
        """Look at every file and return the exit status."""
        results = self.engine.results(
            self._to_look_at(),
            batch_size=self.options.batch_size,
            private_links=self.options.private_links,
            **self.given,
        )
        try:
            for number, result in results:
                file = self.begun.pop(number)
                if self.journal is not None:
                    self.journal.finish(file, result)
                self.arrived[number] = result
                self.progress.step()
                self._hand_out_known()
            self._hand_out_known()
            self.complete = True
        except KeyboardInterrupt:
            self.stopped = True
        if self.table is not None:
            self.table.complete = self.complete
        if self.report is not None:
            self.report.write(self.options.report, self.stopped)
        if self.stopped:
            self.progress.close()
            advice = (
                "The same command goes on from there."
                if self.journal is not None
                else "With --resume JOURNAL.jsonl a run can go on where it was stopped."
            )
            tell(f"stopped after {self.count + len(self.arrived)} of {self.found.files} files. {advice}")
            return STOPPED
        return 1 if self.failed else 0

    def _to_look_at(self) -> Iterator[str]:
        """Yield the files that the engine has to look at; the others are queued for `_hand_out_known`."""
        number = 0
        for file in self._files():
            known = self.journal is not None and (file in self.journal or self.journal.crashed(file))
            self.waiting.append((file, None if known else number))
            if known:
                # At once: a million files that were done before do not wait for the first that was not.
                self._hand_out_known()
                continue
            self.begun[number] = file
            # An engine that takes thousands of files at once has begun few of them.
            if self.journal is not None and self.engine.in_order:
                self.journal.begin(file)
            number += 1
            yield file

    def _hand_out_known(self) -> None:
        """Hand out the results that are known, up to the next file that the engine still looks at."""
        while self.waiting:
            file, number = self.waiting[0]
            if number is not None and number not in self.arrived:
                return
            self.waiting.popleft()
            if number is not None:
                self._hand_out(file, self.arrived.pop(number))
                continue
            result = self.journal.result(file)
            if result is None:
                self.progress.step()
            self._hand_out(file, result or given_up(file, self.detector), taken_over=result is not None)

    def _hand_out(self, file: str, result: dict, taken_over: bool = False) -> None:
        self.failed |= result["error"] is not None
        self.count += 1
        for output in self.outputs:
            output.add(file, result)
        if self.report is not None:
            self.report.add(file, result)
        if self.options.case and result["label"] is not None:
            self._write_case(file, result, taken_over)

    def _write_case(self, file: str, result: dict, taken_over: bool) -> None:
        from ...casefile.case import build_case  # as for the PDF
        from ...casefile.pages import case_stem, write_html, write_pdf
        from ...explain.attribution import attribute
        from ...explain.words import deciding

        stem = self.options.case / case_stem(file)
        page, pages = Path(f"{stem}.html"), Path(f"{stem}.pdf")
        if taken_over and page.exists() and (pages.exists() or not self.with_pdf):
            return
        self.options.case.mkdir(parents=True, exist_ok=True)
        # A link is fetched once more, and may lead into the own network by now.
        shown = self.options.attribute and (self.options.private_links or not is_link(file))
        looked_at = attribute(deciding(self.detector, result), file) if shown else None
        case = build_case(file, result, detector=self.detector, attribution=looked_at, settings=self.given)
        write_html(case, page)
        if self.with_pdf:
            write_pdf(case, pages)


def given_up(file: str, detector: AVDeepfakeDetectionPipeline) -> dict:
    """Return the result of a file that seems to end the process that reads it."""
    message = (
        f"{file}: {TRIES} runs ended while this file was being read, so it was left out. It may crash FFmpeg, or take more "
        "memory than there is. Name it alone, without --resume, to try again."
    )
    return ended_with_process(message, detector)
