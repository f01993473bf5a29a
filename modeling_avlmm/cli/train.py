"""`python -m modeling_avlmm train`: train a detector as a recipe says."""

import argparse
from functools import partial

from .console import CONTINUES, guarded

HELP = "train a small detector from a recipe"
DESCRIPTION = (
    "Train a detector in one stage. Any field of the recipe can be given as --any.field VALUE. A run that was stopped goes on "
    "when it is started again."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options; what they do not know are `overrides`, fields of the recipe."""
    parser.add_argument("--recipe", required=True, help="YAML file, e.g. recipes/ssavd_demo.yaml")
    parser.set_defaults(overrides=[])


def run(options: argparse.Namespace) -> int:
    """Run the command and return its exit status."""
    from dataset_scripts.errors import CorpusError

    from ..training.progress import TooManyDropsError
    from ..training.recipes import RecipeError

    errors = (RecipeError, TooManyDropsError, CorpusError)
    return guarded(partial(_train, options), *errors, stopped=CONTINUES)


def _train(options: argparse.Namespace) -> int:
    from ..training.detector_recipe import DetectorRecipe
    from ..training.detector_run import train_detector
    from ..training.recipes import load_recipe
    from ..training.run_folder import say

    recipe = load_recipe(options.recipe, options.overrides, DetectorRecipe)
    model_dir = train_detector(recipe)
    say(
        f"The detector is in {model_dir}.\nNext: python evaluate_avd.py --model {model_dir} "
        f"--dataset {recipe.data.dataset} --data-dir {recipe.data.data_dir}"
    )
    return 0
