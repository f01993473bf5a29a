"""Measured evidence of many clips, in several processes, with a journal from which a stopped run continues."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import nullcontext
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from datasets import Dataset, Video
from tqdm import tqdm

from dataset_scripts.json_lines import JSONLines

from ..inference.reader_process import limits_in_use, start_worker
from ..media import MediaError, MediaReader
from .evidence import VERSION, Evidence, measure_evidence
from .regions import Box


@dataclass(frozen=True)
class Job:
    """A clip to open and, if it has a source, to compare with it. Media are absolute paths."""

    path: str
    video: str | None
    audio: str | None = None
    source_path: str | None = None
    source: str | None = None
    source_audio: str | None = None
    face_box: Box | None = None

    def key(self) -> str:
        """Return a text that changes when one of the files or the measurement does."""
        files = [_stamp(name) for name in (self.video, self.audio, self.source, self.source_audio)]
        return json.dumps([VERSION, files, self.face_box])


@dataclass
class Examined:
    """
    The results of [`examine`].

    Attributes:
        clips (`int`): Number of jobs.
        evidence (`dict[str, Evidence]`): Path -> evidence, for clips that have a source.
        unreadable (`dict[str, str]`): Path -> reason, for clips that cannot be read.
        unmeasured (`dict[str, str]`): Path -> reason, for clips whose source cannot be read.
        reused (`int`): Results taken from the journal.
    """

    clips: int = 0
    evidence: dict[str, Evidence] = field(default_factory=dict)
    unreadable: dict[str, str] = field(default_factory=dict)
    unmeasured: dict[str, str] = field(default_factory=dict)
    reused: int = 0

    @property
    def readable(self) -> int:
        """Number of clips that can be read."""
        return self.clips - len(self.unreadable)

    def add(self, path: str, result: Mapping[str, Any]) -> bool:
        """Add a result of [`examine_one`]; return False for a failure."""
        if result["unreadable"]:
            self.unreadable[path] = result["unreadable"]
        elif result["unmeasured"]:
            self.unmeasured[path] = result["unmeasured"]
        elif result["evidence"] is not None:
            self.evidence[path] = Evidence.from_dict(result["evidence"])
        return not (result["unreadable"] or result["unmeasured"])


def examine(jobs: Iterable[Job], cache: Path | None = None, workers: int = 1) -> Examined:
    """
    Open every clip and measure those that have a source.

    Args:
        jobs (`Iterable[Job]`): The clips.
        cache (`Path`, *optional*):
            Journal of results to read and to extend. A result counts as long as the files' sizes and times and the
            version of the measurement are the same. Failures are not kept, so they are tried again.
        workers (`int`, *optional*, defaults to 1): Processes.
    """
    jobs = list(jobs)
    found = Examined(clips=len(jobs))
    opened = nullcontext() if cache is None else JSONLines(cache, ("path", "key", "evidence"))
    with opened as journal:
        known = {line["path"]: line for _, line in journal} if journal is not None else {}
        waiting = []
        for job in jobs:
            line = known.get(job.path)
            if line is None or line["key"] != job.key():
                waiting.append(job)
                continue
            try:
                evidence = None if line["evidence"] is None else Evidence.from_dict(line["evidence"])
            except (TypeError, AttributeError, ValueError):  # not what was written: it is measured again
                waiting.append(job)
                continue
            found.reused += 1
            if evidence is not None:
                found.evidence[job.path] = evidence
        # `disable=None`: no progress bar where the output is not a terminal.
        for job, result in tqdm(_results(waiting, workers), total=len(waiting), unit="clip", disable=None):
            if found.add(job.path, result) and journal is not None:
                journal.append({"path": job.path, "key": job.key(), "evidence": result["evidence"]})
    return found


def measured_evidence(
    dataset: Dataset, cache: Path, sources: Dataset | None = None, say: Callable[[str], None] = print
) -> dict[str, Evidence]:
    """
    Compare each fake of a dataset with its source, and return the evidence by `path`.

    A fake whose source is missing or cannot be read has no entry: only its labels are known.

    Args:
        dataset (`Dataset`): Rows in the package's schema.
        cache (`Path`): Journal, as in [`examine`]; a stopped run continues from it.
        sources (`Dataset`, *optional*): Rows to look sources up in. Defaults to `dataset`.
        say (`Callable`, *optional*): Prints the counts.
    """
    rows, others = (
        table.select_columns(["path", "video", "audio", "label", "source"]).cast_column(
            "video", Video(decode=False)
        )
        for table in (dataset, dataset if sources is None else sources)
    )
    jobs = jobs_of(rows, {row["path"]: row for row in others})
    jobs = [job for job in jobs if job.source is not None or job.source_audio is not None]
    found = examine(jobs, cache)
    if new := found.clips - found.reused:
        say(f"  compared {new} fakes with their sources; kept in {cache}")
    if failed := [*found.unreadable.values(), *found.unmeasured.values()]:
        say(f"  {len(failed)} fakes could not be compared; the first one because: {failed[0]}")
    return found.evidence


def _results(jobs: list[Job], workers: int) -> Iterator[tuple[Job, dict[str, Any]]]:
    if workers <= 1:
        for job in jobs:
            yield job, examine_one(job)
        return
    # One thread each: the processes already share the cores.
    with ProcessPoolExecutor(
        workers, mp_context=get_context("spawn"), initializer=start_worker, initargs=(limits_in_use(),)
    ) as pool:
        futures = {pool.submit(examine_one, job): job for job in jobs}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        finally:  # after a stop, waiting jobs are not started
            pool.shutdown(wait=True, cancel_futures=True)


def examine_one(job: Job) -> dict[str, Any]:
    """
    Open one clip, and measure it if it has a source.

    Returns:
        `dict`: `evidence` (as a dict, or None), and the reasons `unreadable` and `unmeasured`, None for no failure.
    """
    result: dict[str, Any] = {"evidence": None, "unreadable": None, "unmeasured": None}
    fake, fake_audio = _media(job.video, job.audio)
    try:
        with MediaReader(fake, fake_audio) as reader:
            _ = reader.info
    except MediaError as error:
        result["unreadable"] = _named(error, job.path)
        return result
    if job.source is None and job.source_audio is None:
        return result
    source, source_audio = _media(job.source, job.source_audio)
    try:
        evidence = measure_evidence(
            fake, source, fake_audio=fake_audio, source_audio=source_audio, face_box=job.face_box
        )
    except MediaError as error:
        if error.name in (job.video, job.audio):
            result["unreadable"] = _named(error, job.path)
        else:
            result["unmeasured"] = _named(error, job.source_path or job.path)
        return result
    evidence.fake, evidence.source = job.path, job.source_path  # names within the corpus, not on this machine
    result["evidence"] = evidence.to_dict()
    return result


def _named(error: MediaError, name: str) -> str:
    """Return an error's message with the file's name within its corpus."""
    return str(type(error)(name, error.reason, error.advice)).replace(error.name, name)


def _media(video: str | None, audio: str | None) -> tuple[str | None, str | None]:
    """Return a reader's source and its separate sound; a clip without a picture is its sound."""
    return (audio, None) if video is None else (video, audio)


