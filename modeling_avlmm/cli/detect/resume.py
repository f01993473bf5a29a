"""The journal of a run of `detect`: results on disk, so that a run that was stopped can go on."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from pathlib import Path

from dataset_scripts.json_lines import JSONLines
from dataset_scripts.run_lock import InUseError, RunLock

from ...inference.provenance import detector_identity
from ...media_links import is_link
from ...pipeline_avd import AVDeepfakeDetectionPipeline

FORMAT = "avlmm detect 1"
TRIES = 2
"""Runs that may end while a file is being read before it is left out: damaged H.264 can crash FFmpeg itself."""


class JournalError(ValueError):
    """A journal cannot be used as asked; the message says what to change."""


def run_identity(detector: AVDeepfakeDetectionPipeline, settings: dict) -> dict:
    """
    Return everything that results depend on beside the files; it is the same on every machine.

    Args:
        detector ([`AVDeepfakeDetectionPipeline`]): Scores the files.
        settings (`dict`): The options of the call, such as `threshold` and `window_seconds`.
    """

    def of(pipeline: AVDeepfakeDetectionPipeline) -> dict:
        config = pipeline.model.config
        return {
            **detector_identity(pipeline.model, pipeline.processor),
            "threshold": config.threshold,
            "temperature": config.temperature,
            "abstain_band": config.abstain_band,
        }

    identity = {"model": of(detector), "gate": None, "settings": settings}
    if detector.gate is not None:
        identity["gate"] = {**of(detector.gate.detector), "band": list(detector.gate.band)}
    return json.loads(json.dumps(identity))  # as it is read back


class Journal:
    """
    Results of finished files, found again by path, size and time of change.

    The first line names the detector and options of the run. After it each file has a line when it is begun and one with
    its result. Memory holds a key and a place in the file for each result.

    Args:
        path (`str` or `Path`): The file; created if it does not exist.
        identity (`dict`): From [`run_identity`].

    Raises:
        JournalError: when the file is not a journal, belongs to another detector or other options, or is in use.
    """

    def __init__(self, path: str | Path, identity: dict):
        self.path = Path(path)
        self._places: dict[bytes, int] = {}
        self._begun: Counter = Counter()
        try:
            self._lock = RunLock(Path(f"{path}.lock"), Path(f"{path}.holder"), str(path))
        except InUseError as error:
            raise JournalError(str(error)) from error
        except OSError as error:
            raise JournalError(f"{self.path} cannot be written: {error.strerror}.") from error
        try:
            self._check(identity)
            self._lines = JSONLines(self.path)
        except OSError as error:
            self._lock.release()
            raise JournalError(f"{self.path} cannot be written: {error.strerror}.") from error
        except JournalError:
            self._lock.release()
            raise
        self._index()
        if self._new:
            self._lines.append({"journal": FORMAT, "identity": identity})

    def _check(self, identity: dict) -> None:
        """Check the first line before the file is opened for writing, which could cut off the end of another file."""
        head = b""
        if self.path.exists():
            with open(self.path, "rb") as file:
                head = file.readline()
        # A first line that a kill cut off is written again.
        self._new = not head.endswith(b"\n") and f'{{"journal": "{FORMAT}"'.encode().startswith(head[:20])
        if self._new:
            return
        try:
            first = json.loads(head)
        except ValueError:
            first = None
        if not isinstance(first, dict) or first.get("journal") != FORMAT:
            raise JournalError(f"{self.path} is not a journal of detect. Name another file.")
        if differing := _differences(first["identity"], identity):
            raise JournalError(
                f"{self.path} holds results of another detector or of other options, which must not be mixed "
                f"({'; '.join(differing)}). Use those it was begun with, or name another journal."
            )

    def _index(self) -> None:
        for place, entry in self._lines:
            if "journal" in entry:
                continue
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
            else:  # the user stopped the run; the files that were begun did not cause it
                self._begun.clear()

    def __len__(self) -> int:
        """Return how many files have a result."""
        return len(self._places)

    def __contains__(self, file: str) -> bool:
        return _key(file) in self._places

    def result(self, file: str) -> dict | None:
        """Return what an earlier run found; None if the file is new, has changed or could not be read."""
        place = self._places.get(_key(file))
        return None if place is None else self._lines.at(place)["result"]

    def crashed(self, file: str) -> bool:
        """Return whether two runs ended, without a word, while this file was being read."""
        return self._begun[_key(file)] >= TRIES

    def take_over(self, other: Journal) -> None:
        """Take over the results of another journal of the same detector and options."""
        for key, place in other._places.items():
            if key not in self._places:
                self._places[key] = self._lines.append(other._lines.at(place))

    def begin(self, file: str) -> None:
        """Note that a file is about to be read."""
        self._lines.append({"key": _key(file).hex()})

    def finish(self, file: str, result: dict) -> None:
        """Note a file's result."""
        self._lines.append({"file": file, "key": _key(file).hex(), "result": result})

    def close(self, stopped: bool = False) -> None:
        """Close the file; `stopped` notes that an error or the user ended the run."""
        if stopped:
            self._lines.append({"stopped": True})
        self._lines.close()
        self._lock.release()


def _key(file: str) -> bytes:
    """Hash a file's path, size and time of change, or a link."""
    facts = [file] if is_link(file) else [os.path.abspath(file)]
    if not is_link(file) and os.path.exists(file):
        about = os.stat(file)
        facts += [str(about.st_size), str(about.st_mtime_ns)]
    return hashlib.blake2b("\0".join(facts).encode("utf-8", "surrogateescape"), digest_size=16).digest()


def _differences(then: dict, now: dict, name: str = "") -> list[str]:
    """Return what differs, in words: `settings.threshold: 0.5 then, 0.7 now`."""
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
