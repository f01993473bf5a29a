"""Write small copies of the corpora, in their true layout and with their true file names.

Files are empty unless a test decodes them: the builders read only names and metadata.
"""

from __future__ import annotations

import csv
from pathlib import Path

import datasets
import torch
from torchcodec.encoders import VideoEncoder

from dataset_scripts.errors import CorpusWarning

RACES = ("African", "Asian (East)", "Asian (South)", "Caucasian (American)", "Caucasian (European)")
GENDERS = ("men", "women")
FAKEAVCELEB_HEADER = "source,target1,target2,method,category,type,race,gender,path,"

FIRST_COLUMNS = (
    "video_path",
    "label",
    "split",
    "open_set_model",
    "open_set_language",
    "language",
    "generative_method",
)
_SECOND_COLUMNS = ("audio_generative_method", "audio_fake", "video_fake")


def write_clip(path: Path, frames: int = 8) -> None:
    """Write a playable clip of 64 x 48 pixels at 25 frames per second."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = torch.arange(frames, dtype=torch.uint8).mul(20)[:, None, None, None].expand(frames, 3, 48, 64)
    VideoEncoder(pixels.contiguous(), frame_rate=25).to_file(str(path))


def touch(path: Path) -> None:
    """Write an empty file and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def fakeavceleb_rows(people_per_group: int = 5, fakes: bool = True) -> list[list[str]]:
    """Return rows of `meta_data.csv`, of ten columns, for every group of race and gender.

    With `fakes`, each person has the eight kinds of file of the corpus. The second person of each group has one more,
    which is listed twice, as `faceswap-wav2lip` and as `wav2lip`.
    """
    rows = []
    number = 0
    for race in RACES:
        for gender in GENDERS:
            for member in range(people_per_group):
                number += 1
                # The numbers are not in the order of the rows.
                person, other, voice = (f"id{(number * k) % 10007:05d}" for k in (76, 173, 475))
                clip = f"{number:05d}"
                files = [
                    ("-", "-", "real", "A", "RealVideo-RealAudio", f"{clip}.mp4"),
                    ("fake.mp4", "-", "rtvc", "B", "RealVideo-FakeAudio", f"{clip}_fake.mp4"),
                ]
                if fakes:
                    c, d = "FakeVideo-RealAudio", "FakeVideo-FakeAudio"
                    swap = f"{clip}_{other}_01aVtyjfVFM_faceswap"
                    files += [
                        ("1.mp4", "-", "faceswap", "C", c, f"{clip}_1.mp4"),
                        (other, "-", "fsgan", "C", c, f"{clip}_{other}_UHoMXLSjlDo.mp4"),
                        (other, "-", "wav2lip", "C", c, f"{clip}_{other}_wavtolip.mp4"),
                        (other, "-", "wav2lip", "D", d, f"{clip}_{other}_wavtolip.mp4"),
                        (other, "faceswap", "faceswap-wav2lip", "D", d, f"{swap}_{voice}_wavtolip.mp4"),
                        (
                            other,
                            voice,
                            "fsgan-wav2lip",
                            "D",
                            d,
                            f"{clip}_{other}_UHoMXLSjlDo_{voice}_wavtolip.mp4",
                        ),
                    ]
                    if member == 1:
                        twice = f"{clip}_{voice}_wavtolip.mp4"
                        files += [
                            (voice, "-", "faceswap-wav2lip", "D", d, twice),
                            (voice, "-", "wav2lip", "D", d, twice),
                        ]
                for target1, target2, method, category, kind, name in files:
                    folder = f"FakeAVCeleb/{kind}/{race}/{gender}/{person}"
                    rows.append(
                        [person, target1, target2, method, category, kind, race, gender, name, folder]
                    )
    return rows


def write_fakeavceleb(
    root: Path,
    rows: list[list[str]] | None = None,
    header: str | None = FAKEAVCELEB_HEADER,
    rename_race=lambda race: race,
) -> list[list[str]]:
    """Write a copy of FakeAVCeleb below `root` and return the rows of its metadata."""
    rows = fakeavceleb_rows() if rows is None else rows
    root.mkdir(parents=True, exist_ok=True)
    with open(root / "meta_data.csv", "w", newline="", encoding="utf-8") as file:
        if header is not None:
            file.write(header + "\r\n")
        csv.writer(file, lineterminator="\r\n").writerows(rows)
    for row in rows:
        touch(root / row[5] / rename_race(row[6]) / row[7] / row[0] / row[8])
    # The real copy has text files next to the genuine clips.
    for row in rows:
        if row[4] == "A":
            touch(root / row[5] / rename_race(row[6]) / row[7] / row[0] / f"{row[0]}.txt")
    return rows


def mavos_rows(release: int) -> list[dict[str, object]]:
    """Return rows of the saved table: all cells of the test split, and in release 2 sound-only fakes in `real` folders."""
    rows = []
    known = [("arabic", "real"), ("arabic", "inswapper"), ("english", "real"), ("english", "memo")]
    cells = [
        ("train", False, False, known, 6),
        ("validation", False, False, known, 2),
        ("test", False, False, known, 3),
        ("test", True, False, [("arabic", "roop"), ("english", "sonic")], 4),
        ("test", False, True, [("german", "real"), ("hindi", "memo")], 3),
        ("test", True, True, [("german", "hififace")], 2),
    ]
    for split, model, language_open, kinds, count in cells:
        for language, method in kinds:
            for i in range(count):
                name = f"{len(rows):05d}.png_Po82BhllEjA_340_{i}.mp4.mp4"
                row = dict(
                    zip(
                        FIRST_COLUMNS,
                        (
                            f"{language}/{method}/{name}",
                            "real" if method == "real" else "fake",
                            split,
                            model,
                            language_open,
                            language,
                            method,
                        ),
                        strict=True,
                    )
                )
                if release == 2:
                    sound_only = method == "real" and i == 1
                    voice = "freevc" if sound_only or method == "memo" else "real"
                    row.update(zip(_SECOND_COLUMNS, (voice, voice != "real", method != "real"), strict=True))
                    if sound_only:
                        row["label"] = "fake"
                rows.append(row)
    return rows


def write_mavos(
    root: Path, release: int = 1, rows: list[dict[str, object]] | None = None
) -> list[dict[str, object]]:
    """Write a copy of MAVOS-DD below `root` and return the rows of its table."""
    rows = mavos_rows(release) if rows is None else rows
    datasets.Dataset.from_list(rows).save_to_disk(str(root))
    for name in ("README.md", "dataset.py", "metadata_generation.py"):
        touch(root / name)
    for row in rows:
        touch(root / str(row["video_path"]))
    return rows


def rows_of(dataset) -> list[dict[str, object]]:
    """Return all rows of a split, streamed or not, undecoded: `video` is the value stored in Arrow."""
    return list(dataset.cast_column("video", datasets.Video(decode=False)))


def streamed(
    name: str, root: Path, protocol: str | None = None, **settings
) -> dict[str, list[dict[str, object]]]:
    """Stream a copy of a corpus and return the rows of each split, undecoded."""
    settings = {"cache_dir": str(Path(root).parent / "cache"), **settings}
    found = datasets.load_dataset(name, protocol, data_dir=str(root), streaming=True, **settings)
    return {split: rows_of(rows) for split, rows in found.items()}


def corpus_notes(caught) -> list[str]:
    """Return the messages of the builders' warnings among all that were caught."""
    return [str(warning.message) for warning in caught if issubclass(warning.category, CorpusWarning)]
