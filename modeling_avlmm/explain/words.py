"""The words for a verdict: labels, part names, thresholds, times and sentences, for every page, report and command.

Importing this module is cheap: it loads neither torch nor transformers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..configuration_detector import AVDetectorConfig
    from ..pipeline_avd import AVDeepfakeDetectionPipeline
    from .attribution_maps import Attribution

PART_NAMES = {"overall": "overall", "video": "picture", "audio": "sound"}
"""Names of the parts of a verdict, in tables and plots."""
PART_NOUNS = {**PART_NAMES, "overall": "clip"}
"""The same parts in a sentence: the clip, the picture, the sound."""
PART_TITLES = {"overall": "Whole file", "video": "Picture", "audio": "Sound"}
"""The same parts as headings."""
PART_THRESHOLD = 0.5
"""Picture and sound have no threshold of their own, so they are called fake from half way between the two answers, unless the
file's score is that of the more suspicious one."""
HEADLINES = {
    "fake": "Called fake",
    "real": "Not called fake",
    "uncertain": "Uncertain",
    None: "Could not be read",
}
"""The verdict in large letters. The detector calls a file fake; nothing was proved."""
NO_VERDICT = "No verdict"
"""In place of the verdict on a file that was read, but in which there was nothing to score."""
WHAT_IT_IS_NOT = (
    "A verdict says how much a file resembles the fakes that the detector was trained on. It does not say who made the file, "
    "how, or whether what it shows took place; and a low score does not prove that a recording is genuine."
)
NO_PROBABILITY = "A score ranks files and is not the chance that this one is fake"
REPLACED = "the picture blurred and noise for its sound"


def capital(text: str) -> str:
    """Return a text with its first letter in upper case."""
    return text[:1].upper() + text[1:]


def clock(seconds: float) -> str:
    """Return seconds as a player shows them: `1:02.5`, `1:00:00.0`."""
    tenths = round(seconds * 10)
    minutes, rest = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    ending = f"{rest // 10:02}.{rest % 10}"
    return f"{hours}:{minutes:02}:{ending}" if hours else f"{minutes}:{ending}"


def minutes(seconds: float) -> str:
    """Return a length in words: `90` as `1 min 30 s`."""
    whole, rest = divmod(round(seconds), 60)
    parts = ([f"{whole} min"] if whole else []) + ([f"{rest} s"] if rest or not whole else [])
    return " ".join(parts)


def hours(seconds: float) -> str:
    """Return a length as a clock: `3725` as `1:02:05`."""
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"


def count_of(number: int, noun: str) -> str:
    """Return a number with its noun: `1 clip`, `1,204 clips`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def threshold_of(part: str, threshold: float, independent_parts: bool = False) -> float:
    """
    Return the score from which a part is called fake.

    Args:
        part (`str`): `"overall"`, `"video"` or `"audio"`.
        threshold (`float`): The detector's threshold, which is for the whole file.
        independent_parts (`bool`, *optional*, defaults to `False`):
            The file's score is that of its more suspicious part, so that the threshold holds for the parts too.
    """
    return threshold if part == "overall" or independent_parts else PART_THRESHOLD


def threshold_in(result: dict, part: str) -> float:
    """Return the score from which a part of a file is called fake, by the pipeline's result."""
    return threshold_of(part, result["threshold"], independent_parts(result))


def independent_parts(result: dict) -> bool:
    """Return whether a result is of a detector that judges picture and sound apart."""
    return result.get(
        "independent_parts", False
    )  # a result of an older release, read from a file, does not say


def label_of(score: float | None, result: dict, part: str = "overall") -> str | None:
    """
    Return the label of a score: the one rule for a whole file and for each of its windows.

    Args:
        score (`float`, *optional*): P(fake) of the file or of a window.
        result (`dict`):
            The pipeline's result that the score is from. Its `threshold` and, for a result made with `abstain=True`, its
            `abstain_band` are for the overall score, and for each part where the detector judges `independent_parts`.
        part (`str`, *optional*, defaults to `"overall"`): `"overall"`, `"video"` or `"audio"`.

    Returns:
        `str`, *optional*: `"fake"`, `"real"` or `"uncertain"`; None without a score.
    """
    if score is None:
        return None
    band = result.get("abstain_band") if part == "overall" or independent_parts(result) else None
    if band and band[0] <= score <= band[1]:
        return "uncertain"
    return "fake" if score >= threshold_in(result, part) else "real"


