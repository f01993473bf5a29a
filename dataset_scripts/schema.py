"""The columns that every corpus has, and their labels."""

from __future__ import annotations

from typing import Any

import datasets

from .errors import MetadataError

LABELS = ["real", "fake"]  # fake = 1 everywhere
REAL, FAKE = 0, 1

TABLE = {
    # The clip, stored as its absolute path.
    "video": datasets.Video(),
    # Absolute path of a separate sound file. None: the sound is in the clip.
    "audio": datasets.Value("string"),
    # Fake if any part of picture or sound is.
    "label": datasets.ClassLabel(names=LABELS),
    # None where unknown.
    "video_label": datasets.ClassLabel(names=LABELS),
    "audio_label": datasets.ClassLabel(names=LABELS),
    # The method that made the picture; "real" for a real one, None where unknown.
    "generator": datasets.Value("string"),
    # The same for the sound.
    "audio_generator": datasets.Value("string"),
    # Spoken language, as an ISO 639-1 code where the corpus says.
    "language": datasets.Value("string"),
    # The person seen in the genuine clip; identity-disjoint splits use it.
    "identity": datasets.Value("string"),
    # `path` of the genuine clip that a fake was made from.
    "source": datasets.Value("string"),
    # [start, end] in seconds. None: not annotated.
    "fake_segments": datasets.List(datasets.List(datasets.Value("float64"))),
    # Relative, with "/", unique within a split: the key of predictions.
    "path": datasets.Value("string"),
}
FEATURES = datasets.Features(TABLE)

ClipRow = dict[str, Any]
"""One clip: column -> value."""


def parse_label(value: Any, where: str) -> int:
    """Read a label: `real` or 0, `fake` or 1 (also as text, in any case).

    Args:
        value (`Any`):
            The label as found.
        where (`str`):
            Row and column, for the error message.

    Raises:
        [`MetadataError`]: any other value. Booleans are refused: they do not say which class is true.
    """
    known = {"real": REAL, "0": REAL, "0.0": REAL, "fake": FAKE, "1": FAKE, "1.0": FAKE}
    label = known.get(str(value).strip().casefold())
    if label is None:
        raise MetadataError(f"{where}: label {value!r} is not known; use real (or 0) and fake (or 1).")
    return label


def make_row(
    video: str | None,
    path: str,
    label: int,
    *,
    video_label: int | None = None,
    audio_label: int | None = None,
    fake_segments: list[list[float]] | None = None,
    **columns: Any,
) -> ClipRow:
    """Build a row from its label and whatever else is known.

    A real clip has real picture and sound, no generator and no fake segment; these columns are filled in. Nothing is
    inferred for a fake, except that a track labelled real has the generator `"real"`.

    Args:
        video (`str`, *optional*):
            Absolute path of the clip; None if the file is missing.
        path (`str`):
            See [`FEATURES`].
        label (`int`):
            0 (real) or 1 (fake).
        video_label, audio_label (`int`, *optional*):
            Labels of picture and sound.
        fake_segments (`list[list[float]]`, *optional*):
            `[start, end]` pairs in seconds.
        columns (`Any`):
            Other columns of [`FEATURES`], None by default, and then those of the corpus.

    Raises:
        [`MetadataError`]: the labels contradict each other, or a segment is malformed.
    """
    tracks = (video_label, audio_label)
    if (label == REAL and FAKE in tracks) or (label == FAKE and tracks == (REAL, REAL)):
        names = [None if track is None else LABELS[track] for track in tracks]
        raise MetadataError(
            f"{path}: label is {LABELS[label]} but video_label is {names[0]} and audio_label is {names[1]}."
        )
    if label == REAL:
        video_label = audio_label = REAL
        fake_segments = [] if fake_segments is None else fake_segments
    _check_segments(fake_segments or [], label, path)
    row = {
        **dict.fromkeys(TABLE),
        **columns,
        "video": video,
        "label": label,
        "video_label": video_label,
        "audio_label": audio_label,
        "fake_segments": fake_segments,
        "path": path,
    }
    if video_label == REAL:
        row["generator"] = "real"
    if audio_label == REAL:
        row["audio_generator"] = "real"
    return row


def _check_segments(segments: list[list[float]], label: int, path: str) -> None:
    if label == REAL and segments:
        raise MetadataError(f"{path}: label is real but fake_segments is {segments}.")
    if any(len(segment) != 2 or not 0 <= segment[0] < segment[1] for segment in segments):
        raise MetadataError(f"{path}: fake_segments needs [start, end] pairs in seconds, got {segments}.")
