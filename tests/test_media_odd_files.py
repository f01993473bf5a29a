"""Files as people have them: containers that seek badly, times that are missing, tracks that cannot be decoded."""

from __future__ import annotations

import math
import re
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from media_factory import ffmpeg, make_clip, remux, shift_audio

from modeling_avlmm import SSAVDProcessor
from modeling_avlmm.evaluation.audit.file_properties import _sampled_frames, first_sound
from modeling_avlmm.evaluation.measured_properties import speech_properties
from modeling_avlmm.faces import find_tracks
from modeling_avlmm.inference.growing_file import GrowingFile, GrowingTracks, Picture
from modeling_avlmm.media import DAMAGED_PASSAGE, SAMPLING_RATE, MediaReader, UnreadableMediaError, read_clip
from modeling_avlmm.media_containers import code_of
from modeling_avlmm.media_errors import UnsupportedSourceError
from modeling_avlmm.media_sound import mono
from modeling_avlmm.page.pictures import mel_picture
from modeling_avlmm.training.clip_reading import read_row
from modeling_avlmm.training.speech_store import read_speech

SECONDS = 6.0


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    """6 s of 128x96, 25 fps, H.264 with B-frames, and a tone that gets higher, in AAC."""
    path = tmp_path_factory.mktemp("odd") / "base.mp4"
    picture = ["-f", "lavfi", "-i", f"testsrc2=size=128x96:rate=25:duration={SECONDS}"]
    sound = ["-f", "lavfi", "-i", f"aevalsrc=0.5*sin(2*PI*(200*t+50*t*t)):s=16000:d={SECONDS}"]
    video = ["-c:v", "libx264", "-preset", "ultrafast", "-bf", "2", "-g", "25", "-pix_fmt", "yuv420p"]
    ffmpeg(*picture, *sound, *video, "-c:a", "aac", path)
    return path


def sweep(begin: float, end: float) -> torch.Tensor:
    """Return what the tone of `base` is between two times."""
    time = torch.arange(round(begin * SAMPLING_RATE), round(end * SAMPLING_RATE)) / SAMPLING_RATE
    return 0.5 * torch.sin(2 * torch.pi * (200 * time + 50 * time**2))


def check_sound(audio: torch.Tensor, begin: float = 0.0, aside: int = 40, most: float = 0.03) -> None:
    """Check that sound is that of `base` from `begin` on, up to a shift of `aside` samples and a codec's error."""
    expected = sweep(begin, begin + len(audio) / SAMPLING_RATE)
    errors = [
        float((audio - expected.roll(k))[800:-2000].square().mean().sqrt()) for k in range(-aside, aside + 1)
    ]
    assert min(errors) < most


def all_frames(path: Path) -> torch.Tensor:
    with MediaReader(path) as reader:
        return reader.read(fps=25, with_audio=False).frames


def patched(source: Path, path: Path, box: bytes, at: int, values: bytes) -> Path:
    """Write a file with other bytes in the first box of a kind, counted from the end of the box's name."""
    data = bytearray(source.read_bytes())
    begin = data.index(box) + 4 + at
    data[begin : begin + len(values)] = values
    path.write_bytes(data)
    return path


# ------------------------------------------------------------------------------------------------- pictures


@pytest.mark.parametrize(
    ("suffix", "codec"),
    [
        (".ts", "libx265"),
        (".mp4", "libx265"),
        (".ts", "mpeg2video"),
        (".mpg", "mpeg2video"),
        (".avi", "mpeg4"),
    ],
)
def test_pictures_by_window_are_those_from_the_start(base, tmp_path, suffix, codec):
    options = ["-x265-params", "keyint=30:bframes=3:log-level=none", "-preset", "ultrafast"]
    options = options if codec == "libx265" else ["-g", "30", "-bf", "2", "-q:v", "2"]
    whole, path = tmp_path / "whole.mkv", tmp_path / f"c{suffix}"
    ffmpeg("-i", base, "-c:v", codec, *options, "-an", whole)
    ffmpeg("-i", whole, "-c", "copy", path)
    expected = all_frames(whole)
    with MediaReader(path) as reader:
        assert reader.info.num_frames == 150 and reader.info.duration == pytest.approx(SECONDS, abs=0.05)
        for start in (0.0, 4.0, 2.52, 5.0, 1.0):  # forwards and back, on and off key frames
            part = reader.read(start, start + 0.6, fps=25)
            assert torch.equal(part.frames, expected[round(start * 25) :][:15]), start
            assert part.warnings == ["no audio track"]


