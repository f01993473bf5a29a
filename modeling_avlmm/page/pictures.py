"""Pictures of the page: a mel spectrogram of the sound, and frames with the places that the detector reacted to."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers.audio_utils import mel_filter_bank

from ..explain.attribution import Attribution
from ..media import SAMPLING_RATE, MediaReader

MELS, COLUMNS, FFT = 80, 1200, 1024
TOP_HZ = SAMPLING_RATE / 2
RANGE_DB = 70.0  # quieter than the loudest by this much is blank; our own choice
PIECE_SECONDS = 30.0
FAINT = 0.25  # places weaker than this share of the strongest are not boxed; our own choice


def mel_picture(reader: MediaReader) -> str | None:
    """
    Draw the mel spectrogram of a whole file, read piece by piece.

    Passages that cannot be decoded are blank. It spans the file's duration from edge to edge, whatever part of it has sound, so that a place in it is a time. Loudness
    is opacity; the page sets the colour, for light and dark.

    Returns:
        `str`, *optional*: `data:` address of a PNG of `MELS` rows, low sounds at the bottom; None without sound.
    """
    info = reader.info
    if not info.has_audio:
        return None
    columns = int(np.clip(info.duration * 100, 60, COLUMNS))
    centres = (np.arange(columns) + 0.5) * info.duration / columns
    bank = mel_filter_bank(FFT // 2 + 1, MELS, 0.0, TOP_HZ, SAMPLING_RATE, norm="slaney", mel_scale="htk")
    window = torch.hann_window(FFT)
    mel = np.zeros((MELS, columns), dtype=np.float32)
    margin = FFT / SAMPLING_RATE
    start = 0.0
    while start < info.duration:
        end = min(start + PIECE_SECONDS, info.duration)
        begin = max(0.0, start - margin)
        sound = reader.read_passage(begin, min(end + margin, info.duration), with_video=False).audio
        chosen = np.flatnonzero((centres >= start) & (centres < end))
        if sound is not None and len(chosen):
            padded = torch.nn.functional.pad(sound, (FFT, FFT))
            at = np.round((centres[chosen] - begin) * SAMPLING_RATE).astype(int) + FFT - FFT // 2
            at = np.clip(at, 0, len(padded) - FFT)
            frames = padded.unfold(0, FFT, 1)[torch.from_numpy(at)] * window
            power = torch.fft.rfft(frames).abs().square().numpy()
            mel[:, chosen] = (power @ bank).T
        start = end
    level = 10 * np.log10(np.maximum(mel, 1e-10))
    opacity = np.clip(1 + (level - level.max()) / RANGE_DB, 0, 1) if mel.max() > 1e-10 else np.zeros_like(mel)
    pixels = np.zeros((MELS, columns, 2), dtype=np.uint8)
    pixels[..., 1] = (opacity[::-1] * 255).round()
    return _address(Image.fromarray(pixels, "LA"))


def mel_height(hz: float) -> float:
    """Return the height of a frequency in [`mel_picture`], from 0 at the bottom to 1."""
    return float(np.log1p(min(max(hz, 0.0), TOP_HZ) / 700) / np.log1p(TOP_HZ / 700))


def heat_pictures(
    frames: np.ndarray, picture: np.ndarray, limit: int = 6, marks: int = 2
) -> list[dict[str, Any]]:
    """
    Tint the places of frames that raised the score, and box the strongest of them.

    Args:
        frames (`np.ndarray` of shape `(frames, height, width, 3)`): uint8.
        picture (`np.ndarray` of shape `(frames, rows, columns)`): Fall of the score without each place.
        limit (`int`, *optional*, defaults to 6): Frames at most: those with the strongest places, in order of time.
        marks (`int`, *optional*, defaults to 2): Boxes per frame at most.

    Returns:
        `list[dict]`: `index` of the frame, `image` (`data:` address of a JPEG) and `boxes`, strongest first, each with
        `left`, `top`, `width`, `height` in percent and `value`.
    """
    strength = np.maximum(picture, 0.0)
    top = float(strength.max())
    order = np.argsort(-strength.reshape(len(strength), -1).max(axis=1), kind="stable")[:limit]
    return [
        {
            "index": int(index),
            "image": _address(_tinted(frames[index], strength[index] / top if top > 0 else strength[index])),
            "boxes": _boxes(strength[index], top, marks),
        }
        for index in sorted(order)
    ]


def _boxes(strength: np.ndarray, top: float, marks: int) -> list[dict[str, float]]:
    rows, columns = strength.shape
    boxes = []
    for place in np.argsort(-strength, axis=None, kind="stable")[:marks]:
        row, column = divmod(int(place), columns)
        value = float(strength[row, column])
        if top <= 0 or value < FAINT * top:
            break
        size = {"width": 100 / columns, "height": 100 / rows}
        boxes.append({"left": 100 * column / columns, "top": 100 * row / rows, **size, "value": value})
    return boxes


def _tinted(frame: np.ndarray, share: np.ndarray) -> Image.Image:
    height, width = frame.shape[:2]
    heat = Image.fromarray((share * 255).round().astype(np.uint8)).resize(
        (width, height), Image.Resampling.BICUBIC
    )
    opacity = (np.asarray(heat, dtype=np.float32) / 255 * 0.6)[..., None]
    tint = np.array([203, 67, 53], dtype=np.float32)  # the red that plots use for fakes
    grey = frame.astype(np.float32).mean(axis=2, keepdims=True) * np.ones(3)
    quiet = 0.55 * frame + 0.45 * grey
    mixed = quiet * (1 - opacity) + tint * opacity
    return Image.fromarray(mixed.round().clip(0, 255).astype(np.uint8))


def sound_marks(found: Attribution, limit: int = 3) -> list[dict[str, float]]:
    """
    Return boxes on [`mel_picture`] around the strongest places of a sound map.

    Returns:
        `list[dict]`: at most `limit`, strongest first, each with `start`, `end` (seconds), `low`, `high` (Hz), `bottom`,
        `height` (percent) and `value`. Empty without a map, or if nothing raised the score.
    """
    if found.sound is None:
        return []
    strength = np.maximum(found.sound, 0.0)
    top = float(strength.max())
    half_step = float(found.times[0]) - found.start
    marks = []
    for place in np.argsort(-strength, axis=None, kind="stable")[:limit]:
        band, step = divmod(int(place), strength.shape[1])
        value = float(strength[band, step])
        if top <= 0 or value < FAINT * top:
            break
        low, high = (float(edge) for edge in found.band_edges_hz[band : band + 2])
        bottom = mel_height(low)
        middle = float(found.times[step])
        marks.append(
            {
                "start": middle - half_step,
                "end": middle + half_step,
                "low": low,
                "high": high,
                "bottom": 100 * bottom,
                "height": 100 * (mel_height(high) - bottom),
                "value": value,
            }
        )
    return marks


def _address(image: Image.Image) -> str:
    kind = "png" if image.mode == "LA" else "jpeg"
    data = io.BytesIO()
    image.save(data, kind, **({"optimize": True} if kind == "png" else {"quality": 85}))
    return f"data:image/{kind};base64,{base64.b64encode(data.getvalue()).decode('ascii')}"
