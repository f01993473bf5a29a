"""Augmentation of training clips, as published for SSAVD: flips, small turns, blur and JPEG; stretched sound."""

import math
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torchvision.io import decode_jpeg, encode_jpeg
from torchvision.transforms.v2 import functional as TF

from ..media import Clip

FFT, HOP = 512, 128


def augment_clip(clip: Clip, rng: np.random.Generator) -> Clip:
    """
    A clip as it could also have been recorded. All frames of a clip get the same treatment.

    Picture, each with probability 0.5: mirrored; turned by up to 10 degrees; blurred (5 x 5, deviation 0.1 to 2);
    compressed as JPEG of quality 60 to 100. Sound: stretched to 0.8 to 1.25 of its speed at the same pitch, then cut
    or filled up to its length (arXiv 2506.07358, the settings of its authors' code; there the first three are drawn
    for a whole batch).

    Args:
        clip ([`Clip`]): Left as it is.
        rng (`numpy.random.Generator`): What decides.
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
    Sound at another speed and the same pitch, by a phase vocoder, of the same length: cut, or with zeros at its end.

    Args:
        audio (`torch.Tensor` of shape `(S,)`): Sound.
        speed (`float`): Above 1 is faster.
    """
    if len(audio) <= FFT:
        return audio
    window = torch.hann_window(FFT)
    spectrum = torch.stft(audio, FFT, HOP, window=window, return_complex=True)
    steps = torch.arange(0, spectrum.shape[1], speed)
    left = steps.long()
    share = steps - left
    padded = F.pad(torch.view_as_real(spectrum), (0, 0, 0, 2))
    before, after = (torch.view_as_complex(padded[:, left + k].contiguous()) for k in (0, 1))
    magnitude = before.abs() * (1 - share) + after.abs() * share
    # Each bin's phase runs on by what it turned between the two frames: its nominal advance and the deviation from it.
    advance = torch.linspace(0, math.pi * HOP, spectrum.shape[0])[:, None]
    turned = after.angle() - before.angle() - advance
    turned = turned - 2 * math.pi * (turned / (2 * math.pi)).round() + advance
    phase = torch.cumsum(torch.cat([spectrum[:, :1].angle(), turned[:, :-1]], dim=1), dim=1)
    stretched = torch.istft(torch.polar(magnitude, phase), FFT, HOP, window=window)
    return F.pad(stretched[: len(audio)], (0, max(0, len(audio) - len(stretched))))
