"""`python -m modeling_avlmm verify`: whether what a case states is still so."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING

from dataset_scripts.text_files import printable

from .console import UsageError, guarded, tell
from .options import add_loading

if TYPE_CHECKING:
    from ..casefile.record import Check

HELP = "check what a case report states: hashes, detector, scores and versions"
DESCRIPTION = (
    "Compute again what a case report (HTML) states, and say what differs: the SHA-256 of the file and of its decoded picture and "
    "sound, its content credentials, the detector's fingerprints, the scores and the verdict, and the versions. The exit status is 0 when "
    "file and verdict are as stated, 1 when something differs, and 2 on wrong usage. Other versions are told and do not count."
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
    with reader_processes():
        differs = _tell(check_file(record, file))
        if not options.no_model:
            model = options.model or default_model()
            detector, _ = load_detector(model, options.device, options.dtype, options.trust_remote_code)
            differs |= _tell(check_detector(record, file, detector))
    versions = list(check_software(record))
    if not any(check.differs for check in versions):
        print("same   all versions")
    _tell(check for check in versions if check.differs)
    if not differs:
        tell(f"the {'file is' if options.no_model else 'file and the verdict are'} as the case states")
        return 0
    tell("something is not as the case states")
    if not options.no_model and not options.model:
        tell(
            f"the case names the detector {printable(record['detector']['name'])}; another is asked with --model"
        )
    return 1


def _tell(checks: Iterable[Check]) -> bool:
    """Print checks, and return whether one differs that counts."""
    from ..casefile.record import short_hash

    found = False
    for check in checks:
        found |= check.differs and check.counts
        then, now = (printable(short_hash(text)) for text in (check.then, check.now))
        mark = "OTHER" if check.differs else "same" if check.then else "-"  # -: there was nothing to compare
        print(f"{mark:<5}  {check.name}: {f'{then} then, {now} now' if check.differs else now}")
    return found
