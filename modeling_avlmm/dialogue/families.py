"""The families of manipulation, and which one a clip belongs to.

The four families of the picture are those of DF40 (arXiv:2406.13495) and DFA-Instruct (arXiv:2501.01164); `voice` and
`both` are what sound adds, our own choice. A family is read from the labels and the name of the generator, and is None
where they do not tell.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

# Key -> name for people.
FAMILIES: dict[str, str] = {
    "genuine": "genuine",
    "face_swap": "face swap",
    "reenactment": "reenactment or lip-sync",
    "face_editing": "face editing",
    "entire_synthesis": "entire synthesis",
    "voice": "voice conversion or cloned speech",
    "both": "both picture and sound",
}

# Generators of a picture. First those of the corpora of `dataset_scripts`, spelled as there; then those that DF40 lists.
# A family's own key is understood too, so that a folder of one's own can name the family where a generator is asked for.
_PICTURE: dict[str, tuple[str, ...]] = {
    "face_swap": (
        "faceswap", "fsgan",  # FakeAVCeleb, KoDF; FSGAN can reenact too, these corpora swap with it
        "faceswap-gan",  # DF-TIMIT
        "inswapper", "hififace", "roop",  # MAVOS-DD
        "infoswap", "simswap",  # IDForge
        "dfl", "dffs",  # KoDF: DeepFaceLab, FaceSwap
        "facefusion", "facefusion_gan", "facefusion_live",  # DeepSpeak
        "blendface", "uniface", "mobileswap", "e4s", "facedancer", "deepfacelab",
        "face_swap",
    ),
    "reenactment": (
        "wav2lip",  # FakeAVCeleb, LAV-DF, PolyGlotFake, IDForge, DeepSpeak
        "talklip", "diff2lip",  # AV-Deepfake1M and its second edition
        "video_retalking", "retalking", "latentsync",  # PolyGlotFake, DeepSpeak
        "echomimic", "liveportrait", "memo", "sonic", "hellomeme",  # MAVOS-DD, DeepSpeak
        "fo", "audio-driven",  # KoDF: First Order Motion Model; ATFHP and Wav2Lip
        "fomm", "facevid2vid", "mraa", "oneshot", "pirender", "tpsmm", "lia", "dagan", "sadtalker", "mcnet",
        "hyperreenact", "heygen",
        "reenactment", "lipsync",
    ),
    "face_editing": ("collabdiff", "e4e", "stargan", "starganv2", "styleclip", "face_editing"),
    "entire_synthesis": (
        "vqgan", "stylegan2", "stylegan3", "styleganxl", "sd2.1", "ddpm", "rddm", "pixart", "dit", "sit",
        "midjourney", "midjourney6", "whichfaceisreal", "entire_synthesis",
    ),
}  # fmt: skip

# How people write the names; others are written as the corpus does.
_DISPLAY: dict[str, str] = {
    "faceswap": "FaceSwap", "fsgan": "FSGAN", "faceswapgan": "faceswap-GAN", "inswapper": "InSwapper",
    "hififace": "HifiFace", "roop": "Roop", "infoswap": "InfoSwap", "simswap": "SimSwap", "dfl": "DeepFaceLab",
    "dffs": "FaceSwap", "facefusion": "FaceFusion", "wav2lip": "Wav2Lip", "talklip": "TalkLip",
    "diff2lip": "Diff2Lip", "videoretalking": "VideoReTalking", "retalking": "VideoReTalking",
    "latentsync": "LatentSync", "echomimic": "EchoMimic", "liveportrait": "LivePortrait", "memo": "MEMO",
    "sonic": "Sonic", "hellomeme": "HelloMeme", "fo": "First Order Motion Model",
    "rtvc": "SV2TTS", "sv2tts": "SV2TTS", "yourtts": "YourTTS", "vits": "VITS", "rvc": "RVC",
    "tortoise": "Tortoise", "freevc": "FreeVC", "knnvc": "kNN-VC", "xtts": "XTTS", "xttsv2": "XTTS v2",
    "bark": "Bark", "tacotron": "Tacotron", "microtts": "MicroTTS", "vallex": "VALL-E X", "openvoice": "OpenVoice",
}  # fmt: skip


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


_FAMILY_OF = {_plain(name): family for family, names in _PICTURE.items() for name in names}


def family_of(row: Mapping[str, Any]) -> str | None:
    """The family of a row of any dataset of this package.

    What the labels say comes first: a fake picture with a fake sound is `both`, a fake sound with a genuine picture
    `voice`. A fake picture alone has the family of its generator; of a combination such as `faceswap-wav2lip` that of
    the first part, which decides whose face is seen. Where a corpus does not label one track (the sound of the first
    MAVOS-DD), the other one decides. A generator other than `real` makes a track without a label fake.

    Args:
        row (`Mapping`):
            With `label`, `video_label`, `audio_label`, `generator` and `audio_generator` as in `dataset_scripts.schema`.

    Returns:
        `str`, *optional*: a key of [`FAMILIES`], or None where labels and generator do not tell it.
    """
    if row["label"] == 0:
        return "genuine"
    picture, sound = track_labels(row)
    if picture == 1 and sound == 1:
        return "both"
    if sound == 1:
        return "voice"
    return picture_family(row.get("generator")) if picture == 1 else None


def track_labels(row: Mapping[str, Any]) -> tuple[int | None, int | None]:
    """Labels of picture and sound: those of the row, else what the name of a generator says, else what follows from
    the other track; None where nothing tells."""
    labels = []
    for label, generator in (("video_label", "generator"), ("audio_label", "audio_generator")):
        value, name = row.get(label), row.get(generator)
        if value is None and name:
            value = int(_plain(str(name)) != "real")
        labels.append(value)
    if row["label"] == 1 and 0 in labels and None in labels:  # one track is fake, and it is not the other
        labels[labels.index(None)] = 1
    return labels[0], labels[1]


def picture_family(generator: str | None) -> str | None:
    """Family of a generator of pictures, or of the first of several joined by `-` or `+`; None where one is not known."""
    if not generator:
        return None
    whole = _FAMILY_OF.get(_plain(generator))
    if whole is not None:
        return whole
    parts = [_FAMILY_OF.get(_plain(part)) for part in re.split(r"[-+]", generator) if part]
    return parts[0] if parts and None not in parts else None


def generator_name(generator: str) -> str:
    """A generator as people write it: `faceswap-wav2lip` -> `FaceSwap and Wav2Lip`."""
    whole = _DISPLAY.get(_plain(generator))
    if whole is not None:
        return whole
    parts = [_DISPLAY.get(_plain(part)) for part in re.split(r"[-+]", generator) if part]
    return " and ".join(parts) if len(parts) > 1 and None not in parts else generator  # type: ignore[arg-type]
