"""The family of a clip, from the labels and generators of every corpus of the package."""

from __future__ import annotations

import pytest

from modeling_avlmm.dialogue.families import FAMILIES, family_of, generator_name, picture_family


def row(video, audio, generator=None, audio_generator=None, label=1) -> dict:
    return {
        "label": label,
        "video_label": video,
        "audio_label": audio,
        "generator": generator,
        "audio_generator": audio_generator,
    }


@pytest.mark.parametrize(
    ("clip", "family"),
    [
        (row(0, 0, "real", "real", label=0), "genuine"),
        (row(1, 0, "faceswap", "real"), "face_swap"),
        (row(1, 0, "fsgan", "real"), "face_swap"),
        (row(1, 0, "wav2lip", "real"), "reenactment"),
        (row(1, 0, "stargan", "real"), "face_editing"),
        (row(1, 0, "StyleGAN2", "real"), "entire_synthesis"),
        (row(0, 1, "real", "rtvc"), "voice"),
        (row(1, 1, "faceswap-wav2lip", "rtvc"), "both"),
        (row(1, 1, None, None), "both"),
        (row(0, 1, "real", None), "voice"),
        (row(1, 0, "brand-new-model", "real"), None),
        (row(None, None), None),
        (row(1, None, "inswapper"), "face_swap"),
        (row(None, 0, "liveportrait"), "reenactment"),
        (row(0, None, "real", None), "voice"),
        (row(None, 0, None, "real"), None),
        (row(None, None, "roop", "rvc"), "both"),
        (row(1, 0, "simswap-wav2lip", "real"), "face_swap"),
        (row(1, 0, "wav2lip-unheardof", "real"), None),
    ],
)
def test_family_follows_labels_then_generator(clip, family):
    assert family_of(clip) == family
    assert family is None or family in FAMILIES


@pytest.mark.parametrize(
    "generator",
    [
        "faceswap", "fsgan", "wav2lip", "faceswap-wav2lip", "fsgan-wav2lip", "echomimic", "inswapper",
        "liveportrait", "memo", "hififace", "roop", "sonic", "faceswap-gan", "Talklip", "diff2lip",
        "video_retalking", "infoswap-wav2lip", "roop-wav2lip", "simswap-wav2lip", "dfl", "dffs", "fo",
        "audio-driven", "facefusion", "facefusion_gan", "facefusion_live", "retalking", "hellomeme", "latentsync",
    ],
)  # fmt: skip
def test_every_picture_generator_of_the_corpora_has_a_family(generator):
    assert picture_family(generator) in FAMILIES


def test_every_family_can_be_named_as_a_generator():
    for family in ("face_swap", "reenactment", "face_editing", "entire_synthesis"):
        assert picture_family(family) == family


def test_names_are_written_as_people_do():
    assert generator_name("wav2lip") == "Wav2Lip"
    assert generator_name("faceswap-wav2lip") == "FaceSwap and Wav2Lip"
    assert generator_name("something-else") == "something-else"