def test_pixels_that_are_not_square(base, tmp_path):
    path = tmp_path / "sar.mp4"
    ffmpeg("-i", base, "-c", "copy", "-bsf:v", "h264_metadata=sample_aspect_ratio=2/1", path)
    wide, narrow = read_clip(path), read_clip(base)
    assert wide.frames.shape[-2:] == (96, 256) and narrow.frames.shape[-2:] == (96, 128)
    assert float((wide.frames[..., ::2].float() - narrow.frames.float()).abs().mean()) < 6
    with MediaReader(path) as reader:
        assert (reader.info.width, reader.info.height) == (256, 96)


@pytest.mark.parametrize(("matrix", "dims"), [((-1, 0, 0, 1), -1), ((1, 0, 0, -1), -2)])
def test_mirrored_pictures(base, tmp_path, matrix, dims):
    a, b, c, d = (65536 * value for value in matrix)
    packed = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path = patched(base, tmp_path / "mirrored.mp4", b"tkhd", 40, packed)
    assert torch.equal(read_clip(path).frames, read_clip(base).frames.flip(dims))


def test_mirrored_and_turned(base, tmp_path):
    packed = struct.pack(">9i", 0, 65536, 0, 65536, 0, 0, 0, 0, 1 << 30)  # swaps x and y
    path = patched(base, tmp_path / "turned.mp4", b"tkhd", 40, packed)
    assert torch.equal(read_clip(path).frames, read_clip(base).frames.transpose(-1, -2))


def test_a_still_picture_is_called_one(base, tmp_path):
    ffmpeg("-i", base, "-frames:v", "1", tmp_path / "p.png")
    assert "the file is a still picture, not a video" in read_clip(tmp_path / "p.png").warnings


# ----------------------------------------------------------------------------------------------------- times


@pytest.mark.parametrize(("codec", "rate"), [("adpcm_ima_wav", 44_100), ("g722", 16_000)])
def test_sound_whose_packets_have_no_times(base, tmp_path, codec, rate):
    path = tmp_path / "a.wav"
    ffmpeg("-i", base, "-vn", "-ar", rate, "-ac", "1", "-c:a", codec, path)
    with MediaReader(path) as reader:
        assert reader.info.duration == pytest.approx(SECONDS, abs=0.1)
        for start in (0.0, 3.0, 1.5):
            clip = reader.read(start, start + 2)
            check_sound(clip.audio, start)
            assert clip.warnings == []


def test_negative_times_of_matroska(base, tmp_path):
    path = tmp_path / "n.mkv"
    ffmpeg("-itsoffset", "-1", "-i", base, "-c", "copy", "-avoid_negative_ts", "disabled", path)
    with MediaReader(path) as reader:
        clip = reader.read(fps=25)
        assert reader.info.num_frames == 150 and reader.info.duration == pytest.approx(SECONDS, abs=0.1)
    assert torch.equal(clip.frames[:150], all_frames(base))
    check_sound(clip.audio, 0.0, aside=500)


