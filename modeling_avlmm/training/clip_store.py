"""Clips cut to a face, decoded once: draws of training then read their pictures and their sound from disk."""

from __future__ import annotations

import json
import math
import os
import uuid
from dataclasses import asdict, dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from warnings import warn

import numpy as np
import torch
from datasets import Dataset
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch.utils.data import DataLoader
from transformers import ProcessorMixin

from dataset_scripts.files import sha256_of, written_whole

from .. import face_crops, media
from ..evaluation.pace import telling_pace
from ..explain.words import count_of
from ..face_crops import EPS, FaceTrack
from ..inference.face_cache import file_stamps
from ..media import SAMPLING_RATE, Clip, MediaError, MediaReader, UnreadableMediaError
from ..media_errors import tells_damage
from . import face_cuts
from .clip_faces import ClipFaces
from .clip_reading import read_face
from .face_cuts import STARTS, FaceCut, open_row
from .progress import say

READER_CODE = sha256_of(
    __file__, face_cuts.__file__, face_crops.__file__, *sorted(Path(media.__file__).parent.glob("media*.py"))
)
"""Another version of the reader gives other pictures."""


class ClipStoreWarning(UserWarning):
    """An entry of the store that could not be read, and is cut again."""


@dataclass
class ClipStore:
    """
    A folder with a file for each clip: the crops of its face at every moment that a draw may show, and its sound.

    A draw is what [`FaceCut.read`] reads of the clip itself. A file is made when its clip is first asked for, whole or not at
    all, so a run that was stopped goes on. Its name stands for the clip's path, size and time of change, its face, the
    processor's settings and the version of the reader: where one of them changes, the clip is cut again. Several processes
    and runs may use one folder. Reading maps the file into memory and copies the frames of the draw. The file of a clip with a
    damaged passage is empty: draws are decoded from the clip, which chooses another stretch where one is damaged.

    Args:
        folder (`Path`): The folder.
        processor (`ProcessorMixin`): Says how frames are sampled and how large they are.
        clip_seconds (`float`, *optional*): Length of a draw.
        seconds (`float`): Seconds of a clip that are kept, from where the face is first seen.
    """

    folder: Path
    processor: ProcessorMixin
    clip_seconds: float | None
    seconds: float

    def __call__(self, row: dict, track: FaceTrack, rng: np.random.Generator | None) -> Clip:
        """
        Return a draw of a row's clip.

        Args:
            row (`dict`): In the package's schema.
            track ([`FaceTrack`]): The face in its picture.
            rng (`numpy.random.Generator`, *optional*): Chooses where it begins; the first place without it.

        Raises:
            MediaError: when the clip cannot be read.
        """
        entry = self.entry(row, track)
        if entry is None:
            return self._from_file(row, track, rng)
        try:
            clip = self._stored(entry, row["path"], rng)
        except (OSError, SafetensorError, KeyError, ValueError, TypeError) as error:
            if not isinstance(error, FileNotFoundError):
                warn(f"A clip is cut again, as {entry} is damaged: {error}", ClipStoreWarning, stacklevel=2)
            clip = self._stored(entry, row["path"], rng) if self._write(entry, row, track) else None
        return self._from_file(row, track, rng) if clip is None else clip

    def entry(self, row: dict, track: FaceTrack) -> Path | None:
        """Return the file of a row's clip; None for a clip that is no file on disk."""
        files = file_stamps(row)
        if files is None:
            return None
        processor = self.processor
        face = sha256(b"".join(np.ascontiguousarray(part).tobytes() for part in (track.times, track.boxes)))
        key = {
            "files": files,
            "face": [face.hexdigest(), track.hold],
            "sampling": [processor.fps, processor.max_frames, STARTS, self.clip_seconds, self.seconds],
            "crops": [processor.face_margin, processor.face_side],
            "trim_leading_silence": processor.trim_leading_silence,
            "reader": READER_CODE,
        }
        name = sha256(json.dumps(key).encode("utf-8", "surrogateescape")).hexdigest()
        return self.folder / name[:2] / f"{name[2:32]}.safetensors"

    def fill(self, rows: Dataset, faces: ClipFaces) -> None:
        """
        Cut the clips that are not in the folder yet. Those that cannot be read are left to the draws, which list them.

        Args:
            rows (`Dataset`): The clips.
            faces ([`ClipFaces`]): Gives the face of each.
        """
        say(
            f"  cutting the faces of {count_of(len(rows), 'clip')}; crops and sound are kept in {self.folder}"
        )
        loader = DataLoader(
            rows, batch_size=None, num_workers=faces.num_workers, collate_fn=partial(self._fill_one, faces)
        )
        new = sum(telling_pace(loader, len(rows), "clips"))
        say(f"  {count_of(new, 'clip')} cut, {len(rows) - new} there before or left to be read when drawn")

    def _fill_one(self, faces: ClipFaces, row: dict) -> bool:
        """Cut a row's clip where it is not in the folder; return whether it was cut."""
        try:
            track = faces.track(row) if row["video"] is not None else None
            entry = None if track is None else self.entry(row, track)
            if entry is None or entry.is_file():
                return False
            return self._write(entry, row, track)
        except MediaError:
            return False

    def _cut(self, reader: MediaReader, track: FaceTrack) -> FaceCut:
        return FaceCut.of(reader.info, track, self.processor, self.clip_seconds, self.seconds)

    def _from_file(self, row: dict, track: FaceTrack, rng: np.random.Generator | None) -> Clip:
        with open_row(row, self.processor) as reader:
            return read_face(reader, track, self.processor, self._cut(reader, track), rng)

    def _write(self, entry: Path, row: dict, track: FaceTrack) -> bool:
        """
        Write a clip's file whole, and return whether it holds the clip: one with a damaged passage is not kept.

        Processes that write the same file at once each have a name of their own until then.
        """
        processor = self.processor
        with open_row(row, processor) as reader:
            cut = self._cut(reader, track)
            try:
                clip = reader.read(
                    start=cut.first,
                    end=cut.end,
                    fps=processor.fps * (STARTS if cut.starts > 1 else 1),
                    track=track,
                    face_margin=processor.face_margin,
                    face_side=cut.side,
                )
                whole = not any(map(tells_damage, clip.warnings))
            except UnreadableMediaError:
                whole = False
            about = {"whole": json.dumps(whole), "cut": json.dumps(asdict(cut))}
            about["duration"] = repr(reader.info.duration)
        kept = {}
        if whole and clip.frames is not None:
            kept["frames"] = clip.frames.contiguous()
            kept["places"] = (clip.timestamps / cut.step).round().to(torch.int64)
        if whole and clip.audio is not None:
            kept["audio"] = clip.audio
        own = entry.with_name(f"{entry.stem}.{uuid.uuid4().hex}.safetensors")
        with written_whole(own) as partial:
            save_file(kept, partial, about)
        os.replace(own, entry)
        return whole

    def _stored(self, entry: Path, name: str, rng: np.random.Generator | None) -> Clip | None:
        """Return a draw from a clip's file; None where the clip is not kept."""
        with safe_open(entry, "pt") as stored:
            about, kept = stored.metadata(), set(stored.keys())
            if not json.loads(about["whole"]):
                return None
            cut = FaceCut(**json.loads(about["cut"]))
            place = cut.draw(rng)
            start = cut.first + place * cut.step
            end = min(start + cut.length, float(about["duration"]))
            frames = times = audio = None
            if "frames" in kept:
                frames, times = self._frames(stored, place, cut)
            if "audio" in kept:
                begin = round(start * SAMPLING_RATE) - round(cut.first * SAMPLING_RATE)
                part = stored.get_slice("audio")
                until = min(begin + round((end - start) * SAMPLING_RATE), part.get_shape()[0])
                audio = part[begin:until].clone() if begin < until else None
        return Clip(frames, times, audio, start, end, name)

    def _frames(
        self, stored: safe_open, place: int, cut: FaceCut
    ) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """Return the crops of the stretch that begins at start number `place`, and their times."""
        count = min(self.processor.max_frames, math.ceil(cut.length * self.processor.fps - EPS))
        places = stored.get_tensor("places").numpy() - place
        shown = np.flatnonzero((places >= 0) & (places % STARTS == 0) & (places < count * STARTS))
        if not len(shown):
            return None, None
        part = stored.get_slice("frames")
        frames = torch.cat([part[at : at + 1] for at in shown.tolist()])
        return frames, torch.from_numpy(places[shown] // STARTS).double() / self.processor.fps
