"""The tasks of instruction data, and the families of manipulation.

The four families of the picture are those of DF40 (arXiv:2406.13495) and DFA-Instruct (arXiv:2501.01164). `voice` and
`both` are for sound and are our own choice.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

TASKS = ("detection", "classification", "description", "conversation")
"""The tasks of instruction data, after DFA-Instruct."""

FAMILIES: dict[str, str] = {
    "genuine": "genuine",
    "face_swap": "face swap",
    "reenactment": "reenactment or lip-sync",
    "face_editing": "face editing",
    "entire_synthesis": "entire synthesis",
    "voice": "voice conversion or cloned speech",
    "both": "both picture and sound",
}
"""Key of each family, with its name in texts."""

# Generators of pictures: first those of the corpora in `dataset_scripts`, spelled as there, then those that DF40 lists.
# The key of a family works too, so that your own folder can name a family in place of a generator.
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

# Usual spellings; other names are written as in the corpus.
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
    """
    Return the family of a row of any dataset of this package.

    Labels come first: a fake picture with a fake sound is `both`, a fake sound with a genuine picture is `voice`. A fake
    picture alone has the family of its generator. A combination such as `faceswap-wav2lip` has the family of its first
    part, which decides whose face is seen. See [`track_labels`] for corpora that label only one track.

    Args:
        row (`Mapping`):
            With `label`, `video_label`, `audio_label`, `generator` and `audio_generator` as in `dataset_scripts.schema`.

    Returns:
        `str`, *optional*: a key of [`FAMILIES`], or None if labels and generator do not tell.
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
    """
    Return the labels of picture and sound, 0 real and 1 fake, or None where nothing tells.

    A missing label is inferred from the generator's name (any name but `real` means fake), or else from the other track:
    a fake with one genuine track has its other track forged. The first MAVOS-DD, for example, does not label its sound.
    """
    labels = []
    for label, generator in (("video_label", "generator"), ("audio_label", "audio_generator")):
        value, name = row.get(label), row.get(generator)
        if value is None and name:
            value = int(_plain(str(name)) != "real")
        labels.append(value)
    if row["label"] == 1 and 0 in labels and None in labels:
        labels[labels.index(None)] = 1
    return labels[0], labels[1]


def picture_family(generator: str | None) -> str | None:
    """Return the family of a picture's generator, or of the first of several joined by `-` or `+`; None if any is unknown."""
    if not generator:
        return None
    whole = _FAMILY_OF.get(_plain(generator))
    if whole is not None:
        return whole
    parts = [_FAMILY_OF.get(_plain(part)) for part in re.split(r"[-+]", generator) if part]
    return parts[0] if parts and None not in parts else None


def generator_name(generator: str) -> str:
    """Return a generator's name in its usual spelling: `faceswap-wav2lip` becomes `FaceSwap and Wav2Lip`."""
    whole = _DISPLAY.get(_plain(generator))
    if whole is not None:
        return whole
    parts = [_DISPLAY.get(_plain(part)) for part in re.split(r"[-+]", generator) if part]
    return " and ".join(parts) if len(parts) > 1 and None not in parts else generator  # type: ignore[arg-type]
