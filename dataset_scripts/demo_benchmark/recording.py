"""Record the clips of the demonstration benchmark: camera, sound channel, and statistics matched between real and fake."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.ndimage import gaussian_filter, gaussian_filter1d
from scipy.signal import fftconvolve

from .face import FRAME_SIZE
from .speech import SAMPLE_RATE


def smooth(frames: np.ndarray) -> np.ndarray:
    """Blur `(frames, h, w, c)` with a 3 x 3 binomial kernel."""
    padded = np.pad(frames, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    rows = 0.25 * (padded[:, :-2] + padded[:, 2:]) + 0.5 * padded[:, 1:-1]
    return 0.25 * (rows[:, :, :-2] + rows[:, :, 2:]) + 0.5 * rows[:, :, 1:-1]


def _colours(frames: np.ndarray) -> np.ndarray:
    """Return the mean of every frame and channel, `(frames, h, w, 3)` -> `(frames, 3)`.

    Rows of 32 pixels are added first: this is fast, and the same to the last bit everywhere, unlike a BLAS product.
    """
    pixels = frames.shape[1] * frames.shape[2]
    return frames.reshape(len(frames), -1, 96).sum(1).reshape(len(frames), 32, 3).sum(1) / np.float32(pixels)


def _grey(frames: np.ndarray) -> np.ndarray:
    return (frames[..., 0] + frames[..., 1] + frames[..., 2]) * np.float32(1 / 3)


def _edges(grey: np.ndarray) -> np.ndarray:
    """Return the Laplacian of `(frames, h, w)`."""
    shifted = grey[:, :-2, 1:-1] + grey[:, 2:, 1:-1] + grey[:, 1:-1, :-2] + grey[:, 1:-1, 2:]
    return 4 * grey[:, 1:-1, 1:-1] - shifted


def _steps(grey: np.ndarray) -> np.ndarray:
    """Return the temporal difference at every fifth frame of `(frames, h, w)`."""
    return grey[1::5] - grey[0::5]


def _solve(measure: Callable[[float], float], want: float, low: float, high: float) -> float:
    """Return the argument in [low, high] at which the growing function `measure` reaches `want`, or the nearer end."""
    for _ in range(7):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if measure(middle) < want else (low, middle)
    return 0.5 * (low + high)


def match_statistics(
    forged: np.ndarray, genuine: np.ndarray, outside: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Give a forged clip the global statistics of the genuine render of the same scene, by changing its background.

    The mean of every frame and channel is matched by an offset. The first and second absolute moments of the temporal
    difference and of the Laplacian are matched by grain in a small patch, which moves the second moments (as the lost
    mouth and eyes do), and by grain or smoothing everywhere, which moves the first; each once moving and once still.

    Genuine clips are treated alike, as their own reference. The targets are raised by a random factor, so that grain in
    the background is no sign of a forgery either.

    Args:
        forged, genuine (`np.ndarray` of shape `(frames, h, w, 3)`): Frames as recorded, before rounding.
        outside (`np.ndarray` of shape `(frames, h, w, 1)`): 1 in the background, 0 on the head.
        rng (`np.random.Generator`): Random stream of the clip.
    """
    want, free = _grey(genuine), outside[..., 0]
    area, colours = free.mean((1, 2))[:, None], _colours(genuine)

    def level(frames: np.ndarray) -> np.ndarray:
        shift = (colours - _colours(frames)) / area
        return frames + outside * shift[:, None, None].astype(np.float32)

    forged = level(forged)
    grey = _grey(forged)
    delta = np.zeros_like(grey)
    corners = [_soft_patch(rng, 0.15, 0.3)[..., 0] for _ in range(3)]
    small = free * np.maximum.reduce(corners)
    bank = 0.2 * smooth(rng.standard_normal((12, *grey.shape[1:], 1), dtype=np.float32))[..., 0]
    grain = bank[np.cumsum(rng.integers(1, 12, size=len(grey))) % 12]  # never the same twice running
    still = np.repeat(0.2 * rng.standard_normal((1, *grey.shape[1:]), dtype=np.float32), len(grey), 0)
    for view, noise in ((_steps, grain), (lambda g: _edges(g[::5]), still)):
        current = grey + delta
        if view is _steps:
            residual = free * (current.mean(0) - current)
        else:
            residual = free * (smooth(current[..., None])[..., 0] - current)
        inner, outer = _amounts(view, current, want, (small * noise, free * noise, residual), rng)
        delta += inner * small * noise + (outer * free * noise if outer > 0 else -outer * residual)
    return level(forged + delta[..., None])