def test_program_stream_and_raw_video(base, tmp_path):
    ts = remux(base, tmp_path / "c.ts")
    ffmpeg("-i", ts, "-c:v", "copy", "-c:a", "mp2", "-f", "mpeg", tmp_path / "c.mpg")
    ffmpeg("-i", base, "-an", "-c", "copy", "-bsf:v", "h264_mp4toannexb", tmp_path / "c.h264")
    ffmpeg("-i", base, "-an", "-target", "pal-dvd", tmp_path / "c.vob")
    ffmpeg("-i", base, "-c", "copy", tmp_path / "c.avi")
    expected = all_frames(base)
    for name in ("c.h264", "c.avi"):
        assert torch.equal(all_frames(tmp_path / name)[:150], expected), name
    # a third of the pictures has no time, and two of the others have wrong ones
    same = (all_frames(tmp_path / "c.mpg") == expected).flatten(1).all(1)
    assert int(same.sum()) >= 147
    with MediaReader(tmp_path / "c.vob") as reader:
        assert reader.info.duration == pytest.approx(SECONDS, abs=0.1)
        assert reader.read(3, 4).frames.shape[-2:] == (576, 768)  # 720 wide, pixels 16:15
    assert read_clip(tmp_path / "c.avi").warnings == []


def test_joined_recordings(base, tmp_path):
    one = remux(base, tmp_path / "one.ts")
    (tmp_path / "two.ts").write_bytes(one.read_bytes() * 2)
    mkv = remux(base, tmp_path / "one.mkv")
    (tmp_path / "two.mkv").write_bytes(mkv.read_bytes() * 2)
    expected = all_frames(base)
    for suffix in (".ts", ".mkv"):
        with MediaReader(tmp_path / f"two{suffix}") as reader:
            assert reader.info.duration == pytest.approx(2 * SECONDS, abs=0.2)
            assert any("2 recordings" in warning for warning in reader.warnings)
            assert reader.info.num_frames == 300
            both = reader.read(fps=25)
        assert torch.equal(both.frames[:150], expected)
        begin = next(k for k in range(149, 158) if torch.equal(both.frames[k + 9], expected[9]))
        assert torch.equal(both.frames[begin : begin + 149], expected[:149])
        check_sound(both.audio[(begin + 25) * 640 :][:48_000], 1.0, aside=1500)


@pytest.mark.parametrize(
    "suffix", [".mp4", ".wav", ".flac", ".ogg", ".opus", ".mp3", ".aiff", ".flv", ".wmv", ".avi"]
)
def test_the_second_of_two_joined_files_is_read_or_told_of(base, tmp_path, suffix):
    one = tmp_path / f"one{suffix}"
    sound = suffix in (".wav", ".flac", ".ogg", ".opus", ".mp3", ".aiff")
    copied = ["-c", "copy"] if suffix in (".mp4", ".avi") else []
    ffmpeg(
        "-i", base, *(["-vn"] if sound else []), *copied, *(["-ar", "22050"] if suffix == ".flv" else []), one
    )
    two = tmp_path / f"two{suffix}"
    two.write_bytes(one.read_bytes() * 2)
    alone, both = read_clip(one), read_clip(two)
    told = [text for text in both.warnings if "recordings one after another" in text]
    assert not any("another" in text for text in alone.warnings)
    if suffix in (".mp4", ".wav", ".aiff", ".flv", ".wmv"):
        assert f"only the first one is read, up to byte {one.stat().st_size:,}" in told[0]
        assert both.duration == alone.duration
    else:
        assert both.duration == pytest.approx(2 * alone.duration, abs=0.25)
        assert suffix == ".mp3" or told[0].endswith("they are read as one")
        begin = round(alone.duration * SAMPLING_RATE)
        check_sound(both.audio[begin + 16_000 : begin + 64_000], 1.0, aside=2500, most=0.1)
    # a stream says the same
    streams, _, begin, end = streamed(two)
    assert [text for text in streams if "another" in text] == told
    assert end - begin == pytest.approx(both.duration, abs=0.3)


