"""`python -m modeling_avlmm train`, and `train_sft.py`: train a detector as a recipe says."""

import argparse
from functools import partial

from .console import CONTINUES, UsageError, guarded, tell
from .options import add_reading, reading

HELP = "train a detector from a recipe"
DESCRIPTION = (
    "Train AV-LMMDetect, SSAVD, AVPL or facevoice as a recipe says. Any field of the recipe can be given as --any.field VALUE. A run that "
    "was stopped resumes when it is started again."
)
DOES_NOT_FIT = 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options; what they do not know are `overrides`, fields of the recipe."""
    parser.add_argument("--recipe", required=True, help="YAML file, e.g. recipes/demo.yaml")
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="only say what would train and be written, and whether it fits in memory; loads nothing",
    )
    parser.add_argument(
        "--memory-gib", type=float, metavar="N", help="memory to fit in, for --dry-run [the device's own]"
    )
    add_reading(parser)
    parser.set_defaults(overrides=[])


def main(description: str) -> int:
    """Run `train_sft.py`, which is this command, and return its exit status."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_arguments(parser)
    options, options.overrides = parser.parse_known_args()
    return run(options)


def run(options: argparse.Namespace) -> int:
    """Run the command and return its exit status: 1 where a dry run finds that something does not fit."""
    from dataset_scripts.errors import CorpusError
    from dataset_scripts.run_lock import InUseError

    from ..training.progress import TooManyDropsError
    from ..training.recipes import RecipeError

    errors = (RecipeError, TooManyDropsError, CorpusError, InUseError)
    return guarded(partial(_train, options), *errors, stopped=CONTINUES)


def _train(options: argparse.Namespace) -> int:
    if options.memory_gib is not None and not options.dry_run:
        raise UsageError("--memory-gib is a question for --dry-run")
    from ..training.recipes import load_recipe

    recipe = load_recipe(options.recipe, options.overrides)
    if options.dry_run:
        from ..planning.training_plan import plan_training

        if plan_training(recipe, options.memory_gib):
            return 0
        tell("not every stage fits; nothing was run.")
        return DOES_NOT_FIT
    from ..training.progress import say
    from ..training.run import train

    with reading(options):
        model_dir = train(recipe)
    say(
        f"The detector is in {model_dir}.\nNext: python evaluate_avd.py --model {model_dir} "
        f"--dataset {recipe.data.dataset} --data-dir {recipe.data.data_dir}"
    )
    return 0
