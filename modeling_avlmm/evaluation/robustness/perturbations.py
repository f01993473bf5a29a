"""Perturbations of a clip, to see whether a detector's verdict survives them: files in, files out, through ffmpeg.

The measured effect must be the named perturbation and nothing else:

- The other track is copied packet by packet (`-c copy`); a separate sound file is decoded and written without loss.
- The named track is decoded once and, unless the perturbation is a codec, written without loss: pictures as H.264 with
  `-qp 0` (8 bits, sizes that 4:2:0 can code) or FFV1 (everything else), sound as 32-bit float PCM.
- Timestamps stay as they are (`-fps_mode passthrough` with the source's own time base), so a variable frame rate stays
  variable. So do the offset between sound and picture, the size, the display rotation, the pixel format and range.
- The container is MP4, else QuickTime, else Matroska, whichever holds both codecs. Only Matroska rounds timestamps, to
  1 ms, and it is needed only for codecs that hardly occur outside Matroska and AVI.

`filters.py` says what each level means to ffmpeg. The `lossless` control shows how much all this changes a detector's
scores: not at all.

Known exceptions: `noise` works on 8 bits, so deeper video becomes 8-bit; `h264` and `hevc` code odd sizes as 4:4:4;
`brightness` and `noise` turn RGB video into YUV. H.264 with B-frames in AVI has no presentation times, and readers and
ffmpeg disagree on them: remux such files first. A lossy sound codec may put some milliseconds of its own before a track
that starts after the picture; the rest does not move.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ...media import MediaError, UnreadableMediaError
from .ffmpeg import (
    PerturbationError,
    container_header,
    file_argument,
    last_frame,
    number_of_samples,
    rms,
    run_ffmpeg,
    streams_of,
)
from .filters import (
    delay_graph,
    picture_codec,
    picture_filters,
    sound_codec,
    sound_filters,
    swap_graph,
)

TIMEOUT = 600.0
"""Seconds for one call of ffmpeg; our own choice."""

# Codecs that the muxers of FFmpeg 5.1 to 8 take.
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


@dataclass(frozen=True)
class Perturbation:
    """
    A change to a clip, either one that happens in the world or one that shows what a verdict rests on.

    Args:
        name (`str`): Name in code and files.
        title (`str`): Name for readers.
        severities (`Mapping[int, float | None]`):
            Physical value of each level. Levels rise with the damage from 1; if the value goes both ways, negative
            levels are those below the untouched clip. None if there is nothing to measure.
        unit (`str`): Unit of the values.
        tracks (`tuple[str, ...]`): The tracks it changes: `"video"`, `"audio"` or both. Other tracks are copied.
        how (`str`): How it is done.
        diagnosis (`bool`, *optional*, defaults to `False`):
            Whether it removes or contradicts the evidence that a verdict should rest on. Labels stay as they were, so a
            lower score is no fault in itself: it shows how much the detector relies on that evidence.
    """

    name: str
    title: str
    severities: Mapping[int, float | None]
    unit: str
    tracks: tuple[str, ...]
    how: str
    diagnosis: bool = False

    def value(self, severity: int) -> float | None:
        """Return the physical value of a level; raises `ValueError` for an unknown level."""
        if severity not in self.severities:
            raise ValueError(f"{self.name} has the severities {list(self.severities)}, not {severity!r}.")
        return self.severities[severity]


_PICTURE, _SOUND, _BOTH = ("video",), ("audio",), ("video", "audio")


def _table(*rows: Perturbation) -> Mapping[str, Perturbation]:
    return MappingProxyType({row.name: row for row in rows})


def _levels(*values: float) -> Mapping[int, float]:
    return MappingProxyType(dict(enumerate(values, start=1)))


_ONCE = MappingProxyType({1: None})
_CRF = _levels(23, 28, 34, 40, 46)

# fmt: off
PERTURBATIONS: Mapping[str, Perturbation] = _table(
    Perturbation("lossless", "lossless rewrite (control)", MappingProxyType({0: None}), "", _BOTH,
                 "both tracks decoded and written without loss: what this module itself does to a clip"),
    # CRF 23 and 40 are the two compressions of FaceForensics++ (Rossler et al., ICCV 2019, arXiv:1901.08971).
    Perturbation("h264", "H.264", _CRF, "CRF", _PICTURE,
                 "libx264, preset medium"),
    Perturbation("hevc", "H.265", _CRF, "CRF", _PICTURE,
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
                 "the sound of another clip, repeated or cut to the length of its own", diagnosis=True),
    Perturbation("mute", "digital silence", _ONCE, "", _SOUND, "all samples 0", diagnosis=True),
    Perturbation("no_audio", "no sound track", _ONCE, "", _SOUND, "the sound track is left out", diagnosis=True),
    Perturbation("no_video", "no picture track", _ONCE, "", _PICTURE, "the picture track is left out", diagnosis=True),
)
"""All perturbations by name. The levels are our own choice unless a paper is named."""
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
    Write a perturbed copy of a clip.

    The same arguments give the same pictures and sound. ffmpeg runs with one thread, so that this holds on every machine
    with the same ffmpeg.

    Args:
        source_path (`str` or `Path`): The clip, or a sound file.
        name (`str`): One of [`PERTURBATIONS`].
        severity (`int`): One of its levels.
        output_path (`str` or `Path`):
            Path of the copy; replaced if it exists. The codecs decide the container, whatever the suffix.
        audio (`str` or `Path`, *optional*):
            A separate sound file. It replaces the clip's own sound, starts with the first frame (as for
            [`MediaReader`]) and becomes the sound track of the copy.
        other (`str` or `Path`, *optional*): For `audio_swap`: the file whose sound is taken.
        seed (`int`, *optional*, defaults to 0): Seed of `noise`, `audio_noise` and `frame_drop`.
        timeout (`float`, *optional*, defaults to 600): Seconds for one call of ffmpeg.

    Returns:
        `Path`: `output_path`.

    Raises:
        ValueError: for an unknown name or level, `audio_swap` without `other`, or an output that is an input.
        PerturbationError: when the track to change is missing, or ffmpeg fails; with ffmpeg's last lines.
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

    job = _Job(perturbation, value, _Clip.open(source_path, audio), other, seed, timeout)
    picture, video_codec = job.picture()
    sound, audio_codec = job.sound()
    # Pictures are worked on as they are stored; the display matrix is handed on and turns them for the reader.
    command = ["-noautorotate", *job.clip.inputs, *job.graph, *picture, *sound]
    command += ["-filter_threads", "1", "-filter_complex_threads", "1", "-map_chapters", "-1", "-dn", "-sn"]
    command += ["-fflags", "+bitexact", "-flags:v", "+bitexact", "-flags:a", "+bitexact"]
    command += ["-f", _container(video_codec, audio_codec), file_argument(output_path)]
    try:
        run_ffmpeg(str(source_path), command, timeout)
        made = container_header(output_path)
        no_picture, no_sound = made.best_video_stream_index is None, made.best_audio_stream_index is None
        if (no_picture, no_sound) != (video_codec is None, audio_codec is None):
            raise PerturbationError(str(source_path), f"lost a track under {name}", "Report this file")
    except MediaError:
        output_path.unlink(missing_ok=True)
        raise
    return output_path


@dataclass
class _Clip:
    """A clip with its separate sound file: the streams in use, and the inputs that ffmpeg reads them from."""

    path: str | Path
    video: Any
    sound: Any
    sound_path: str | Path
    sound_input: int
    inputs: list[str]

    @classmethod
    def open(cls, path: str | Path, audio: str | Path | None) -> _Clip:
        video, sound, start = streams_of(path)
        inputs = ["-threads", "1", "-i", file_argument(path)]
        if audio is None:
            return cls(path, video, sound, path, 0, inputs)
        _, sound, _ = streams_of(audio)
        if sound is None:
            raise UnreadableMediaError(str(audio), "has no audio track", "Give a sound file")
        # ffmpeg puts an input's earliest timestamp at 0, which need not be the first frame
        late = 0.0 if video is None else (video.begin_stream_seconds_from_header or 0.0) - start
        inputs += ["-itsoffset", f"{late:.6f}", "-threads", "1", "-i", file_argument(audio)]
        return cls(path, video, sound, audio, 1, inputs)


@dataclass
class _Job:
    """A perturbation of a clip, as arguments of ffmpeg."""

    perturbation: Perturbation
    value: float | None
    clip: _Clip
    other: str | Path | None
    seed: int
    timeout: float
    graph: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        name, clip = self.perturbation.name, self.clip
        needed = {"no_video": _BOTH, "no_audio": _PICTURE, "lossless": ()}
        tracks = needed.get(name, self.perturbation.tracks)
        if any((clip.video if track == "video" else clip.sound) is None for track in tracks):
            absent = "picture" if clip.video is None else "sound"
            raise PerturbationError(
                str(clip.path), f"has no {absent} track, so {name} has nothing to work on", "Leave it out"
            )

    def picture(self) -> tuple[list[str], str | None]:
        """Return the arguments of the picture track, and its codec; None if the copy has no picture."""
        name, video = self.perturbation.name, self.clip.video
        if video is None or name == "no_video":
            return [], None
        arguments, codec = [], ["copy"]
        if "video" in self.perturbation.tracks:
            codec = picture_codec(name, self.value, video)
            last = last_frame(self.clip.path) if name == "frame_drop" else None
            filters = picture_filters(name, self.value, video, self.seed, last)
            arguments += ["-filter:v", filters] if filters else []
            arguments += ["-fps_mode", "passthrough", "-enc_time_base:v", "-1", "-threads:v", "1"]
        return [*arguments, "-map", f"0:{video.stream_index}", "-c:v", *codec], _coded(codec[0], video)

    def sound(self) -> tuple[list[str], str | None]:
        """Return the arguments of the sound track, and its codec; None if the copy has no sound."""
        name, clip = self.perturbation.name, self.clip
        if clip.sound is None or name == "no_audio":
            return [], None
        where, codec = f"{clip.sound_input}:{clip.sound.stream_index}", ["copy"]
        # Copied packets would take the padding of a separate file with them, which its edit list no longer cuts off.
        if "audio" in self.perturbation.tracks or clip.sound_input:
            self.graph = ["-filter_complex", f"{self._sound_chain(f'[{where}]')}[sound]"]
            where, codec = "[sound]", sound_codec(name, self.value)
        return ["-map", where, "-c:a", *codec], _coded(codec[0], clip.sound)

    def _sound_chain(self, track: str) -> str:
        name, clip = self.perturbation.name, self.clip
        # Decoders hand out the padding of the last packet, which containers mark and readers leave out.
        trim = f"atrim=end_sample={number_of_samples(clip.sound_path, clip.sound)}"
        if name == "audio_swap":
            return f"{swap_graph(track, clip.sound, *self._donor())},{trim}"
        if name == "delay":
            return f"{delay_graph(f'{track}{trim}', self.value, clip.sound.sample_rate)},{trim}"
        level = rms(clip.sound_path, clip.sound, trim, self.timeout) if name == "audio_noise" else None
        return f"{track}{trim}{sound_filters(name, self.value, clip.sound, self.seed, level)}"

    def _donor(self) -> tuple[str, Any]:
        """Add the donor of `audio_swap` to the inputs, and return its chain and its stream."""
        _, donor, _ = streams_of(self.other)
        if donor is None:
            raise PerturbationError(str(self.other), "has no sound to give to another clip", "Leave it out")
        place = self.clip.sound_input + 1
        self.clip.inputs += ["-threads", "1", "-i", file_argument(self.other)]
        samples = number_of_samples(self.other, donor)
        return f"[{place}:{donor.stream_index}]atrim=end_sample={samples}", donor


def _coded(encoder: str, stream: Any) -> str:
    """Return the codec that an encoder writes; the stream's own for a copy."""
    encoded = {"copy": stream.codec, "libx264": "h264", "libx265": "hevc", "libopus": "opus"}
    return encoded.get(encoder, encoder)


def _container(video_codec: str | None, audio_codec: str | None) -> str:
    for container, (pictures, sounds) in _CONTAINERS.items():
        if (video_codec is None or video_codec in pictures) and (
            audio_codec is None or audio_codec in sounds
        ):
            return container
    return "matroska"
