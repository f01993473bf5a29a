"""Leaks between splits: people, source clips, and recordings under other names.

Exact duplicates are found by SHA-256, of the file and of its decoded streams. Near duplicates (another codec, size, bit
rate or container) are found by perceptual hashes of picture and sound, compared pair by pair: for 40,000 clips that is
one matrix product of a few hundred signs a clip, and no index has to be trusted to propose every candidate.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from itertools import combinations, pairwise

import numpy as np
import torch
from scipy.fft import dctn

from ...media import SAMPLING_RATE
from ...media_silence import leading_silence, trailing_silence

HASH_FRAMES = 8
PICTURE_BITS = 64
SOUND_BITS = (8, 16)
"""Bits over time and over pitch: few over time, because codecs add up to 50 ms at an end."""
PICTURE_DISTANCE = 0.10
"""Share of differing bits, over all frames, up to which pictures are near duplicates. Measured on synthetic faces:
re-encoding (H.264 at CRF 36 and two thirds of the size, MPEG-4) changes 0 to 11 %, another forgery of the same clip 5 to
16 %, another person 38 to 51 %."""
SOUND_DISTANCE = 0.18
"""The same for sounds. Measured on synthetic speech of 1 and 2 s: re-encoding (AAC at 24 and 32 kbit/s, MP3 at 32)
changes 1 to 16 %, the same sentence in another voice 20 to 36 %, other sentences 34 to 59 %."""
FEWEST_FRAMES = 4
EXAMPLES = 20
_BLOCK = 2048
_FLAT_LEVELS = 2.0  # standard deviation, of 255 levels, below which a frame is flat
_FLAT_DECIBELS = 1.0  # standard deviation over time, in dB, below which a sound's spectrum is constant


def picture_hashes(frames: Iterable[torch.Tensor | None]) -> list[str | None]:
    """
    Return the 64-bit DCT hash ("pHash", Zauner 2010) of each frame.

    A bit tells whether one of the 8 x 8 lowest frequencies of the picture, at 32 x 32 grey pixels, is above their median.

    Args:
        frames (iterable of `torch.Tensor` of shape `(3, H, W)`, uint8): Frames; None for an absent one.

    Returns:
        `list[str | None]`: 16 hexadecimal digits; None for a frame that is absent or of one colour, whose hash would be
        noise.
    """
    return [None if frame is None else _picture_hash(frame) for frame in frames]


def _picture_hash(frame: torch.Tensor) -> str | None:
    weights = torch.tensor([0.299, 0.587, 0.114])[:, None, None]
    grey = (frame.float() * weights).sum(0)[None, None]
    small = torch.nn.functional.interpolate(grey, (32, 32), mode="bilinear", antialias=True)[0, 0].numpy()
    if small.std() < _FLAT_LEVELS:
        return None
    low = dctn(small, norm="ortho")[:8, :8].ravel()
    return _hex(low > np.median(low[1:]))


def sound_hash(samples: np.ndarray) -> str | None:
    """
    Return a 128-bit hash of a sound's course over time.

    The bits are the signs of the 8 x 16 lowest frequencies (over time x over pitch) of its spectrogram in 24 bands from
    150 to 4000 Hz, in dB, without leading and trailing silence. Our own choice, modelled on the picture's hash.

    Args:
        samples (`np.ndarray` of shape `(n,)`): Mono at 16 kHz.

    Returns:
        `str | None`: 32 hexadecimal digits; None for silence, and for a sound that doesn't change.
    """
    first = round(leading_silence(samples) * SAMPLING_RATE)
    last = len(samples) - round(trailing_silence(samples) * SAMPLING_RATE)
    size, hop, bands = 1024, 256, 24
    if last - first < size + 2 * SOUND_BITS[0] * hop:
        return None
    windows = np.lib.stride_tricks.sliding_window_view(samples[first:last].astype(np.float64), size)[::hop]
    power = np.abs(np.fft.rfft(windows * np.hanning(size))) ** 2
    edges = np.geomspace(150, 4000, bands + 1) * size / SAMPLING_RATE
    # Bands of whole bins: the lowest are two bins wide, and triangles would be no smoother.
    limits = np.maximum.accumulate(np.round(edges).astype(int))
    energy = np.stack([power[:, a : max(b, a + 1)].mean(1) for a, b in pairwise(limits)], axis=1)
    decibels = 10 * np.log10(energy + 1e-6 * energy.max())
    decibels -= decibels.mean(0)  # a channel or a voice colours the whole sound, not its course
    if decibels.std() < _FLAT_DECIBELS:
        return None
    low = dctn(decibels, norm="ortho")[1 : SOUND_BITS[0] + 1, : SOUND_BITS[1]]
    return _hex(low.ravel() > 0)


def _hex(bits: np.ndarray) -> str:
    return np.packbits(bits).tobytes().hex()


# -- leaks by the dataset's columns ------------------------------------------------------------------------------------


def split_leaks(splits: dict[str, list[dict]]) -> dict[str, dict]:
    """
    Find identities, source clips and donors that are in more than one split, by the dataset's own columns.

    Args:
        splits (`dict[str, list[dict]]`): The rows of each split.

    Returns:
        `dict`: `identities`, `sources` (a fake belongs to its genuine clip) and `donors` (people whose face or voice was
        put in, from the column `target_ids`, compared with identities and donors). Each has `known` (whether the column
        is filled), `count`, `clips` by split, and `examples`.
    """

    def by_identity(row: dict) -> list[str]:
        return [] if row.get("identity") is None else [row["identity"]]

    def by_source(row: dict) -> list[str]:
        return [row.get("source") or row["path"]]

    def by_donor(row: dict) -> list[str]:
        return [name for name in row.get("target_ids") or [] if name]

    rows = [row for members in splits.values() for row in members]
    leaks = {
        "identities": {
            "known": any(map(by_identity, rows)),
            **_crossing(splits, by_identity),
        },
        # `path` groups a clip with itself, so that one listed in two splits is found too.
        "sources": {"known": any(row.get("source") for row in rows), **_crossing(splits, by_source)},
    }
    donors = {name for row in rows for name in by_donor(row)}
    involved = _crossing(
        splits, lambda row: [name for name in {*by_identity(row), *by_donor(row)} if name in donors]
    )
    leaks["donors"] = {"known": bool(donors), **involved}
    return leaks


def _crossing(splits: dict[str, list[dict]], keys_of: Callable[[dict], list[str]]) -> dict:
    members: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for split, rows in splits.items():
        for row in rows:
            for key in keys_of(row):
                members[key][split].append(row["path"])
    crossing = {key: found for key, found in sorted(members.items()) if len(found) > 1}
    clips = Counter()
    for found in crossing.values():
        clips.update({split: len(paths) for split, paths in found.items()})
    examples = [
        {"name": key, "clips": {split: paths[:2] for split, paths in found.items()}}
        for key, found in list(crossing.items())[:EXAMPLES]
    ]
    return {"count": len(crossing), "clips": dict(clips), "examples": examples}


# -- duplicates by the files -------------------------------------------------------------------------------------------


def find_duplicates(splits: dict[str, list[dict]], records: dict[str, dict]) -> dict:
    """
    Find duplicates across splits, exact and near.

    A fake looks like the clip it was made from, and within a split it may, so only pairs across splits count. The one
    exception is the same file under both labels, which is wrong anywhere.

    Args:
        splits (`dict[str, list[dict]]`): The rows of each split.
        records (`dict[str, dict]`): Results of [`file_properties`] by `path`.

    Returns:
        `dict`:

        - **exact** -- For `file` (the same bytes), `video` and `audio` (the same when decoded): `count` of groups across
          splits, `real_fake` (the number of groups with both labels) and `examples`.
        - **conflicting** -- Files that are there as real and as fake: `count`, `examples`.
        - **near** -- `count`, `kinds` (`picture and sound`, `picture`, `sound`; each by `same_label` and `real_fake`)
          and the nearest pairs as `examples`, without exact duplicates.
        - **comparable** -- Numbers of clips, and of those whose picture and sound can be told from others.
        - **thresholds** -- Shares of differing bits.
    """
    clips = [
        {"path": row["path"], "split": split, "label": row["label"], **records[row["path"]]["hashes"]}
        for split, rows in splits.items()
        for row in rows
        if row["path"] in records
    ]
    for clip in clips:
        # Black pictures and silences are equal without being duplicates.
        clip["video"] = clip["video"] if any(clip["picture"] or []) else None
        clip["audio"] = clip["audio"] if clip["sound"] else None
    files = _groups(clips, "file")
    conflicting = [group for group in files if len({clip["label"] for clip in group}) > 1]
    return {
        "exact": {kind: _exact(_groups(clips, kind)) for kind in ("file", "video", "audio")},
        "conflicting": {
            "count": len(conflicting),
            "examples": [[clip["path"] for clip in group[:4]] for group in conflicting[:EXAMPLES]],
        },
        "near": _near(clips),
        "comparable": {
            "clips": len(clips),
            "picture": sum(clip["video"] is not None for clip in clips),
            "sound": sum(clip["audio"] is not None for clip in clips),
        },
        "thresholds": {"picture": PICTURE_DISTANCE, "sound": SOUND_DISTANCE},
    }


def _groups(clips: list[dict], kind: str) -> list[list[dict]]:
    found: dict[str, list[dict]] = defaultdict(list)
    for clip in clips:
        if clip[kind] is not None:
            found[clip[kind]].append(clip)
    return [group for group in found.values() if len(group) > 1]


def _exact(groups: list[list[dict]]) -> dict:
    crossing = [group for group in groups if len({clip["split"] for clip in group}) > 1]
    examples = []
    for group in crossing[:EXAMPLES]:
        first = {clip["split"]: clip["path"] for clip in reversed(group)}
        examples.append({"clips": first, "labels": sorted({clip["label"] for clip in group})})
    return {
        "count": len(crossing),
        "real_fake": sum(len({clip["label"] for clip in group}) > 1 for group in crossing),
        "examples": examples,
    }


def _near(clips: list[dict]) -> dict:
    names = ("picture and sound", "picture", "sound")
    kinds = {name: {"same_label": 0, "real_fake": 0} for name in names}
    examples: list[tuple] = []
    members: dict[str, list[dict]] = defaultdict(list)
    for clip in clips:
        members[clip["split"]].append(clip)
    ready = {split: _Signs(found) for split, found in members.items()}
    for one, other in combinations(ready, 2):
        for a in ready[one].blocks():
            for b in ready[other].blocks():
                picture, sound = a.distances(b)
                near_picture, near_sound = picture <= PICTURE_DISTANCE, sound <= SOUND_DISTANCE
                new = ~a.same(b)
                alike = a.labels[:, None] == b.labels[None]
                for name, found in zip(
                    names,
                    (near_picture & near_sound, near_picture & ~near_sound, near_sound & ~near_picture),
                    strict=True,
                ):
                    found = found & new
                    kinds[name]["same_label"] += int((found & alike).sum())
                    kinds[name]["real_fake"] += int((found & ~alike).sum())
                    for i, j in np.argwhere(found)[: 10 * EXAMPLES]:
                        order = (names.index(name), float(np.nansum([picture[i, j], sound[i, j]])))
                        pair = (order, a.clips[i], b.clips[j], picture[i, j], sound[i, j], name)
                        examples.append(pair)
                examples = sorted(examples, key=lambda pair: pair[0])[:EXAMPLES]
    return {
        "count": sum(sum(found.values()) for found in kinds.values()),
        "kinds": kinds,
        "examples": [
            {
                "kind": name,
                "clips": {a["split"]: a["path"], b["split"]: b["path"]},
                "labels": sorted({a["label"], b["label"]}),
                "picture": None if np.isnan(picture) else round(float(picture), 4),
                "sound": None if np.isnan(sound) else round(float(sound), 4),
            }
            for _, a, b, picture, sound, name in examples
        ],
    }


class _Signs:
    """The hashes of clips as rows of +1 and -1, so that a product of two matrices counts the bits that agree."""

    def __init__(self, clips: list[dict]):
        self.clips = clips
        self.labels = np.array([clip["label"] for clip in clips])
        nothing = [None] * HASH_FRAMES
        self.picture, self.seen = _signs([clip["picture"] or nothing for clip in clips], PICTURE_BITS)
        self.sound, self.heard = _signs([[clip["sound"]] for clip in clips], SOUND_BITS[0] * SOUND_BITS[1])

    def blocks(self) -> list[_Signs]:
        if len(self.clips) <= _BLOCK:
            return [self]
        return [_Signs(self.clips[at : at + _BLOCK]) for at in range(0, len(self.clips), _BLOCK)]

    def distances(self, other: _Signs) -> tuple[np.ndarray, np.ndarray]:
        """Return the shares of differing bits `(n, m)` of picture and sound; NaN if there is too little to compare."""
        frames = self.seen @ other.seen.T
        frames[frames < FEWEST_FRAMES] = np.nan
        picture = (1 - self.picture @ other.picture.T / (frames * PICTURE_BITS)) / 2
        heard = self.heard @ other.heard.T
        heard[heard == 0] = np.nan
        sound = (1 - self.sound @ other.sound.T / (heard * self.sound.shape[1])) / 2
        return picture, sound

    def same(self, other: _Signs) -> np.ndarray:
        """Mark the pairs `(n, m)` that are exact duplicates in bytes, picture or sound."""
        found = np.zeros((len(self.clips), len(other.clips)), bool)
        for kind in ("file", "video", "audio"):
            places = defaultdict(list)
            for column, clip in enumerate(other.clips):
                places[clip[kind]].append(column)
            for line, clip in enumerate(self.clips):
                if clip[kind] is not None and clip[kind] in places:
                    found[line, places[clip[kind]]] = True
        return found


def _signs(hashes: list[list[str | None]], bits: int) -> tuple[np.ndarray, np.ndarray]:
    """Return signs `(n, parts * bits)`, 0 for an absent hash, and the mask `(n, parts)` of hashes that are there."""
    parts = len(hashes[0])
    there = np.array([[part is not None for part in row] for row in hashes], np.float32)
    text = "".join(part or "0" * (bits // 4) for row in hashes for part in row)
    values = np.unpackbits(np.frombuffer(bytes.fromhex(text), np.uint8)).reshape(len(hashes), parts, bits)
    signs = (values.astype(np.float32) * 2 - 1) * there[:, :, None]
    return signs.reshape(len(hashes), parts * bits), there
