"""
Attribution: the parts of the picture and the passages of the sound that a detector's score rests on.

Occlusion (Zeiler and Fergus, "Visualizing and Understanding Convolutional Networks", arXiv 1311.2901) works with every
detector, because it changes frames and waveform before the processor sees them. Integrated gradients (Sundararajan et
al., "Axiomatic Attribution for Deep Networks", arXiv 1703.01365) are for networks that take pixels and samples.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..configuration_detector import SCORE_NAMES
from ..faces import FaceTrack, square_boxes
from ..media import Clip, MediaReader
from ..pipeline_avd import AVDeepfakeDetectionPipeline
from ..pipeline_inputs import split_source
from .attribution_maps import (
    SATURATED,
    Attribution,
    AttributionError,
    AttributionOptions,
    limits_of,
    log_odds,
    ranked,
)
from .covering import Covering
from .gradients import integrated_gradients
from .regions import SOUND_BANDS
from .words import PART_NAMES


def attribute(
    detector: AVDeepfakeDetectionPipeline,
    source: Any,
    window: dict | None = None,
    on_progress: Callable[[int, int], None] | None = None,
    **options: Any,
) -> Attribution:
    """
    Find the parts of a clip that a detector's score rests on.

    For a detector of faces the clip is the most suspicious face of the window, cut to it.

    ```python
    >>> found = attribute(detector, "clip.mp4", part="video")
    >>> next(iter(found.regions))
    'mouth'
    ```

    Occlusion scores `1 + 1 + frame_steps * grid² + 8 + 9 * sound_steps + 4` clips (282 by default). The result is the
    same every time.

    Args:
        detector ([`AVDeepfakeDetectionPipeline`]): The detector to explain. Its gate is not used.
        source (path, URL, ..., or [`Clip`]): Any source the pipeline takes, or a decoded window, for a detector of faces cut
            to a face.
        window (`dict`, *optional*):
            `start` and `end` in seconds, such as one of a result's `windows`. Defaults to the whole file if it fits
            into one pass, and otherwise to its window with the highest score.
        on_progress (`Callable[[int, int], None]`, *optional*): Called with the number of clips scored and their total.
        options: See [`AttributionOptions`].

    Raises:
        AttributionError: for options out of range, a part that the window does not have, more passes than
            `max_passes`, or gradients of a detector that cannot give them.
        MediaError: when the file cannot be read.
    """
    chosen = AttributionOptions(**options)
    part = chosen.part
    clip, place = (source, None) if isinstance(source, Clip) else _read(detector, source, window, part)
    if (part == "video" and not clip.has_video) or (part == "audio" and not clip.has_audio):
        raise AttributionError(f"{clip.name}: the window has no {PART_NAMES[part]} to have a score.")
    covering = Covering(detector, clip, chosen)
    explain = integrated_gradients if chosen.method == "gradients" else occlusion
    found = explain(covering, on_progress)
    if place is not None and found.frame_times is not None:
        found.places, found.aspect = place.at(found.frame_times), place.aspect
    return found


@dataclass(frozen=True)
class FacePlace:
    """Place of the crops of a face in frames of `width` x `height` pixels."""

    track: FaceTrack
    width: int
    height: int
    margin: float

    @property
    def aspect(self) -> float:
        """Width of a frame by its height."""
        return self.width / self.height

    def at(self, times: np.ndarray) -> np.ndarray:
        """Return left, top, right and bottom of the crops at `times` (T,), as fractions of the frame, shape (T, 4)."""
        squares = square_boxes(self.track.box_at(times), self.width, self.height, self.margin)
        return squares / (self.width, self.height, self.width, self.height)


def _read(
    detector: AVDeepfakeDetectionPipeline, source: Any, window: dict | None, part: str
) -> tuple[Clip, FacePlace | None]:
    processor = detector.processor
    media, audio = split_source(source)
    with MediaReader(media, audio=audio, trim_leading_silence=processor.trim_leading_silence) as reader:
        longest, duration = processor.max_seconds, reader.info.duration
        if window is None and duration > longest:
            result = detector(source, on_error="raise")
            scored = [w for w in result["windows"] if w[SCORE_NAMES[part]] is not None]
            if result.get("decided_by") == "gate" or not scored:
                raise AttributionError(
                    f"{reader.info.name}: {duration:.1f} s is longer than one pass takes ({longest:g} s), and this detector "
                    "scored no window of it. Give window={'start': ..., 'end': ...}."
                )
            window = max(scored, key=lambda w: w[SCORE_NAMES[part]])
        start, end = (0.0, duration) if window is None else (window["start"], window["end"])
        if end - start > longest + 1e-6:
            raise AttributionError(
                f"The window of {end - start:.1f} s is longer than one pass takes ({longest:g} s)."
            )
        clip = reader.read(start=start, end=end, fps=processor.fps, max_frames=processor.max_frames)
    return _suspicious_face(detector, clip, part)


def _suspicious_face(
    detector: AVDeepfakeDetectionPipeline, clip: Clip, part: str
) -> tuple[Clip, FacePlace | None]:
    """Return a window as a detector of faces takes it: cut to the face with the highest score, and where that is; or without
    a picture."""
    people = detector.processor.face_windows()
    if people is None:
        return clip, None
    faces, notes = people.choose(clip)
    cuts = [detector.processor.part(clip, face) for face in faces or [None]]
    scores = [0.0]
    if len(cuts) > 1:
        rows = [{"encoded": detector.processor.encode(cut, (part,))} for cut in cuts]
        scores = [row[SCORE_NAMES[part]] or 0.0 for row in detector.forward(detector.collate(rows))]
    best = int(np.argmax(scores))
    chosen = replace(cuts[best], warnings=[*cuts[best].warnings, *notes])
    if not faces:
        return chosen, None
    height, width = clip.frames.shape[-2:]
    return chosen, FacePlace(faces[best].track, width, height, detector.processor.face_margin)


def occlusion(covering: Covering, on_progress: Callable[[int, int], None] | None = None) -> Attribution:
    """
    Score a clip once more for each covered part, and map the drops of the score.

    Raises:
        AttributionError: for more passes than `max_passes`, or when the detector gives no score.
    """
    options = covering.options
    variants = list(covering.variants())
    if len(variants) > options.max_passes:
        raise AttributionError(
            f"This takes {len(variants)} passes, above max_passes={options.max_passes}. Lower grid, frame_steps or "
            "sound_steps, or raise max_passes."
        )
    scores: dict[tuple, float] = {}
    for first in range(0, len(variants), options.batch_size):
        batch = variants[first : first + options.batch_size]
        values = covering.scores([make for _, make in batch])
        scores |= zip((key for key, _ in batch), values, strict=True)
        if on_progress is not None:
            on_progress(len(scores), len(variants))
    return _occlusion_maps(covering, scores)


def _occlusion_maps(covering: Covering, scores: dict[tuple, float]) -> Attribution:
    measure = covering.options.measure
    measured = {key: score if measure == "score" else log_odds(score) for key, score in scores.items()}

    def drop(*key) -> float:
        return measured[("score",)] - measured[key]

    found = covering.attribution(
        method="occlusion",
        measure=measure,
        score=scores[("score",)],
        baseline=scores[("baseline",)],
        passes=len(scores),
        regions=ranked({name: drop("region", name) for name in covering.masks}),
    )
    if covering.blocks:
        sides, steps = range(covering.options.grid), range(len(covering.blocks))
        found.picture = np.array([[[drop("cell", s, r, c) for c in sides] for r in sides] for s in steps])
    if covering.passages:
        bands, steps = range(len(covering.bands)), range(len(covering.passages))
        found.sound = np.array([[drop("band", band, step) for step in steps] for band in bands])
        found.passages = np.array([drop("passage", step) for step in steps])
        found.bands = ranked({name: drop("named", name) for name in SOUND_BANDS})
    found.limits = limits_of(found)
    return found


__all__ = ["SATURATED", "Attribution", "AttributionError", "AttributionOptions", "attribute", "occlusion"]
