"""Opens and measures many clips in several processes, and keeps the results: a stopped run goes on where it was.

One line of JSON for each clip, keyed by its path, the files' sizes and times and the version of the measurement.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from datasets import Dataset, Video
from tqdm import tqdm

from ..media import MediaError, MediaReader
from .evidence import VERSION, Evidence, measure_evidence
from .regions import Box


@dataclass(frozen=True)
class Job:
    """One clip to open and, where it has a source, to measure. Media are absolute paths."""

    path: str
    video: str | None
    audio: str | None = None
    source_path: str | None = None
    source: str | None = None
    source_audio: str | None = None
    face_box: Box | None = None

    def key(self) -> str:
        """Changes where a file or the measurement does."""
        files = [_stamp(name) for name in (self.video, self.audio, self.source, self.source_audio)]
        return json.dumps([VERSION, files, self.face_box])


@dataclass
class Examined:
    """What [`examine`] found.

    Attributes:
        evidence (`dict[str, Evidence]`): Path -> evidence, for the clips that have a source.
        unreadable (`dict[str, str]`): Path -> why the clip cannot be used.
        unmeasured (`dict[str, str]`): Path -> why its source cannot be used.
        reused (`int`): Results that were there already.
    """

    evidence: dict[str, Evidence] = field(default_factory=dict)
    unreadable: dict[str, str] = field(default_factory=dict)
    unmeasured: dict[str, str] = field(default_factory=dict)
    reused: int = 0


def examine(jobs: Iterable[Job], cache: Path | None = None, workers: int = 1) -> Examined:
    """Open every clip and measure those that have a source.

    Args:
        jobs (`Iterable[Job]`): The clips.
        cache (`Path`, *optional*): File of JSON lines to read and to add to. Failures are not kept: they are tried again.
        workers (`int`, defaults to 1): Processes.
    """
    found = Examined()
    known = read_cache(cache) if cache is not None else {}
    waiting: list[Job] = []
    for job in jobs:
        line = known.get(job.path)
        if line is not None and line["key"] == job.key():
            found.reused += 1
            if line["evidence"] is not None:
                found.evidence[job.path] = Evidence.from_dict(line["evidence"])
        else:
            waiting.append(job)
    file = open(cache, "a", encoding="utf-8") if cache is not None else None  # noqa: SIM115 (closed below)
    try:
        # `disable=None`: silent where nobody looks, that is, where the output is no terminal.
        for job, result in tqdm(_results(waiting, workers), total=len(waiting), unit="clip", disable=None):
            if result["unreadable"]:
                found.unreadable[job.path] = result["unreadable"]
                continue
            if result["unmeasured"]:
                found.unmeasured[job.path] = result["unmeasured"]
                continue
            if result["evidence"] is not None:
                found.evidence[job.path] = Evidence.from_dict(result["evidence"])
            if file is not None:
                line = {"path": job.path, "key": job.key(), "evidence": result["evidence"]}
                file.write(json.dumps(line) + "\n")
                file.flush()
    finally:
        if file is not None:
            file.close()
    return found


def measured_evidence(
    dataset: Dataset, cache: Path, sources: Dataset | None = None, say: Callable[[str], None] = print
) -> dict[str, Evidence]:
    """
    What comparing each fake of a dataset with its source shows, by `path`; a stopped run goes on with `cache`.

    A fake whose source is not there, or that cannot be read, has no entry: no more is known of it than its labels say.

    Args:
        dataset (`Dataset`): Rows in the package's schema.
        cache (`Path`): As of [`examine`].
        sources (`Dataset`, *optional*): Where sources are; `dataset` itself if left out.
        say (`Callable`, *optional*): Prints what is counted.
    """
    rows, others = (
        table.select_columns(["path", "video", "audio", "label", "source"]).cast_column(
            "video", Video(decode=False)
        )
        for table in (dataset, dataset if sources is None else sources)
    )
    jobs = jobs_of(rows, {row["path"]: row for row in others})
    jobs = [job for job in jobs if job.source is not None or job.source_audio is not None]
    cache.parent.mkdir(parents=True, exist_ok=True)
    found = examine(jobs, cache)
    if new := len(jobs) - found.reused:
        say(f"  compared {new} fakes with their sources, once; kept in {cache}")
    if failed := [*found.unreadable.values(), *found.unmeasured.values()]:
        say(f"  {len(failed)} fakes could not be compared, the first because: {failed[0]}")
    return found.evidence


def read_cache(cache: Path) -> dict[str, dict[str, Any]]:
    """Path -> line. A last line that was being written when the process was killed is removed from the file."""
    if not cache.exists():
        return {}
    text = cache.read_text(encoding="utf-8")
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        partial = cache.with_name(cache.name + ".partial")
        partial.write_text(whole, encoding="utf-8")
        os.replace(partial, cache)
    lines = (json.loads(line) for line in whole.splitlines())
    return {line["path"]: line for line in lines}


def _results(jobs: list[Job], workers: int) -> Iterator[tuple[Job, dict[str, Any]]]:
    if workers <= 1:
        for job in jobs:
            yield job, examine_one(job)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_start_worker) as pool:
        futures = {pool.submit(examine_one, job): job for job in jobs}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        finally:  # stopped from outside: what waits is not begun
            pool.shutdown(wait=True, cancel_futures=True)


def _start_worker() -> None:
    import torch

    torch.set_num_threads(1)


def examine_one(job: Job) -> dict[str, Any]:
    """Open one clip, and measure it where it has a source: `evidence` as a dict, or why there is none."""
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
    evidence.fake, evidence.source = job.path, job.source_path  # where the files lie is of no interest
    result["evidence"] = evidence.to_dict()
    return result


def _named(error: MediaError, name: str) -> str:
    """An error under the name that the file has within its corpus."""
    return str(type(error)(name, error.reason, error.advice)).replace(error.name, name)


def _media(video: str | None, audio: str | None) -> tuple[str | None, str | None]:
    """Source and separate sound for a reader: a clip without a picture is its sound."""
    return (audio, None) if video is None else (video, audio)


def _stamp(name: str | None) -> list[int] | None:
    try:
        status = os.stat(name) if name is not None else None
    except OSError:
        return None  # the reader will say what is wrong
    return None if status is None else [status.st_size, status.st_mtime_ns]


def jobs_of(rows: Iterable[Mapping[str, Any]], everything: Mapping[str, Mapping[str, Any]]) -> Iterator[Job]:
    """A job for each row; its source is looked up in `everything` (`path` -> row), else below the row's own folder.

    Args:
        rows (`Iterable[dict]`): With `video` as a path, or as `{"path": ...}`.
        everything (`Mapping`): All rows of the corpus at hand, of all splits.
    """
    for row in rows:
        video, audio = path_of(row["video"]), row.get("audio")
        job: dict[str, Any] = {"path": row["path"], "video": video, "audio": audio}
        if row["label"] == 1 and row.get("source"):
            source = everything.get(row["source"])
            if source is not None:
                job |= {"source": path_of(source["video"]), "source_audio": source.get("audio")}
            elif video is not None and video.replace(os.sep, "/").endswith("/" + row["path"]):
                job["source"] = os.path.join(video[: -len(row["path"])], *row["source"].split("/"))
            job["source_path"] = row["source"]
        yield Job(**job)


def path_of(video: Any) -> str | None:
    """Path of a `video` cell that is not decoded."""
    return video["path"] if isinstance(video, Mapping) else video