def _amounts(
    view: Callable[[np.ndarray], np.ndarray],
    current: np.ndarray,
    want: np.ndarray,
    changes: tuple[np.ndarray, np.ndarray, np.ndarray],
    rng: np.random.Generator,
) -> tuple[float, float]:
    """Return how much grain to add in the patch and everywhere, so that both moments of `view` match those of `want`.

    Args:
        view (`Callable`): Difference whose absolute moments are matched.
        current, want (`np.ndarray` of shape `(frames, h, w)`): Grey frames.
        changes (`tuple`): Grain in the patch, grain everywhere, and smoothing everywhere, of the same shape. A negative
            second amount stands for smoothing.
        rng (`np.random.Generator`): Raises the targets.
    """
    fixed, base = view(current), view(want)
    second = float(np.mean(base**2)) * np.exp(rng.uniform(0.0, 0.4))
    first = float(np.mean(np.abs(base))) * np.exp(rng.uniform(0.0, 0.25))
    lump, spread, less = map(view, changes)

    def moved(amount: float, fixed: np.ndarray) -> np.ndarray:
        return fixed + amount * spread if amount > 0 else fixed - amount * less

    inner = outer = 0.0
    for _ in range(2):
        now = moved(outer, fixed)
        inner = _solve(lambda s, now=now: float(np.mean((now + s * lump) ** 2)), second, 0.0, 2.0)
        now = fixed + inner * lump
        outer = _solve(lambda s, now=now: float(np.mean(np.abs(moved(s, now)))), first, -1.0, 1.0)
    return inner, outer


_Y, _X = np.meshgrid(np.linspace(-1, 1, FRAME_SIZE), np.linspace(-1, 1, FRAME_SIZE), indexing="ij")


def _soft_patch(rng: np.random.Generator, smallest: float, largest: float) -> np.ndarray:
    """Draw a soft rectangle in the frame, float32 `(FRAME_SIZE, FRAME_SIZE, 1)`; half sizes are in half frames."""
    corner, size = rng.uniform(-1, 1, 2), rng.uniform(smallest, largest, 2)
    inside = np.maximum(np.abs(_X - corner[0]) / size[0], np.abs(_Y - corner[1]) / size[1])
    return np.clip((1 - inside) * 6, 0, 1).astype(np.float32)[..., None]


