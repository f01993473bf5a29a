"""Augmentation of training clips, as published for SSAVD: flips, small rotations, blur and JPEG; stretched sound."""

import math
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torchaudio.functional import phase_vocoder
from torchvision.io import decode_jpeg, encode_jpeg
from torchvision.transforms.v2 import functional as TF

from ..media import Clip

FFT, HOP = 512, 128


def augment_clip(clip: Clip, rng: np.random.Generator) -> Clip:
    """
    Return an augmented copy of a clip. All of its frames are changed in the same way.

    Picture, each with probability 0.5: mirrored; rotated by up to 10 degrees; blurred (5 x 5, sigma 0.1 to 2);
    compressed as JPEG of quality 60 to 100. Sound: played at 0.8 to 1.25 times its speed at the same pitch, then cut
    or padded to its length (arXiv 2506.07358, with the settings of its authors' code, which draws the first three once
    per batch).

    Args:
        clip ([`Clip`]): The clip. It isn't changed.
        rng (`numpy.random.Generator`): Draws what is done, and how much.

    Returns:
        [`Clip`]: of the same shapes, types and timestamps.
    """
    frames, audio = clip.frames, clip.audio
    flip, turn, blur, compress = rng.random(4) < 0.5
    angle, deviation, quality = rng.uniform(-10, 10), rng.uniform(0.1, 2.0), int(rng.integers(60, 101))
    speed = rng.uniform(0.8, 1.25)
    if frames is not None:
        if flip:
            frames = TF.horizontal_flip(frames)
        if turn:
            frames = TF.rotate(frames, angle, interpolation=TF.InterpolationMode.BILINEAR)
        if blur:
            frames = TF.gaussian_blur(frames, [5, 5], [deviation, deviation])
        if compress:
            frames = torch.stack([decode_jpeg(encode_jpeg(frame, quality)) for frame in frames.contiguous()])
    if audio is not None:
        audio = stretch(audio, speed)
    return replace(clip, frames=frames, audio=audio)


def stretch(audio: torch.Tensor, speed: float) -> torch.Tensor:
    """
    Return sound at another speed and the same pitch, cut or padded with zeros to its length.

    Args:
        audio (`torch.Tensor` of shape `(samples,)`): The sound. Up to 512 samples, too few to stretch, come back unchanged.
        speed (`float`): Above 1 is faster.
    """
    if len(audio) <= FFT:
        return audio
    window = torch.hann_window(FFT)
    spectrum = torch.stft(audio, FFT, HOP, window=window, return_complex=True)
    advance = torch.linspace(0, math.pi * HOP, len(spectrum))[:, None]
    stretched = torch.istft(phase_vocoder(spectrum, speed, advance), FFT, HOP, window=window)
    return F.pad(stretched[: len(audio)], (0, max(0, len(audio) - len(stretched))))
