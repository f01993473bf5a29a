"""`python -m modeling_avlmm instruct`: instruction conversations about the clips of a dataset."""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path

from .console import guarded
from .options import add_corpus, add_push, positive

HELP = "turn a dataset into conversations to fine-tune on"
DESCRIPTION = (
    "Makes questions and answers about the clips of a dataset, from its labels and from measured differences between a "
    "fake and its genuine source. Started again after it was stopped, it goes on measuring where it was. Ends with 0, with "
    "1 when clips could not be read and were left out, 2 on wrong usage, 130 when interrupted."
)
_TASKS = (
    "detection",
    "classification",
    "description",
    "conversation",
)  # `instructions` takes seconds to load


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    add_corpus(parser)
    parser.add_argument(
        "--to", required=True, metavar="DIR", help="folder to write: new, empty, or of an earlier run"
    )
    parser.add_argument("--tasks", nargs="+", choices=_TASKS, default=list(_TASKS), help="[all four]")
    parser.add_argument(
        "--per-clip", type=positive, default=1, metavar="N", help="conversations of each task [%(default)s]"
    )
    parser.add_argument("--no-evidence", action="store_true", help="compare nothing: labels alone")
    parser.add_argument("--workers", type=positive, default=1, metavar="N", help="processes [%(default)s]")
    parser.add_argument("--limit", type=positive, metavar="N", help="N clips of each split, by chance [all]")
    parser.add_argument("--seed", type=int, default=0, help="of phrasings and of --limit [%(default)s]")
    parser.add_argument(
        "--no-media", action="store_true", help="leave the clips out of the files; rows name them by path"
    )
    parser.add_argument(
        "--max-shard-size", default="500MB", metavar="SIZE", help="media in one file [%(default)s]"
    )
    parser.add_argument("--license", help="licence for the card, e.g. cc-by-nc-sa-4.0 [the corpus' own]")
    add_push(parser)


def run(options: argparse.Namespace) -> int:
    """Run the command and return its exit status."""
    from dataset_scripts.errors import CorpusError

    from ..dialogue.instructions import InstructionError
    from ..evaluation.errors import EvaluationError

    errors = (EvaluationError, InstructionError, CorpusError, OSError)
    return guarded(partial(_instruct, options), *errors, stopped="stopped; the same command goes on")


def _instruct(options: argparse.Namespace) -> int:
    """Write the conversations; return 1 when clips were left out."""
    import datasets
    from datasets.utils.py_utils import convert_file_size_to_int

    from dataset_scripts.demonstration import is_demonstration
    from dataset_scripts.export.push import check_repository, push

    from ..dialogue.instruction_folder import (
        EVIDENCE,
        MANIFEST,
        PUBLISHED,
        data_files,
        finish,
        open_folder,
        write_split,
    )
    from ..dialogue.instructions import InstructionError, InstructionReport, instruction_rows
    from ..evaluation.protocols import load_protocol
    from ..explain.evidence_jobs import Job, examine, jobs_of

    folder = Path(options.to).expanduser()
    corpus = Path(options.data_dir).expanduser().absolute()
    if corpus in (folder.absolute(), *folder.absolute().parents):
        raise InstructionError(f"{folder} is inside the corpus, {corpus}: take another folder.")
    try:
        shard_bytes = convert_file_size_to_int(options.max_shard_size)
    except ValueError as error:
        raise InstructionError(
            f"--max-shard-size {options.max_shard_size} is no size, such as 500MB."
        ) from error
    builder = load_protocol(options.dataset, options.protocol, options.data_dir)
    open_folder(folder)
    tables = builder.as_dataset().cast_column("video", datasets.Video(decode=False))
    access = {"private": not options.public, "token": options.token}
    if options.push_to:
        check_repository(options.push_to, data_files(folder), **access)
    places = {
        row["path"]: row
        for table in tables.values()
        for row in table.select_columns(["path", "video", "audio"])
    }
    chosen = {split: _draw(table, options.limit, options.seed) for split, table in tables.items()}
    jobs = [job for table in chosen.values() for job in jobs_of(table, places)]
    if options.no_evidence:
        jobs = [Job(job.path, job.video, job.audio) for job in jobs]
    jobs = list({job.path: job for job in jobs}.values())
    print(f"{len(jobs):,} clips in {len(chosen)} splits", file=sys.stderr)
    examined = examine(jobs, None if options.no_evidence else folder / EVIDENCE, options.workers)
    if examined.reused:
        print(f"{examined.reused:,} clips were examined in an earlier run", file=sys.stderr)
    for _, reason in sorted(examined.unreadable.items()):
        print(f"skipped: {reason}", file=sys.stderr)
    for path, reason in sorted(examined.unmeasured.items()):
        print(f"described by its labels: {path}: {reason}", file=sys.stderr)
    # A run that is killed from here on leaves a folder that is known as ours
    (folder / MANIFEST).touch()
    report, counts = InstructionReport(), {}
    for split, table in chosen.items():
        rows = (row for row in table if row["path"] not in examined.unreadable)
        made = instruction_rows(
            rows, options.tasks, options.seed, options.per_clip, examined.evidence, None, report
        )
        counts[split] = write_split(folder, split, made, embed=not options.no_media, shard_bytes=shard_bytes)
    finish(
        folder,
        dataset=options.dataset,
        protocol=builder.config.name,
        description=builder.DESCRIPTION,
        homepage=builder.HOMEPAGE,
        license=options.license or builder.LICENSE or None,
        counts=counts,
        skipped=examined.unreadable,
        unmeasured=examined.unmeasured,
        settings={
            "protocol": builder.config.name,
            "tasks": "/".join(options.tasks),
            "per_clip": options.per_clip,
            "seed": options.seed,
            "limit": options.limit,
            "evidence": not options.no_evidence,
        },
        demonstration=is_demonstration(options.data_dir),
        embed=not options.no_media,
        repository=options.push_to,
    )
    told = sum(evidence.found for evidence in examined.evidence.values())
    print(
        f"{report.rows:,} conversations about {len(jobs) - len(examined.unreadable):,} clips in {folder}. "
        f"{len(examined.evidence):,} fakes were compared with their source, and differ in {told:,}."
    )
    if examined.unreadable:
        print(f"{len(examined.unreadable):,} clips could not be read and were left out.")
    if examined.unmeasured:
        print(
            f"{len(examined.unmeasured):,} fakes are described by their labels: their source cannot be read."
        )
    if options.push_to:
        # Fewer or more files than an earlier upload had would be mixed with what is left of it.
        check_repository(options.push_to, data_files(folder), **access)
        where = push(options.push_to, folder, PUBLISHED, **access)
        print(f"Uploaded to {where}.")
    else:
        print(f"Look at {folder / 'README.md'}, then try: datasets.load_dataset({str(options.to)!r})")
    return 1 if examined.unreadable else 0


def _draw(table, limit: int | None, seed: int):
    """The split, or `limit` clips of it, real and fake as evenly as there are, in the order of the split."""
    from dataset_scripts.splits import stable_order

    if limit is None or limit >= len(table):
        return table
    labels, paths = table["label"], table["path"]
    order = {path: place for place, path in enumerate(stable_order(paths, seed))}
    kinds = {
        label: sorted((n for n, x in enumerate(labels) if x == label), key=lambda n: order[paths[n]])
        for label in (0, 1)
    }
    few = min((0, 1), key=lambda label: len(kinds[label]))
    share = min(len(kinds[few]), limit // 2)
    return table.select(sorted(kinds[few][:share] + kinds[1 - few][: limit - share]))
