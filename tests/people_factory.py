"""Results with people, made by hand: `from people_factory import face, result_with`."""

from __future__ import annotations

import numpy as np
from face_factory import FaceClip

from modeling_avlmm.explain.attribution_maps import Attribution


def face(
    index: int, start: float, end: float, scores: list[float | None], left: float, top: float = 0.2, **more
) -> dict:
    """Return an entry of a result's `faces`: windows of equal length with `scores`, a box of 0.2 x 0.4 every 0.2 s.

    `more` replaces fields, such as `video_score`; by default that is the mean of the windows' scores.
    """
    step = (end - start) / len(scores)
    windows = [
        {"start": start + n * step, "end": start + (n + 1) * step, "video_score": score}
        for n, score in enumerate(scores)
    ]
    known = [score for score in scores if score is not None]
    mean = sum(known) / len(known) if known else None
    count = round((end - start) * 5) + 1
    boxes = [
        {"time": round(start + n * (end - start) / (count - 1), 4), "box": [left, top, left + 0.2, top + 0.4]}
        for n in range(count)
    ]
    whole = {"index": index, "start": start, "end": end, "video_score": mean, "score": mean}
    return {**whole, "windows": windows, "boxes": boxes, **more}


def result_with(faces: list[dict] | None, duration: float = 9.0, **more) -> dict:
    """Return a result of the pipeline with these faces; its scores are those of the most suspicious one."""
    known = [entry["video_score"] for entry in faces or () if entry["video_score"] is not None]
    score = max(known, default=None)
    windows = [
        {"start": start, "end": start + 3.0, "score": score, "video_score": score, "audio_score": 0.1}
        for start in (0.0, 3.0, 6.0)
    ]
    return {
        "label": "fake" if score and score >= 0.5 else "real",
        "score": 0.1 if score is None else score,
        "video_score": score,
        "audio_score": 0.1,
        "threshold": 0.5,
        "abstain_band": None,
        "windows": windows,
        "faces": faces,
        "name": "clip.mp4",
        "duration": duration,
        "has_video": True,
        "has_audio": True,
        "num_frames": 45,
        "warnings": [],
        "error": None,
        **more,
    }


def two_people() -> list[dict]:
    """Return the faces of a clip of 9 s: one on the left that is fake from 3 to 6 s, and a genuine one on the right."""
    return [
        face(0, 0.0, 9.0, [0.2, 0.96, 0.64], left=0.1),
        face(1, 1.0, 7.0, [0.1, 0.05, 0.12], left=0.65, top=0.3),
    ]


def faces_of(clip: FaceClip, scores: list[list[float | None]]) -> list[dict]:
    """Return the entries of a result's `faces` for a drawn clip: true boxes at its frames, and a score for each window."""
    height, width = clip.frames.shape[-2:]
    entries = []
    for index, (boxes, known) in enumerate(zip(clip.boxes, scores, strict=True)):
        seen = ~np.isnan(boxes[:, 0])
        times = clip.times[seen]
        whole = face(index, float(times[0]), float(times[-1]), known, left=0.0)
        fractions = boxes[seen] / (width, height, width, height)
        whole["boxes"] = [
            {"time": float(time), "box": [round(float(side), 4) for side in box]}
            for time, box in zip(times, fractions, strict=True)
        ]
        entries.append(whole)
    return entries


def crop_attribution() -> Attribution:
    """Return an attribution on crops of the second of [`two_people`]: two steps, the strongest place amid the second."""
    picture = np.zeros((2, 3, 3))
    picture[1, 1, 1], picture[0, 0, 0] = 0.4, 0.1
    return Attribution(
        part="overall",
        method="occlusion",
        measure="score",
        start=3.0,
        end=6.0,
        name="clip.mp4",
        score=0.9,
        baseline=0.1,
        picture=picture,
        frame_times=np.array([3.5, 5.0]),
        frames=np.full((2, 48, 48, 3), 120, dtype=np.uint8),
        regions={"mouth": 0.4, "eyes": 0.1},
        places=np.array([[0.6, 0.2, 0.8, 0.5], [0.62, 0.2, 0.82, 0.5]]),
        aspect=1.5,
    )


class KnownScores:
    """
    A detector that gives every file the same result, in place of a network.

    Args:
        detector: The pipeline whose model, processor and name it shows.
        result (`dict`): The result.
    """

    def __init__(self, detector, result: dict):
        self.model, self.processor, self.gate = detector.model, detector.processor, detector.gate
        self.result = result

    def __call__(self, source, on_error: str | None = None, abstain: bool = False) -> dict:
        return {
            **self.result,
            "name": str(source),
            "abstain_band": self.model.config.abstain_band if abstain else None,
        }
