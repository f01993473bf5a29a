"""Trains AV-LMMDetect as a recipe says.

    python train_sft.py --recipe recipes/demo.yaml
    python train_sft.py --recipe recipes/fakeavceleb_7b.yaml --data.data_dir /data/FakeAVCeleb_v1.2
    accelerate launch --config_file recipes/accelerate/ddp.yaml train_sft.py --recipe recipes/mavos_dd_7b.yaml

Any field of the recipe can be given as `--any.field value`. A run that was stopped goes on when it is started again.
`--dry-run` says what would be run, what would be written and how much memory it takes, and loads nothing.
"""

import argparse
import sys

from dataset_scripts.errors import CorpusError, plain_corpus_warnings
from modeling_avlmm.training.progress import TooManyDropsError
from modeling_avlmm.training.recipes import RecipeError, load_recipe


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--recipe", required=True, help="YAML file of the run, e.g. recipes/demo.yaml")
    parser.add_argument(
        "--dry-run", action="store_true", help="only say what it would do, and whether it fits"
    )
    parser.add_argument(
        "--memory-gib", type=float, metavar="N", help="memory to fit in, for --dry-run [the device's own]"
    )
    arguments, overrides = parser.parse_known_args()
    if arguments.memory_gib is not None and not arguments.dry_run:
        parser.error("--memory-gib is a question for --dry-run")
    plain_corpus_warnings()
    try:
        recipe = load_recipe(arguments.recipe, overrides)
        if arguments.dry_run:
            from modeling_avlmm.planning.training_plan import dry_run

            if not dry_run(recipe, arguments.memory_gib):
                sys.exit("train_sft: not every stage fits; nothing was run.")
            return
        from modeling_avlmm.training.run import say, train

        model_dir = train(recipe)
    except (RecipeError, TooManyDropsError, CorpusError) as error:
        sys.exit(f"train_sft: {error}")
    say(
        f"The detector is in {model_dir}.\nNext: python evaluate_avd.py --model {model_dir} "
        f"--dataset {recipe.data.dataset} --data-dir {recipe.data.data_dir}"
    )


if __name__ == "__main__":
    main()
