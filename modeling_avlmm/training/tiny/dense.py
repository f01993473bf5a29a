"""Dense questions about genuine clips, for pre-training a backbone that starts from random weights.

A verdict is one token per clip: too little to teach random encoders what to look at. These questions ask how open the mouth
is, how loud and how high the voice is at every time step, and whether lips and sound belong together. That is dozens of
tokens per clip, and needs no fakes. A real omni backbone knows such things already and skips this stage.
"""

import dataclasses
import json
import math
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ...media import Clip
from ...processing_avlmm import Question
from ..batches import AVCollator

DENSE_PROMPTS = {
    "mouth": " how open is the mouth at each step of time? Answer with digits.",
    "loudness": " how loud is the voice at each step of time? Answer with digits.",
    "pitch": " how high is the voice at each step of time? Answer with digits.",
    "together": " do the lips and the sound belong together? Answer yes or no.",
}
DENSE_WORDS = ["yes", "no", "0 1 2 3 4 5 6 7 8 9"]

LOWEST_PITCH, OCTAVES = 70.0, 2.3
STEP_SECONDS = 0.2


def load_annotations(path: str | Path) -> dict[str, dict]:
    """Load annotations of genuine clips by `path`: `seconds`, `mouth_open` and `loudness` (0 to 1), `pitch_hz` (0 unvoiced)."""
    with open(path, encoding="utf-8") as lines:
        return {entry["path"]: entry for entry in map(json.loads, lines)}


def digits(values: list[float]) -> str:
    """Write values in [0, 1] as one digit each."""
    return "".join(str(min(9, max(0, int(value * 10)))) for value in values)


def pitch_level(hertz: float) -> float:
    """Return the pitch on a logarithmic scale from 0 (70 Hz, or unvoiced) to 1 (345 Hz)."""
    return 0.0 if hertz <= 0 else math.log2(hertz / LOWEST_PITCH) / OCTAVES


@dataclass
class DenseCollator(AVCollator):
    """
    Makes batches of clips with the dense questions. Half of the clips get the sound of another genuine clip.

    Args:
        annotations (`dict[str, dict]`): From [`load_annotations`].
        sounds (`dict[str, dict]`): Rows of the genuine clips that may lend their sound, by `path`.
        kwargs: Fields of [`AVCollator`] except `questions_of`.
    """

    annotations: dict[str, dict] = field(default_factory=dict)
    sounds: dict[str, dict] = field(default_factory=dict)

    def __post_init__(self):
        self.questions_of = self._questions
        self._paths = sorted(self.sounds)

    def read(self, row: dict) -> Clip:
        clip = super().read(row)
        rng = np.random.default_rng([self.seed, row["draw"], 1])
        if rng.random() < 0.5:
            lent = self.sounds[self._paths[rng.integers(len(self._paths))]]
            other = super().read({**lent, "draw": row["draw"]})
            clip = dataclasses.replace(clip, audio=other.audio)
            row["sound_of"] = lent["path"]
        return clip

    def _questions(self, row: dict, clip: Clip) -> list[Question]:
        picture = self.annotations[row["path"]]
        sound = self.annotations[row.get("sound_of", row["path"])]
        step = max(1, round(STEP_SECONDS / (picture["seconds"][1] - picture["seconds"][0])))
        answers = {
            "mouth": digits(picture["mouth_open"][::step]),
            "loudness": digits(sound["loudness"][::step]),
            "pitch": digits([pitch_level(hertz) for hertz in sound["pitch_hz"][::step]]),
            "together": "no" if "sound_of" in row else "yes",
        }
        return [Question(text, answers[name]) for name, text in DENSE_PROMPTS.items()]


def genuine_rows(dataset, annotations: dict[str, dict]) -> dict[str, dict]:
    """Return the genuine rows of a split that have annotations, by `path`."""
    columns = ("path", "label", "video", "audio")
    return {
        row["path"]: row
        for row in dataset.select_columns(list(columns))
        if row["label"] == 0 and row["path"] in annotations
    }


def corpus_of_dense_prompts(processor_prompts: dict[str, str] | None = None) -> list[str]:
    """Return the text that a tokenizer for these questions should cover."""
    return [*(processor_prompts or {}).values(), *DENSE_PROMPTS.values(), *DENSE_WORDS]
