"""Scores a detector on a protocol and prints its table.

    python evaluate_avd.py --model runs/demo/training/encoders/model \\
        --dataset fakeavceleb --protocol identity_70_30 --data-dir runs/demo/data/FakeAVCeleb_v1.2

The threshold is chosen on the validation split, where the protocol has one. A run that was stopped goes on when it is
started again.
"""

import argparse
import sys
from pathlib import Path


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--model", required=True, help="folder or Hub id of a detector, or of an untrained omni backbone"
    )
    parser.add_argument("--dataset", required=True, help="name of a registered dataset, e.g. fakeavceleb")
    parser.add_argument("--protocol", help="its configuration; the dataset's default if left out")
    parser.add_argument("--data-dir", required=True, help="folder of the unpacked corpus")
    parser.add_argument("--split", default="test", help="what is reported [%(default)s]")
    parser.add_argument(
        "--validation-split", default="validation", help="where the threshold is chosen [%(default)s]"
    )
    parser.add_argument(
        "--threshold", help="a number, or 'model' for the model's own; chosen on validation if left out"
    )
    parser.add_argument(
        "--output-dir", type=Path, help="where predictions and metrics go [runs/evaluation/...]"
    )
    parser.add_argument("--batch-size", type=int, default=8, help="windows of one pass [%(default)s]")
    parser.add_argument("--num-workers", type=int, default=0, help="1 decodes in a process of its own")
    parser.add_argument("--device", help="e.g. cuda:0 or cpu; an accelerator where there is one if left out")
    parser.add_argument("--dtype", default="auto", help="type of the weights, e.g. bfloat16 [%(default)s]")
    parser.add_argument(
        "--trust-remote-code", action="store_true", help="run the code in the model's repository"
    )
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    # Importing takes seconds; `--help` and wrong usage do not wait for it.
    from modeling_avlmm.evaluation.command import EvaluationError, evaluate_protocol

    try:
        report, output_dir = evaluate_protocol(**vars(arguments))
    except EvaluationError as error:
        sys.exit(f"evaluate_avd: {error}")
    print(
        f"\n{report['model']} on {report['dataset']}, {report['protocol']}, {report['split']}\n\n{report['table']}\n"
    )
    print(f"Predictions and metrics are in {output_dir}.")


if __name__ == "__main__":
    main()
