"""The report of a detector, computed from predictions alone."""

from __future__ import annotations

from collections import Counter
from importlib.resources import files

import yaml

from ..configuration_detector import LOG_ODDS_NAMES, PARTS, SCORE_NAMES
from ..explain.words import threshold_of
from ..modeling_outputs import calibrated
from .breakdowns import breakdowns, class_mix
from .calibration import conformal_band, fit_temperature
from .metrics import choose_threshold, detection_metrics, localization_metrics
from .predictions import NUM_FACES, PredictionsError, judged, labels_and_ranked_scores, labels_and_scores
from .proposals import segment_proposals


def build_report(
    predictions: list[dict],
    about: dict,
    threshold: float | str | None = None,
    calibrate: bool = False,
    coverage: float | None = None,
    n_resamples: int = 1000,
) -> dict:
    """
    Compute everything that a report says about a detector on a split.

    Args:
        predictions (`list[dict]`):
            Predictions as from [`~predictions.read_predictions`], with the network's own scores. Those whose `split` is
            `about["validation_split"]` only serve to choose the threshold and to calibrate.
        about (`dict`): The facts that the file of predictions has about itself.
        threshold (`float` or `"model"`, *optional*):
            A fixed threshold, or the model's own. If left out, it is chosen for balanced accuracy on the validation
            split; without such a split, or with one class in it, it is the model's own.
        calibrate (`bool`, *optional*, defaults to `False`):
            Fit temperatures on the validation split; otherwise the model's own are applied.
        coverage (`float`, *optional*):
            Fit a band of uncertain scores on the validation split: above it at most 1 - `coverage` of real clips are
            called fake, and below it as many of the fake ones real (see [`conformal_band`]).
        n_resamples (`int`, *optional*, defaults to 1000): Resamples of the bootstrap by identity; 0 for no intervals.

    Returns:
        `dict`: `about` with

        - **overall**, **video**, **audio** -- [`detection_metrics`], or None if nothing is labelled.
        - **groups** -- For each breakdown (`category`, `generator`, `language`, ..., `duration`, `faces`) the metrics of each
          group. A kind of fake is measured against all genuine clips; other groups have both classes of their own.
        - **threshold**, **threshold_source**, **threshold_clips**, **temperature**, **calibration** (None unless
          fitted here) -- How scores become labels. `calibration["fitted"]` names the parts whose temperatures were
          fitted here; the others are the model's own.
        - **localization** -- [`localization_metrics`] of [`~proposals.segment_proposals`], if the corpus marks the fake
          seconds of every fake; otherwise None.
        - **clips**, **class_mix**, **unreadable**, **cut_short**, **no_face** -- What was evaluated and what was not.
          `no_face` lists the clips in which a detector of faces found none, so that their picture has no score.
        - **decided_by** -- With a gate: the number of clips that the gate and the model answered for.
        - **outside** -- Only for scores of another program: how its table was read, and its coverage.
        - **published** -- Published results of the same protocol, see `published.yaml`.

    Raises:
        PredictionsError: when no clip of the split was read, or for a calibration without validation clips of both
            classes.
    """
    split, validation = about["split"], about.get("validation_split")
    tested = [p for p in predictions if p["split"] == split]
    fitting = [p for p in predictions if p["split"] == validation and p["score"] is not None]
    if all(p["score"] is None for p in tested):
        first = tested[0]["error"]["message"] if tested else "The split is empty."
        raise PredictionsError(f"None of the {len(tested)} clips of {split} could be read. {first}")

    temperature = {part: (about.get("temperature") or {}).get(part, 1.0) for part in PARTS}
    calibration = None
    if calibrate or coverage is not None:
        calibration = _fitted_on(fitting, validation)
    if calibrate:
        fitted, not_fitted = _fit_temperatures(fitting)
        temperature |= fitted
        calibration["fitted"] = list(fitted)
        calibration |= {"not_fitted": not_fitted} if not_fitted else {}
    tested, fitting = ([with_temperature(p, temperature) for p in chosen] for chosen in (tested, fitting))
    read = [p for p in tested if p["score"] is not None]
    at, source, chosen_on = chosen_threshold(threshold, about, fitting)
    if coverage is not None:
        calibration |= _abstaining(fitting, read, coverage, at)

    report = {
        **about,
        "clips": len(tested),
        "class_mix": class_mix(read),
        "threshold": at,
        "threshold_source": source,
        "threshold_clips": chosen_on,
        "temperature": temperature if set(temperature.values()) != {1.0} else None,
        "calibration": calibration,
        "decided_by": dict(Counter(p["decided_by"] for p in read)) if about.get("gate") else None,
        "unreadable": {p["path"]: p["error"] for p in tested if p["score"] is None},
        "no_face": [p["path"] for p in tested if p.get(NUM_FACES) == 0],
        "cut_short": {p["path"]: p["error"] for p in read if p["error"] is not None},
    }
    report |= {
        part: _metrics(read, threshold_of(part, at, about.get("independent_parts", False)), part, n_resamples)
        for part in PARTS
    }
    report["groups"] = {
        name: {
            group: _metrics(members, at, "overall", n_resamples) for group, members in sorted(groups.items())
        }
        for name, groups in breakdowns(read, about.get("group_columns", ()))
    }
    report["localization"] = _localization(read, about["dataset"], n_resamples)
    report["published"] = published_rows(about["dataset"], about["protocol"])
    return report


