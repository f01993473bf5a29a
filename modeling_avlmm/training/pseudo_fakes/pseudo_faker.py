"""Fakes made on the fly from genuine clips, with the label of each track: training from real video alone.

```python
faker = PseudoFaker(fake_share=0.5, seed=0)
sample = faker.draw(row["draw"], clip, other_clip)  # in any worker: seed and number decide
sample.clip, sample.label, sample.video_label, sample.audio_label, sample.kind
```

| kind | picture | sound | overall | video | audio |
|---|---|---|---|---|---|
| `other_audio` | untouched | of another genuine clip, or of another time | fake | real | real |
| `shifted_audio` | untouched | 0.2 to 1 s late or early | fake | real | real |
| `self_blended_faces` | face blended with an altered copy of itself | untouched | fake | fake | real |
| `upsampled_faces` | face enlarged from fewer pixels, with the grid that this leaves | untouched | fake | fake | real |
| `resynthesised_speech` | untouched | resynthesised from its own spectrogram | fake | real | fake |
| `both` | as `self_blended_faces` or `upsampled_faces` | as `resynthesised_speech` | fake | fake | fake |
| `genuine` | untouched | untouched | real | real | real |

**Labels of a mismatch.** A picture and a sound that are genuine but don't belong together make a fake clip of two real tracks.
IDForge labels genuine sound from elsewhere as real, and a detector of synthetic speech that was told otherwise would learn to
call genuine recordings fake. So both tracks are real by default. For a model that can't take a fake clip of two real tracks,
`mismatch_tracks="unknown"` labels both -100. It must be both: rules that complete labels, such as those of
[`SSAVDForDeepfakeDetection`], would conclude from one real track of a fake clip that the other is fake. (That model takes
either setting; its own shuffled pairs say the same only with `mismatch_is_fake=True`.) The dataset schema has no fake clips of
two real tracks: these labels are training targets and belong in no dataset row.

**A shortcut to avoid.** If only fakes were processed, a network would learn to find processing. So [`PseudoFaker.draw`] sends
genuine clips and fakes alike through [`harmless`], which draws gain, rounding, equaliser, joints, resizing and blur from the
same distribution for both. What remains is what each kind is about: sound that doesn't match the lips, an edge in the face,
speech without the fine structure of a voice. Calling the faker itself skips this step: an untouched track is the input's, bit
for bit.

`blended_faces` and `altered_sound` describe the kinds and name their sources. They make no claim about how well a detector
trained this way finds true fakes: the papers they name measured their own versions, and these are simpler.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Literal

import numpy as np
import torch

from ...configuration_detector import IGNORE_INDEX
from ...media import SAMPLING_RATE, Clip
from ...modeling_verdicts import FAKE, REAL
from .altered_sound import (
    SHORTEST_SECONDS,
    harmless_audio,
    is_audible,
    other_audio,
    resynthesised_speech,
    shifted_audio,
)
from .blended_faces import (
    SMALLEST_SIDE,
    FaceRegion,
    LargestFace,
    harmless_frames,
    self_blended_faces,
    upsampled_faces,
)

# The labels of picture and sound. The clip itself is always fake.
_TRACKS: Mapping[str, tuple[int, int]] = MappingProxyType(
    {
        "other_audio": (REAL, REAL),
        "shifted_audio": (REAL, REAL),
        "self_blended_faces": (FAKE, REAL),
        "upsampled_faces": (FAKE, REAL),
        "resynthesised_speech": (REAL, FAKE),
        "both": (FAKE, FAKE),
    }
)
KINDS = tuple(_TRACKS)
_FACES = {"self_blended_faces": self_blended_faces, "upsampled_faces": upsampled_faces}
MISMATCHES = ("other_audio", "shifted_audio")
GENUINE = "genuine"

# Keep the two random streams apart that start from the same seed and number.
_DECISION, _CONTENT = 1, 2


@dataclass(frozen=True)
class PseudoFake:
    """
    A training clip with its labels.

    Attributes:
        clip ([`Clip`]): Frames, timestamps and sound, with the shapes, types and ranges of the source clip.
        label (`int`): 0 real, 1 fake.
        video_label, audio_label (`int`): 0 real, 1 fake, -100 unknown, or no such track.
        kind (`str`): One of [`KINDS`], or `"genuine"`.
        drawn (`Mapping[str, float]`): What was drawn for the sound, such as `shift` in seconds. For inspecting examples.
    """

    clip: Clip
    label: int
    video_label: int
    audio_label: int
    kind: str
    drawn: Mapping[str, float] = field(default_factory=dict)


def harmless(clip: Clip, rng: np.random.Generator) -> Clip:
    """
    Process a clip in ways that don't make it fake: see [`harmless_frames`] and [`harmless_audio`].

    Use it on genuine clips and pseudo-fakes alike, as [`PseudoFaker.draw`] does. On one side alone it would be the
    easiest thing to learn.

    Args:
        clip ([`Clip`]): The clip. It isn't changed.
        rng (`np.random.Generator`): Draws the amounts. Those of one track don't depend on the other track.

    Returns:
        [`Clip`]: with the same timestamps, shapes, types and ranges.
    """
    picture, sound = rng.spawn(2)
    frames = None if clip.frames is None else harmless_frames(clip.frames, picture)
    audio = None if clip.audio is None else harmless_audio(clip.audio, sound)
    return replace(clip, frames=frames, audio=audio, warnings=list(clip.warnings))


class PseudoFaker:
    """
    Makes fakes from genuine clips. Holds only settings, so it can be sent to data loader workers.

    Args:
        weights (`Mapping[str, float]`, *optional*):
            The relative frequency of each kind. Kinds that are left out aren't drawn. All kinds are equal by default. `both`
            takes the face kinds that have a weight, or either if none has.
        fake_share (`float`, *optional*, defaults to 0.5): The share of fakes that [`PseudoFaker.draw`] makes, in [0, 1].
        seed (`int`, *optional*, defaults to 0): Seed of [`PseudoFaker.draw`].
        pairs (`bool`, *optional*, defaults to `False`):
            Draws come in pairs: number `2k` is genuine, `2k + 1` a fake, and both are processed alike. Given the same
            clip, as they should be, they differ only in the forgery. Needs a `fake_share` of 0.5.
        mismatch_tracks (`str`, *optional*, defaults to `"real"`):
            Labels of both tracks of `other_audio` and `shifted_audio`: `"real"` or `"unknown"` (-100); see above.
        shift_seconds (`tuple[float, float]`, *optional*, defaults to `(0.2, 1.0)`):
            Shortest and longest shift of `shifted_audio`. Sound passes for in step up to 0.185 s (ITU-R BT.1359), and a
            model that sees few frames per second can hardly tell such shifts. A shift is always less than half the sound.
        face_of (`Callable`, *optional*):
            Takes frames `(T, 3, H, W)` and returns the [`FaceRegion`] to blend. Defaults to [`LargestFace`], which finds
            it. Where it returns None, the region is in the middle, which suits drawings and ready crops
            ([`centred_face`]). Must be picklable for workers.

    Raises:
        ValueError: for unknown kinds, weights that are negative or all 0, and values out of range.
    """

    def __init__(
        self,
        weights: Mapping[str, float] | None = None,
        *,
        fake_share: float = 0.5,
        seed: int = 0,
        pairs: bool = False,
        mismatch_tracks: Literal["real", "unknown"] = "real",
        shift_seconds: tuple[float, float] = (0.2, 1.0),
        face_of: Callable[[torch.Tensor], FaceRegion | None] | None = None,
    ):
        weights = dict.fromkeys(KINDS, 1.0) if weights is None else dict(weights)
        if unknown := set(weights) - set(KINDS):
            raise ValueError(f"no kinds of pseudo-fakes: {sorted(unknown)}. There are {list(KINDS)}.")
        if not all(0 <= w < np.inf for w in weights.values()) or not sum(weights.values()):
            raise ValueError(f"weights must be 0 or more, finite, and one of them above 0, not {weights}.")
        if not 0 <= fake_share <= 1:
            raise ValueError(f"fake_share must be between 0 and 1, not {fake_share}.")
        if pairs and fake_share != 0.5:
            raise ValueError(f"pairs are half fakes: fake_share must be 0.5 with them, not {fake_share}.")
        if mismatch_tracks not in ("real", "unknown"):
            raise ValueError(f"mismatch_tracks must be 'real' or 'unknown', not {mismatch_tracks!r}.")
        if not 0 < shift_seconds[0] <= shift_seconds[1] < np.inf:
            raise ValueError(f"shift_seconds must be (shortest, longest), above 0, not {shift_seconds}.")
        # In the order of KINDS, so that draws don't depend on the order of a recipe's keys.
        self.weights = {kind: float(weights[kind]) for kind in KINDS if weights.get(kind)}
        self.fake_share, self.seed, self.pairs = fake_share, seed, pairs
        self.mismatch_tracks, self.shift_seconds = mismatch_tracks, shift_seconds
        self.face_of = face_of or LargestFace()

    @property
    def takes_others(self) -> bool:
        """Whether a kind with a weight needs the sound of another clip."""
        return "other_audio" in self.weights

    def is_fake(self, number: int) -> bool:
        """Return True if draw `number` (0 or more) will be a fake. Only seed and number decide, in any worker."""
        if self.pairs:
            return number % 2 == 1
        return bool(np.random.default_rng([self.seed, _DECISION, number]).random() < self.fake_share)

    def clip_number(self, number: int) -> int:
        """Return the number that decides the clip and the processing of draw `number`: the same for both of a pair."""
        return number // 2 if self.pairs else number

    def draw(
        self, number: int, clip: Clip, other: Clip | None = None, around: Clip | None = None
    ) -> PseudoFake:
        """
        Return sample `number` of a training run, fake or genuine, after [`harmless`] processing.

        The same seed, number and clips give the same sample. Arguments are those of [`PseudoFaker.__call__`].
        """
        rng = np.random.default_rng([self.seed, _CONTENT, self.clip_number(number)])
        making, processing = rng.spawn(2)
        sample = self(clip, other, making, around) if self.is_fake(number) else _genuine(clip)
        return replace(sample, clip=harmless(sample.clip, processing))

    def possible_kinds(self, clip: Clip, other: Clip | None = None) -> list[str]:
        """
        Return the kinds with a weight that can be made from a clip.

        Faces need frames of at least 32 pixels each way. Speech needs at least 0.25 s of sound at -60 dBFS or more.
        Mismatches need such sound and two frames: a shift needs enough sound for the shortest one, and `other_audio`
        needs sound in `other` that isn't the clip's own.
        """
        face = (
            clip.frames is not None and len(clip.frames) > 0 and min(clip.frames.shape[-2:]) >= SMALLEST_SIDE
        )
        speech = is_audible(clip.audio)
        moving = clip.frames is not None and len(clip.frames) > 1
        possible = {
            "other_audio": moving
            and speech
            and other is not None
            and is_audible(other.audio)
            and not _share_sound(clip, other),
            "shifted_audio": moving and speech and self._longest_shift(clip.audio) >= self._shortest_shift,
            "self_blended_faces": face,
            "upsampled_faces": face,
            "resynthesised_speech": speech,
            "both": face and speech,
        }
        return [kind for kind in self.weights if possible[kind]]

    def __call__(
        self,
        clip: Clip,
        other: Clip | None = None,
        rng: np.random.Generator | None = None,
        around: Clip | None = None,
    ) -> PseudoFake:
        """
        Make a fake of a kind that is drawn by weight among the possible ones.

        Args:
            clip ([`Clip`]): A genuine clip. It isn't changed; the result shares its untouched tracks.
            other ([`Clip`], *optional*):
                Another genuine clip, or another time of the same one, for `other_audio`.
            rng (`np.random.Generator`): Draws everything.
            around ([`Clip`], *optional*):
                A wider window of the same file, whose sound fills the gap of `shifted_audio`.

        Returns:
            [`PseudoFake`]: the unchanged clip, of kind `"genuine"` and labelled real, if no kind is possible.

        Raises:
            ValueError: if `rng` is missing, or `around` is a window of another file.
        """
        if rng is None:
            raise ValueError("give rng, a numpy.random.Generator: draws without a seed cannot be repeated.")
        if around is not None and around.name != clip.name:
            raise ValueError(f"around is {around.name!r}: it must be a wider window of {clip.name!r}.")
        kinds = self.possible_kinds(clip, other)
        if not kinds:
            return _genuine(clip)
        weights = np.asarray([self.weights[kind] for kind in kinds])
        kind = str(rng.choice(kinds, p=weights / weights.sum()))
        frames = clip.frames
        if kind in _FACES or kind == "both":
            frames = self._altered_frames(kind, clip, rng)
        audio, drawn = self._altered_audio(kind, clip, other, rng, around)
        tracks = _TRACKS[kind]
        if kind in MISMATCHES and self.mismatch_tracks == "unknown":
            tracks = (IGNORE_INDEX, IGNORE_INDEX)
        clip = replace(clip, frames=frames, audio=audio, warnings=list(clip.warnings))
        return _labelled(clip, FAKE, tracks, kind, drawn)

    def _altered_frames(self, kind: str, clip: Clip, rng: np.random.Generator) -> torch.Tensor:
        if kind == "both":
            kind = str(rng.choice([name for name in _FACES if name in self.weights] or list(_FACES)))
        frames, _ = _FACES[kind](clip.frames, clip.timestamps, rng, self.face_of(clip.frames))
        return frames

    def _altered_audio(
        self, kind: str, clip: Clip, other: Clip | None, rng: np.random.Generator, around: Clip | None
    ) -> tuple[torch.Tensor | None, dict[str, float]]:
        """Return the sound of a fake, and what was drawn for it."""
        if kind in ("resynthesised_speech", "both"):
            return resynthesised_speech(clip.audio, rng)
        if kind == "other_audio":
            return other_audio(clip.audio, other.audio, rng), {}
        if kind != "shifted_audio":
            return clip.audio, {}
        longest = min(self._longest_shift(clip.audio), round(self.shift_seconds[1] * SAMPLING_RATE))
        samples = int(rng.choice([-1, 1]) * rng.integers(self._shortest_shift, longest + 1))
        before, wider = 0, None
        if around is not None and around.audio is not None:
            before, wider = round((clip.start - around.start) * SAMPLING_RATE), around.audio
        return shifted_audio(clip.audio, samples, wider, before), {"shift": samples / SAMPLING_RATE}

    @property
    def _shortest_shift(self) -> int:
        return max(1, round(self.shift_seconds[0] * SAMPLING_RATE))

    @staticmethod
    def _longest_shift(audio: torch.Tensor) -> int:
        return (len(audio) - 1) // 2


def _labelled(
    clip: Clip, label: int, tracks: tuple[int, int], kind: str, drawn: Mapping[str, float]
) -> PseudoFake:
    video = tracks[0] if clip.has_video else IGNORE_INDEX
    audio = tracks[1] if clip.has_audio else IGNORE_INDEX
    return PseudoFake(clip, label, video, audio, kind, dict(drawn))


def _genuine(clip: Clip) -> PseudoFake:
    return _labelled(clip, REAL, (REAL, REAL), GENUINE, {})


def _share_sound(clip: Clip, other: Clip) -> bool:
    """Return True if two clips share a moment of the same recording, as overlapping windows of one file do.

    Names alone don't tell, as clips made from arrays may all have the same name. So the sound of the overlap is compared.
    """
    start, end = max(clip.start, other.start), min(clip.end, other.end)
    if clip.audio is other.audio:
        return True
    if clip.name != other.name or start >= end:
        return False
    pieces = []
    for each in (clip, other):
        begin = round((start - each.start) * SAMPLING_RATE)
        pieces.append(each.audio[begin : begin + round((end - start) * SAMPLING_RATE)])
    length = min(map(len, pieces))
    first, second = (piece[:length] for piece in pieces)
    # An overlap too short to compare counts as shared.
    return length < SHORTEST_SECONDS * SAMPLING_RATE or bool(torch.allclose(first, second, atol=1e-2))
