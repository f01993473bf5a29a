"""Compute AUC and balanced accuracy of a small detector before a large one against mean cost, for wider and narrower bands.

    python evaluate_avd.py --model SMALL --dataset ... --output-dir runs/small
    python evaluate_avd.py --model LARGE --dataset ... --output-dir runs/large
    python benchmarks/cascade_curve.py --gate runs/small --model runs/large --gate-cost 2.3 --model-cost 9000 --to cascade
    python benchmarks/cascade_curve.py --gate runs/small --model runs/large --measure clips/*.mp4 --to cascade

Nothing is scored again: the curve is computed from the predictions of both detectors on the same split, and every clip gets the
score and label that `pipeline(..., model=LARGE, gate=SMALL, gate_band=...)` gives it. All choices are made on the validation
split: the temperature and threshold of each detector, as `evaluate_avd.py --calibrate` stores them, and the band. In log-odds a
band reaches equally far to both sides of the gate's threshold, so one number is its width; the widths leave 0, 5, 10, ... 100 % of
the validation clips to the large detector (our own choice). The figures are those of the test split.

Every clip costs a pass of the gate, and a clip that is left to the large detector costs a pass of that one as well. The large
detector alone is shown without the cost of the gate.

AUC ranks clips whose scores come from different networks. That is meaningful only if both are P(fake) on one scale, hence the
temperatures. Balanced accuracy does not need this: each label comes from the threshold of its own detector.
"""

import argparse
import csv
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure
from scipy.special import expit, logit
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from modeling_avlmm.evaluation.calibration import SMALLEST_SCORE, fit_temperature
from modeling_avlmm.evaluation.metrics import choose_threshold
from modeling_avlmm.evaluation.plots import STYLE
from modeling_avlmm.evaluation.predictions import PREDICTIONS, PredictionsError, read_predictions
from modeling_avlmm.inference.loading import DetectorError, load_detector
from modeling_avlmm.inference.provenance import environment
from modeling_avlmm.modeling_outputs import calibrated

SAME = ("dataset", "protocol", "synthetic", "split", "validation_split")
STEPS = 20


class CurveError(ValueError):
    """No curve can be made from these predictions; the message says why."""


@dataclass
class Clips:
    """Labels and the calibrated scores of both detectors, for the clips of a split that both could read."""

    labels: np.ndarray
    gate: np.ndarray
    model: np.ndarray


@dataclass
class Pair:
    """Two detectors on one protocol, with the temperatures and thresholds that were fitted on its validation split."""

    validation: Clips
    test: Clips
    about: dict[str, dict]
    temperatures: dict[str, float]
    thresholds: dict[str, float]
    left_out: int


def load(gate: Path, model: Path, fit: bool = True) -> Pair:
    """
    Read and calibrate the predictions of two evaluation folders.

    Args:
        gate, model (`Path`): Folders that evaluate_avd.py wrote.
        fit (`bool`, *optional*, defaults to `True`):
            Fit temperatures on the validation split. Otherwise, and where none fits, the detectors keep those they had
            when they were evaluated.

    Raises:
        CurveError: if the two hold different clips, or no validation split has both classes.
    """
    read, about = {}, {}
    for name, folder in (("gate", gate), ("model", model)):
        try:
            predictions, about[name] = read_predictions(folder / PREDICTIONS)
        except PredictionsError as error:
            raise CurveError(f"--{name}: {error}") from error
        read[name] = {(p["split"], p["path"]): p for p in predictions}
    changed = [key for key in SAME if about["gate"].get(key) != about["model"].get(key)]
    if changed:
        told = ", ".join(f"{key} ({about['gate'].get(key)}, {about['model'].get(key)})" for key in changed)
        raise CurveError(f"The two folders are not of the same clips: they differ in {told}.")
    splits = {"validation": about["gate"]["validation_split"], "test": about["gate"]["split"]}
    wanted = [
        {key: p["label"] for key, p in by_path.items() if key[0] in splits.values()}
        for by_path in read.values()
    ]
    if wanted[0] != wanted[1]:
        odd = sorted("/".join(map(str, key)) for key, _ in set(wanted[0].items()) ^ set(wanted[1].items()))
        raise CurveError(f"The two folders differ in clips or labels, e.g. {odd[0]}: evaluate both again.")
    both = [key for key in wanted[0] if all(by_path[key]["score"] is not None for by_path in read.values())]

    raw = {}
    for name, split in splits.items():
        keys = [key for key in both if key[0] == split]
        labels = np.array([wanted[0][key] for key in keys])
        if len(set(labels.tolist())) < 2:
            raise CurveError(
                f"The curve needs readable real and fake clips of a {name} split; {split!r} lacks them."
            )
        raw[name] = labels, {who: [by_path[key]["score"] for key in keys] for who, by_path in read.items()}
    temperatures = {
        who: _temperature(raw["validation"][0], raw["validation"][1][who], about[who], fit, who)
        for who in read
    }
    clips = {
        name: Clips(
            labels,
            **{
                who: np.array([calibrated(score, temperatures[who]) for score in scores[who]]) for who in read
            },
        )
        for name, (labels, scores) in raw.items()
    }
    fitting = clips["validation"]
    thresholds = {who: choose_threshold(fitting.labels, getattr(fitting, who)) for who in read}
    return Pair(fitting, clips["test"], about, temperatures, thresholds, left_out=len(wanted[0]) - len(both))


