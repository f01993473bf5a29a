"""Container, codec and signal properties of a media file, for the shortcut audit.

One pass over a file: `ffprobe` for container and streams, the project's reader for the sound and a few frames, `ffmpeg`
for a hash of the decoded streams.
"""

from __future__ import annotations

import json
import math
import shutil
import subprocess

import numpy as np
import torch

from dataset_scripts.files import sha256_of

from ...media import SAMPLING_RATE, MediaReader, UnreadableMediaError
from ...media_silence import leading_silence, trailing_silence
from ...media_windows import windows_of
from ..evaluation_error import EvaluationError
from .duplicates import HASH_FRAMES, picture_hashes, sound_hash

LOOKED_AT_SECONDS = 60.0
"""Seconds of a file that are decoded; our own choice."""
PASSAGE_SECONDS = 5.0
"""Length of the passages of sound that are read one by one where there is damage; our own choice."""
TOOL_TIMEOUT_SECONDS = 120.0
"""Limit of one call of ffprobe or ffmpeg; our own choice."""

CATEGORICAL = {
    "container": "container",
    "brand": "brand of the container",
    "encoder": "encoder tag of the container",
    "video_codec": "video codec",
    "video_profile": "video profile",
    "pixel_format": "pixel format",
    "video_encoder": "encoder tag of the picture",
    "audio_codec": "audio codec",
    "audio_profile": "audio profile",
    "audio_encoder": "encoder tag of the sound",
}
NUMERIC = {
    "file_size": "file size (bytes)",
    "bitrate": "total bit rate (bit/s)",
    "duration": "duration (s)",
    "video_bitrate": "video bit rate (bit/s)",
    "frames": "number of frames",
    "fps": "frame rate (1/s)",
    "width": "width (pixels)",
    "height": "height (pixels)",
    "aspect": "aspect (width/height)",
    "keyframe_seconds": "time between key frames (s)",
    "b_frames": "reordered frames",
    "audio_bitrate": "audio bit rate (bit/s)",
    "sampling_rate": "sampling rate (Hz)",
    "channels": "channels",
    "av_offset": "start of sound after picture (s)",
    "av_length_difference": "sound longer than picture (s)",
    "loudness": "loudness (RMS, dBFS)",
    "peak": "peak level (dBFS)",
    "leading_silence": "leading silence (s)",
    "leading_digital_silence": "leading digital silence (s)",
    "trailing_silence": "trailing silence (s)",
    "audio_bandwidth": "bandwidth of the sound below 8 kHz (Hz)",
}
TITLES = {**CATEGORICAL, **NUMERIC}


class AuditError(EvaluationError):
    """An audit that cannot be run as asked; the message says what to change."""


def check_tools() -> None:
    """Raise [`AuditError`] if `ffprobe` or `ffmpeg` is not on the path."""
    absent = [tool for tool in ("ffprobe", "ffmpeg") if shutil.which(tool) is None]
    if absent:
        raise AuditError(
            f"The audit needs the command line tools of FFmpeg, and {' and '.join(absent)} cannot be found. Install "
            "FFmpeg (apt install ffmpeg, conda install ffmpeg, brew install ffmpeg) or add its folder to PATH."
        )


def file_properties(video: str | None, audio: str | None = None) -> dict:
    """
    Measure the properties of one clip.

    Args:
        video (`str`, *optional*): The clip, or None for sound alone.
        audio (`str`, *optional*): A separate sound file; sound properties are then of that file.

    Returns:
        `dict`: the properties in [`CATEGORICAL`] and [`NUMERIC`], each None if the file doesn't have it; under `hashes`
        `file`, `video`, `audio` (SHA-256), `picture` (a list of perceptual hashes, [`picture_hashes`]) and `sound`
        ([`sound_hash`]); and under `trimmed`, `seconds` and the silences that `trim_leading_silence` leaves.

    Raises:
        MediaError: if the file cannot be read.
    """
    main = video if video is not None else audio
    separate = audio if video is not None else None
    with MediaReader(main, audio=separate) as reader:
        # before ffprobe, which would let a manifest or a playlist open other files
        info = reader.info
        heard = first_sound(reader)
        picture = _sampled_frames(reader) if info.has_video else None
    probe = probe_file(main)
    sound = probe if audio is None or video is None else probe_file(audio)
    record = dict.fromkeys(TITLES)
    record.update(_container_facts(probe), **_video_facts(probe), **_audio_facts(sound))
    record["av_offset"] = info.av_offset if info.has_video and info.has_audio else None
    record["frames"] = info.num_frames
    if heard is not None:
        record.update(sound_facts(heard.numpy()))
    ends = [_end_of(probe, "video"), _end_of(sound, "audio")]
    record["av_length_difference"] = None if None in ends else ends[1] - ends[0]
    files = [path for path in (video, audio) if path is not None]
    record["hashes"] = {
        "file": sha256_of(*files),
        "video": decoded_hash(main, "v") if info.has_video else None,
        "audio": decoded_hash(separate or main, "a") if info.has_audio else None,
        "picture": None if picture is None else picture_hashes(picture),
        "sound": None if heard is None else sound_hash(heard.numpy()),
    }
    record["trimmed"] = _after_trimming(main, separate) if info.has_audio else None
    return record


