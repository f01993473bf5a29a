"""Write small copies of DeepfakeTIMIT and VidTIMIT, as unpacked and as video files."""

from __future__ import annotations

from pathlib import Path

from dataset_factory import touch

# As in the real corpus; the donor in a speaker's file names is the other one of the pair.
PAIRS = (
    ("fadg0", "fram1"),
    ("faks0", "fkms0"),
    ("fcft0", "fjas0"),
    ("fdms0", "fedw0"),
    ("mccs0", "mrjo0"),
    ("mdab0", "mstk0"),
    ("mjar0", "msjs1"),
    ("mpgl0", "mtas1"),
)
OTHERS = ("felc0", "mwbt0")  # speakers of VidTIMIT who are in no fake
SENTENCES = ("sa1", "sa2", "si649", "sx109")
QUALITIES = ("higher_quality", "lower_quality")


def fake_clips(pairs=PAIRS) -> list[tuple[str, str, str]]:
    """Return (speaker, sentence, donor) of the fakes of one quality."""
    both = [*pairs, *((two, one) for one, two in pairs)]
    return [(speaker, sentence, donor) for speaker, donor in sorted(both) for sentence in SENTENCES]


def write_deepfake_timit(root: Path, pairs=PAIRS, qualities=QUALITIES) -> None:
    """Write the fakes, `.avi` beside `.wav`, and files that the real copy has beside them."""
    for quality in qualities:
        for speaker, sentence, donor in fake_clips(pairs):
            touch(root / quality / speaker / f"{sentence}-video-{donor}.avi")
            touch(root / quality / speaker / f"{sentence}.wav")
    touch(root / "README.txt")
    touch(root / "fadg0-sa1-original.mov")


def write_vidtimit(root: Path, speakers: tuple[str, ...] | None = None) -> None:
    """Write the genuine clips as others have encoded them: `<speaker>/<sentence>.avi`, sound in `audio/`."""
    for speaker in speakers or (*sum(PAIRS, ()), *OTHERS):
        for sentence in SENTENCES:
            touch(root / speaker / f"{sentence}.avi")
            touch(root / speaker / "audio" / f"{sentence}.wav")
        touch(root / speaker / "head.avi")


def write_vidtimit_images(
    root: Path, speaker: str, sentence: str, images: list[bytes], suffix: str = ""
) -> None:
    """Write one clip as unpacked: numbered JPEG images, a sound file, and a turn of the head without sound."""
    for number, image in enumerate(images, start=1):
        path = root / speaker / "video" / sentence / f"{number:03d}{suffix}"
        touch(path)
        path.write_bytes(image)
    touch(root / speaker / "audio" / f"{sentence}.wav")
    touch(root / speaker / "video" / "head" / f"001{suffix}")