@pytest.mark.parametrize("flags", ["", "+default_base_moof", "+dash+skip_trailer"])
def test_of_joined_fragmented_files_the_first_is_read(base, tmp_path, flags):
    """FFmpeg would look for the pictures of the second one at the places that they have in the first one."""
    one = remux(base, tmp_path / "one.mp4", "-movflags", f"frag_keyframe+empty_moov{flags}")
    other = make_clip(tmp_path / "other.mp4", 4.0, size=(128, 96))
    remux(other, tmp_path / "b.mp4", "-movflags", f"frag_keyframe+empty_moov{flags}")
    two = tmp_path / "two.mp4"
    two.write_bytes(one.read_bytes() + (tmp_path / "b.mp4").read_bytes())
    alone, both = read_clip(one, fps=25), read_clip(two, fps=25)
    told = f"the file holds several recordings one after another: only the first one is read, up to byte {one.stat().st_size:,}"
    assert alone.warnings == [] and both.warnings == [told]
    assert torch.equal(both.frames, alone.frames) and torch.equal(both.audio, alone.audio)
    streams, pictures, begin, end = streamed(two)
    assert streams == [told] and len(pictures) == 150 and end - begin == pytest.approx(SECONDS, abs=0.1)


def test_fragments_behind_a_repeated_header_are_read_on(base, tmp_path):
    """As of a broadcast whose pieces each bring the header."""
    one = remux(
        base, tmp_path / "one.mp4", "-movflags", "frag_keyframe+empty_moov+default_base_moof+skip_trailer"
    )
    data = one.read_bytes()
    head, third = data.index(b"moof") - 4, [m.start() - 4 for m in re.finditer(b"moof", data)][3]
    (tmp_path / "two.mp4").write_bytes(data[:third] + data[:head] + data[third:])
    assert torch.equal(all_frames(tmp_path / "two.mp4"), all_frames(one))


def test_sound_before_the_first_picture(base, tmp_path):
    path = shift_audio(base, tmp_path / "late.mp4", -2.0)
    with MediaReader(path) as reader:
        assert reader.info.duration == pytest.approx(SECONDS + 2, abs=0.1)
        early = reader.read(0, 1)
        assert early.frames is None and any("video starts at 2.0" in text for text in early.warnings)
        check_sound(early.audio, 0.0, aside=400)
        both = reader.read(1.5, 3.5)
        begin = 2.0 - 1.5
        assert both.timestamps.tolist() == pytest.approx([0.5, 1.0, 1.5], abs=1e-6) and begin == 0.5
        assert torch.equal(both.frames, read_clip(base).frames[:3])


def test_a_header_that_lies_about_time(base, tmp_path):
    source = remux(base, tmp_path / "frag.mp4", "-movflags", "frag_keyframe+empty_moov")
    path = patched(source, tmp_path / "lie.mp4", b"mdhd", 12, struct.pack(">I", 1))
    with MediaReader(path) as reader:
        assert reader.info.duration > 10_000
        spans = reader.windows(3)
        assert len(spans) <= 150 + 3  # a window for each picture, and those with sound
        assert any("are left out" in warning for warning in reader.warnings)


def test_no_false_alarms_about_the_end(base, tmp_path):
    ffmpeg("-i", base, "-vn", "-q:a", "5", "-write_xing", "0", "-id3v2_version", "0", tmp_path / "vbr.mp3")
    (tmp_path / "s.srt").write_text("1\n00:00:00,000 --> 00:02:00,000\nhello\n")
    ffmpeg(
        "-i",
        base,
        "-i",
        tmp_path / "s.srt",
        "-c:v",
        "copy",
        "-c:a",
        "copy",
        "-c:s",
        "srt",
        tmp_path / "s.mkv",
    )
    remux(base, tmp_path / "frag.mp4", "-movflags", "frag_keyframe+empty_moov")
    for name in ("vbr.mp3", "s.mkv", "frag.mp4"):
        clip = read_clip(tmp_path / name)
        assert clip.duration == pytest.approx(SECONDS, abs=0.15)
        assert not any("may be truncated" in warning for warning in clip.warnings), name


# ---------------------------------------------------------------------------------------------------- tracks


