"""Turns predictions, and nothing else, into everything that a report says."""

from collections import Counter
from collections.abc import Iterator
from importlib.resources import files

import yaml

from ..configuration_detector import PARTS
from ..explain.words import threshold_of
from ..pipeline_avd import SCORE_NAMES, calibrated
from .calibration import conformal_band, fit_temperature
from .metrics import choose_threshold, detection_metrics, localization_metrics
from .predictions import PredictionsError, judged, kind_of_fake, labels_and_scores
from .proposals import segment_proposals

DURATIONS = (2, 5, 10, 30, 60)
"""Seconds at which clips are parted by length."""
CATEGORIES = {
    (0, 0): "RealVideo-RealAudio",
    (0, 1): "RealVideo-FakeAudio",
    (1, 0): "FakeVideo-RealAudio",
    (1, 1): "FakeVideo-FakeAudio",
}


def build_report(
    predictions: list[dict],
    about: dict,
    threshold: float | str | None = None,
    calibrate: bool = False,
    coverage: float | None = None,
    n_resamples: int = 1000,
) -> dict:
    """
    Everything that is said of a detector on a split.

    Args:
        predictions (`list[dict]`):
            As of [`~predictions.read_predictions`], with the scores of the network. Those whose `split` is
            `about["validation_split"]` serve to choose threshold and calibration, and for nothing else.
        about (`dict`): What the file of predictions says of itself.
        threshold (`float` or `"model"`, *optional*):
            A fixed threshold, or the model's own. Chosen for balanced accuracy on the validation split if left out;
            where there is none, or it has one class, it is the model's own.
        calibrate (`bool`, *optional*, defaults to `False`):
            Fit temperatures on the validation split; otherwise those of the model are applied.
        coverage (`float`, *optional*):
            Fit a band of uncertain scores on the validation split, outside of which at most 1 - `coverage` of real
            clips are called fake and of fake ones real (split conformal prediction, each class for itself).
        n_resamples (`int`, *optional*, defaults to 1000): Of the bootstrap by identity; 0 leaves intervals out.

    Returns:
        `dict`: `about` with

        - **overall**, **video**, **audio** -- [`detection_metrics`], or None where nothing is labelled.
        - **groups** -- For each breakdown (`category`, `generator`, `language`, ..., `duration`) the metrics of each
          group. A kind of fake is measured against all genuine clips; other groups hold their own of both classes.
        - **threshold**, **threshold_source**, **threshold_clips**; **temperature**; **calibration** (None unless
          fitted here) -- How scores become labels.
        - **localization** -- [`localization_metrics`] of the runs of windows with high scores, where the corpus marks
          the fake seconds of every fake; None elsewhere.
        - **clips**, **class_mix**, **unreadable**, **cut_short** -- What was evaluated, and what was not.
        - **decided_by** -- With a gate: how many clips the gate and the model answered for.
        - **published** -- Rows of others for the same protocol, see `published.yaml`.

    Raises:
        PredictionsError: when no clip of the split was read, or calibration is asked for without validation clips of
            both classes.
    """
    split, validation = about["split"], about.get("validation_split")
    tested = [p for p in predictions if p["split"] == split]
    fitting = [p for p in predictions if p["split"] == validation and p["score"] is not None]
    if all(p["score"] is None for p in tested):
        first = tested[0]["error"]["message"] if tested else "The split is empty."
        raise PredictionsError(f"None of the {len(tested)} clips of {split} could be read. {first}")
    both = len({p["label"] for p in fitting}) == 2

    temperature = {part: (about.get("temperature") or {}).get(part, 1.0) for part in PARTS}
    calibration = None
    if calibrate or coverage is not None:
        if not both:
            raise PredictionsError(
                "Calibration needs a validation split with readable clips of both classes; "
                + (f"{validation!r} has none." if validation else "this protocol has none.")
            )
        calibration = {"split": validation, "clips": len(fitting)}
    if calibrate:
        for part in PARTS:
            labels, scores = labels_and_scores(fitting, part)
            if labels:
                try:
                    temperature[part] = fit_temperature(labels, scores)
                except ValueError as error:
                    calibration.setdefault("not_fitted", {})[part] = str(error)
    tested, fitting = ([with_temperature(p, temperature) for p in chosen] for chosen in (tested, fitting))
    read = [p for p in tested if p["score"] is not None]

    chosen_on = None
    if threshold == "model":
        threshold, source = about["model_threshold"], "the model's own"
    elif threshold is not None:
        threshold, source = float(threshold), "given"
    elif both:
        threshold, source = choose_threshold(*labels_and_scores(fitting, "overall")), validation
        chosen_on = len(fitting)
    else:
        why = f"{validation} has no readable clips of both classes" if validation else "no validation split"
        threshold, source = about["model_threshold"], f"the model's own ({why})"
    if coverage is not None:
        calibration |= _abstaining(fitting, read, coverage, threshold)

    report = {
        **about,
        "clips": len(tested),
        "class_mix": class_mix(read),
        "threshold": threshold,
        "threshold_source": source,
        "threshold_clips": chosen_on,
        "temperature": temperature if set(temperature.values()) != {1.0} else None,
        "calibration": calibration,
        "decided_by": dict(Counter(p["decided_by"] for p in read)) if about.get("gate") else None,
        "unreadable": {p["path"]: p["error"] for p in tested if p["score"] is None},
        "cut_short": {p["path"]: p["error"] for p in read if p["error"] is not None},
    }
    for part in PARTS:
        report[part] = _metrics(read, threshold_of(part, threshold), part, n_resamples)
    report["groups"] = {
        name: {
            group: _metrics(members, threshold, "overall", n_resamples)
            for group, members in sorted(groups.items())
        }
        for name, groups in breakdowns(read, about.get("group_columns", ()))
    }
    report["localization"] = _localization(read, about["dataset"], n_resamples)
    report["published"] = published_rows(about["dataset"], about["protocol"])
    return report


