"""A verdict in plain words: what was found, what it means, and what it does not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..configuration_detector import AVDetectorConfig
from ..pipeline_avd import SCORE_NAMES, UNCERTAIN, AVDeepfakeDetectionPipeline

if TYPE_CHECKING:
    from .attribution import Attribution

PART_TITLES = {"overall": "Whole file", "video": "Picture", "audio": "Sound"}
REPLACED = "the picture blurred and noise for its sound"
PART_THRESHOLD = 0.5
"""Picture and sound have no threshold of their own: half way between the two answers."""
HEADLINES = {
    "fake": "Called fake",
    "real": "Not called fake",
    UNCERTAIN: "Uncertain",
    None: "Could not be read",
}
"""What is written large, here and on the page of `page`: it is the detector that calls a file fake, and nothing was proved."""
WHAT_IT_IS_NOT = (
    "A verdict says how much a file resembles the fakes that the detector was trained on. It does not say who made the file, "
    "how, or whether what it shows took place; and a low score does not prove that a recording is genuine."
)


def deciding(detector: AVDeepfakeDetectionPipeline, result: dict) -> AVDeepfakeDetectionPipeline:
    """Whose verdict a result is: the pipeline, or its gate."""
    return detector.gate.detector if result.get("decided_by") == "gate" else detector


def headline(result: dict) -> str:
    """The verdict in a few words: `Called fake`."""
    return HEADLINES[result["label"]]


def verdict_line(result: dict, config: AVDetectorConfig) -> str:
    """
    One line on one file: what its score means, and what it does not. What has to be known of the detector (its `notice`) is
    for the top of the page.

    Args:
        result (`dict`): Of the pipeline.
        config ([`AVDetectorConfig`]): Of the detector whose verdict it is ([`deciding`]).
    """
    if result["label"] is None:
        return "No verdict: the file could not be read."
    score, threshold = result["score"], result["threshold"]
    side = "from which" if score >= threshold else "below"
    if result["label"] == UNCERTAIN:
        what = f"No verdict: the score of {score:.2f} lies where this detector is too often wrong."
    elif score >= threshold:
        what = f"The score of {score:.2f} is at or above {threshold:.2f}, {side} this detector says fake{_where(result)}."
    else:
        what = f"The score of {score:.2f} is below {threshold:.2f}, from which this detector says fake{_where(result)}."
    how = "calibrated, but for other material" if config.temperature else "not calibrated"
    return f"{what} It ranks files and is no probability for this one ({how})."


def meaning(result: dict, config: AVDetectorConfig) -> list[str]:
    """What the verdict on the whole file means and does not, in sentences; arguments as of [`verdict_line`]."""
    if result["label"] is None:
        return ["The file could not be read, so nothing is known of it."]
    score, threshold = result["score"], result["threshold"]
    lines = []
    if config.notice:
        lines.append(f"{capital(config.notice)}.")
    if result["label"] == UNCERTAIN:
        low, high = config.abstain_band
        lines.append(
            f"The detector gives no verdict. The score of {score:.2f} lies between {low:.2f} and {high:.2f}, where too many of "
            "its verdicts on validation data were wrong."
        )
    else:
        relation = "at or above" if score >= threshold else "below"
        lines.append(
            f"The detector {'calls this file fake' if score >= threshold else 'does not call this file fake'}: the score of "
            f"{score:.2f} is {relation} its threshold of {threshold:.2f}."
        )
    lines += _parts(result)
    windows = [window for window in result["windows"] if window["score"] is not None]
    if len(windows) > 1:
        high = max(windows, key=lambda window: window["score"])
        over = sum(window["score"] >= threshold for window in windows)
        lines.append(
            f"{over} of {len(windows)} windows reach the threshold; the highest is {high['score']:.2f}, from {clock(high['start'])} "
            f"to {clock(high['end'])}."
        )
    lines.append(calibration(config))
    lines.append(WHAT_IT_IS_NOT)
    return lines


def calibration(config: AVDetectorConfig) -> str:
    """Whether a score is a probability, and for what."""
    if not config.temperature:
        return (
            "Scores of this detector are not calibrated: a higher one is more suspicious, and 0.9 does not mean that nine such "
            "files in ten are fake."
        )
    fitted = config.calibration or {}
    names = ("dataset", "protocol", "split")
    where = ", ".join(str(fitted[name]) for name in names if fitted.get(name)) or "validation data"
    clips = f", {fitted['clips']} clips" if fitted.get("clips") else ""
    return (
        f"Scores were calibrated on {where}{clips}: among clips like those, of which as many are fake, nine in ten with a score of "
        "0.9 are. Where fakes are rarer, or made in other ways, fewer are."
    )


def how_attributed(found: Attribution) -> str:
    """What was done to find out what the detector reacts to, by method, with the scores of both ends."""
    span = f"the {clock(found.start)} to {clock(found.end)} window"
    score = {"overall": "score of the whole", "video": "picture's score", "audio": "sound's score"}[
        found.part
    ]
    if found.method == "occlusion":
        what = f"Parts of {span} were covered one after another, and the {score} was computed again ({found.passes} passes)."
    else:
        what = (
            f"From {span} with {REPLACED} to the window as it is, the gradients of the {score} were added up: how far each pixel "
            f"and each sample moved its log-odds ({found.passes} passes)."
        )
    covered = "everything covered" if found.method == "occlusion" else REPLACED
    return f"{what} It is {found.score:.3f} as it stands, and {found.baseline:.3f} with {covered}."


def part_rows(result: dict) -> list[dict]:
    """
    The verdict on the whole file, its picture and its sound.

    Returns:
        `list[dict]`: of each `part`, `title`, `score` (None where there is none), `threshold`, `high` (whether the score
        reaches it) and `meaning`.
    """
    rows = []
    for part, name in SCORE_NAMES.items():
        score = result[name]
        threshold = result["threshold"] if part == "overall" else PART_THRESHOLD
        has = {"overall": True, "video": result["has_video"], "audio": result["has_audio"]}[part]
        if score is None:
            words = "No verdict" if has else f"The file has no {PART_TITLES[part].lower()}"
            words += "; this detector gives none on it." if has and result["score"] is not None else "."
        elif part == "overall":
            words = f"{headline(result)}: {'at or above' if score >= threshold else 'below'} the threshold of {threshold:.2f}."
        else:
            words = f"More like {'the fakes' if score >= threshold else 'the genuine recordings'} it was trained on."
        rows.append(
            {
                "part": part,
                "title": PART_TITLES[part],
                "score": score,
                "threshold": threshold,
                "high": score is not None and score >= threshold,
                "meaning": words,
            }
        )
    return rows


def clock(seconds: float) -> str:
    """Seconds as a player shows them: `1:02.5`, `1:00:00.0`."""
    tenths = round(seconds * 10)
    minutes, rest = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    ending = f"{minutes}:{rest // 10:02}.{rest % 10}"
    return f"{hours}:{minutes:02}:{rest // 10:02}.{rest % 10}" if hours else ending


def _where(result: dict) -> str:
    """Which part is suspicious, if the two differ."""
    high = {part: (result[SCORE_NAMES[part]] or 0) >= PART_THRESHOLD for part in ("video", "audio")}
    if None in (result["video_score"], result["audio_score"]) or high["video"] == high["audio"]:
        return ""
    return f"; {'its picture' if high['video'] else 'its sound'} alone scores high"


def _parts(result: dict) -> list[str]:
    seen, heard = result["video_score"], result["audio_score"]
    if seen is None or heard is None:
        return []
    high = seen >= PART_THRESHOLD, heard >= PART_THRESHOLD
    scores = f"({seen:.2f} for the picture, {heard:.2f} for the sound)"
    if high == (True, True):
        return [f"Picture and sound both look made {scores}."]
    if high == (False, False):
        odd = ", although the whole does" if result["score"] >= result["threshold"] else ""
        return [f"Neither picture nor sound alone looks made{odd} {scores}."]
    made, other = ("picture", "sound") if high[0] else ("sound", "picture")
    return [f"What looks made is the {made}, not the {other} {scores}."]


def capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def describe_disagreement(result: dict) -> str:
    """The same in words, with what it is not."""
    highest = max(result["timeline"], key=lambda point: point["disagreement"])
    return (
        f"Disagreement of picture and sound: {result['disagreement']:.2f} on average, highest at {clock(highest['time'])} "
        f"({highest['disagreement']:.2f}). 0: as in the genuine clips of training. Not a probability and no part of the "
        "verdict; silence, a voice from off screen or a cut raise it too."
    )
