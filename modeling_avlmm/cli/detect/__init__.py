"""`python -m modeling_avlmm detect`: files, folders and links in; a table, JSON, CSV and reports out.

`inputs` walks folders, `detection_run` has an engine score what it finds, `output` and `parquet` write results, `overview`
the page for all files, and `resume` and `result_folder` keep results on disk, so that a run can be stopped and go on.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ...inference.engine_options import ENGINES
from ..console import STOPPED, UsageError, guarded, starting, tell
from ..options import (
    add_batch_size,
    add_default_model,
    add_engine,
    add_faces,
    add_gate,
    add_loading,
    add_reading,
    add_served,
    add_windows,
    check_engine,
    check_gate,
    check_served,
    model_or_default,
    ray_options,
    reading,
)

if TYPE_CHECKING:
    from ...inference.engines import Engine
    from ...pipeline_avd import AVDeepfakeDetectionPipeline
    from .inputs import Survey

HELP = "tell whether files are deepfakes"
DESCRIPTION = (
    "Tell whether files are deepfakes. Folders are searched for media. The exit status is 0 when every file was read, 1 when "
    "one could not be read or scored, 2 on wrong usage, and 130 when the run was stopped."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument(
        "files",
        nargs="+",
        metavar="FILE",
        help="video or sound: a file, a folder or an http(s) link (followed wherever it leads, also into your own network: see "
        "--no-private-links)",
    )
    parser.add_argument(
        "--all-files",
        action="store_true",
        help="try every file of a folder, not only those that look like media",
    )
    parser.add_argument(
        "--private-links",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="follow links to addresses that are not public, such as those of your own network [--private-links]",
    )
    add_default_model(parser)
    add_gate(parser)
    output = parser.add_argument_group("output")
    output.add_argument("--json", action="store_true", help="print one JSON object a line, with all windows")
    output.add_argument(
        "--csv", metavar="OUT.csv", help="write one line a file, for a spreadsheet; - for standard output"
    )
    output.add_argument("--report", type=Path, metavar="OUT.html", help="write one page for all files")
    output.add_argument(
        "--case", type=Path, metavar="FOLDER", help="write a case report for each file, HTML and PDF"
    )
    output.add_argument(
        "--attribute", action="store_true", help="show in case reports what the detector reacted to (slow)"
    )
    output.add_argument(
        "--resume", type=Path, metavar="JOURNAL.jsonl", help="keep results in this file, and continue from it"
    )
    output.add_argument(
        "--output-dir",
        type=Path,
        metavar="FOLDER",
        help="keep results in this folder, continue from it, and write them as Parquet in the end",
    )
    verdict = parser.add_argument_group("verdict")
    verdict.add_argument(
        "--threshold",
        type=float,
        metavar="SCORE",
        help="score from which a file is called fake [the model's own]",
    )
    add_windows(verdict)
    verdict.add_argument(
        "--abstain",
        action=argparse.BooleanOptionalAction,
        help="say 'uncertain' in the detector's range of uncertain scores [on where it has one]",
    )
    add_faces(verdict)
    running = parser.add_argument_group("running")
    add_batch_size(running, 1)
    add_loading(running)
    add_reading(running)
    add_served(add_engine(parser, engines=(*ENGINES, "vllm")))


def run(options: argparse.Namespace) -> int:
    """Run the command and return its exit status."""
    # ValueErrors are what the pipeline says about its arguments, and the typed errors of loading and of the journal.
    return guarded(partial(_detect, options), ValueError, stopped="stopped before the first file")


def check(options: argparse.Namespace) -> None:
    """Raise `UsageError` for options that contradict one another, or name a place that cannot be written."""
    check_gate(options)
    check_served(options)
    check_engine(options)
    if options.output_dir and options.resume:
        raise UsageError("--output-dir has a journal of its own: leave --resume out")
    if options.output_dir and options.output_dir.exists() and not options.output_dir.is_dir():
        raise UsageError(f"--output-dir: {options.output_dir} is a file; name a folder")
    if not options.output_dir and (options.shard or options.engine == "ray"):
        what = "--shard" if options.shard else f"--engine {options.engine}"
        raise UsageError(f"{what} keeps its results in a folder: give it, --output-dir FOLDER")
    if options.json and options.csv == "-":
        raise UsageError("--json and --csv - both want standard output: give --csv a file")
    if options.attribute and not options.case:
        raise UsageError("--attribute is shown in case reports: give their folder, --case FOLDER")
    if options.attribute and options.engine == "vllm":
        raise UsageError(
            "--attribute looks into the network, which --engine vllm leaves to the server: leave one out"
        )
    for name, path in (("csv", options.csv), ("report", options.report), ("resume", options.resume)):
        if path is None or path == "-":
            continue
        if not Path(path).absolute().parent.is_dir():
            raise UsageError(f"--{name}: there is no folder {Path(path).absolute().parent}")
        if Path(path).is_dir():
            raise UsageError(f"--{name}: {path} is a folder; name a file")
        if any(os.path.abspath(file) == os.path.abspath(path) for file in options.files):
            raise UsageError(f"--{name}: {path} is one of the files to look at")


def _detect(options: argparse.Namespace) -> int:
    check(options)
    with starting():
        from .inputs import survey

    found = survey(options.files, options.all_files, options.shard)
    for line in found.lines():
        tell(line)
    if not found.files and not found.elsewhere:
        raise UsageError("there is nothing to look at")
    with starting(options.own_process):
        from ...inference.quiet import quiet_libraries

        quiet_libraries()
        from ...inference import loading  # noqa: F401 (and with it nearly all that a detector needs)
    # In this process nothing was computed yet, so that readers can be forks of it.
    # With Ray the workers decode, and this process for case reports alone.
    decodes = options.engine != "ray" or options.case
    with reading(options, forked=options.own_process) if decodes else contextlib.nullcontext():
        return _look_at(options, found)


def _look_at(options: argparse.Namespace, found: Survey) -> int:
    from .detection_run import DetectionRun

    with starting(options.own_process):
        detector, zero_shot = _detector(options)
        engine = _engine(options, detector)
    if zero_shot:
        tell("this backbone was not trained to detect anything.")
    try:
        with contextlib.ExitStack() as stack:
            return DetectionRun(options, detector, engine, found, stack).go()
    except BrokenPipeError:  # `detect ... | head`: the reader has seen enough
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 (Python flushes it at exit)
        return 1
    except OSError as error:  # while writing: a file that cannot be read is a result
        tell(error)
        return 1


def _detector(options: argparse.Namespace) -> tuple[AVDeepfakeDetectionPipeline, bool]:
    """Return the detector, and whether it is a backbone that was never trained to detect anything."""
    from ...inference.loading import load_detector

    model = model_or_default(options.model)
    if options.engine != "vllm":
        # The detector of this process says whose results these are; with Ray, accelerators are left to the workers.
        device = "cpu" if options.engine == "ray" else options.device
        loading = (device, options.dtype, options.trust_remote_code, options.gate, options.gate_band)
        return load_detector(model, *loading)
    from ...inference.served_detector import served_detector

    gate = {}
    if options.gate is not None:
        loading = (options.device, options.dtype, options.trust_remote_code)
        gate = {"gate": load_detector(options.gate, *loading)[0], "gate_band": options.gate_band}
    server = (options.endpoint, options.served_model, options.api_key, options.request_seconds)
    try:
        return served_detector(model, *server, **gate), False
    except OSError as error:  # a server or a folder that is not there
        raise UsageError(error) from error


def _engine(options: argparse.Namespace, detector: AVDeepfakeDetectionPipeline) -> Engine:
    """Return what scores the files: the detector itself, whether a server runs its network or not, or Ray's workers."""
    from ...inference.credentials import credentials_available, with_credentials
    from ...inference.engines import LocalEngine

    examine = with_credentials if credentials_available() else None
    if options.engine != "ray":
        return LocalEngine(detector, examine)
    from ...inference.ray_engine import Loading, RayEngine

    model, loading = model_or_default(options.model), (options.device, options.dtype)
    more = (options.trust_remote_code, options.gate, options.gate_band)
    engine = RayEngine(detector, Loading(model, *loading, *more), ray_options(options), examine)
    tell(engine)
    return engine


__all__ = ["DESCRIPTION", "HELP", "STOPPED", "add_arguments", "check", "run"]
