"""Small neural vocoders of a run, trained on its genuine speech and kept, so that each is trained once."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from dataset_scripts.files import write_whole, written_whole

from .progress import say
from .pseudo_fakes.small_vocoders import DESIGNS, SmallVocoder, train_vocoder
from .recipe_values import RecipeError

SETTINGS = "settings.json"


def trained_vocoders(
    folder: Path, speech: list[np.ndarray], designs: list[str], steps: int, seed: int
) -> dict[str, SmallVocoder]:
    """
    Load the vocoders of a folder, or train those that are missing.

    Args:
        folder (`Path`): Folder of their weights.
        speech (`list[np.ndarray]`): Genuine speech of people who are not held out, float32 of 16 kHz.
        designs (`list[str]`): Names of designs.
        steps (`int`): Steps of each.
        seed (`int`): Seed of weights and segments.

    Raises:
        RecipeError: where the folder has vocoders of other speech or settings, or no recording is long enough.
    """
    digest = hashlib.sha256()
    for sound in speech:
        digest.update(np.ascontiguousarray(sound).tobytes())
    settings = {"speech": digest.hexdigest()[:16], "steps": steps, "seed": seed}
    known = folder / SETTINGS
    if known.is_file() and json.loads(known.read_text(encoding="utf-8")) != settings:
        raise RecipeError(
            f"{folder} has vocoders of other recordings or settings. Delete it, or name another folder in data.store."
        )
    write_whole(known, json.dumps(settings, indent=2) + "\n")
    found = {}
    for place, design in enumerate(DESIGNS):
        if design not in designs:
            continue
        file = folder / f"{design}.safetensors"
        if file.is_file():
            found[design] = SmallVocoder(design)
            found[design].load_state_dict(load_file(file))
            found[design].eval().requires_grad_(False)
            continue
        say(f"  training a small vocoder of the recordings, {design}, {steps} steps")
        try:
            found[design] = train_vocoder(
                [torch.from_numpy(sound) for sound in speech],
                design,
                np.random.default_rng([seed, place]),
                steps,
            )
        except ValueError as error:
            raise RecipeError(f"sound.vocoder_steps: {error} Set it to 0 to train no vocoder.") from error
        with written_whole(file) as partial:
            save_file(
                {name: values.contiguous() for name, values in found[design].state_dict().items()}, partial
            )
    return found
