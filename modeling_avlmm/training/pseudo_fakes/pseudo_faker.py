"""Training from real video alone: fakes made on the fly from genuine clips, with the label of each track.

```python
faker = PseudoFaker(fake_share=0.5, seed=0)
sample = faker.draw(row["draw"], clip, other_clip)  # in a worker: depends on the seed and the number alone
sample.clip, sample.label, sample.video_label, sample.audio_label, sample.kind
```

| kind | picture | sound | overall | video | audio |
|---|---|---|---|---|---|
| `other_audio` | untouched | of another genuine clip, or of another time | fake | real | real |
| `shifted_audio` | untouched | 0.2 to 1 s late or early | fake | real | real |
| `self_blended_faces` | face blended with a changed copy of itself | untouched | fake | fake | real |
| `upsampled_faces` | face enlarged from fewer pixels, with the grid that this leaves | untouched | fake | fake | real |
| `resynthesised_speech` | untouched | synthesised anew from its spectrogram | fake | real | fake |
| `both` | as one of these two, of those that are drawn at all | as `resynthesised_speech` | fake | fake | fake |
| `genuine` | untouched | untouched | real | real | real |

**The labels of a mismatch.** Picture and sound that were recorded, but not together, are a fake clip made of real tracks.
IDForge labels genuine sound from elsewhere as real sound, and a detector of synthetic speech that was told otherwise would be
taught to call genuine recordings fake. So the tracks are real by default. For a model that cannot take a fake clip of two real
tracks there is `mismatch_tracks="unknown"`: both are -100 then. Both, because rules that complete labels, as
[`SSAVDForDeepfakeDetection`] has, would conclude from one real track of a fake clip that the other one is fake. (That model
takes either; its own shuffled pairs say the same as these with `mismatch_is_fake=True` only.) The dataset schema knows no
fake clips of real tracks: these labels are training targets and belong in no dataset row.

**What a network must not learn.** If only fakes were processed, "was processed" would be enough to find them. So
[`PseudoFaker.draw`] puts genuine clips and fakes alike through [`harmless`], whose gains, rounding, equaliser, joints,
resizing and blur come out of the same distribution for both. What is left to see is what each kind is about: sound that does
not go with the lips, an edge in the face, speech without the fine structure of a voice. Calling the faker itself does no
such thing: an untouched track is the input's, bit by bit.

The kinds and their sources are described at the functions that make them, in `pseudo_fake_faces` and `pseudo_fake_sound`.
Nothing is said here about how well a detector trained like this does on true fakes: the papers named there measured their own
versions, and these are simpler.
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
    harmless_frames,
    self_blended_faces,
    upsampled_faces,
)

# What each kind makes fake: the picture, the sound. The clip is fake in any case.
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

# Streams of random numbers that must not run in parallel: all start from the same seed and number.
_DECISION, _CONTENT = 1, 2


@dataclass(frozen=True)
class PseudoFake:
    """
    A clip to train on, and what is true of it.

    Attributes:
        clip ([`Clip`]): Frames, timestamps and sound of the shapes, types and ranges of the clip it was made from.
        label (`int`): 0 real, 1 fake.
        video_label, audio_label (`int`): 0 real, 1 fake, -100 unknown or no such track.
        kind (`str`): One of [`KINDS`], or `"genuine"`.
        drawn (`Mapping[str, float]`): What was drawn for the sound, such as `shift` in seconds. For looking at examples.
    """

    clip: Clip
    label: int
    video_label: int
    audio_label: int
    kind: str
    drawn: Mapping[str, float] = field(default_factory=dict)


def harmless(clip: Clip, rng: np.random.Generator) -> Clip:
    """
    A clip after what happens to genuine ones on their way: see [`harmless_frames`] and [`harmless_audio`].

    To be done to genuine clips and pseudo-fakes alike, as [`PseudoFaker.draw`] does: on one side alone it would be the
    easiest thing to learn.

    Args:
        clip ([`Clip`]): Not written to.
        rng (`np.random.Generator`): Draws the amounts. The picture's do not depend on whether there is sound.

    Returns:
        [`Clip`]: with the same timestamps, shapes, types and ranges.
    """
    picture, sound = rng.spawn(2)
    frames = None if clip.frames is None else harmless_frames(clip.frames, picture)
    audio = None if clip.audio is None else harmless_audio(clip.audio, sound)
    return replace(clip, frames=frames, audio=audio, warnings=list(clip.warnings))


class PseudoFaker:
    """
    Makes fakes of genuine clips. Holds settings only, so it can be sent to the workers of a data loader.

    Args:
        weights (`Mapping[str, float]`, *optional*):
            How often each kind is drawn, relative to the others; kinds left out are not drawn. By default all alike.
        fake_share (`float`, *optional*, defaults to 0.5): Of what [`PseudoFaker.draw`] gives, in [0, 1].
        seed (`int`, *optional*, defaults to 0): Of [`PseudoFaker.draw`].
        pairs (`bool`, *optional*, defaults to `False`):
            Of the draws `2k` and `2k + 1` the second is a fake and the first genuine, and both are processed alike: given the
            same clip, as they should be, they differ in what makes the fake and in nothing else. `fake_share` is 0.5 then.
        mismatch_tracks (`str`, *optional*, defaults to `"real"`):
            Labels of both tracks of `other_audio` and `shifted_audio`: `"real"` or `"unknown"` (-100); see above.
        shift_seconds (`tuple[float, float]`, *optional*, defaults to `(0.2, 1.0)`):
            Shortest and longest shift of `shifted_audio`. Below 0.2 s sound passes for in step (ITU-R BT.1359 accepts up to
            0.185 s), and a model that sees few frames per second has little to tell it by. A shift is less than half of
            the sound in any case.
        face_of (`Callable`, *optional*):
            From frames `(T, 3, H, W)` to the [`FaceRegion`] to blend, such as a face detector's. Without it, and where it
            gives None, [`find_face`] guesses, which is for clips cut around one face. Must be picklable for workers.

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
        # In the order of KINDS, so that the order of a recipe's keys does not change what is drawn.
        self.weights = {kind: float(weights[kind]) for kind in KINDS if weights.get(kind)}
        self.fake_share, self.seed, self.pairs = fake_share, seed, pairs
        self.mismatch_tracks, self.shift_seconds, self.face_of = mismatch_tracks, shift_seconds, face_of

    def is_fake(self, number: int) -> bool:
        """Whether draw `number` (0 or more) is to be a fake: by seed and number alone, in whichever worker."""
        if self.pairs:
            return number % 2 == 1
        return bool(np.random.default_rng([self.seed, _DECISION, number]).random() < self.fake_share)

    def clip_number(self, number: int) -> int:
        """Number of the clip that draw `number` is made of, and of how it is processed: the same for both of a pair."""
        return number // 2 if self.pairs else number

    def draw(
        self, number: int, clip: Clip, other: Clip | None = None, around: Clip | None = None
    ) -> PseudoFake:
        """
        Sample `number` of a training run: a fake, or the genuine clip, and either [`harmless`]ly processed.

        The same seed, number and clips give the same sample. Arguments are those of [`PseudoFaker.__call__`].
        """
        rng = np.random.default_rng([self.seed, _CONTENT, self.clip_number(number)])
        making, processing = rng.spawn(2)
        sample = self(clip, other, making, around) if self.is_fake(number) else _genuine(clip)
        return replace(sample, clip=harmless(sample.clip, processing))

    def possible_kinds(self, clip: Clip, other: Clip | None = None) -> list[str]:
        """
        Those of the wanted kinds that can be made of a clip.

        A face needs frames of at least 32 pixels each way, speech at least 0.25 s of sound above -60 dBFS, and a mismatch
        sound as well as two frames; a shift enough sound for the shortest one, and `other_audio` sound in `other` that
        is not the clip's own.
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
        A fake of a kind drawn by weight among those that are possible.

        Args:
            clip ([`Clip`]): Genuine. Not written to; what the kind leaves alone is shared with the result.
            other ([`Clip`], *optional*):
                Another genuine clip, or another time of the same one, for `other_audio`.
            rng (`np.random.Generator`): Draws everything.
            around ([`Clip`], *optional*):
                A wider window of the same file, whose sound comes in from the sides in `shifted_audio`.

        Returns:
            [`PseudoFake`]: of kind `"genuine"`, the clip as it is and labelled real, where no kind is possible.

        Raises:
            ValueError: without `rng`, and where `around` is of another file.
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
        frames, audio, drawn = clip.frames, clip.audio, {}
        if kind in _FACES or kind == "both":
            wanted = [name for name in _FACES if name in self.weights] or list(_FACES)
            made = str(rng.choice(wanted)) if kind == "both" else kind
            face = None if self.face_of is None else self.face_of(clip.frames)
            frames, _ = _FACES[made](clip.frames, clip.timestamps, rng, face)
        if kind in ("resynthesised_speech", "both"):
            audio, drawn = resynthesised_speech(clip.audio, rng)
        elif kind == "other_audio":
            audio = other_audio(clip.audio, other.audio, rng)
        elif kind == "shifted_audio":
            longest = min(self._longest_shift(clip.audio), round(self.shift_seconds[1] * SAMPLING_RATE))
            samples = int(rng.choice([-1, 1]) * rng.integers(self._shortest_shift, longest + 1))
            drawn = {"shift": samples / SAMPLING_RATE}
            if around is not None and around.audio is not None:
                before = round((clip.start - around.start) * SAMPLING_RATE)
                audio = shifted_audio(clip.audio, samples, around.audio, before)
            else:
                audio = shifted_audio(clip.audio, samples)
        tracks = _TRACKS[kind]
        if kind in MISMATCHES and self.mismatch_tracks == "unknown":
            tracks = (IGNORE_INDEX, IGNORE_INDEX)
        clip = replace(clip, frames=frames, audio=audio, warnings=list(clip.warnings))
        return _labelled(clip, FAKE, tracks, kind, drawn)

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
    """Whether two clips hold the same moment of the same recording.

    Windows of one file that overlap do. Names alone do not tell: clips made from arrays may all be called the same. So the
    sound of the overlap is compared.
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
    # An overlap too short to tell is taken as one.
    return length < SHORTEST_SECONDS * SAMPLING_RATE or bool(torch.allclose(first, second, atol=1e-2))
