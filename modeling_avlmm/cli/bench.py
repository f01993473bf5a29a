"""`python -m modeling_avlmm bench`: how good a model's words are."""

import argparse
import sys

DESCRIPTION = (
    "Asks a detector in words about every clip of a split: whether it is fake, by which kind of technique, and what gives it "
    "away. Scores the answers against what is known and measured, beside a baseline that never looks. A detector that cannot "
    "write is benched with answers composed from its verdicts. Started again, it goes on. Ends with 2 on wrong usage."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument("--model", required=True, help="folder or Hub id of a detector")
    parser.add_argument(
        "--dataset", required=True, help="fakeavceleb, mavos_dd, avfolder or another registered one"
    )
    parser.add_argument("--protocol", help="its configuration, e.g. identity_70_30 [the dataset's default]")
    parser.add_argument("--data-dir", required=True, metavar="DIR", help="folder of the unpacked corpus")
    parser.add_argument("--split", default="test", help="what it is asked about [%(default)s]")
    parser.add_argument("--limit", type=int, metavar="N", help="ask about N clips, drawn by --seed [all]")
    parser.add_argument(
        "--output-dir", metavar="DIR", help="where it writes and goes on [runs/bench/DATASET_PROTOCOL/MODEL]"
    )
    parser.add_argument(
        "--context", action="store_true", help="tell the model the detector's verdicts first, as a chat does"
    )
    parser.add_argument("--batch-size", type=int, default=8, help="clips asked at once [%(default)s]")
    parser.add_argument("--max-new-tokens", type=int, default=128, help="longest answer [%(default)s]")
    parser.add_argument(
        "--resamples", type=int, default=1000, help="of the bootstrap; 0 for none [%(default)s]"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="of the draw and the reference texts [%(default)s]"
    )
    parser.add_argument("--device", help="e.g. cuda:0 or cpu [an accelerator where there is one]")
    parser.add_argument("--dtype", default="auto", help="type of the weights, e.g. bfloat16 [%(default)s]")
    parser.add_argument(
        "--trust-remote-code", action="store_true", help="run the code in the model's repository"
    )


def run(options: argparse.Namespace) -> int:
    """Runs the command and returns its exit status."""
    # Loading takes seconds; `--help` and wrong usage do not wait for it.
    import modeling_avlmm  # noqa: F401 (makes the datasets known)
    from dataset_scripts.schema import plain_corpus_warnings

    from ..dialogue.bench.bench import run_bench
    from ..evaluation.errors import EvaluationError
    from ..inference.loading import DetectorError

    plain_corpus_warnings()
    try:
        report, folder = run_bench(
            options.model,
            options.dataset,
            options.data_dir,
            protocol=options.protocol,
            split=options.split,
            limit=options.limit,
            output_dir=options.output_dir,
            batch_size=options.batch_size,
            context=options.context,
            max_new_tokens=options.max_new_tokens,
            n_resamples=options.resamples,
            seed=options.seed,
            device=options.device,
            dtype=options.dtype,
            trust_remote_code=options.trust_remote_code,
        )
    except (DetectorError, EvaluationError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    for name, measure in report["measures"].items():
        if measure["n"]:
            print(
                f"{name:<26} {measure['value']:.3f}  baseline {measure['baseline']:.3f}  ({measure['n']} clips)"
            )
    if report["unreadable"]:
        print(f"{len(report['unreadable'])} clips could not be read; the report lists them.")
    print(f"Written to {folder / 'report.md'}, report.html and report.json.")
    return 0


__all__ = ["DESCRIPTION", "add_arguments", "run"]