def _temperature(labels, scores, about: dict, fit: bool, who: str) -> float:
    own = (about.get("temperature") or {}).get("overall", 1.0)
    if not fit:
        return own
    try:
        return fit_temperature(labels, scores)
    except ValueError as error:
        print(f"{who}: temperature {own:g}, the detector's own. {error}", file=sys.stderr)
        return own


def bands(clips: Clips, threshold: float, steps: int = STEPS) -> list[tuple[float, float]]:
    """
    Return the bands around a threshold that leave 0, 1/steps, ... and all of the clips to the large detector.

    Edges lie half way between the scores of two clips, so that rounding moves neither to the other side.
    """
    centre = _log_odds(threshold)
    distances = np.sort(np.abs(_log_odds(clips.gate) - centre))
    found = [(threshold, threshold)]
    for step in range(1, steps):
        count = round(step / steps * len(distances))
        reach = distances[max(count - 1, 0) : count + 1].mean() if count else distances[0] / 2
        found.append((float(expit(centre - reach)), float(expit(centre + reach))))
    return [*found, (0.0, 1.0)]


def _log_odds(scores):
    return logit(np.clip(scores, SMALLEST_SCORE, 1 - SMALLEST_SCORE))


def cascade(clips: Clips, band: tuple[float, float], thresholds: dict[str, float]) -> dict:
    """Return the share of clips left to the large detector, and the quality of the verdicts, for a gate with this band."""
    low, high = band
    left = (low <= clips.gate) & (clips.gate <= high)
    scores = np.where(left, clips.model, clips.gate)
    fake = np.where(left, clips.model >= thresholds["model"], clips.gate >= thresholds["gate"])
    return {"share": float(left.mean()), **_quality(clips.labels, scores, fake)}


def _quality(labels, scores, fake) -> dict:
    return {
        "auc": float(roc_auc_score(labels, scores)),
        "balanced_accuracy": float(balanced_accuracy_score(labels, fake)),
    }


def curve(pair: Pair, gate_cost: float, model_cost: float, steps: int = STEPS) -> list[dict]:
    """
    Return a row for the gate alone, one for each band, and one for the large detector alone.

    Returns:
        `list[dict]`: `who`, `low`, `high` (None for a detector alone), and for the test split `share` (left to the large
        detector), `cost`, `auc`, `balanced_accuracy`; the same for validation with the prefix `validation_`.
    """
    rows = []
    for who, share, cost in (("gate", 0.0, gate_cost), ("model", 1.0, model_cost)):
        row = {"who": who, "low": None, "high": None}
        for prefix, clips in (("", pair.test), ("validation_", pair.validation)):
            scores = getattr(clips, who)
            found = {"share": share, "cost": cost}
            found |= _quality(clips.labels, scores, scores >= pair.thresholds[who])
            row |= {prefix + key: value for key, value in found.items()}
        rows.append(row)
    alone, large = rows
    rows = [alone]
    for band in bands(pair.validation, pair.thresholds["gate"], steps):
        row = {"who": "cascade", "low": band[0], "high": band[1]}
        for prefix, clips in (("", pair.test), ("validation_", pair.validation)):
            found = cascade(clips, band, pair.thresholds)
            found["cost"] = gate_cost + found["share"] * model_cost
            row |= {prefix + key: found[key] for key in ("share", "cost", "auc", "balanced_accuracy")}
        rows.append(row)
    return [*rows, large]


