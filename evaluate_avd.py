"""Scores a detector on a protocol and writes predictions and a report.

    python evaluate_avd.py --model runs/demo/training/encoders/model \\
        --dataset fakeavceleb --protocol identity_70_30 --data-dir runs/demo/data/FakeAVCeleb_v1.2

    accelerate launch --num_processes 4 evaluate_avd.py ...      on several accelerators, with the same result

    python evaluate_avd.py --predictions runs/evaluation/.../predictions.parquet      the report once more, from it alone

The threshold is chosen on the validation split, where the protocol has one. A run that was stopped goes on when it is
started again.
"""

import argparse
import sys
from pathlib import Path


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    what = parser.add_argument_group("what is evaluated")
    what.add_argument("--model", help="folder or Hub id of a detector, or of an untrained omni backbone")
    what.add_argument(
        "--gate", metavar="MODEL", help="small detector that answers for the clips it is sure of"
    )
    what.add_argument(
        "--gate-band",
        nargs=2,
        type=float,
        metavar=("LOW", "HIGH"),
        help="the gate is sure of scores below LOW and above HIGH [the gate's abstain band]",
    )
    what.add_argument("--dataset", help="name of a registered dataset, e.g. fakeavceleb")
    what.add_argument("--protocol", help="its configuration; the dataset's default if left out")
    what.add_argument("--data-dir", help="folder of the unpacked corpus")
    what.add_argument("--split", default="test", help="what is reported [%(default)s]")
    what.add_argument(
        "--validation-split",
        default="validation",
        help="where threshold and calibration are fitted [%(default)s]",
    )
    what.add_argument(
        "--predictions",
        type=Path,
        metavar="FILE",
        help="only make the report of this predictions.parquet again",
    )

    numbers = parser.add_argument_group("how scores become verdicts and numbers")
    numbers.add_argument(
        "--threshold", help="a number, or 'model' for the model's own; chosen on validation if left out"
    )
    numbers.add_argument(
        "--calibrate",
        action="store_true",
        help="fit temperatures on validation and store them, and the threshold, in the model's folder",
    )
    numbers.add_argument(
        "--coverage",
        type=float,
        help="fit a band of uncertain scores that keeps wrong verdicts of each class below 1 - this share, e.g. 0.9",
    )
    numbers.add_argument(
        "--resamples",
        dest="n_resamples",
        type=int,
        default=1000,
        help="of the bootstrap for confidence intervals [%(default)s]",
    )
    numbers.add_argument(
        "--window-seconds", type=float, help="length of a window [as long as one pass takes]"
    )
    numbers.add_argument("--hop-seconds", type=float, help="from one window's start to the next's")
    numbers.add_argument(
        "--aggregate", choices=("mean", "max"), help="a clip's score from its windows' [mean]"
    )

    more = parser.add_argument_group("more about the detector and the data")
    more.add_argument(
        "--perturb",
        nargs="+",
        metavar="NAME",
        help="score the split under perturbations too: 'all', or names such as h264 noise delay",
    )
    more.add_argument("--severities", nargs="+", type=int, metavar="LEVEL", help="of 1 to 5 [all]")
    more.add_argument(
        "--audit",
        action="store_true",
        help="look for shortcuts and leaks in the data, and warn of them in the report",
    )

    running = parser.add_argument_group("how it runs")
    running.add_argument("--output-dir", type=Path, help="where everything goes [runs/evaluation/...]")
    running.add_argument("--batch-size", type=int, default=8, help="windows of one pass [%(default)s]")
    running.add_argument("--num-workers", type=int, default=0, help="processes that decode [%(default)s]")
    running.add_argument("--device", help="e.g. cuda:0 or cpu; an accelerator where there is one if left out")
    running.add_argument("--dtype", default="auto", help="type of the weights, e.g. bfloat16 [%(default)s]")
    running.add_argument(
        "--trust-remote-code", action="store_true", help="run the code in the model's repository"
    )
    running.add_argument(
        "--dry-run", action="store_true", help="only say what it would do, and whether a pass fits"
    )
    running.add_argument(
        "--memory-gib", type=float, metavar="N", help="memory to fit in, for --dry-run [the device's own]"
    )
    return parser


def parse_arguments() -> argparse.Namespace:
    parser = build_parser()
    options = parser.parse_args()
    if options.gate_band and not options.gate:
        parser.error("--gate-band says when a gate is sure: give the gate, --gate MODEL")
    if options.predictions is None:
        absent = [name for name in ("model", "dataset", "data_dir") if getattr(options, name) is None]
        if absent:
            parser.error(f"give --{', --'.join(absent).replace('_', '-')}; or --predictions")
    elif options.dry_run:
        parser.error(
            "--dry-run is about scoring: it needs --model, --dataset and --data-dir, not --predictions"
        )
    elif options.perturb or options.audit:
        parser.error("--perturb and --audit need --model, --dataset and --data-dir, not --predictions")
    if options.memory_gib is not None and not options.dry_run:
        parser.error("--memory-gib is a question for --dry-run")
    return options


def main() -> None:
    options = parse_arguments()
    # Importing takes seconds; `--help` and wrong usage do not wait for it.
    from accelerate import PartialState

    from dataset_scripts.errors import plain_corpus_warnings
    from modeling_avlmm.evaluation.errors import EvaluationError
    from modeling_avlmm.evaluation.evaluate import evaluate_protocol, report_predictions
    from modeling_avlmm.inference.loading import DetectorError

    plain_corpus_warnings()
    arguments = vars(options)
    path = arguments.pop("predictions")
    try:
        dry, memory_gib = arguments.pop("dry_run"), arguments.pop("memory_gib")
        if dry:
            from modeling_avlmm.planning.scoring_plan import dry_run

            names = ("model", "dataset", "data_dir", "protocol", "split", "validation_split")
            names += ("window_seconds", "batch_size", "dtype", "trust_remote_code")
            if not dry_run(**{name: arguments[name] for name in names}, memory_gib=memory_gib):
                sys.exit("evaluate_avd: a pass does not fit; nothing was scored.")
            return
        if path is None:
            report, output_dir = evaluate_protocol(**arguments)
        else:
            output_dir = options.output_dir or path.parent
            names = ("threshold", "coverage", "n_resamples")
            report = report_predictions(
                path, **{name: arguments[name] for name in names}, output_dir=output_dir
            )
    except (DetectorError, EvaluationError) as error:
        sys.exit(f"evaluate_avd: {error}")
    if PartialState().is_main_process:
        from modeling_avlmm.evaluation.table import metrics_table

        print(f"\n{report['model']} on {report['dataset']}, {report['protocol']}, {report['split']}\n")
        print(f"{metrics_table(report)}\n\nPredictions and report are in {output_dir}.")


if __name__ == "__main__":
    main()