def first_sound(reader: MediaReader) -> torch.Tensor | None:
    """
    Return the sound of a file's first minute, 1-D at 16 kHz; None where there is none.

    Where most of the minute is damaged, it is the sound of its undamaged passages, put together.

    Raises:
        UnreadableMediaError: if nothing of it can be decoded.
    """
    end = min(reader.info.duration, LOOKED_AT_SECONDS)
    try:
        return reader.read(end=end, with_video=False).audio
    except UnreadableMediaError:
        passages = [
            reader.read_passage(*span, with_video=False).audio for span in windows_of(end, PASSAGE_SECONDS)
        ]
        undamaged = [passage for passage in passages if passage is not None]
        if not undamaged:
            raise
        return torch.cat(undamaged)


def probe_file(path: str) -> dict:
    """
    Return what `ffprobe` reports: `format`, `streams`, and `packets` of the first 30 s.

    Raises:
        UnreadableMediaError: if it finds no media or takes too long.
    """
    command = ["ffprobe", "-v", "error", "-print_format", "json", "-read_intervals", "%+30", "-show_entries"]
    output = _tool(path, [*command, "format:stream:packet=stream_index,pts_time,flags", "-i", path])
    return json.loads(output)


def _tool(path: str, command: list[str], seconds: float = TOOL_TIMEOUT_SECONDS) -> str:
    try:
        done = subprocess.run(command, capture_output=True, timeout=seconds, stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired as error:
        reason = f"{command[0]} did not end within {seconds:g} s"
        raise UnreadableMediaError(path, reason, "Is the disk slow, or the file damaged?") from error
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines() or ["nothing said"]
        raise UnreadableMediaError(
            path, f"{command[0]} cannot read it ({said[-1]})", "Re-encode or leave it out"
        )
    return done.stdout.decode(errors="replace")


def _stream(probe: dict, kind: str) -> dict:
    """Return the first stream of a kind that is no cover picture; empty if there is none."""
    for stream in probe.get("streams", []):
        if stream.get("codec_type") == kind and not stream.get("disposition", {}).get("attached_pic"):
            return stream
    return {}


def _number(text) -> float | None:
    try:
        value = float(text)
    except (TypeError, ValueError):  # absent, or "N/A"
        return None
    return value if math.isfinite(value) else None


def _ratio(text: str | None) -> float | None:
    above, _, below = (text or "").partition("/")
    values = _number(above), _number(below or 1)
    return None if None in values or not values[1] else values[0] / values[1]


def _tag(holder: dict, name: str) -> str | None:
    # Matroska writes ENCODER, MP4 encoder.
    return next((v for k, v in holder.get("tags", {}).items() if k.lower() == name), None)


def _container_facts(probe: dict) -> dict:
    facts = probe.get("format", {})
    return {
        "container": facts.get("format_name"),
        "brand": _tag(facts, "major_brand"),
        "encoder": _tag(facts, "encoder"),
        "file_size": _number(facts.get("size")),
        "bitrate": _number(facts.get("bit_rate")),
        "duration": _number(facts.get("duration")),
    }


def _video_facts(probe: dict) -> dict:
    stream = _stream(probe, "video")
    if not stream:
        return {}
    width, height = stream.get("width"), stream.get("height")
    keys = sorted(
        float(packet["pts_time"])
        for packet in probe.get("packets", [])
        if packet["stream_index"] == stream["index"] and "K" in packet["flags"] and "pts_time" in packet
    )
    length = _end_of(probe, "video")
    spaced = float(np.mean(np.diff(keys))) if len(keys) > 1 else length
    return {
        "video_codec": stream.get("codec_name"),
        "video_profile": stream.get("profile"),
        "pixel_format": stream.get("pix_fmt"),
        "video_encoder": _tag(stream, "encoder"),
        # Matroska has no bit rates of streams: they stay unknown rather than being guessed.
        "video_bitrate": _number(stream.get("bit_rate")),
        "fps": _ratio(stream.get("avg_frame_rate")),
        "width": width,
        "height": height,
        "aspect": width / height if width and height else None,
        # If there is one key frame, the next is at least a file's length away.
        "keyframe_seconds": spaced,
        "b_frames": stream.get("has_b_frames"),
    }


def _audio_facts(probe: dict) -> dict:
    stream = _stream(probe, "audio")
    return {
        "audio_codec": stream.get("codec_name"),
        "audio_profile": stream.get("profile"),
        "audio_encoder": _tag(stream, "encoder"),
        "audio_bitrate": _number(stream.get("bit_rate")),
        "sampling_rate": _number(stream.get("sample_rate")),
        "channels": stream.get("channels"),
    }


def _end_of(probe: dict, kind: str) -> float | None:
    """Return the length of a stream in seconds; the container's if the stream has none (Matroska)."""
    stream = _stream(probe, kind)
    if not stream:
        return None
    clock = _tag(stream, "duration")
    if clock and clock.count(":") == 2:
        hours, minutes, seconds = clock.split(":")
        return int(hours) * 3600 + int(minutes) * 60 + float(seconds)
    length = _number(stream.get("duration"))
    return _number(probe.get("format", {}).get("duration")) if length is None else length


def sound_facts(samples: np.ndarray) -> dict:
    """Return level, silences and bandwidth of mono sound at 16 kHz."""
    tiny = 1e-6  # -120 dBFS stands for digital silence
    power = float(np.mean(np.square(samples, dtype=np.float64)))
    return {
        "loudness": 10 * math.log10(max(power, tiny**2)),
        "peak": 20 * math.log10(max(float(np.abs(samples).max()), tiny)),
        "leading_silence": leading_silence(samples),
        "leading_digital_silence": leading_silence(samples, below_level_db=math.inf),
        "trailing_silence": trailing_silence(samples),
        "audio_bandwidth": _bandwidth(samples),
    }


def _bandwidth(samples: np.ndarray, below_peak_db: float = 60.0) -> float:
    """Return the highest frequency, in Hz, whose mean power is within `below_peak_db` of the strongest one's."""
    size = 512
    padded = np.pad(samples.astype(np.float64), (0, max(0, size - len(samples))))
    frames = np.lib.stride_tricks.sliding_window_view(padded, size)[:: size // 2]
    power = np.mean(np.abs(np.fft.rfft(frames * np.hanning(size))) ** 2, axis=0)
    audible = np.flatnonzero(power > power.max() * 10 ** (-below_peak_db / 10))
    return float(audible[-1] * SAMPLING_RATE / size) if len(audible) else 0.0


def _sampled_frames(reader: MediaReader) -> list[torch.Tensor | None]:
    """Return a frame `(3, H, W)` from the middle of each eighth of the picture; None after its end and where it is damaged.

    First frames are often black, and ends differ between encodings, so both are avoided.
    """
    info = reader.info
    spacing = min(info.num_frames / info.average_fps, info.duration) / HASH_FRAMES
    frames = []
    for index in range(HASH_FRAMES):
        at = (index + 0.5) * spacing
        moment = at, min(at + spacing / 4, info.duration)
        clip = reader.read_passage(*moment, fps=1 / spacing, max_frames=1, with_audio=False)
        frames.append(None if clip.frames is None else clip.frames[0])
    return frames


def _after_trimming(main: str, separate: str | None) -> dict:
    """Return the silences that are left when the file is read with `trim_leading_silence`."""
    with MediaReader(main, audio=separate, trim_leading_silence=True) as reader:
        audio = first_sound(reader)
        left = {"seconds": reader.info.trimmed, "leading_silence": None, "leading_digital_silence": None}
        if audio is not None:
            left["leading_silence"] = leading_silence(audio)
            left["leading_digital_silence"] = leading_silence(audio, below_level_db=math.inf)
        return left


def decoded_hash(path: str, kind: str, whole_within: float | None = None) -> str:
    """
    Return the SHA-256 of a stream's first minute, decoded: of frames and samples, without timestamps.

    Args:
        path (`str`): The file. FFmpeg opens what a playlist names: open it with [`~media.MediaReader`] before, which refuses those.
        kind (`str`): `"v"` or `"a"`.
        whole_within (`float`, *optional*): Hash the whole stream in place of its first minute, and take at most these seconds.

    Raises:
        UnreadableMediaError: if there is no such stream, it cannot be decoded, or that takes too long.
    """
    part = [] if whole_within else ["-t", f"{LOOKED_AT_SECONDS:g}"]
    hashing = f"-map 0:{kind}:0 -fps_mode passthrough -f streamhash -hash sha256 -".split()
    command = ["ffmpeg", "-v", "error", "-nostdin", *part, "-i", path, *hashing]
    output = _tool(path, command, whole_within or TOOL_TIMEOUT_SECONDS)
    return output.strip().rpartition("=")[2]
