"""File properties of real recordings, and how well they alone tell fakes from genuine ones.

Real and fake recordings come from different places, and a detector that only learnt to tell the places apart looks good.
A classifier that sees nothing but such properties, on the same clips, shows how good that is.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from ..media import MediaReader
from .audit.file_properties import first_sound, sound_facts
from .audit.held_out import MODELS, group_folds, held_out_scores, model_scores, why_not_held_out
from .ranking import auc_of

CLIP_PROPERTIES = {
    "width": "width (pixels)",
    "height": "height (pixels)",
    "fps": "frame rate (1/s)",
    "bitrate": "bit rate (bit/s)",
    "duration": "length (s)",
    "has_audio": "whether there is sound",
}
SPEECH_PROPERTIES = {
    "audio_bandwidth": "bandwidth (Hz)",
    "loudness": "level (RMS, dBFS)",
    "peak": "peak level (dBFS)",
    "duration": "length (s)",
}
FOLD_DRAWS = 5
"""Times that the folds are drawn. A clip's score is the mean, which depends less on one draw; our own choice."""


def clip_properties(video: str | None, audio: str | None = None) -> dict[str, float | None]:
    """Return [`CLIP_PROPERTIES`] of a clip; None where it has none, such as the width of a sound file."""
    with MediaReader(video if video is not None else audio) as reader:
        info = reader.info
    known = info.file_size is not None and info.duration > 0
    return {
        "width": info.width,
        "height": info.height,
        "fps": info.average_fps,
        "bitrate": 8 * info.file_size / info.duration if known else None,
        "duration": info.duration,
        "has_audio": float(info.has_audio or audio is not None),
    }


def speech_properties(video: str | None, audio: str | None = None) -> dict[str, float | None]:
    """Return [`SPEECH_PROPERTIES`] of a recording's first minute; None without sound."""
    with MediaReader(audio if audio is not None else video) as reader:
        duration = reader.info.duration
        sound = first_sound(reader)
    facts = {} if sound is None else sound_facts(sound.numpy())
    return {name: duration if name == "duration" else facts.get(name) for name in SPEECH_PROPERTIES}


def property_matrix(records: list[dict]) -> np.ndarray:
    """Return properties as numbers of shape `(n, d)`; NaN where unknown."""
    names = list(records[0]) if records else []
    return np.array(
        [[np.nan if record[name] is None else record[name] for name in names] for record in records], float
    )


def property_baseline(records: list[dict], labels: np.ndarray, people: list[str]) -> dict:
    """
    Score clips by their properties alone, each by classifiers that saw nothing of the same person.

    Of two classifiers (logistic regression, boosted trees) the one that separates better counts: a detector is compared
    with the stronger.

    Args:
        records (`list[dict]`): Properties of each clip.
        labels (`np.ndarray` of shape `(n,)`): 0 real, 1 fake.
        people (`list[str]`): Person of each clip; folds keep a person together.

    Returns:
        `dict`: `scores` (array of shape `(n,)`, or None), `model` (the better classifier), `auc` (by classifier), or
        `undefined` (why nothing could be measured).
    """
    groups = np.unique(people, return_inverse=True)[1] if people else np.zeros(0, int)
    if undefined := why_not_held_out(labels, groups):
        return {"scores": None, "undefined": undefined}
    matrix = property_matrix(records)
    scores = {model: np.zeros(len(labels)) for model in MODELS}
    for seed in range(FOLD_DRAWS):
        folds = group_folds(labels, groups, seed)
        for model in MODELS:
            score = partial(model_scores, model, matrix, labels)
            scores[model] += held_out_scores(len(labels), folds, score) / FOLD_DRAWS
    aucs = {model: auc_of(labels, values) for model, values in scores.items()}
    best = max(aucs, key=aucs.get)
    return {"scores": scores[best], "model": best, "auc": aucs}