class Camera:
    """The recording conditions of one clip, drawn alike for real and fake; local ones lie outside the face.

    These are light, tone, exposure drift, sensor noise, a moving texture in the background (a screen, leaves) and up to
    two innocent defects (blur, colour, flicker) on background or clothes.
    """

    def __init__(self, rng: np.random.Generator, frames: int) -> None:
        size, normal = FRAME_SIZE, rng.standard_normal
        light = 1 + rng.normal(0, 0.10) * _X + rng.normal(0, 0.08) * _Y
        gain = rng.uniform(0.85, 1.12) * (1 + rng.normal(0, 0.025, 3))
        exposure = 1 + (0.002 + rng.exponential(0.010)) * gaussian_filter1d(
            rng.normal(size=frames), rng.uniform(0.01, 3.0)
        )
        self.gain = (light[None, ..., None] * gain * exposure[:, None, None, None]).astype(np.float32)
        self.offset = np.float32(rng.uniform(-0.03, 0.04))
        self.noise = normal((frames, size, size, 1), dtype=np.float32)
        if rng.random() < 0.5:
            self.noise = 2.0 * smooth(self.noise)
        self.noise *= np.float32(np.exp(rng.uniform(np.log(0.003), np.log(0.022))))
        # A larger field slides behind the window of the moving texture.
        field = gaussian_filter(rng.normal(size=(size + 60, size + 60)), rng.uniform(0.7, 2.5))
        field = (field / field.std() * rng.exponential(0.08)).astype(np.float32)
        path = np.clip(30 + np.cumsum(rng.normal(0, rng.uniform(0.2, 3), size=(frames, 2)), 0), 0, 60).astype(
            int
        )
        self.screen = np.stack([field[y : y + size, x : x + size] for y, x in path])[..., None]
        self.screen *= _soft_patch(rng, 0.2, 0.9)
        self.defects = [
            (int(rng.integers(3)), _soft_patch(rng, 0.15, 0.55)) for _ in range(int(rng.integers(0, 3)))
        ]
        self.colour = rng.normal(0, 0.06, 3).astype(np.float32)
        self.flicker = (rng.uniform(0.01, 0.05) * normal((frames, 1, 1, 1))).astype(np.float32)

    def __call__(self, frames: np.ndarray, outside: np.ndarray) -> np.ndarray:
        """Return frames `(frames, FRAME_SIZE, FRAME_SIZE, 3)` as recorded, float32, not clipped to [0, 1]."""
        frames = frames + outside * self.screen
        for kind, where in self.defects:
            mask = where * outside
            if kind == 0:
                frames += mask * (smooth(smooth(frames)) - frames)
            elif kind == 1:
                frames += mask * self.colour
            else:
                frames *= 1 + mask * self.flicker
        return frames * self.gain + (self.offset + self.noise)


def channel(sound: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Apply recording conditions, drawn alike for real and fake: tone, reverberation, compression, hiss, level.

    Returns float32 `(samples,)` in [-1, 1], at a level drawn between -27 and -19 dBFS, whatever that of the input.
    """
    samples = len(sound)
    spectrum = np.fft.rfft(sound)
    octave = np.log2(np.maximum(np.fft.rfftfreq(samples, 1 / SAMPLE_RATE), 60.0) / 60.0)
    knots = rng.uniform(-10, 10, size=8)
    spectrum *= 10 ** (np.interp(octave, np.linspace(0, 7.1, 8), knots) / 20)
    sound = np.fft.irfft(spectrum, samples)
    if rng.random() < 0.6:
        tail = rng.normal(size=1600) * np.exp(-np.arange(1600) / rng.uniform(150, 450))
        tail *= rng.uniform(0.1, 0.35) / np.sqrt(np.sum(tail**2))
        tail[0] += 1.0
        sound = fftconvolve(sound, tail)[:samples]
    sound = sound / max(float(np.sqrt(np.mean(sound**2))), 1e-9)
    wanted = rng.uniform(3.0, 4.5)  # peak over rms after soft limiting, alike for all clips
    low, high = 0.02, 3.0
    for _ in range(7):
        drive = 0.5 * (low + high)
        limited = np.tanh(drive * sound)
        crest = float(np.abs(limited).max() / np.sqrt(np.mean(limited**2)))
        low, high = (drive, high) if crest > wanted else (low, drive)
    sound = limited / max(float(np.sqrt(np.mean(limited**2))), 1e-9)
    hiss = gaussian_filter1d(rng.normal(size=samples), rng.uniform(0.3, 1.2))
    hiss *= 10 ** (rng.uniform(-42, -24) / 20) / np.sqrt(np.mean(hiss**2))
    level = 10 ** (rng.uniform(-27, -19) / 20)
    return np.clip((sound + hiss) * level, -1, 1).astype(np.float32)