def deciding(detector: AVDeepfakeDetectionPipeline, result: dict) -> AVDeepfakeDetectionPipeline:
    """Return the pipeline that gave a result: the detector or its gate."""
    return detector.gate.detector if result.get("decided_by") == "gate" else detector


def headline(result: dict) -> str:
    """Return the verdict in a few words: `Called fake`."""
    return NO_VERDICT if no_verdict(result) else HEADLINES[result["label"]]


def no_verdict(result: dict) -> bool:
    """Return whether a file was read, but has no verdict: without a face or sound, or as the network gave no number."""
    error = result.get("error")
    return result["label"] is None and error is not None and error["type"] == "NoVerdictError"


def score_sentence(result: dict, config: AVDetectorConfig) -> str:
    """
    Return one sentence that sets the score against the detector's threshold or abstain band.

    Args:
        result (`dict`): A result of the pipeline.
        config ([`AVDetectorConfig`]): Of the detector that gave it ([`deciding`]).
    """
    if no_verdict(result):
        return f"There is no verdict: {result['error']['message']}."
    if result["label"] is None:
        return "The file could not be read, so there is no verdict."
    score, threshold = result["score"], result["threshold"]
    if result["label"] == "uncertain":
        low, high = result.get("abstain_band") or config.abstain_band
        return (
            f"The score of {score:.2f} lies between {low:.2f} and {high:.2f}, where too many of this detector's verdicts were "
            "wrong: take it as no verdict."
        )
    relation = "at or above" if score >= threshold else "below"
    return (
        f"The score of {score:.2f} is {relation} {threshold:.2f}, from which this detector calls a file fake."
    )


def verdict_line(result: dict, config: AVDetectorConfig) -> str:
    """Return one line on a file: its score, the part that stands out, and what a score is not. The detector's `notice` is
    for the top of a page. Arguments as for [`score_sentence`]."""
    sentence = score_sentence(result, config)
    if result["label"] is None:
        return sentence
    calibrated = "calibrated, but on other material" if config.temperature else "not calibrated"
    return f"{sentence}{_standing_out(result)} {NO_PROBABILITY} ({calibrated})."


def meaning(result: dict, config: AVDetectorConfig) -> list[str]:
    """Return sentences on what the verdict on a file means and does not mean. Arguments as for [`score_sentence`]."""
    if result["label"] is None:
        return [score_sentence(result, config)]
    lines = [f"{capital(config.notice)}."] if config.notice else []
    lines += [score_sentence(result, config), *_parts(result)]
    windows = [window for window in result["windows"] if window["score"] is not None]
    if len(windows) > 1:
        high = max(windows, key=lambda window: window["score"])
        count = sum(label_of(window["score"], result) == "fake" for window in windows)
        lines.append(
            f"{count} of {len(windows)} windows {'is' if count == 1 else 'are'} called fake; the highest score is "
            f"{high['score']:.2f}, from {clock(high['start'])} to {clock(high['end'])}."
        )
    return [*lines, calibration(config), WHAT_IT_IS_NOT]


def calibration(config: AVDetectorConfig) -> str:
    """Return sentences on whether a score is a probability, and on what material."""
    if not config.temperature:
        return (
            "Scores of this detector are not calibrated: a higher one is more suspicious, but 0.9 does not mean that nine such "
            "files in ten are fake."
        )
    fitted = config.calibration or {}
    names = ("dataset", "protocol", "split")
    where = ", ".join(str(fitted[name]) for name in names if fitted.get(name)) or "validation data"
    clips = f", {fitted['clips']} clips" if fitted.get("clips") else ""
    return (
        f"Scores were calibrated on {where}{clips}: of clips like those, with the same share of fakes, nine in ten that score "
        "0.9 are fake. Where fakes are rarer, or made in other ways, fewer are."
    )


def how_attributed(found: Attribution) -> str:
    """Return sentences on how an attribution was computed, with the scores at both ends."""
    span = f"the {clock(found.start)} to {clock(found.end)} window"
    score = {"overall": "score of the whole", "video": "picture's score", "audio": "sound's score"}[
        found.part
    ]
    if found.method == "occlusion":
        how = f"Parts of {span} were covered one after another, and the {score} was computed again ({found.passes} passes)."
    else:
        how = (
            f"From {span} with {REPLACED} to the window as it is, the gradients of the {score} were added up: how far each pixel "
            f"and each sample moved its log-odds ({found.passes} passes)."
        )
    covered = "everything covered" if found.method == "occlusion" else REPLACED
    return f"{how} It is {found.score:.3f} as it stands, and {found.baseline:.3f} with {covered}."