def choose(rows: list[dict], metric: str, tolerance: float) -> dict | None:
    """Return the cheapest band that is at most `tolerance` below the large detector on validation, or None."""
    goal = rows[-1][f"validation_{metric}"] - tolerance
    enough = [row for row in rows if row["who"] == "cascade" and row[f"validation_{metric}"] >= goal]
    return min(enough, key=lambda row: row["validation_cost"], default=None)


def measure(pair: Pair, files: list[str], device: str | None, repeats: int = 3) -> dict[str, float]:
    """Return the seconds a clip of each detector, reading included: the mean over clips of the quickest pass."""
    detectors = {who: load_detector(pair.about[who]["model"], device)[0] for who in ("gate", "model")}
    quickest = {who: [float("inf")] * len(files) for who in detectors}
    for repeat in range(-1, repeats):
        for number, file in enumerate(files):
            for who, detector in detectors.items():  # in turn, so that a busy machine is busy for both
                begin = time.perf_counter()
                detector(file)
                if repeat >= 0:  # the first pass warms up
                    taken = time.perf_counter() - begin
                    quickest[who][number] = min(quickest[who][number], taken)
    return {who: float(np.mean(times)) for who, times in quickest.items()}


def draw(rows: list[dict], chosen: dict | None, unit: str, title: str, path: Path) -> None:
    """Plot AUC and balanced accuracy of the test split against mean cost."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(8.4, 3.6), layout="constrained")
        for axes, (metric, name) in zip(
            figure.subplots(1, 2),
            (("auc", "AUC"), ("balanced_accuracy", "balanced accuracy")),
            strict=True,
        ):
            points = [(row["cost"], row[metric]) for row in rows if row["who"] == "cascade"]
            axes.plot(*zip(*points, strict=True), "-", marker=".", color="#1b4f72", label="cascade")
            for row, marker, colour, label in (
                (rows[0], "s", "#b9770e", "gate alone"),
                (rows[-1], "D", "#7d3c98", "large detector alone"),
                (chosen, "*", "#cb4335", "band chosen on validation"),
            ):
                if row is not None:
                    axes.plot(row["cost"], row[metric], marker, color=colour, label=label, markersize=9)
            axes.set(xlabel=f"mean cost of a clip, {unit}", ylabel=name)
        axes.legend(loc="lower right")
        figure.suptitle(title)
        # Without a date the same numbers give the same file.
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None, dpi=150)


def table(rows: list[dict], chosen: dict | None, unit: str) -> str:
    """Return the figures of the test split as a table."""
    lines = [f"{'':8}  {'band of the gate':>19}  {'to large':>8}  {unit:>12}  {'AUC':>6}  {'bal.acc.':>8}"]
    for row in rows:
        band = "" if row["low"] is None else f"{row['low']:.5f} - {row['high']:.5f}"
        lines.append(
            f"{row['who']:8}  {band:>19}  {row['share']:>8.1%}  {row['cost']:>12.4g}  {row['auc']:>6.4f}  "
            f"{row['balanced_accuracy']:>8.4f}{'  <- chosen' if row is chosen else ''}"
        )
    return "\n".join(lines)


def report(pair: Pair, rows: list[dict], chosen: dict | None, metric: str, costs: dict, unit: str) -> str:
    """Return everything that the command prints."""
    lines = [corpus_of(pair)]
    lines.append(f"{len(pair.test.labels)} clips; {len(pair.validation.labels)} of validation for choices")
    if pair.left_out:
        lines.append(f"{pair.left_out} clips that either could not read are left out.")
    lines += [
        f"{who}: {pair.about[who]['model']}, {costs[who]:.4g} {unit} a clip, temperature {pair.temperatures[who]:.4g}, "
        f"threshold {pair.thresholds[who]:.4f}"
        for who in ("gate", "model")
    ]
    lines.append(table(rows, chosen, unit))
    if chosen is None:
        lines.append(f"No cascade reaches the large detector's {metric} on validation.")
    else:
        lines.append(
            f"Chosen on validation: --gate-band {chosen['low']:.6g} {chosen['high']:.6g}. It holds for a gate with the "
            "temperature and threshold above, which `evaluate_avd.py --calibrate` stores."
        )
    return "\n".join(lines)


def corpus_of(pair: Pair) -> str:
    """Return the name of the clips, which says so when they are synthetic."""
    about = pair.about["gate"]
    corpus = f"{about['dataset']}/{about['protocol']}, {about['split']}"
    return corpus + (
        ": SYNTHETIC clips in the corpus's layout, not the corpus" if about.get("synthetic") else ""
    )


def write(pair: Pair, rows: list[dict], chosen: dict | None, unit: str, to: Path, was_measured: bool) -> None:
    """Write the curve as CSV, SVG and PNG."""
    to.parent.mkdir(parents=True, exist_ok=True)
    extra = {
        "unit": unit,
        **{key: pair.about["gate"][key] for key in ("dataset", "protocol", "split", "synthetic")},
        "clips": len(pair.test.labels),
        "gate": pair.about["gate"]["model"],
        "model": pair.about["model"]["model"],
        **{f"{who}_temperature": pair.temperatures[who] for who in ("gate", "model")},
        **{f"{who}_threshold": pair.thresholds[who] for who in ("gate", "model")},
        **{f"measured_{key}": environment()[key] for key in ("device", "torch") if was_measured},
        "date": time.strftime("%Y-%m-%d"),
    }
    with to.with_name(to.name + ".csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=[*rows[0], "chosen", *extra])
        writer.writeheader()
        writer.writerows({**row, "chosen": row is chosen, **extra} for row in rows)
    for suffix in (".svg", ".png"):
        draw(rows, chosen, unit, corpus_of(pair), to.with_name(to.name + suffix))


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--gate", type=Path, required=True, help="evaluation folder of the small detector")
    parser.add_argument("--model", type=Path, required=True, help="evaluation folder of the large detector")
    parser.add_argument("--gate-cost", type=float, help="cost of a clip, in --unit")
    parser.add_argument("--model-cost", type=float, help="cost of a clip, in --unit")
    parser.add_argument("--unit", default="GFLOPs", help="unit of the costs [%(default)s]")
    parser.add_argument(
        "--measure", nargs="+", metavar="FILE", help="time both detectors on these clips instead, in seconds"
    )
    parser.add_argument("--device", help="device for --measure [an accelerator if there is one]")
    parser.add_argument(
        "--threads", type=int, default=2, help="threads of the CPU, for --measure [%(default)s]"
    )
    parser.add_argument(
        "--temperature",
        choices=("fit", "model"),
        default="fit",
        help="fitted on validation, or the detectors' own [%(default)s]",
    )
    parser.add_argument(
        "--metric",
        choices=("auc", "balanced_accuracy"),
        default="balanced_accuracy",
        help="metric by which a band is chosen on validation [%(default)s]",
    )
    parser.add_argument(
        "--tolerance",
        type=float,
        default=0.01,
        help="loss of that metric to accept for a cheaper cascade [%(default)s]",
    )
    parser.add_argument("--steps", type=int, default=STEPS, help="number of widths of the band [%(default)s]")
    parser.add_argument("--to", type=Path, metavar="STEM", help="write STEM.csv, STEM.svg and STEM.png")
    options = parser.parse_args(arguments)
    given = options.gate_cost is not None and options.model_cost is not None
    if given == bool(options.measure):
        parser.error("give --gate-cost and --model-cost, or --measure FILE ...")
    if options.steps < 1 or (given and min(options.gate_cost, options.model_cost) < 0):
        parser.error("costs must not be below 0, nor --steps below 1")
    return options


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    costs, unit = {"gate": options.gate_cost, "model": options.model_cost}, options.unit
    try:
        pair = load(options.gate, options.model, options.temperature == "fit")
        if options.measure:
            torch.set_num_threads(options.threads)
            costs, unit = measure(pair, options.measure, options.device), "seconds"
    except (CurveError, DetectorError) as error:
        print(f"cascade_curve: {error}", file=sys.stderr)
        return 2
    rows = curve(pair, costs["gate"], costs["model"], options.steps)
    chosen = choose(rows, options.metric, options.tolerance)
    print(report(pair, rows, chosen, options.metric, costs, unit))
    if options.to is not None:
        write(pair, rows, chosen, unit, options.to, bool(options.measure))
        print(f"written to {options.to}.csv, .svg and .png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
