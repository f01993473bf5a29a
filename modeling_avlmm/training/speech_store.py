"""Genuine speech and synthetic copies of it, made once: what the sound network trains on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from scipy.signal import resample
from torch.utils.data import DataLoader

from dataset_scripts.corpus import scan_files
from dataset_scripts.files import write_whole

from ..configuration_facevoice import HOP
from ..evaluation.pace import telling_pace
from ..explain.words import count_of
from ..media import SAMPLING_RATE, MediaError, MediaReader
from .array_store import ArrayStore
from .batches import DropList
from .clip_reading import first_readable
from .genuine_data import SUFFIXES, Recording
from .genuine_recipe import SoundRecipe
from .progress import say
from .pseudo_fakes.small_vocoders import DESIGNS
from .pseudo_fakes.sound_channel import same_channel
from .pseudo_fakes.synthetic_speech import RATES, VOCODERS, Vocoder, at_rate, one_band, vocoded
from .pseudo_fakes.vocoder_traces import TRACES
from .recipe_values import RecipeError, unknown_field
from .recipes import GenuineRecipe
from .trained_vocoders import trained_vocoders

NO_SPEECH = "no_speech.txt"
GENUINE = "genuine"
MOST_SECONDS, LEAST_SECONDS = 6.0, 1.0
"""Longest part of a recording that is used, and the shortest recording and sample."""
PEAK = 0.7
QUIETEST_PEAK, QUIETEST_SAMPLE = 1e-3, 1e-3
SPEEDS = 0.17
"""Largest change of the logarithm of the speed of a variant. All of these are our own choice."""
FULL = 32_767

Stretches = tuple[torch.Tensor, torch.Tensor]
"""Genuine and synthetic sound `(samples,)`, of one length."""


@dataclass
class SpeechStore:
    """
    Waveforms of 16 kHz, int16: recordings in several speeds, and what synthesisers made of each.

    Args:
        sounds ([`ArrayStore`]): The waveforms, with `recording` (-1 for other synthetic speech), `kind` (a number in `kinds`),
            `of` (number of the genuine waveform that a fake copies; -1 for none) and `rate` (at which it was made, in Hz).
        kinds (`list[str]`): Names of the synthesisers; `genuine` first.
    """

    sounds: ArrayStore
    kinds: list[str]
    by_recording: dict[int, list[int]] = field(init=False)
    copies: dict[int, dict[str, int]] = field(init=False)
    others: dict[str, list[int]] = field(init=False)

    def __post_init__(self) -> None:
        self.by_recording, self.copies, self.others = {}, {}, {}
        columns = self.sounds.columns
        for number, (recording, kind, of) in enumerate(
            zip(columns["recording"].tolist(), columns["kind"].tolist(), columns["of"].tolist(), strict=True)
        ):
            name = self.kinds[kind]
            if name == GENUINE:
                self.by_recording.setdefault(recording, []).append(number)
            elif of < 0:
                self.others.setdefault(name, []).append(number)
            else:
                self.copies.setdefault(of, {})[name] = number

    def waveform(self, number: int) -> np.ndarray:
        """Return waveform `number` as float32 in [-1, 1]."""
        return self.sounds[number].astype(np.float32) / FULL


@dataclass
class SpeechReader:
    """
    Reads recordings and synthesises copies; runs in the workers of a loader.

    Args:
        variants (`int`): Speeds in which each recording is used, the first its own.
        vocoders (`dict[str, Vocoder]`): Synthesisers by name.
        seed (`int`): Draws speeds and settings of synthesisers.
    """

    variants: int
    vocoders: dict[str, Vocoder]
    seed: int

    def __call__(
        self, numbered: tuple[int, Recording]
    ) -> list[dict[str, tuple[np.ndarray, int]]] | MediaError | None:
        """
        Return the variants of a recording, each with its copies by kind, and the rates at which they were made.

        None for a recording that is too short or silent, and the error of one that cannot be read.
        """
        number, recording = numbered
        try:
            sound = read_speech(recording.audio or recording.file, recording.path)
        except MediaError as error:
            return error
        if sound is None:
            return None
        made = []
        for variant in range(self.variants):
            rng = np.random.default_rng([self.seed, number, variant])
            genuine = sound if variant == 0 else _at_speed(sound, float(np.exp(rng.uniform(-SPEEDS, SPEEDS))))
            sounds = {GENUINE: (genuine, SAMPLING_RATE)}
            for place, (kind, vocoder) in enumerate(self.vocoders.items()):
                rng = np.random.default_rng([self.seed, number, variant, place])
                rate = vars(vocoder).get("rate") or int(rng.choice(RATES))
                sounds[kind] = vocoded(torch.from_numpy(genuine), vocoder, rng, rate)[1].numpy(), rate
            made.append(sounds)
        return made


def read_speech(file: str, name: str) -> np.ndarray | None:
    """
    Return the speech of a file without the silence around it, at most 6 s of it, at a peak of 0.7.

    It is that of the first 12 s, or of the next 12 s that are not damaged. None for less than a second of sound, or silence.

    Raises:
        MediaError: when the file cannot be read.
    """
    with MediaReader(file, name=name) as reader:
        audio = None
        if reader.info.has_audio:
            spans = [(0.0, 2 * MOST_SECONDS), *reader.windows(2 * MOST_SECONDS)[1:]]
            audio = first_readable(spans, lambda span: reader.read(*span, with_video=False)).audio
    if audio is None or float(audio.abs().max()) < QUIETEST_PEAK:
        return None
    sound = audio.numpy()
    levels = np.square(sound[: len(sound) // HOP * HOP].reshape(-1, HOP)).mean(1)
    loud = np.flatnonzero(levels > levels.max() * 1e-4)  # within 40 dB of the loudest 10 ms
    sound = sound[max(loud[0] - 5, 0) * HOP : (loud[-1] + 6) * HOP][: round(MOST_SECONDS * SAMPLING_RATE)]
    if len(sound) < LEAST_SECONDS * SAMPLING_RATE:
        return None
    return (sound * (PEAK / np.abs(sound).max())).astype(np.float32)


def _at_speed(sound: np.ndarray, factor: float) -> np.ndarray:
    """Return sound of another length, with pitch and formants moved: another speaker, almost."""
    return resample(sound, round(len(sound) * factor)).astype(np.float32)[
        : round(MOST_SECONDS * SAMPLING_RATE)
    ]


def speech_store(
    folder: Path, recordings: list[Recording], recipe: GenuineRecipe, drops: DropList
) -> SpeechStore:
    """
    Open the speech of recordings and its synthetic copies, or make them.

    Recordings that are too short or silent are listed in `no_speech.txt` in the run's folder.

    Raises:
        RecipeError: for kinds that are not known, when no recording has speech, or where the folder has other sounds.
    """
    settings = recipe.sound
    copying, files = synthesisers(recipe)
    kinds = [GENUINE, *copying, *files]
    described = {
        "recordings": _digest(recordings),
        "kinds": kinds,
        "others": {name: len(paths) for name, paths in files.items()},
        "variants": settings.variants,
        "vocoder_steps": settings.vocoder_steps,
        "seed": recipe.seed,
    }
    known = ArrayStore.open(folder, described)
    if known is None:
        vocoders = {kind: VOCODERS[kind] for kind in copying if kind in VOCODERS}
        if trained := [kind for kind in copying if kind in DESIGNS]:
            speech = _readable(recordings)
            place = folder.with_name("vocoders")
            vocoders |= trained_vocoders(place, speech, trained, settings.vocoder_steps, recipe.seed)
        reader = SpeechReader(settings.variants, vocoders, recipe.seed)
        say(
            f"  making synthetic copies of {count_of(len(recordings), 'recording')} by {len(copying)} ways; they are kept in "
            f"{folder}"
        )
        loader = DataLoader(
            list(enumerate(recordings)),
            batch_size=None,
            num_workers=recipe.data.num_workers,
            collate_fn=reader,
        )
        quiet: list[str] = []
        rows = _rows(telling_pace(loader, len(recordings), "recordings"), recordings, kinds, drops, quiet)
        try:
            known = ArrayStore.build(folder, described, np.int16, _with_others(rows, files, kinds, drops))
        except ValueError as error:
            raise RecipeError("data: no recording has a second of speech.") from error
        if quiet:
            listing = Path(recipe.output_dir) / NO_SPEECH
            write_whole(listing, "\n".join(quiet) + "\n")
            say(f"  {count_of(len(quiet), 'recording')} too short or silent, listed in {listing}")
    return SpeechStore(known, kinds)


def _readable(recordings: list[Recording]) -> list[np.ndarray]:
    """Return the speech of people who are not held out; files that cannot be read are listed when they are copied."""
    found = []
    for each in recordings:
        if not each.held_out:
            with suppress(MediaError):
                found.append(read_speech(each.audio or each.file, each.path))
    return [sound for sound in found if sound is not None]


def _rows(
    read, recordings: list[Recording], kinds: list[str], drops: DropList, quiet: list[str]
) -> Iterator[tuple[np.ndarray, dict]]:
    at = 0
    for number, made in enumerate(read):
        if isinstance(made, MediaError):
            drops.add(recordings[number].path, made)
            continue
        if made is None:
            quiet.append(recordings[number].path)
            continue
        for sounds in made:
            of = at
            for kind, (sound, rate) in sounds.items():
                columns = {"recording": number, "kind": kinds.index(kind), "rate": rate}
                yield _int16(sound), {**columns, "of": -1 if kind == GENUINE else of}
                at += 1


def _with_others(rows, files: dict[str, list[str]], kinds: list[str], drops: DropList):
    yield from rows
    for kind, paths in files.items():
        for path in paths:
            try:
                sound = read_speech(path, path)
            except MediaError as error:
                drops.add(path, error)
                continue
            if sound is not None:
                columns = {"recording": -1, "kind": kinds.index(kind), "rate": SAMPLING_RATE}
                yield _int16(sound), {**columns, "of": -1}


def synthesisers(recipe: GenuineRecipe) -> tuple[list[str], dict[str, list[str]]]:
    """
    Return the vocoders that copy recordings, and the files of other synthesisers by name.

    Raises:
        RecipeError: for kinds that are not known.
    """
    settings, files = recipe.sound, _other_files(recipe.data.synthetic_speech)
    wanted, known = (*settings.kinds, *settings.held_out_kinds), [*VOCODERS, *DESIGNS, *files]
    for kind in wanted:
        if kind not in known:
            raise unknown_field(kind, known, "sound.kinds.")
    designs = DESIGNS if settings.vocoder_steps else ()
    return [kind for kind in (*VOCODERS, *designs) if not settings.kinds or kind in wanted], files


def _other_files(folder: str | None) -> dict[str, list[str]]:
    """Return the files of synthetic speech by synthesiser: the first folder below, `other` for files beside them."""
    if folder is None:
        return {}
    if not Path(folder).is_dir():
        raise RecipeError(f"data.synthetic_speech: there is no folder {folder}.")
    found: dict[str, list[str]] = {}
    for path in scan_files(folder, SUFFIXES["speech"])[0]:
        name = path.split("/")[0] if "/" in path else "other"
        found.setdefault(name, []).append(str(Path(folder) / path))
    if not found:
        raise RecipeError(f"data.synthetic_speech: {folder} holds no sound file.")
    return found


def speech_pair(
    store: SpeechStore,
    numbers: list[int],
    held_out: bool,
    settings: SoundRecipe,
    rng: np.random.Generator,
) -> tuple[dict, dict] | None:
    """
    Return the model's inputs for a stretch of genuine speech and for a synthetic one, after one channel for both.

    A copy is of the same words and moment, or the recording itself with a faint trace; speech of other synthesisers says
    something else. Held-out speakers get whole copies alone.

    Args:
        store ([`SpeechStore`]): The sounds.
        numbers (`list[int]`): Variants of the recording.
        held_out (`bool`): Whether the speaker is held out: then the held-out synthesisers are asked, where there are any.
        settings ([`SoundRecipe`]): Length and kinds.
        rng (`numpy.random.Generator`): Draws everything.
    """
    number = int(rng.choice(numbers))
    length = round(settings.seconds * SAMPLING_RATE) // HOP * HOP
    if not held_out and rng.random() < settings.traces:
        pair = _with_a_trace(store.waveform(number), length, rng)
    else:
        pair = _copied(store, number, held_out, settings, length, rng)
    if pair is None:
        return None
    return tuple(padded(sound, length) for sound in same_channel(*pair, rng))


def _with_a_trace(genuine: np.ndarray, length: int, rng: np.random.Generator) -> Stretches | None:
    """Return a stretch of a recording, and the same with a faint trace of synthesis in it."""
    start = _start(len(genuine), length, rng)
    stretch = genuine[start : start + length]
    stretch = stretch[: len(stretch) // HOP * HOP]
    if not _is_heard(stretch):
        return None
    trace = TRACES[str(rng.choice(list(TRACES)))]
    return vocoded(torch.from_numpy(stretch.copy()), trace, rng)


def _copied(
    store: SpeechStore,
    number: int,
    held_out: bool,
    settings: SoundRecipe,
    length: int,
    rng: np.random.Generator,
) -> Stretches | None:
    """Return a stretch of a recording, and one of its copy or of other synthetic speech."""
    copies = store.copies.get(number, {})
    kinds = [kind for kind in (*copies, *store.others) if _is_for(kind, held_out, settings)]
    weights = np.array([settings.kinds.get(kind, 0.0 if settings.kinds else 1.0) for kind in kinds])
    if held_out and settings.held_out_kinds:
        weights = np.ones(len(kinds))
    if not len(kinds) or not weights.sum():
        return None
    kind = str(rng.choice(kinds, p=weights / weights.sum()))
    genuine = store.waveform(number)
    copy = copies.get(kind)
    if copy is not None:
        fake = store.waveform(copy)
        start = _start(min(len(genuine), len(fake)), length, rng)
        genuine, fake = genuine[start : start + length], fake[start : start + length]
        # What resampling to the vocoder's rate does to the copy, it does to the recording.
        rate = int(store.sounds.columns["rate"][copy])
        there = at_rate(torch.from_numpy(genuine.copy()), SAMPLING_RATE, rate)
        genuine = at_rate(there, rate, SAMPLING_RATE).numpy()
    else:
        others = store.others[kind]
        if kind not in settings.held_out_kinds:
            others = _share(others, held_out)
        fake = store.waveform(int(rng.choice(others)))
        start, other_start = (_start(len(sound), length, rng) for sound in (genuine, fake))
        genuine, fake = genuine[start : start + length], fake[other_start : other_start + length]
    shared = min(len(genuine), len(fake)) // HOP * HOP
    if not (_is_heard(genuine[:shared]) and _is_heard(fake[:shared])):
        return None
    genuine, fake = (torch.from_numpy(sound[:shared].copy()) for sound in (genuine, fake))
    if copy is not None and not held_out and rng.random() < settings.one_band:
        fake = one_band(genuine, fake, rng)
    return genuine, fake


def padded(sound: torch.Tensor, length: int) -> dict[str, torch.Tensor]:
    """Return `audio_values (length,)`, zeros after the sound, and `audio_mask (length // 160,)`."""
    values, mask = torch.zeros(length), torch.zeros(length // HOP, dtype=torch.bool)
    sound = sound[:length]
    values[: len(sound)] = sound
    mask[: -(-len(sound) // HOP)] = True
    return {"audio_values": values, "audio_mask": mask}


def _is_for(kind: str, held_out: bool, settings: SoundRecipe) -> bool:
    if not settings.held_out_kinds:
        return True
    return (kind in settings.held_out_kinds) == held_out


def _share(numbers: list[int], held_out: bool) -> list[int]:
    """Return every fifth file of a synthesiser for validation, and the others for training."""
    return [number for place, number in enumerate(numbers) if (place % 5 == 0) == held_out] or numbers


def _start(samples: int, length: int, rng: np.random.Generator) -> int:
    return int(rng.integers(max(1, samples - length + 1)))


def _is_heard(sound: np.ndarray) -> bool:
    """Return whether sound is long enough for a sample and not silent."""
    long = len(sound) >= LEAST_SECONDS * SAMPLING_RATE / 2
    return long and float(np.sqrt(np.square(sound).mean())) >= QUIETEST_SAMPLE


def _int16(sound: np.ndarray) -> np.ndarray:
    return np.rint(np.clip(sound, -1, 1) * FULL).astype(np.int16)


def _digest(recordings: list[Recording]) -> str:
    names = json.dumps([[each.kind, each.path] for each in recordings])
    return hashlib.sha256(names.encode()).hexdigest()[:16]
