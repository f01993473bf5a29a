"""What is done to a clip to see whether a detector's verdict survives it: files in, files out, by the ffmpeg command.

The effect that is measured must be the named perturbation and nothing else:

- The track that is not named is copied packet by packet (`-c copy`); a separate sound file is decoded and written
  without loss.
- The named track is decoded once and, unless the perturbation is a codec, written without loss: pictures as H.264 with
  `-qp 0` (8 bits, sizes that 4:2:0 can code) or FFV1 (everything else), sound as 32-bit float PCM.
- Timestamps stay as they are (`-fps_mode passthrough` with the source's own time base), so a variable frame rate stays
  variable; so do the offset between sound and picture, the size, the display rotation, the pixel format and range.
- The container is MP4, else QuickTime, else Matroska, whichever holds both codecs. Only the last one rounds timestamps,
  to 1 ms, and it is needed only for codecs that hardly occur outside Matroska and AVI.

What each level means to ffmpeg is in `perturbation_filters.py`. The `lossless` control shows what is left of all this in
a detector's scores: nothing.

Known exceptions: `noise` works on 8 bits, so deeper video becomes 8-bit; `h264` and `hevc` code odd sizes as 4:4:4;
`brightness` and `noise` take RGB video to YUV. H.264 with B-frames in AVI has no presentation times, and readers and
ffmpeg disagree on them: remux such files first. A lossy sound codec may put some milliseconds of its own before a track
that starts after the picture; what follows does not move.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ...media import MediaError, UnreadableMediaError
from ...media_sources import checked
from ...media_tracks import FileAudio, explain, torchcodec_decoders
from .filters import (
    delay_graph,
    picture_codec,
    picture_filters,
    sound_codec,
    sound_filters,
    swap_graph,
)

TIMEOUT = 600.0  # seconds for one call of ffmpeg; our own choice
_LAST_LINES = 3  # of ffmpeg's own words in an error

# What the muxers of FFmpeg 5.1 to 8 take: the codecs that may be copied or written into each.
_CONTAINERS = {
    "mp4": (
        {"h264", "hevc", "mpeg4", "av1", "vp9", "mjpeg", "mpeg1video", "mpeg2video"},
        {"aac", "mp3", "ac3", "eac3", "opus", "alac"},
    ),
    "mov": (
        {"h264", "hevc", "mpeg4", "mjpeg", "prores", "ffv1"},
        {"aac", "mp3", "ac3", "alac", "pcm_f32le", "pcm_s16le", "pcm_s16be", "pcm_s24le", "pcm_mulaw"},
    ),
}


class PerturbationError(MediaError):
    """A clip that could not be perturbed: the track is not there, or ffmpeg gave up."""


@dataclass(frozen=True)
class Perturbation:
    """
    One thing that can happen to a clip, or be done to it to learn what a verdict rests on.

    Attributes:
        name (`str`): What it is called.
        title (`str`): What a reader sees.
        severities (`Mapping[int, float | None]`):
            Level -> physical value. Levels rise with the damage from 1; where the value goes both ways, negative levels
            are those below the untouched clip. None where there is nothing to measure.
        unit (`str`): Of the values.
        tracks (`tuple[str, ...]`): What it touches: `"video"`, `"audio"` or both. The other one is copied.
        diagnosis (`bool`):
            Whether it takes away or contradicts what a verdict should rest on. Labels stay as they were, so a lower
            score there is no fault by itself: it says how much the detector relies on what was taken.
        how (`str`): How it is done.
    """

    name: str
    title: str
    severities: Mapping[int, float | None]
    unit: str
    tracks: tuple[str, ...]
    how: str
    diagnosis: bool = False

    def value(self, severity: int) -> float | None:
        """The physical value of a level.

        Raises:
            ValueError: for a level that there is not.
        """
        if severity not in self.severities:
            raise ValueError(f"{self.name} has the severities {list(self.severities)}, not {severity!r}.")
        return self.severities[severity]


_PICTURE, _SOUND, _BOTH = ("video",), ("audio",), ("video", "audio")


def _table(*rows: Perturbation) -> Mapping[str, Perturbation]:
    return MappingProxyType({row.name: row for row in rows})


def _levels(*values: float) -> Mapping[int, float]:
    return MappingProxyType(dict(enumerate(values, start=1)))


_ONCE = MappingProxyType({1: None})

# fmt: off
PERTURBATIONS: Mapping[str, Perturbation] = _table(
    Perturbation("lossless", "lossless rewrite (control)", MappingProxyType({0: None}), "", _BOTH,
                 "both tracks decoded and written without loss: what this module itself does to a clip"),
    # CRF 23 and 40 are the two compressions of FaceForensics++ (Rossler et al., ICCV 2019, arXiv:1901.08971).
    Perturbation("h264", "H.264", _levels(23, 28, 34, 40, 46), "CRF", _PICTURE,
                 "libx264, preset medium"),
    Perturbation("hevc", "H.265", _levels(23, 28, 34, 40, 46), "CRF", _PICTURE,
                 "libx265, preset medium"),
    Perturbation("aac", "AAC", _levels(64, 48, 32, 24, 16), "kbit/s", _SOUND,
                 "ffmpeg's own AAC encoder, rate and channels of the source"),
    Perturbation("opus", "Opus", _levels(48, 24, 16, 10, 6), "kbit/s", _SOUND,
                 "libopus, 48 kHz, channels of the source"),
    Perturbation("phone", "telephone", _ONCE, "", _SOUND,
                 "300 to 3400 Hz (Butterworth, 4th order each), mono, 8 kHz, G.711 mu-law"),
    Perturbation("resize", "resize", _levels(1.5, 2, 3, 4, 6), "times smaller", _PICTURE,
                 "down by the factor and back up to the old size, both bicubic"),
    Perturbation("blur", "blur", _levels(1, 2, 3, 5, 8), "px (sigma)", _PICTURE,
                 "Gaussian, all planes"),
    Perturbation("noise", "picture noise", _levels(3, 5, 10, 20, 30), "of 255 (sigma)", _PICTURE,
                 "Gaussian, independent for each pixel, plane and frame, clipped at the range"),
    Perturbation("audio_noise", "sound noise", _levels(30, 20, 10, 5, 0), "dB SNR", _SOUND,
                 "white Gaussian noise, scaled to the RMS level of the whole track; silence gets none"),
    Perturbation("frame_drop", "frame drop", _levels(0.1, 0.2, 0.3, 0.5, 0.7), "of the frames", _PICTURE,
                 "that many of every ten frames, drawn at random, are left out and the previous one stays on screen; "
                 "the first and the last frame stay, so the clip starts and ends where it did"),
    Perturbation("brightness", "brightness", MappingProxyType({-5: 0.4, -3: 0.6, -1: 0.8, 1: 1.25, 3: 1.6, 5: 2.2}),
                 "times", _PICTURE, "luma and chroma times the factor around black, clipped at the range"),
    Perturbation("delay", "sound delay",
                 MappingProxyType({-5: -1000, -4: -500, -3: -250, -2: -120, -1: -40, 1: 40, 2: 120, 3: 250, 4: 500, 5: 1000}),
                 "ms", _SOUND, "the sound comes later (above 0) or earlier (below); silence fills in, the track keeps "
                 "its start and length", diagnosis=True),
    Perturbation("audio_swap", "sound of another clip", _ONCE, "", _SOUND,
                 "the sound of another clip, repeated or cut to the length of the own one", diagnosis=True),
    Perturbation("mute", "digital silence", _ONCE, "", _SOUND, "all samples 0", diagnosis=True),
    Perturbation("no_audio", "no sound track", _ONCE, "", _SOUND, "the sound track is left out", diagnosis=True),
    Perturbation("no_video", "no picture track", _ONCE, "", _PICTURE, "the picture track is left out", diagnosis=True),
)
"""Everything the suite knows, by name. The choice of levels is our own where no paper is named."""
# fmt: on


def perturb(
    source_path: str | Path,
    name: str,
    severity: int,
    output_path: str | Path,
    *,
    audio: str | Path | None = None,
    other: str | Path | None = None,
    seed: int = 0,
    timeout: float = TIMEOUT,
) -> Path:
    """
    Writes a perturbed copy of a clip.

    The same arguments give the same pictures and sound; one thread is used, so that they do on every machine with the
    same ffmpeg.

    Args:
        source_path (`str` or `Path`): The clip, or a sound file.
        name (`str`): One of [`PERTURBATIONS`].
        severity (`int`): One of its levels.
        output_path (`str` or `Path`):
            Where to write; replaced if it exists. The container is chosen by what it has to hold, whatever the suffix.
        audio (`str` or `Path`, *optional*):
            A separate sound file. It takes the place of the clip's own sound, starts with the first frame (as for
            [`MediaReader`]) and becomes the sound track of the copy.
        other (`str` or `Path`, *optional*): For `audio_swap`: the file whose sound is taken.
        seed (`int`, *optional*, defaults to 0): Of `noise`, `audio_noise` and `frame_drop`.
        timeout (`float`, *optional*, defaults to 600): Seconds for one call of ffmpeg.

    Returns:
        `Path`: `output_path`.

    Raises:
        ValueError: for an unknown name or level, `audio_swap` without `other`, or an output that is an input.
        PerturbationError: when the track to change is missing, or ffmpeg fails; with its last lines.
        MediaError: for a file that is missing, empty or not media.
    """
    if name not in PERTURBATIONS:
        raise ValueError(f"There is no perturbation {name!r}. There are: {', '.join(PERTURBATIONS)}.")
    perturbation = PERTURBATIONS[name]
    value = perturbation.value(severity)
    if name == "audio_swap" and other is None:
        raise ValueError("audio_swap needs `other`, the file whose sound is taken.")
    output_path = Path(output_path)
    given = [Path(path) for path in (source_path, audio, other) if path is not None]
    if any(output_path.resolve() == path.resolve() for path in given):
        raise ValueError(f"{output_path} is to be read and written; give another output_path.")

    video, sound, start = _streams(source_path)
    inputs = ["-threads", "1", "-i", _file(source_path)]
    sound_input = 0
    if audio is not None:
        _, sound, _ = _streams(audio)
        if sound is None:
            raise UnreadableMediaError(str(audio), "has no audio track", "Give a sound file")
        # ffmpeg puts an input's earliest timestamp at 0, which need not be the first frame
        late = 0.0 if video is None else (video.begin_stream_seconds_from_header or 0.0) - start
        inputs += ["-itsoffset", f"{late:.6f}", "-threads", "1", "-i", _file(audio)]
        sound_input = 1
    needed = {"no_video": _BOTH, "no_audio": _PICTURE, "lossless": ()}.get(name, perturbation.tracks)
    missing = any((video if track == "video" else sound) is None for track in needed)
    if missing:
        absent = "picture" if video is None else "sound"
        raise PerturbationError(
            str(source_path), f"has no {absent} track, so {name} has nothing to work on", "Leave it out"
        )

    outputs: list[str] = []
    graph: list[str] = []
    video_codec = audio_codec = None
    if video is not None and name != "no_video":
        options = ["copy"]
        if "video" in perturbation.tracks:
            options = picture_codec(name, value, video)
            last = _last_frame(source_path) if name == "frame_drop" else None
            filters = picture_filters(name, value, video, seed, last)
            outputs += ["-filter:v", filters] if filters else []
            outputs += ["-fps_mode", "passthrough", "-enc_time_base:v", "-1", "-threads:v", "1"]
        outputs += ["-map", f"0:{video.stream_index}", "-c:v", *options]
        video_codec = _coded(options[0], video)
    if sound is not None and name != "no_audio":
        options, where = ["copy"], f"{sound_input}:{sound.stream_index}"
        # Copied packets would take the padding of a separate file with them, which its edit list no longer cuts off.
        if "audio" in perturbation.tracks or audio is not None:
            track = audio or source_path
            # Decoders hand out the padding of the last packet, which containers mark and readers leave out.
            trim = f"atrim=end_sample={_samples(track, sound)}"
            if name == "audio_swap":
                _, donor, _ = _streams(other)
                if donor is None:
                    reason = "has no sound to give to another clip"
                    raise PerturbationError(str(other), reason, "Leave it out")
                inputs += ["-threads", "1", "-i", _file(other)]
                given = f"[{sound_input + 1}:{donor.stream_index}]atrim=end_sample={_samples(other, donor)}"
                chain = f"{swap_graph(f'[{where}]', sound, given, donor)},{trim}"
            elif name == "delay":
                chain = f"{delay_graph(f'[{where}]{trim}', value, sound.sample_rate)},{trim}"
            else:
                rms = _rms(track, sound, trim, timeout) if name == "audio_noise" else None
                chain = f"[{where}]{trim}{sound_filters(name, value, sound, seed, rms)}"
            graph, where = ["-filter_complex", f"{chain}[sound]"], "[sound]"
            options = sound_codec(name, value)
        outputs += ["-map", where, "-c:a", *options]
        audio_codec = _coded(options[0], sound)
    container = _container(video_codec, audio_codec)
    # Pictures are worked on as they are stored; the display matrix is handed on and turns them for the reader.
    command = ["-noautorotate", *inputs, *graph, *outputs]
    command += ["-filter_threads", "1", "-filter_complex_threads", "1", "-map_chapters", "-1", "-dn", "-sn"]
    command += ["-fflags", "+bitexact", "-flags:v", "+bitexact", "-flags:a", "+bitexact"]
    try:
        _ffmpeg(str(source_path), [*command, "-f", container, f"file:{output_path.absolute()}"], timeout)
        made = _header(output_path)
        if (made.best_video_stream_index is None) != (video_codec is None) or (
            made.best_audio_stream_index is None
        ) != (audio_codec is None):
            raise PerturbationError(str(source_path), f"lost a track under {name}", "Report this file")
    except MediaError:
        output_path.unlink(missing_ok=True)
        raise
    return output_path


def check_ffmpeg() -> None:
    """Raises [`PerturbationError`] where there is no ffmpeg command."""
    if shutil.which("ffmpeg") is None:
        raise PerturbationError(
            "ffmpeg",
            "the command is not installed",
            "Install FFmpeg 5.1 or later with libx264, libx265, libopus",
        )


def _ffmpeg(name: str, arguments: list[str], timeout: float, loglevel: str = "error") -> str:
    """Runs ffmpeg and returns what it said."""
    check_ffmpeg()
    command = ["ffmpeg", "-hide_banner", "-nostdin", "-nostats", "-loglevel", loglevel, "-y"]
    try:
        done = subprocess.run(
            [*command, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise PerturbationError(
            name, f"ffmpeg was not done after {timeout:g} s", "Give a shorter clip or more time"
        ) from error
    said = done.stderr.decode(errors="replace")
    if done.returncode:
        lines = [line.strip() for line in said.splitlines() if line.strip()][-_LAST_LINES:]
        reason = " | ".join(lines) or f"exit status {done.returncode}"
        raise PerturbationError(name, f"ffmpeg failed: {reason}".rstrip("."), "See what it says")
    return said


def _file(path: str | Path) -> str:
    # with a protocol of its own, so that no name is taken for an option or for "concat:"
    return f"file:{Path(path).absolute()}"


def _header(path: str | Path) -> Any:
    checked(str(path), str(path))
    return _opened(lambda: torchcodec_decoders().get_container_metadata(str(path)), path)


def _opened(open_it: Callable[[], Any], path: str | Path) -> Any:
    """What torchcodec opens, with its errors as ours."""
    try:
        return open_it()
    except (RuntimeError, ValueError, ArithmeticError) as error:
        raise UnreadableMediaError(str(path), f"is not readable as media ({explain(error)})") from error


def _streams(path: str | Path) -> tuple[Any, Any, float]:
    """The picture and the sound stream that a reader would take (None where absent), and the file's start in s."""
    header = _header(path)
    video, sound = (
        None if index is None else header.streams[index]
        for index in (header.best_video_stream_index, header.best_audio_stream_index)
    )
    # A cover is one picture in a sound file, and readers leave it out too.
    if (
        video is not None
        and sound is not None
        and video.codec in ("mjpeg", "png")
        and video.num_frames_from_header in (None, 0, 1)
    ):
        video = None
    if video is None and sound is None:
        raise UnreadableMediaError(str(path), "has no video and no audio track")
    starts = [stream.begin_stream_seconds_from_header for stream in header.streams]
    return video, sound, min((start for start in starts if start is not None), default=0.0)


