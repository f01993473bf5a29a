"""The filters and encoders of [`perturb`], in ffmpeg's syntax."""

from __future__ import annotations

import math
import re
from typing import Any

# Lossless H.264 for these, if sides with halved chroma are even; x264 has no lossless mode for more than 8 bits.
_H264_FORMATS = {"yuv420p", "yuvj420p", "yuv422p", "yuvj422p", "yuv444p", "yuvj444p"}
# x264 writes the frame rate into the stream instead of the time base, from which demuxers would conclude that a frame
# lasts one tick. Timestamps are kept either way.
_FRAME_RATE = ["-x264-params", "force-cfr=1"]
_ONE_THREAD = ["-x265-params", "log-level=error:pools=none:frame-threads=1"]


def _bits(pixel_format: str) -> int:
    """Return the bits of a component by the name of the pixel format: yuv420p10le, p010le, gray12be; 8 for the rest."""
    found = re.search(r"p0?(9|1[0-6])(le|be)$|gray(9|1[0-6])(le|be)$", pixel_format)
    return 8 if found is None else int(found[1] or found[3])


def picture_filters(name: str, value: float | None, video: Any, seed: int, last: int | None) -> str | None:
    """Return the filters of a picture perturbation, or None if the encoder does it all; `last` is the last frame."""
    if name == "resize":
        down = f"scale=w='max(1,round(iw/{value}))':h='max(1,round(ih/{value}))':flags=bicubic"
        width, height = _stored_size(video)
        return f"{down},scale={width}:{height}:flags=bicubic"
    if name == "blur":
        return f"gblur=sigma={value}"
    if name == "noise":
        # The strength is an integer: sqrt(3) times the standard deviation, which rounding towards 0 lowers by 0.3.
        return f"noise=alls={round((value + 0.3) * math.sqrt(3))}:allf=t:all_seed={seed % 2**31}"
    if name == "brightness":
        middle = 2 ** (_bits(video.pixel_format or "") - 1)
        luma = f"clip((val-minval)*{value}+minval,minval,maxval)"
        chroma = f"clip((val-{middle})*{value}+{middle},minval,maxval)"
        return f"lutyuv=y='{luma}':u='{chroma}':v='{chroma}'"
    if name == "frame_drop":
        # Of every ten frames after the first, a fixed number is drawn without replacement (selection sampling, Knuth,
        # TAOCP vol. 2, 3.4.2): variable 0 is the random state, 1 the number still to be dropped of this ten.
        draw = "lt(random(0)*(10-mod(n-1,10)),ld(1))"
        return (
            f"select='if(eq(n,0),st(0,{seed % 2**31});1,if(eq(mod(n-1,10),0),st(1,{round(10 * value)}));"
            f"if({draw},st(1,ld(1)-1);gte(n,{last}),1))'"
        )
    return None


def _stored_size(video: Any) -> tuple[int, int]:
    """Return width and height before the display matrix turns the picture."""
    turned = round(video.rotation or 0) % 180 != 0
    return (video.height, video.width) if turned else (video.width, video.height)


def picture_codec(name: str, value: float | None, video: Any) -> list[str]:
    """Return the encoder and its options: the named codec, or a lossless one that takes the pixel format as it is."""
    pixels = video.pixel_format or ""
    width, height = _stored_size(video)
    odd = (width % 2 and "444" not in pixels) or (height % 2 and "420" in pixels)
    if name in ("h264", "hevc"):
        encoder = ["libx264", *_FRAME_RATE] if name == "h264" else ["libx265", *_ONE_THREAD]
        wider = ["-pix_fmt", "yuv444p" if _bits(pixels) == 8 else "yuv444p10le"] if odd else []
        return [*encoder, "-preset", "medium", "-crf", f"{value:g}", *wider]
    if pixels in _H264_FORMATS and not odd:
        return ["libx264", *_FRAME_RATE, "-qp", "0", "-preset", "ultrafast", "-g", "12"]
    return ["ffv1", "-level", "3", "-g", "1"]


def sound_filters(name: str, value: float | None, sound: Any, seed: int, rms: float | None) -> str:
    """Return the filters of a sound perturbation, each with a comma before it."""
    if name == "phone":
        return f",{_mono(sound)},highpass=f=300,highpass=f=300,lowpass=f=3400,lowpass=f=3400,aresample=8000"
    if name == "audio_noise":
        scale = rms * 10 ** (-value / 20)
        # Box and Muller, with two random states a channel; 1-random is never 0
        normal = "sqrt(-2*log(1-random(0)))*cos(2*PI*random(1))"
        channels = (
            f"if(eq(n,0),st(0,{seed % 2**24 + 2 * c});st(1,{seed % 2**24 + 2 * c + 1}));val({c})+{scale:.9g}*{normal}"
            for c in range(sound.num_channels)
        )
        return ",aeval='" + "|".join(channels) + "':c=same"
    if name == "mute":
        return ",volume=0"
    return ""


# The mixer takes start, rate and channels from its first input, the silenced track itself.
_MIX = "[own][given]amix=inputs=2:normalize=0"


def delay_graph(track: str, milliseconds: float, rate: int) -> str:
    """Return the chain that moves `track` within its length; its sound has no end."""
    samples = round(abs(milliseconds) * rate / 1000)
    moved = f"adelay={samples}S:all=1" if milliseconds > 0 else f"atrim=start_sample={samples}"
    return f"{track},asplit[a][b];[a]volume=0,apad[own];[b]{moved},apad[given];{_MIX}"


def swap_graph(track: str, sound: Any, given: str, donor: Any) -> str:
    """Return the chain that puts `given` in the place, rate and channels of `track`, repeated without an end."""
    layout = "mono" if sound.num_channels == 1 else "stereo"
    copies = "" if layout == "mono" else ",pan=stereo|c0=c0|c1=c0"
    repeated = f"{given},{_mono(donor)}{copies},aresample={sound.sample_rate},aloop=loop=-1:size=2147483647"
    return f"{track}aformat=channel_layouts={layout},volume=0,apad[own];{repeated}[given];{_MIX}"


def _mono(sound: Any) -> str:
    """Return the filter for the mean of all channels, which readers hear; ffmpeg's own downmix is 3 dB louder."""
    mean = "+".join(f"{1 / sound.num_channels:.9f}*c{channel}" for channel in range(sound.num_channels))
    return f"pan=mono|c0={mean}"


def sound_codec(name: str, value: float | None) -> list[str]:
    """Return the encoder and its options: the named codec, or float PCM, which loses nothing of decoders and filters."""
    if name == "aac":
        return ["aac", "-b:a", f"{value:g}k"]
    if name == "opus":
        return ["libopus", "-b:a", f"{value:g}k"]
    if name == "phone":
        return ["pcm_mulaw"]
    return ["pcm_f32le"]