def calibration_of(report: dict) -> dict:
    """Return the entries of a report that belong in its detector's configuration."""
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


def published_rows(dataset: str, protocol: str) -> list[dict]:
    """Return the published results of a protocol, as fractions, with notes on how they compare."""
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


def chosen_threshold(
    given: float | str | None, about: dict, fitting: list[dict]
) -> tuple[float, str, int | None]:
    """Return the threshold, where it is from, and the number of clips it was chosen on."""
    if given == "model":
        return about["model_threshold"], "the model's own", None
    if given is not None:
        return float(given), "given", None
    validation = about.get("validation_split")
    if _both_classes(fitting):
        return choose_threshold(*labels_and_scores(fitting, "overall")), validation, len(fitting)
    if about.get("outside"):
        return about["model_threshold"], "no validation clips of both classes in the table", None
    why = f"{validation} has no readable clips of both classes" if validation else "no validation split"
    return about["model_threshold"], f"the model's own ({why})", None


def with_temperature(p: dict, temperature: dict[str, float] | None) -> dict:
    """Return a prediction with calibrated scores, those of its windows included."""
    divisors = temperature or {}
    overall = divisors.get("overall", 1.0)
    windows = [window | {"score": calibrated(window["score"], overall)} for window in p.get("windows") or ()]
    values = {"windows": windows}
    for part, name in SCORE_NAMES.items():
        divisor, known = divisors.get(part, 1.0), p.get(LOG_ODDS_NAMES[part])
        values[name] = calibrated(p[name], divisor, known)
        values[LOG_ODDS_NAMES[part]] = None if known is None else known / divisor
    return p | values


def _both_classes(predictions: list[dict]) -> bool:
    return len({p["label"] for p in predictions}) == 2


def _fitted_on(fitting: list[dict], validation: str | None) -> dict:
    if not _both_classes(fitting):
        raise PredictionsError(
            "Calibration needs a validation split with readable clips of both classes; "
            + (f"{validation!r} has none." if validation else "this protocol has none.")
        )
    return {"split": validation, "clips": len(fitting)}


def _fit_temperatures(fitting: list[dict]) -> tuple[dict[str, float], dict[str, str]]:
    """Return temperatures by part, and for parts without one the reason."""
    temperature, not_fitted = {}, {}
    for part in PARTS:
        labels, scores = labels_and_scores(fitting, part)
        if labels:
            try:
                temperature[part] = fit_temperature(labels, scores)
            except ValueError as error:
                not_fitted[part] = str(error)
    return temperature, not_fitted


def _metrics(members: list[dict], threshold: float, part: str, n_resamples: int) -> dict | None:
    known = judged(members, part)
    if not known:
        return None
    identities = [p.get("identity") for p in known]
    labels, scores = labels_and_ranked_scores(known, part)
    return detection_metrics(labels, scores, threshold, groups=identities, n_resamples=n_resamples)


def _localization(read: list[dict], dataset: str, n_resamples: int) -> dict | None:
    marked = [p for p in read if p.get("fake_segments") is not None]
    unmarked = any(p["label"] == 1 and p.get("fake_segments") is None for p in read)
    # Scores of another program come without windows.
    if unmarked or not any(p["fake_segments"] for p in marked) or not any(p["windows"] for p in read):
        return None
    return localization_metrics(
        [p["fake_segments"] for p in marked],
        [segment_proposals(p["windows"]) for p in marked],
        benchmark="lav_df" if dataset == "lav_df" else "av_deepfake1m",
        groups=[p.get("identity") for p in marked],
        n_resamples=n_resamples,
    )


def _abstaining(fitting: list[dict], read: list[dict], coverage: float, threshold: float) -> dict:
    """Return the band of uncertain scores, and its effect on the reported clips."""
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