def calibration_of(report: dict) -> dict:
    """What of a report belongs into the configuration of its detector."""
    fitted = report["calibration"] or {}
    values = {"threshold": report["threshold"], "temperature": report["temperature"]}
    if fitted:
        values["abstain_band"] = fitted.get("abstain_band")
        values["calibration"] = {
            "dataset": report["dataset"],
            "protocol": report["protocol"],
            **{key: fitted[key] for key in ("split", "clips", "coverage") if key in fitted},
        }
    return values


def class_mix(predictions: list[dict]) -> dict[str, int]:
    """How many clips of each class, and of each pair of labels where both are known."""
    mix = Counter("fake" if p["label"] else "real" for p in predictions)
    pairs = Counter(CATEGORIES.get((p.get("video_label"), p.get("audio_label"))) for p in predictions)
    pairs.pop(None, None)
    return {**{name: mix[name] for name in ("real", "fake")}, **dict(sorted(pairs.items()))}


def breakdowns(
    predictions: list[dict], columns: tuple[str, ...]
) -> Iterator[tuple[str, dict[str, list[dict]]]]:
    """The ways in which a report parts the clips; one that makes no difference is left out."""
    real = [p for p in predictions if p["label"] == 0]
    for name, kind_of in (("category", _category), ("generator", kind_of_fake)):
        kinds: dict[str, list[dict]] = {}
        for p in predictions:
            if p["label"] == 1:
                kinds.setdefault(kind_of(p), []).append(p)
        if name == "generator" or set(kinds) - {"unknown"}:
            yield name, {kind: real + fakes for kind, fakes in kinds.items()}
    for name, group_of in (
        *((column, lambda p, column=column: p.get(column)) for column in ("language", *columns)),
        ("duration", _duration),
    ):
        groups: dict[str, list[dict]] = {}
        for p in predictions:
            group = group_of(p)
            groups.setdefault("unknown" if group is None else str(group), []).append(p)
        if len(groups) > 1:
            yield name, groups


def _category(p: dict) -> str:
    return CATEGORIES.get((p.get("video_label"), p.get("audio_label")), "unknown")


def _duration(p: dict) -> str | None:
    if p["duration"] is None:
        return None
    edges = (0, *DURATIONS)
    low = max(edge for edge in edges if p["duration"] >= edge)
    high = next((edge for edge in DURATIONS if edge > low), None)
    return f"{low:02d} s and more" if high is None else f"{low:02d} to {high:02d} s"


def published_rows(dataset: str, protocol: str) -> list[dict]:
    """What others published for a protocol, with what has to be known to compare; metrics as fractions."""
    text = (files(__package__) / "published.yaml").read_text(encoding="utf-8")
    tables = []
    for table in yaml.safe_load(text).get(dataset, ()):
        if protocol in table["protocols"]:
            scales = table["metrics"]
            rows = {
                name: {
                    metric: None if value is None else round(value / scales[metric], 6)
                    for metric, value in zip(scales, values, strict=True)
                }
                for name, values in table["rows"].items()
            }
            tables.append({"source": table["source"], "rows": rows, "notes": table["notes"]})
    return tables


def _metrics(members: list[dict], threshold: float, part: str, n_resamples: int) -> dict | None:
    known = judged(members, part)
    if not known:
        return None
    identities = [p.get("identity") for p in known]
    labels, scores = labels_and_scores(known, part)
    return detection_metrics(labels, scores, threshold, groups=identities, n_resamples=n_resamples)


def with_temperature(p: dict, temperature: dict[str, float] | None) -> dict:
    """A prediction with calibrated scores."""
    divisors = temperature or {}
    return {**p, **{name: calibrated(p[name], divisors.get(part, 1.0)) for part, name in SCORE_NAMES.items()}}


def _localization(read: list[dict], dataset: str, n_resamples: int) -> dict | None:
    marked = [p for p in read if p.get("fake_segments") is not None]
    if any(p["label"] == 1 and p.get("fake_segments") is None for p in read) or not any(
        p["fake_segments"] for p in marked
    ):
        return None
    return localization_metrics(
        [p["fake_segments"] for p in marked],
        [segment_proposals(p["windows"]) for p in marked],
        benchmark="lav_df" if dataset == "lav_df" else "av_deepfake1m",
        groups=[p.get("identity") for p in marked],
        n_resamples=n_resamples,
    )


def _abstaining(fitting: list[dict], read: list[dict], coverage: float, threshold: float) -> dict:
    """The band of uncertain scores, and what it does on the clips that are reported."""
    try:
        low, high = conformal_band(*labels_and_scores(fitting, "overall"), coverage)
    except ValueError as error:
        raise PredictionsError(str(error)) from error
    # A threshold outside would contradict the band's own verdicts; widening it keeps the guarantee.
    low, high = min(low, threshold), max(high, threshold)
    labels, scores = labels_and_scores(read, "overall")
    real = [score for label, score in zip(labels, scores, strict=True) if label == 0]
    fake = [score for label, score in zip(labels, scores, strict=True) if label == 1]
    return {
        "coverage": coverage,
        "abstain_band": [low, high],
        "abstained": sum(low <= score <= high for score in scores) / len(scores),
        "real_called_fake": sum(score > high for score in real) / len(real) if real else None,
        "fake_called_real": sum(score < low for score in fake) / len(fake) if fake else None,
    }
