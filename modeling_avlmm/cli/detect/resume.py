"""What a run of `detect` has done, on disk, so that one that was stopped goes on: JSON lines, one a finished file."""

import hashlib
import json
import os
from collections import Counter
from pathlib import Path

from filelock import FileLock, Timeout

from ...media_sources import is_link
from ...pipeline_avd import AVDeepfakeDetectionPipeline

FORMAT = "avlmm detect 1"
TRIES = 2
"""Runs that may end while a file is being read before it is left out: damaged H.264 can crash FFmpeg itself."""


class JournalError(ValueError):
    """A journal that cannot be used as asked; the message says what to change."""


def run_identity(detector: AVDeepfakeDetectionPipeline, settings: dict) -> dict:
    """
    Everything that results depend on beside the files, the same on every machine.

    Args:
        detector ([`AVDeepfakeDetectionPipeline`]): What scores.
        settings (`dict`): The options of the call, such as `threshold` and `window_seconds`.
    """
    from ...inference.identity import detector_identity

    def of(pipeline: AVDeepfakeDetectionPipeline) -> dict:
        config = pipeline.model.config
        fitted = {name: getattr(config, name, None) for name in ("threshold", "temperature", "abstain_band")}
        return {**detector_identity(pipeline.model, pipeline.processor), **fitted}

    identity = {"model": of(detector), "gate": None, "settings": settings}
    if detector.gate is not None:
        identity["gate"] = {**of(detector.gate.detector), "band": list(detector.gate.band)}
    return json.loads(json.dumps(identity))  # as it is read back


class Journal:
    """
    Results of the files that are done, by path, size and time of change.

    The first line says which detector and options the results are of. Then each file has a line when it is begun and one
    with its result. Kept in memory are a key and a place in the file for each result.

    Args:
        path (`str` or `Path`): The file; made where there is none.
        identity (`dict`): As of [`run_identity`].

    Raises:
        JournalError: where the file is no journal, is of another detector or other options, or is in use.
    """

    def __init__(self, path: str | Path, identity: dict):
        self.path = Path(path)
        self._places: dict[bytes, int] = {}
        self._begun: Counter = Counter()
        self._lock = FileLock(f"{self.path}.lock")
        try:
            self._lock.acquire(timeout=0)
        except Timeout as error:
            raise JournalError(
                f"Another run is writing {self.path}. Wait for it, or name another journal."
            ) from error
        except OSError as error:
            raise JournalError(f"{self.path} cannot be written: {error.strerror}.") from error
        try:
            self._open(identity)
        except OSError as error:
            self._lock.release()
            raise JournalError(f"{self.path} cannot be written: {error.strerror}.") from error
        except JournalError:
            self._lock.release()
            raise

    def _open(self, identity: dict) -> None:
        self._file = open(self.path, "a+b")  # noqa: SIM115 (close() does)
        try:
            self._file.seek(0)
            head = self._file.readline()
            if not head.endswith(b"\n"):
                if head and not f'{{"journal": "{FORMAT}"'.encode().startswith(head[:20]):
                    raise JournalError(f"{self.path} is no journal of detect. Name another file.")
                self._file.truncate(0)
                self._append({"journal": FORMAT, "identity": identity})
                return
            self._check(head, identity)
            self._index()
        except JournalError:
            self._file.close()
            raise

    def _check(self, head: bytes, identity: dict) -> None:
        try:
            first = json.loads(head)
        except ValueError:
            first = None
        if not isinstance(first, dict) or first.get("journal") != FORMAT:
            raise JournalError(f"{self.path} is no journal of detect. Name another file.")
        differing = _differences(first["identity"], identity)
        if differing:
            raise JournalError(
                f"{self.path} holds results of a run with another detector or other options, and the two must not be mixed "
                f"({'; '.join(differing)}). Go on with what it was begun with, or name another journal."
            )

    def _index(self) -> None:
        place = self._file.tell()
        for line in self._file:
            if not line.endswith(b"\n"):  # cut off by a kill
                self._file.truncate(place)
                break
            entry = json.loads(line)
            key = bytes.fromhex(entry["key"]) if "key" in entry else None
            if "result" in entry:
                self._begun.pop(key, None)
                # A file that could not be read is tried again: the disk may be back, or the link.
                if entry["result"]["error"] is None:
                    self._places[key] = place
                else:
                    self._places.pop(key, None)
            elif key is not None:
                self._begun[key] += 1
            else:  # stopped by the user: what was begun is not to blame
                self._begun.clear()
            place += len(line)

    def __len__(self) -> int:
        """How many files have a result."""
        return len(self._places)

    def __contains__(self, file: str) -> bool:
        return _key(file) in self._places

    def result(self, file: str) -> dict | None:
        """What an earlier run found, or None where the file is new, has changed or could not be read."""
        place = self._places.get(_key(file))
        if place is None:
            return None
        self._file.flush()
        self._file.seek(place)
        return json.loads(self._file.readline())["result"]

    def crashed(self, file: str) -> bool:
        """Whether two runs ended, without a word, while this file was being read."""
        return self._begun[_key(file)] >= TRIES

    def begin(self, file: str) -> None:
        """Notes that a file is about to be read."""
        self._append({"key": _key(file).hex()})

    def finish(self, file: str, result: dict) -> None:
        """Notes a file's result."""
        self._append({"file": file, "key": _key(file).hex(), "result": result})

    def close(self, stopped: bool = False) -> None:
        """Closes the file; `stopped` notes that it was the user who ended the run."""
        if stopped:
            self._append({"stopped": True})
        self._file.close()
        self._lock.release()

    def _append(self, entry: dict) -> None:
        self._file.write(json.dumps(entry).encode() + b"\n")  # opened for appending: always at the end
        self._file.flush()


def _key(file: str) -> bytes:
    """Of a file its path, size and time of change; of a link the link."""
    facts = [file] if is_link(file) else [os.path.abspath(file)]
    if not is_link(file) and os.path.exists(file):
        about = os.stat(file)
        facts += [str(about.st_size), str(about.st_mtime_ns)]
    return hashlib.blake2b("\0".join(facts).encode("utf-8", "surrogateescape"), digest_size=16).digest()


def _differences(then: dict, now: dict, name: str = "") -> list[str]:
    """What differs, in words: `settings.threshold: 0.5 then, 0.7 now`."""
    if isinstance(then, dict) and isinstance(now, dict):
        names = sorted({*then, *now})
        return [
            line
            for n in names
            for line in _differences(then.get(n), now.get(n), f"{name}.{n}" if name else n)
        ]
    return [] if then == now else [f"{name}: {_short(then)} then, {_short(now)} now"]


def _short(value: object) -> str:
    return "none" if value is None else "another" if isinstance(value, dict) else str(value)
