"""`python -m modeling_avlmm audit`: shortcuts, leaks and duplicates in a dataset."""

import argparse
from functools import partial
from pathlib import Path

from dataset_scripts.run_lock import only_run_in

from ..inference.quiet import quiet_libraries
from .console import fit, guarded
from .options import add_corpus, add_reading, add_workers, positive, reading

HELP = "look for shortcuts and leaks in a dataset"
DESCRIPTION = (
    "Look for what lets a detector score without looking or listening: file properties that tell fakes from genuine clips, "
    "people and clips that are in several splits, duplicates. Writes audit.json and audit.md. The exit status is 0 when "
    "nothing was found, 1 when something was, 2 on wrong usage."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    add_corpus(parser)
    parser.add_argument(
        "--output-dir",
        metavar="DIR",
        help="folder to write to and to continue in [runs/audit/DATASET_PROTOCOL]",
    )
    parser.add_argument(
        "--limit", type=positive, metavar="N", help="look at N files of each class and split [all]"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed for --limit [%(default)s]")
    parser.add_argument(
        "--max-auc",
        type=_auc,
        default=0.6,
        metavar="AUC",
        help="held-out AUC above which a property is a shortcut [%(default)s]",
    )
    add_workers(parser, "processes that read files")
    add_reading(parser)


def run(options: argparse.Namespace) -> int:
    """Run the command and return its exit status."""
    from ..evaluation.audit.file_properties import AuditError
    from ..evaluation.evaluation_error import EvaluationError

    quiet_libraries()
    return guarded(partial(_audit, options), AuditError, EvaluationError)


def _audit(options: argparse.Namespace) -> int:
    from ..evaluation.audit.dataset_audit import about_corpus, audit_dataset, write_audit
    from ..evaluation.audit.file_properties import check_tools
    from ..evaluation.protocols import load_protocol, protocol_name

    check_tools()
    builder = load_protocol(options.dataset, options.protocol, options.data_dir)
    protocol = protocol_name(builder)
    folder = Path(options.output_dir or f"runs/audit/{options.dataset}_{protocol}")
    with only_run_in(folder), reading(options):
        report = audit_dataset(
            builder.as_dataset(),
            folder / "properties.jsonl",
            limit_clips=options.limit,
            num_workers=options.num_workers,
            limit=options.max_auc,
            seed=options.seed,
        )
        write_audit(report, about_corpus(options.dataset, protocol, options.data_dir), folder)
    for line in report["summary"] or ["Nothing was found."]:
        print(fit(f"- {line}"))
    print(f"Written to {folder / 'audit.md'} and audit.json.")
    return 1 if report["found"] else 0


def _auc(text: str) -> float:
    value = float(text)
    if not 0.5 <= value < 1:
        raise argparse.ArgumentTypeError(f"must be in [0.5, 1), not {value}")
    return value
