"""Face crops of genuine recordings, decoded once: from clips those that follow each track, from photographs each face."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch.utils.data import DataLoader

from ..evaluation.pace import telling_pace
from ..explain.words import count_of
from ..faces import FaceFinder, crops, points_in_crop, square_boxes
from ..inference.face_cache import FaceCache
from ..media import MediaError, MediaReader, UnreadableMediaError
from .array_store import ArrayStore
from .batches import DropList
from .genuine_data import Recording
from .progress import say
from .pseudo_fakes.decoder_redrawing import Redrawer
from .pseudo_fakes.self_blended import SMALLEST_CROP
from .recipe_values import RecipeError

MARGIN = 2.0
"""Side of a stored crop by the longer side of the box: room for the margins that training draws."""
LARGEST = 480
"""Largest stored crop, in pixels; larger ones are reduced."""
SHORTEST_TRACK = 4
"""Moments that a face must be seen at."""
SMALLEST_FACE, SMALLEST_PHOTO = 30.0, 60.0
"""Longer side of the smallest face of a clip, and of a photograph, in pixels."""
MOST_FACES = 6
"""Faces of a photograph that are used, the surest first. All of these are our own choice."""


@dataclass
class FaceReader:
    """
    Cuts the faces out of recordings; runs in the workers of a loader.

    Args:
        cache ([`FaceCache`]): Finds the tracks of clips.
        frames (`int`): Most crops of a track, evenly spread.
        smallest (`float`, *optional*): Longer side of the smallest face of a clip, in pixels.
        finder ([`FaceFinder`]): Finds the faces of photographs.
    """

    cache: FaceCache
    frames: int
    smallest: float = SMALLEST_FACE
    finder: FaceFinder = field(default_factory=FaceFinder)

    def __call__(self, recording: Recording) -> list[tuple[int, np.ndarray, dict]] | MediaError:
        """Return track, crop and columns of every crop of a recording; the error of one that cannot be read."""
        try:
            cut = self._photo(recording) if recording.kind == "photos" else self._clip(recording)
            return [found for found in cut if len(found[1]) >= SMALLEST_CROP]
        except MediaError as error:
            return error

    def _clip(self, recording: Recording) -> Iterator[tuple[int, np.ndarray, dict]]:
        source = {"video": recording.file, "audio": recording.audio}
        tracks = [
            track
            for track in self.cache(source)
            if len(track) >= SHORTEST_TRACK and track.size >= self.smallest
        ]
        with MediaReader(recording.file, name=recording.path) as reader:
            for number, track in enumerate(tracks):
                chosen = np.linspace(0, len(track) - 1, min(self.frames, len(track))).round().astype(int)
                for place in np.unique(chosen):
                    time = float(track.times[place])
                    end = min(reader.info.duration, time + 0.5 / self.cache.fps)
                    clip = reader.read_passage(time, end, fps=self.cache.fps, max_frames=1, with_audio=False)
                    if clip.frames is not None:
                        yield number, *_cut(clip.frames, track.boxes[place], track.landmarks[place])

    def _photo(self, recording: Recording) -> Iterator[tuple[int, np.ndarray, dict]]:
        try:
            with Image.open(recording.file) as picture:
                pixels = np.array(ImageOps.exif_transpose(picture).convert("RGB"))
        except (OSError, ValueError, Image.DecompressionBombError) as error:
            raise UnreadableMediaError(recording.path, str(error), "Repair or remove it") from error
        frame = torch.from_numpy(pixels).permute(2, 0, 1)[None]
        faces = [face for face in self.finder(frame)[0] if face.size >= SMALLEST_PHOTO]
        for number, face in enumerate(faces[:MOST_FACES]):
            yield number, *_cut(frame, face.box, face.landmarks)


def _cut(frame: torch.Tensor, box: np.ndarray, landmarks: np.ndarray) -> tuple[np.ndarray, dict]:
    """Return the crop `(side, side, 3)` of a face in a frame `(1, 3, H, W)`, with its box and landmarks in the crop."""
    height, width = frame.shape[-2:]
    square = square_boxes(box[None], width, height, MARGIN)
    side = min(LARGEST, int(square[0, 2] - square[0, 0]))
    crop = crops(frame, square, side)[0].permute(1, 2, 0).numpy()
    points = points_in_crop(np.concatenate([box.reshape(2, 2), landmarks])[None], square, side)[0]
    return crop, {"box": points[:2].reshape(4).astype(np.float32), "landmarks": points[2:].astype(np.float32)}


def face_store(
    folder: Path,
    recordings: list[Recording],
    reader: FaceReader,
    drops: DropList,
    num_workers: int = 0,
) -> ArrayStore:
    """
    Open the face crops of recordings, or cut them.

    Args:
        folder (`Path`): Folder of the crops.
        recordings (`list[Recording]`): Clips and photographs.
        reader ([`FaceReader`]): Cuts them.
        drops ([`DropList`]): List of files that cannot be read.
        num_workers (`int`, *optional*, defaults to 0): Processes that decode.

    Returns:
        [`ArrayStore`]: uint8 crops `(side, side, 3)` with `recording` (number in `recordings`), `track`, `box` and
        `landmarks`, in pixels of the crop.

    Raises:
        RecipeError: when no recording has a face, or the folder has the crops of other recordings.
    """
    settings = {
        "recordings": _digest(recordings),
        "frames": reader.frames,
        "smallest": reader.smallest,
        "margin": MARGIN,
        "largest": LARGEST,
        "fps": reader.cache.fps,
    }
    known = ArrayStore.open(folder, settings)
    if known is not None:
        return known
    say(f"  cutting faces out of {count_of(len(recordings), 'recording')}; crops are kept in {folder}")
    loader = DataLoader(recordings, batch_size=None, num_workers=num_workers, collate_fn=reader)
    read = telling_pace(loader, len(recordings), "recordings")
    try:
        return ArrayStore.build(folder, settings, np.uint8, _rows(read, recordings, drops))
    except ValueError as error:
        raise RecipeError("data: no recording shows a face that is large enough and long enough.") from error


def redrawn_store(
    folder: Path, crops: ArrayStore, numbers: list[int], settings: dict, seed: int
) -> ArrayStore:
    """
    Open crops as a trained decoder redraws them, or redraw them.

    Args:
        folder (`Path`): Folder of the redrawn crops.
        crops ([`ArrayStore`]): Face crops.
        numbers (`list[int]`): Those to redraw.
        settings (`dict`): What these numbers depend on.
        seed (`int`): Draws the network for each.

    Raises:
        RecipeError: where the networks are not installed, or the folder has other crops.
    """
    settings = {**settings, "seed": seed, "redrawn": len(numbers)}
    known = ArrayStore.open(folder, settings)
    if known is not None:
        return known
    try:
        redraw = Redrawer()
    except (ImportError, OSError) as error:
        raise RecipeError(f"picture.redrawn_frames: {error} Or set it to 0.") from error
    say(f"  redrawing {count_of(len(numbers), 'crop')}; they are kept in {folder}")
    rows = (
        (redraw(crops[number], np.random.default_rng([seed, number])), {"of": number})
        for number in telling_pace(numbers, len(numbers), "crops")
    )
    return ArrayStore.build(folder, settings, np.uint8, rows)


def _rows(read, recordings: list[Recording], drops: DropList) -> Iterator[tuple[np.ndarray, dict]]:
    for number, found in enumerate(read):
        if isinstance(found, MediaError):
            drops.add(recordings[number].path, found)
            continue
        for track, crop, columns in found:
            yield crop, {"recording": number, "track": track, **columns}


def _digest(recordings: list[Recording]) -> str:
    names = json.dumps([[each.kind, each.path] for each in recordings])
    return hashlib.sha256(names.encode()).hexdigest()[:16]