def part_rows(result: dict) -> list[dict]:
    """
    Return the verdicts on the whole file, its picture and its sound.

    Returns:
        `list[dict]`: for each part its `part`, `title`, `score` (None where there is none), `threshold`, `label`
        ([`label_of`]) and `meaning` (a sentence).
    """
    rows = []
    for part, score in _scores(result).items():
        threshold = threshold_in(result, part)
        present = {"overall": True, "video": result["has_video"], "audio": result["has_audio"]}[part]
        label = result["label"] if part == "overall" else label_of(score, result, part)
        if score is None:
            words = _no_verdict(part, result) if present else _no_track(part, present)
        elif label == "uncertain":
            words = "Uncertain: the score is in the range without a verdict."
        elif part == "overall":
            words = f"{headline(result)}: {'at or above' if score >= threshold else 'below'} the threshold of {threshold:.2f}."
        else:
            words = f"More like the {'fakes' if label == 'fake' else 'genuine recordings'} it was trained on."
        row = {"part": part, "title": PART_TITLES[part], "score": score, "threshold": threshold}
        rows.append({**row, "label": label, "meaning": words})
    return rows


def _no_track(part: str, present: bool | None) -> str:
    """Return what is said of a part without a verdict: it is absent, or (`present` is None) it cannot be decoded."""
    if present is None:
        return f"The file's {PART_NAMES[part]} cannot be decoded."
    return f"The file has no {PART_NAMES[part]}."


def _no_verdict(part: str, result: dict) -> str:
    """Return the reason why a part that is there has no score."""
    if part == "video" and result.get("faces") is not None:
        return (
            "Not scored: no face was found."
            if not result["faces"]
            else "Not scored: no face was large enough."
        )
    if result["score"] is None:
        return "No verdict."
    return (
        "Not scored: see the warnings."
        if independent_parts(result)
        else "No verdict; this detector gives none on it."
    )


def describe_windows(result: dict, limit: int = 8) -> str:
    """Return sentences that name the windows that are called fake, at most `limit`, and count the uncertain ones."""
    labels = [label_of(window["score"], result) for window in result["windows"]]
    spans = [
        f"{clock(window['start'])} to {clock(window['end'])}"
        for window, label in zip(result["windows"], labels, strict=True)
        if label == "fake"
    ]
    uncertain = f" {labels.count('uncertain')} are uncertain." if "uncertain" in labels else ""
    if not spans:
        return f"No window is called fake.{uncertain}"
    more = f", and {len(spans) - limit} more" if len(spans) > limit else ""
    return f"Windows called fake: {', '.join(spans[:limit])}{more}.{uncertain}"


def describe_disagreement(result: dict) -> str:
    """Return sentences on how far picture and sound of a file disagree over time, and on what that does not mean."""
    highest = max(result["timeline"], key=lambda point: point["disagreement"])
    return (
        f"Disagreement of picture and sound: {result['disagreement']:.2f} on average, highest at {clock(highest['time'])} "
        f"({highest['disagreement']:.2f}). 0 is what genuine clips in training had. It is not a probability and no part of the "
        "verdict; silence, a voice from off screen or a cut raise it too."
    )


def _scores(result: dict) -> dict[str, float | None]:
    from ..configuration_detector import SCORE_NAMES  # on demand: it loads torch

    return {part: result[name] for part, name in SCORE_NAMES.items()}


def _standing_out(result: dict) -> str:
    """Return a sentence on the part that alone looks fake, if the two differ."""
    labels = {part: label_of(_scores(result)[part], result, part) for part in ("video", "audio")}
    if None in labels.values() or labels["video"] == labels["audio"]:
        return ""
    part = "video" if labels["video"] == "fake" else "audio"
    return f" Its {PART_NAMES[part]} alone scores high."


def _parts(result: dict) -> list[str]:
    seen, heard = result["video_score"], result["audio_score"]
    if seen is None or heard is None:
        return []
    scores = f"({seen:.2f} for the picture, {heard:.2f} for the sound)"
    fake = [
        PART_NAMES[part]
        for part in ("video", "audio")
        if label_of(_scores(result)[part], result, part) == "fake"
    ]
    if len(fake) == 2:
        return [f"Picture and sound both look fake {scores}."]
    if not fake:
        odd = ", although the file as a whole does" if result["label"] == "fake" else ""
        return [f"Neither picture nor sound looks fake alone{odd} {scores}."]
    other = "sound" if fake == ["picture"] else "picture"
    return [f"The {fake[0]} looks fake, the {other} does not {scores}."]