def _coded(encoder: str, stream: Any) -> str:
    """The codec that an encoder writes; the stream's own for a copy."""
    encoded = {"copy": stream.codec, "libx264": "h264", "libx265": "hevc", "libopus": "opus"}
    return encoded.get(encoder, encoder)


def _container(video_codec: str | None, audio_codec: str | None) -> str:
    for container, (pictures, sounds) in _CONTAINERS.items():
        if (video_codec is None or video_codec in pictures) and (
            audio_codec is None or audio_codec in sounds
        ):
            return container
    return "matroska"


def _samples(path: str | Path, sound: Any) -> int:
    """Length of a sound track as readers see it, in its own samples."""
    track = _opened(lambda: FileAudio(str(path), str(path)), path)
    return max(1, round((track.end - track.begin) * sound.sample_rate))


def _last_frame(path: str | Path) -> int:
    """Number of the last frame, from 0."""
    return len(_opened(lambda: torchcodec_decoders().VideoDecoder(str(path)), path)) - 1


def _rms(path: str | Path, sound: Any, trim: str, timeout: float) -> float:
    """Root mean square of all samples of a track, full scale = 1; 0 for digital silence."""
    level = f"{trim},astats=measure_perchannel=none:measure_overall=RMS_level"
    measure = ["-map", f"0:{sound.stream_index}", "-af", level]
    said = _ffmpeg(str(path), ["-i", _file(path), *measure, "-f", "null", "-"], timeout, loglevel="info")
    found = re.search(r"RMS level dB: *(-?[\d.]+|-?inf)", said)
    if found is None:
        raise PerturbationError(str(path), "ffmpeg measured no sound level", "Its sound cannot be decoded")
    return 10 ** (float(found[1]) / 20)
