"""The sound of an MP4 without its picture: the same samples, and nothing hidden in doubtful cases."""

import pytest
import torch
from media_factory import ffmpeg, make_clip, make_truncated, remux, shift_audio
from torchcodec.decoders import AudioDecoder, Demuxer

from modeling_avlmm.media import read_clip
from modeling_avlmm.media_mp4 import without_picture


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    path = tmp_path_factory.mktemp("mp4") / "clip.mp4"
    return make_clip(path, seconds=2, sampling_rate=44_100, channels=2)


def variants(clip, folder):
    """Write the clip with its header in front, as QuickTime, with late or early sound, and cut."""
    ffmpeg("-ss", "0.52", "-i", clip, "-c", "copy", folder / "cut.mp4")
    return [
        clip,
        remux(clip, folder / "front.mp4", "-movflags", "faststart"),
        remux(clip, folder / "c.mov"),
        shift_audio(clip, folder / "late.mp4", 0.6),
        shift_audio(clip, folder / "early.mp4", -0.6),
        folder / "cut.mp4",
    ]


def test_sound_is_the_same_and_the_file_does_not_change(clip, tmp_path):
    for path in variants(clip, tmp_path):
        content = path.read_bytes()
        hidden = without_picture(str(path))
        with pytest.raises(ValueError):
            Demuxer(hidden, streams="video")
        for rate in (None, 16_000):
            expected = AudioDecoder(path, sample_rate=rate).get_all_samples()
            found = AudioDecoder(hidden, sample_rate=rate).get_all_samples()
            assert torch.equal(found.data, expected.data) and found.pts_seconds == expected.pts_seconds
        changed = (hidden != torch.frombuffer(bytearray(content), dtype=torch.uint8)).sum()
        assert int(changed) <= 4 and path.read_bytes() == content


def test_a_clip_is_the_same_from_bytes_which_are_not_changed(clip, tmp_path):
    for path in variants(clip, tmp_path):
        one, other = read_clip(str(path)), read_clip(path.read_bytes())
        assert torch.equal(one.audio, other.audio) and torch.equal(one.frames, other.frames)
        assert one.warnings == other.warnings and one.end == other.end


def test_nothing_is_hidden_where_that_is_not_sure(clip, tmp_path):
    sound = tmp_path / "sound.m4a"
    ffmpeg("-i", clip, "-vn", "-c:a", "copy", sound)
    pieces = remux(clip, tmp_path / "pieces.mp4", "-movflags", "frag_keyframe+empty_moov")
    (tmp_path / "short.mp4").write_bytes(b"\0\0\0\x10ftypisom")
    (tmp_path / "loop.mp4").write_bytes(b"\0\0\0\x08ftyp" + bytes(64))
    others = [sound, pieces, remux(clip, tmp_path / "c.mkv"), make_truncated(clip, tmp_path / "cut_off.mp4")]
    for path in [*others, tmp_path / "short.mp4", tmp_path / "loop.mp4"]:
        assert without_picture(str(path)) is None, path
