"""`python -m modeling_avlmm verify`: whether what a case states is still so."""

from __future__ import annotations

import argparse
import os
from functools import partial
from typing import TYPE_CHECKING

from .console import UsageError, guarded, tell
from .options import add_loading

if TYPE_CHECKING:
    from ..casefile.record import Check

HELP = "check what a case report states: hashes, detector, scores and versions"
DESCRIPTION = (
    "Compute again what a case report (HTML) states, and say what differs: the SHA-256 of the file and of its decoded picture and "
    "sound, its content credentials, the detector's fingerprints, the scores, and the versions. The exit status is 0 when file, detector "
    "and scores are as stated, 1 when one differs, and 2 on wrong usage. Other versions are told and do not count."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("case", metavar="CASE.html", help="a case report, from `detect --case` or the page")
    parser.add_argument("--file", help="the file that was judged [the name in the case, from this folder]")
    parser.add_argument("--model", help="folder or Hub id of the detector [the default detector]")
    parser.add_argument("--no-model", action="store_true", help="check the file and the versions alone")
    add_loading(parser)


def run(options: argparse.Namespace) -> int:
    """Run the command and return its exit status."""
    from ..inference.quiet import quiet_libraries

    quiet_libraries()
    # ValueErrors are the typed errors of cases and of loading.
    return guarded(partial(_verify, options), ValueError)


def _verify(options: argparse.Namespace) -> int:
    from ..casefile.record import check_detector, check_file, check_software, read_record
    from ..inference.default_model import default_model
    from ..inference.loading import load_detector
    from ..inference.reader_process import reader_processes

    record = read_record(options.case)
    file = options.file or record["file"]["name"]
    if not os.path.isfile(file):
        raise UsageError(f"there is no file {file}: say where it is now, --file FILE")
    differs = _tell(check_file(record, file))
    if not options.no_model:
        model = options.model or default_model()
        detector, _ = load_detector(model, options.device, options.dtype, options.trust_remote_code)
        with reader_processes():
            differs |= _tell(check_detector(record, file, detector))
    versions = [check for check in check_software(record) if check.differs]
    _tell(versions)
    if not versions:
        print("same   all versions")
    what = (
        "something is not as the case states"
        if differs
        else "file, detector and scores are as the case states"
    )
    tell(what.replace(", detector and scores are", " is") if options.no_model and not differs else what)
    return int(differs)


def _tell(checks) -> bool:
    """Print checks, and return whether one differs."""
    from ..casefile.record import short_hash

    found = False
    check: Check
    for check in checks:
        found |= check.differs
        now = (
            f": {short_hash(check.then)} then, {short_hash(check.now)} now"
            if check.differs
            else f": {short_hash(check.now)}"
        )
        print(f"{'OTHER' if check.differs else 'same '}  {check.name}{now}")
    return found
