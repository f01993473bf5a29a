"""`python -m modeling_avlmm audit`: shortcuts, leaks and duplicates of a dataset."""

import argparse
import sys
from pathlib import Path

DESCRIPTION = (
    "Looks for what lets a detector score without looking or listening: file properties that tell fakes, people and clips "
    "that are in several splits, duplicates. Writes audit.json and audit.md. Ends with 0 when nothing was found, 1 when "
    "something was, 2 on wrong usage."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument(
        "--dataset", required=True, help="fakeavceleb, mavos_dd, avfolder or another registered one"
    )
    parser.add_argument("--protocol", help="its configuration, e.g. identity_70_30 [the dataset's default]")
    parser.add_argument("--data-dir", required=True, metavar="DIR", help="folder of the unpacked corpus")
    parser.add_argument(
        "--output-dir",
        metavar="DIR",
        help="where it writes; also where it goes on [runs/audit/DATASET_PROTOCOL]",
    )
    parser.add_argument(
        "--limit", type=_positive, metavar="N", help="look at N files of each class and split [all]"
    )
    parser.add_argument("--seed", type=int, default=0, help="of that draw [%(default)s]")
    parser.add_argument(
        "--max-auc",
        type=_auc,
        default=0.6,
        help="held-out AUC above which a property is a shortcut [%(default)s]",
    )
    parser.add_argument("--num-workers", type=int, default=0, help="processes that read files [%(default)s]")


def run(options: argparse.Namespace) -> int:
    """Runs the command and returns its exit status."""
    # Loading takes seconds; `--help` and wrong usage do not wait for it.
    import modeling_avlmm  # noqa: F401 (makes the datasets known)
    from dataset_scripts.schema import plain_corpus_warnings

    from ..evaluation.audit.audit import about_corpus, audit_dataset, write_audit
    from ..evaluation.audit.file_properties import AuditError, check_tools
    from ..evaluation.errors import EvaluationError
    from ..evaluation.protocols import load_protocol

    plain_corpus_warnings()
    try:
        check_tools()
        builder = load_protocol(options.dataset, options.protocol, options.data_dir)
        protocol = builder.config.name
        folder = Path(options.output_dir or f"runs/audit/{options.dataset}_{protocol}")
        report = audit_dataset(
            builder.as_dataset(),
            folder / "properties.jsonl",
            limit_clips=options.limit,
            num_workers=options.num_workers,
            limit=options.max_auc,
            seed=options.seed,
        )
    except (AuditError, EvaluationError) as error:
        print(f"audit: {error}", file=sys.stderr)
        return 2
    write_audit(report, about_corpus(options.dataset, protocol, options.data_dir), folder)
    for line in report["summary"] or ["Nothing was found."]:
        print(f"- {line}")
    print(f"Written to {folder / 'audit.md'} and audit.json.")
    return 1 if report["found"] else 0


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {value}")
    return value


def _auc(text: str) -> float:
    value = float(text)
    if not 0.5 <= value < 1:
        raise argparse.ArgumentTypeError(f"must be in [0.5, 1), not {value}")
    return value