def _stamp(name: str | None) -> list[int] | None:
    try:
        status = os.stat(name) if name is not None else None
    except OSError:
        return None  # the reader will say what is wrong
    return None if status is None else [status.st_size, status.st_mtime_ns]


def jobs_of(rows: Iterable[Mapping[str, Any]], everything: Mapping[str, Mapping[str, Any]]) -> Iterator[Job]:
    """
    Yield a job for each row. Its source is looked up in `everything`, or else in the row's own corpus folder.

    Args:
        rows (`Iterable[dict]`): Rows with `video` as a path, or as `{"path": ...}`.
        everything (`Mapping`): `path` -> row, of all rows of the corpus at hand, of all splits.
    """
    for row in rows:
        video, audio = path_of(row["video"]), row.get("audio")
        job: dict[str, Any] = {"path": row["path"], "video": video, "audio": audio}
        if row["label"] == 1 and row.get("source"):
            source = everything.get(row["source"])
            if source is not None:
                job |= {"source": path_of(source["video"]), "source_audio": source.get("audio")}
            elif video is not None and video.replace(os.sep, "/").endswith("/" + row["path"]):
                corpus = video[: -len(row["path"])]
                place = os.path.normpath(os.path.join(corpus, *row["source"].split("/")))
                if place.startswith(corpus):  # a table may name any file of this machine
                    job["source"] = place
            job["source_path"] = row["source"]
        yield Job(**job)


def path_of(video: Any) -> str | None:
    """Return the path of a `video` cell that is not decoded."""
    return video["path"] if isinstance(video, Mapping) else video
