"""Which clip is drawn when, and what it is asked: the whole of a stage, decided before it starts.

Nothing is drawn at random while training runs, so a run that was killed goes on exactly where it stopped, and two
processes with half the work each do what one process does.
"""

import numpy as np
from datasets import Dataset

from .recipes import DataRecipe, RecipeError

REAL, FAKE, UNKNOWN = 0, 1, -1


def build_schedule(dataset: Dataset, recipe: DataRecipe, draws: int, seed: int) -> Dataset:
    """
    Draws clips for a stage.

    Every kind of clip is gone through in a fresh random order as often as needed, so that no clip is drawn a second
    time before all of its kind were drawn once.

    Args:
        dataset (`Dataset`): The training split, in the package's schema.
        recipe ([`DataRecipe`]): Balance and shares.
        draws (`int`): Clips to draw.
        seed (`int`): Seed of the order.

    Returns:
        `Dataset`: `draws` rows of `dataset`, in order, with the columns `draw` (its number), `ask_video` and
        `ask_audio`.

    Raises:
        RecipeError: when the split has clips of one class only and balance was asked for.
    """
    rng = np.random.default_rng(seed)
    groups = _groups(dataset, recipe.balance)
    order = np.concatenate([_cycle(members, share, draws, rng) for members, share in groups])
    # Cut to length after shuffling: rounding up every group's share may have drawn a few too many.
    order = rng.permutation(order)[:draws]
    drawn = dataset.select(order)
    known = {
        name: np.array([UNKNOWN if v is None else v for v in drawn[f"{name}_label"]])
        for name in ("video", "audio")
    }
    ask_video = (rng.random(len(order)) < recipe.video_share) & (known["video"] != UNKNOWN)
    ask_audio = (rng.random(len(order)) < recipe.audio_share) & (known["audio"] != UNKNOWN)
    drawn = drawn.add_column("draw", np.arange(len(order)))
    drawn = drawn.add_column("ask_video", ask_video)
    return drawn.add_column("ask_audio", ask_audio)


def _groups(dataset: Dataset, balance: str) -> list[tuple[np.ndarray, float]]:
    """Members of each kind of clip and the share of draws it gets."""
    labels = np.array(dataset["label"])
    everyone = np.arange(len(labels))
    if balance == "none":
        return [(everyone, 1.0)]
    real, fake = everyone[labels == REAL], everyone[labels == FAKE]
    if not len(real) or not len(fake):
        only = "fake" if len(fake) else "real"
        raise RecipeError(
            f"The training split holds {only} clips only, so real and fake cannot be balanced. "
            "Check the protocol and split, or set data.balance to none."
        )
    if balance == "label":
        return [(real, 0.5), (fake, 0.5)]
    columns = ["family"] if balance == "family" else ["video_label", "audio_label"]
    kinds: dict[tuple, list[int]] = {}
    for index, kind in enumerate(zip(*(dataset[name] for name in columns), strict=True)):
        if labels[index] == FAKE:
            kinds.setdefault(kind, []).append(index)
    return [(real, 0.5), *((np.array(members), 0.5 / len(kinds)) for members in kinds.values())]


def _cycle(members: np.ndarray, share: float, draws: int, rng: np.random.Generator) -> np.ndarray:
    count = int(np.ceil(share * draws))
    rounds = -(-count // len(members))
    return np.concatenate([rng.permutation(members) for _ in range(rounds)])[:count]