@pytest.mark.parametrize("size", [188, 192])
def test_a_transport_stream_that_was_cut_off(base, tmp_path, size):
    whole = remux(base, tmp_path / "c.ts", *(["-mpegts_m2ts_mode", "1"] if size == 192 else []))
    assert whole.stat().st_size % size == 0 and read_clip(whole).warnings == []
    (tmp_path / "cut.ts").write_bytes(whole.read_bytes()[: whole.stat().st_size * 3 // 4 // size * size + 50])
    told = "the file ends in the middle of a packet: its end may be missing"
    assert told in read_clip(tmp_path / "cut.ts").warnings


def test_a_track_that_cannot_be_decoded_is_named(base, tmp_path):
    (tmp_path / "v.mp4").write_bytes(base.read_bytes().replace(b"avc1", b"apv1"))
    ffmpeg("-i", base, "-c:v", "copy", "-c:a", "pcm_s16le", tmp_path / "sound.mov")
    (tmp_path / "a.mov").write_bytes((tmp_path / "sound.mov").read_bytes().replace(b"sowt", b"zzzz"))
    with MediaReader(tmp_path / "v.mp4") as reader:
        assert reader.info.has_video is None and reader.info.has_audio is True
        assert "the video track (apv1) cannot be decoded" in reader.warnings[0]
        assert streamed(tmp_path / "v.mp4")[0] == reader.warnings
    with MediaReader(tmp_path / "a.mov") as reader:
        assert reader.info.has_video is True and reader.info.has_audio is None
        assert any("the audio track (zzzz) cannot be decoded" in text for text in reader.warnings)
        assert "no audio track" not in reader.warnings
    remux(base, tmp_path / "v.mkv")
    unknown = (tmp_path / "v.mkv").read_bytes().replace(b"V_MPEG4/ISO/AVC", b"V_MPEG4/ISO/XYZ")
    assert any("the video track (V_MPEG4/ISO/XYZ)" in text for text in read_clip(unknown).warnings)
    ffmpeg("-i", base, "-c:v", "mpeg4", "-c:a", "libmp3lame", tmp_path / "v.avi")
    data = memoryview((tmp_path / "v.avi").read_bytes())
    assert (code_of(data, "video"), code_of(data, "audio")) == ("FMP4", "format 0x0055")


def test_several_tracks(base, tmp_path):
    ffmpeg("-i", base, "-i", base, "-map", "0", "-map", "1:a", "-c", "copy", tmp_path / "two.mp4")
    assert read_clip(tmp_path / "two.mp4").warnings == ["the file has 2 audio tracks: number 1 (aac) is used"]


def test_a_broken_cover_leaves_the_sound(base, tmp_path):
    ffmpeg("-i", base, "-frames:v", "1", tmp_path / "c.png")
    cover = ["-map", "0:a", "-map", "1:v", "-c:v", "copy", "-disposition:v", "attached_pic"]
    ffmpeg("-i", base, "-i", tmp_path / "c.png", *cover, tmp_path / "whole.mp3")
    data = (tmp_path / "whole.mp3").read_bytes()
    at = data.index(b"\x89PNG")
    (tmp_path / "song.mp3").write_bytes(data[: at + 40] + bytes(400) + data[at + 440 :])
    for name in ("whole.mp3", "song.mp3"):
        clip = read_clip(tmp_path / name)
        assert clip.frames is None and any("cover" in text for text in clip.warnings)
        check_sound(clip.audio, 0.0, aside=1300)


def test_channels_that_cancel(tmp_path):
    wave = sweep(0, 2).numpy()
    soundfile.write(tmp_path / "c.wav", np.stack([wave, -wave], 1), SAMPLING_RATE, subtype="FLOAT")
    clip = read_clip(tmp_path / "c.wav")
    assert np.abs(clip.audio.numpy() - wave).max() < 1e-6
    assert clip.warnings == ["the sound's channels cancel each other: channel 1 stands for their mean"]
    arrays = read_clip({"audio": np.stack([wave, -wave]), "sampling_rate": SAMPLING_RATE})
    assert torch.equal(arrays.audio, clip.audio)
    notes: list[str] = []
    noise = torch.randn(2, 16_000, generator=torch.Generator().manual_seed(0))
    assert torch.equal(mono(noise, notes), noise.mean(0)) and notes == []


def test_files_that_are_no_media_are_called_what_they_are(base, tmp_path):
    (tmp_path / "page.mp4").write_text("\n<!DOCTYPE html><html><body>Please log in</body></html>")
    with pytest.raises(UnsupportedSourceError, match="is a web page"):
        read_clip(tmp_path / "page.mp4")
    key = "00112233445566778899aabbccddeeff"
    encrypt = ["-encryption_scheme", "cenc-aes-ctr", "-encryption_key", key, "-encryption_kid", key]
    ffmpeg("-i", base, "-c", "copy", *encrypt, tmp_path / "drm.mp4")
    with pytest.raises(UnreadableMediaError, match="encrypted"):
        read_clip(tmp_path / "drm.mp4")
    with pytest.raises(UnreadableMediaError, match="has no audio track"):
        read_clip(base, audio=make_clip(tmp_path / "mute.mp4", 1, audio=False))


# -------------------------------------------------------------------------------------------------- streams


def streamed(path: Path) -> tuple[list[str], list[float], float, float]:
    """Return the warnings about a file, the times of its pictures, and begin and end of its sound."""
    file = GrowingFile(path, patience=0.01)
    tracks = GrowingTracks(file, path.name)
    parts = list(tracks)
    told = tracks.warnings + tracks.oddities()
    file.close()
    sounds = [part for part in parts if not isinstance(part, Picture)]
    begin = min((part.start for part in sounds), default=math.nan)
    end = max((part.start + part.samples.shape[1] / SAMPLING_RATE for part in sounds), default=math.nan)
    return told, [part.start for part in parts if isinstance(part, Picture)], begin, end


def test_streams_with_missing_times(base, tmp_path):
    ffmpeg("-i", base, "-an", "-c", "copy", "-bsf:v", "h264_mp4toannexb", tmp_path / "raw.h264")
    negative = ["-avoid_negative_ts", "disabled"]
    ffmpeg("-itsoffset", "-1", "-i", base, "-c", "copy", *negative, tmp_path / "n.mkv")
    for name in ("raw.h264", "n.mkv"):
        told, pictures, begin, end = streamed(tmp_path / name)
        nominal = "the file does not say when its pictures are shown: 25 a second are assumed"
        for warnings in (told, read_clip(tmp_path / name).warnings):
            assert (nominal in warnings) == (name == "raw.h264")
        steps = torch.tensor(pictures, dtype=torch.float64).diff()
        assert len(pictures) == 150 and torch.allclose(steps, torch.full_like(steps, 0.04), atol=1e-3), name
        if name == "n.mkv":
            assert pictures[0] == pytest.approx(-1, abs=0.03)
            assert (begin, end) == (pytest.approx(-1, abs=0.1), pytest.approx(5, abs=0.1))


def test_a_stream_of_joined_recordings_and_of_a_cover(base, tmp_path):
    one = remux(base, tmp_path / "one.ts")
    (tmp_path / "two.ts").write_bytes(one.read_bytes() * 2)
    told, pictures, begin, end = streamed(tmp_path / "two.ts")
    assert "2 recordings" in told[0] and len(pictures) == 300
    assert pictures[-1] - pictures[0] == pytest.approx(2 * SECONDS, abs=0.2)
    assert end - begin == pytest.approx(2 * SECONDS, abs=0.2)
    ffmpeg("-i", base, "-frames:v", "1", tmp_path / "c.png")
    cover = ["-map", "0:a", "-map", "1:v", "-c:v", "copy", "-disposition:v", "attached_pic"]
    ffmpeg("-i", base, "-i", tmp_path / "c.png", *cover, tmp_path / "song.mp3")
    told, pictures, begin, end = streamed(tmp_path / "song.mp3")
    assert not pictures and told == ["the only picture is a cover; read as audio"]
    assert end - begin == pytest.approx(SECONDS, abs=0.2)


# --------------------------------------------------------------------------------------------------- verdicts


@pytest.fixture(scope="module")
def damaged(tmp_path_factory) -> Path:
    """12 s of mp4 with noise in about a fifth of its bytes."""
    source = tmp_path_factory.mktemp("damaged") / "c.mp4"
    picture = "testsrc2=size=128x96:rate=25:duration=12"
    made = ["-f", "lavfi", "-i", picture, "-f", "lavfi", "-i", "sine=d=12"]
    ffmpeg(*made, "-c:v", "libx264", "-preset", "ultrafast", "-g", "25", "-c:a", "aac", source)
    data = bytearray(source.read_bytes())
    begin, end = int(len(data) * 0.45), int(len(data) * 0.65)
    data[begin:end] = np.random.default_rng(0).bytes(end - begin)
    path = source.with_name("bad.mp4")
    path.write_bytes(data)
    return path


def test_a_damaged_passage_costs_that_passage(gate_folder, damaged):
    """Verdicts before and after."""
    result = verdicts(gate_folder)(str(damaged), window_seconds=1)
    scored = [window["start"] for window in result["windows"] if window["score"] is not None]
    assert len(result["windows"]) == 12 and result["score"] is not None and result["error"] is None
    assert {0.0, 1.0, 2.0, 3.0, 9.0, 10.0, 11.0} <= set(scored) and len(scored) < 12
    told = DAMAGED_PASSAGE.split("{}")[1]
    assert any(told in warning for warning in result["warnings"])


def test_other_readers_leave_a_damaged_passage_out(damaged):
    """Training, the audit, faces and the page's spectrogram read the rest of the file."""
    processor = SSAVDProcessor(image_size=32)
    row = {"video": str(damaged), "audio": None, "path": "bad.mp4"}
    with MediaReader(damaged) as reader:
        bad = [start for start, end in reader.windows(1) if reader.read_passage(start, end).frames is None]
        assert bad and 0.0 not in bad
        pictures = [None if frame is None else frame.shape for frame in _sampled_frames(reader)]
        assert None in pictures and (3, 96, 128) in pictures
        assert mel_picture(reader).startswith("data:image/png")
        warnings: list[str] = []
        assert find_tracks(reader, fps=2, finder=NoFaces(), warnings=warnings) == []
    rng = FixedStart(bad[0] + 0.01)
    clip = read_row(row, processor, 0.9, rng)
    assert rng.asked == 1 and clip.start == 0.0 and clip.frames is not None


def test_damaged_sound_costs_its_passages(tmp_path):
    """The audit, the benchmark of real recordings and the training on speech hear the rest."""
    path = tmp_path / "s.m4a"
    ffmpeg("-f", "lavfi", "-i", "sine=440:d=30", "-c:a", "aac", "-b:a", "64k", path)
    data = bytearray(path.read_bytes())
    begin, end = int(len(data) * 0.02), int(len(data) * 0.7)
    data[begin:end] = np.random.default_rng(0).bytes(end - begin)
    path.write_bytes(data)
    with MediaReader(path) as reader:
        with pytest.raises(UnreadableMediaError, match="more than half of the audio"):
            reader.read(with_video=False)
        heard = first_sound(reader)
        assert 8 * SAMPLING_RATE < len(heard) < 12 * SAMPLING_RATE
        tail = heard[-2 * SAMPLING_RATE : -SAMPLING_RATE]
        assert int(torch.fft.rfft(tail).abs().argmax()) == 440
    assert speech_properties(str(path))["loudness"] > -30
    spoken = read_speech(str(path), "s.m4a")
    assert len(spoken) == 6 * SAMPLING_RATE and np.abs(spoken).max() == pytest.approx(0.7)


class NoFaces:
    """A finder that sees every frame and finds nothing."""

    def __call__(self, frames, times):
        return [[] for _ in frames]


class FixedStart:
    """A generator of random numbers that gives one."""

    def __init__(self, value):
        self.value, self.asked = value, 0

    def uniform(self, low, high):
        self.asked += 1
        return self.value


def verdicts(folder):
    from transformers import pipeline

    return pipeline("av-deepfake-detection", model=str(folder), device="cpu")
