"""Instruction conversations about a whole corpus: measure the clips, write the texts, upload the folder."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import datasets
from datasets.utils.py_utils import convert_file_size_to_int

from dataset_scripts.demonstration import is_demonstration
from dataset_scripts.export.push import check_repository, push
from dataset_scripts.files import unfit_for_cell
from dataset_scripts.run_lock import only_run_in
from dataset_scripts.splits import stable_order
from dataset_scripts.text_files import printable

from ..evaluation.protocols import load_protocol, protocol_name
from ..explain.evidence_jobs import Examined, Job, examine, jobs_of
from ..explain.words import count_of
from .families import TASKS
from .instruction_card import InstructionSet
from .instruction_folder import (
    CARD,
    EVIDENCE,
    MANIFEST,
    PUBLISHED,
    data_files,
    finish_folder,
    open_folder,
    write_split,
)
from .instructions import InstructionError, InstructionReport, instruction_rows


@dataclass
class InstructOptions:
    """
    Options of [`instruct_corpus`].

    Args:
        dataset (`str`): A registered dataset, such as `fakeavceleb`.
        data_dir (`str`): Folder of the unpacked corpus.
        to (`str`): Folder to write: new, empty, or from an earlier run.
        protocol (`str`, *optional*): The dataset's configuration. Defaults to the dataset's own default.
        tasks (`Sequence[str]`, *optional*): Tasks, of `TASKS`. Defaults to all four.
        per_clip (`int`, *optional*, defaults to 1): Conversations of each task about each clip.
        evidence (`bool`, *optional*, defaults to `True`): Compare each fake with its source.
        workers (`int`, *optional*, defaults to 1): Processes that open and compare clips.
        limit (`int`, *optional*): Clips to draw from each split. Defaults to all.
        seed (`int`, *optional*, defaults to 0): Seed of the phrasings and of the draw.
        media (`bool`, *optional*, defaults to `True`): Put the clips into the files.
        max_shard_size (`str`, *optional*, defaults to `"500MB"`): Media in one file.
        license (`str`, *optional*): Licence for the card. Defaults to the corpus' own.
        push_to (`str`, *optional*): Dataset repository to upload to, `owner/name`.
        public (`bool`, *optional*, defaults to `False`): Make a new repository public.
        token (`str`, *optional*): Hub token. Defaults to that of `hf auth login`.
    """

    dataset: str
    data_dir: str
    to: str
    protocol: str | None = None
    tasks: Sequence[str] = TASKS
    per_clip: int = 1
    evidence: bool = True
    workers: int = 1
    limit: int | None = None
    seed: int = 0
    media: bool = True
    max_shard_size: str = "500MB"
    license: str | None = None
    push_to: str | None = None
    public: bool = False
    token: str | None = None

    @property
    def folder(self) -> Path:
        return Path(self.to).expanduser()

    def shard_bytes(self) -> int:
        """Return `max_shard_size` in bytes; raises [`InstructionError`] if it is no size."""
        try:
            return convert_file_size_to_int(self.max_shard_size)
        except ValueError as error:
            raise InstructionError(
                f"--max-shard-size {self.max_shard_size} is not a size, such as 500MB."
            ) from error


def instruct_corpus(options: InstructOptions) -> int:
    """
    Write instruction conversations about the clips of a dataset, and upload them if `push_to` is given.

    Measured evidence is kept in the folder: after a stop, the same call continues where it was.

    Returns:
        `int`: number of clips that could not be read and were left out.

    Raises:
        InstructionError: for options that cannot be used together, or a folder that holds something else.
        EvaluationError: for an unknown dataset or protocol, or a corpus that is not there.
        CorpusError: when the Hub refuses the upload.
    """
    folder, shard_bytes = options.folder, options.shard_bytes()
    corpus = Path(options.data_dir).expanduser().resolve()
    if corpus in (folder.resolve(), *folder.resolve().parents):
        raise InstructionError(f"{folder} is inside the corpus, {corpus}: choose another folder.")
    builder = load_protocol(options.dataset, options.protocol, options.data_dir)
    open_folder(folder)
    _check_repository(options)
    with only_run_in(folder):
        return _write(options, builder, shard_bytes)


def _write(options: InstructOptions, builder: datasets.DatasetBuilder, shard_bytes: int) -> int:
    """Write and upload the conversations, and return the number of clips that were left out."""
    folder = options.folder
    tables = builder.as_dataset().cast_column("video", datasets.Video(decode=False))
    chosen = {split: _draw(table, options.limit, options.seed) for split, table in tables.items()}
    examined = _examined(tables, chosen, options)
    # A run that is killed from here on leaves a folder that is recognized as ours.
    (folder / MANIFEST).touch()
    report, counts = InstructionReport(), {}
    for split, table in chosen.items():
        rows = (row for row in table if row["path"] not in examined.unreadable)
        made = instruction_rows(
            rows, options.tasks, options.seed, options.per_clip, examined.evidence, None, report
        )
        counts[split] = write_split(folder, split, made, embed=options.media, shard_bytes=shard_bytes)
    made = InstructionSet(
        dataset=options.dataset,
        protocol=protocol_name(builder),
        description=builder.DESCRIPTION,
        homepage=builder.HOMEPAGE,
        license=options.license or builder.LICENSE or None,
        counts=counts,
        settings={
            "protocol": protocol_name(builder),
            "tasks": "/".join(options.tasks),
            "per_clip": options.per_clip,
            "seed": options.seed,
            "limit": options.limit,
            "evidence": options.evidence,
        },
        skipped=examined.unreadable,
        unmeasured=examined.unmeasured,
        demonstration=is_demonstration(options.data_dir),
        embed=options.media,
        repository=options.push_to,
    )
    finish_folder(folder, made)
    _say_result(report, examined, folder)
    _upload(options)
    return len(examined.unreadable)


def _draw(table: datasets.Dataset, limit: int | None, seed: int) -> datasets.Dataset:
    """Return a split, or `limit` clips of it in its order, with as even a share of real and fake as it allows."""
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


def _examined(
    tables: Mapping[str, datasets.Dataset], chosen: Mapping[str, datasets.Dataset], options: InstructOptions
) -> Examined:
    """Open all chosen clips, measure those that have a source, and report the outcome."""
    places = {
        row["path"]: row
        for table in tables.values()
        for row in table.select_columns(["path", "video", "audio"])
    }
    jobs = {job.path: job for table in chosen.values() for job in jobs_of(table, places)}
    if not options.evidence:
        jobs = {path: Job(path, job.video, job.audio) for path, job in jobs.items()}
    print(f"{len(jobs):,} clips in {len(chosen)} splits", file=sys.stderr)
    too_large = _too_large(jobs.values()) if options.media else {}
    jobs = {path: job for path, job in jobs.items() if path not in too_large}
    cache = options.folder / EVIDENCE if options.evidence else None
    examined = examine(jobs.values(), cache, options.workers)
    examined.unreadable |= too_large
    examined.clips += len(too_large)
    if examined.reused:
        print(f"{examined.reused:,} clips were examined in an earlier run", file=sys.stderr)
    for _, reason in sorted(examined.unreadable.items()):
        print(printable(f"skipped: {reason}"), file=sys.stderr)
    for path, reason in sorted(examined.unmeasured.items()):
        print(printable(f"described by its labels: {path}: {reason}"), file=sys.stderr)
    return examined


def _too_large(jobs: Iterable[Job]) -> dict[str, str]:
    """Return the clips that cannot be put into the files, with the reason."""
    found = {}
    for job in jobs:
        for file in filter(None, (job.video, job.audio)):
            with contextlib.suppress(OSError):  # what is not there cannot be read either
                if reason := unfit_for_cell(file):
                    found[job.path] = f"{job.path}: {reason}. Leave it out, or give --no-media"
    return found


def _say_result(report: InstructionReport, examined: Examined, folder: Path) -> None:
    differ = sum(evidence.found for evidence in examined.evidence.values())
    print(
        f"{report.rows:,} conversations about {examined.readable:,} clips in {folder}. "
        f"{len(examined.evidence):,} fakes were compared with their source; {differ:,} differ from it."
    )
    if examined.unreadable:
        print(f"{count_of(len(examined.unreadable), 'clip')} could not be read: left out.")
    if examined.unmeasured:
        print(
            f"{len(examined.unmeasured):,} fakes are described by their labels: their source cannot be read."
        )


def _check_repository(options: InstructOptions) -> None:
    """Refuse a repository that cannot take the upload, or whose other files would mix with it."""
    if options.push_to:
        files = data_files(options.folder)
        check_repository(options.push_to, files, private=not options.public, token=options.token)


def _upload(options: InstructOptions) -> None:
    if not options.push_to:
        print(f"Look at {options.folder / CARD}, then try: datasets.load_dataset({options.to!r})")
        return
    # Checked again: an earlier upload may have had other files, which would be mixed with these.
    _check_repository(options)
    where = push(options.push_to, options.folder, PUBLISHED, private=not options.public, token=options.token)
    print(f"Uploaded to {where}.")
