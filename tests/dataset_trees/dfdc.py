"""Write small copies of DFDC: parts for training, validation and test."""

from __future__ import annotations

import csv
import json
from pathlib import Path

from dataset_factory import touch


def file_name(number: int) -> str:
    """Return a name of ten letters, as in the release."""
    letters = ""
    for _ in range(10):
        number, letter = divmod(number * 7 + 3, 26)
        letters += chr(ord("a") + letter)
    return f"{letters}.mp4"


def part_rows(part: int, clips: int = 6) -> dict[str, dict[str, object]]:
    """Return a part's `metadata.json`: every third clip is genuine, every second of these with a null original."""
    names = [file_name(1_000 * part + i) for i in range(clips)]
    rows: dict[str, dict[str, object]] = {}
    for i, name in enumerate(names):
        if i % 3 == 0:
            rows[name] = {"label": "REAL", "split": "train"}
            if i % 2:
                rows[name]["original"] = None
        else:
            rows[name] = {"label": "FAKE", "split": "train", "original": names[i - i % 3]}
    return rows


def write_part(folder: Path, part: int, rows: dict[str, dict[str, object]] | None = None) -> dict[str, dict]:
    """Write a part, its clips beside its table."""
    rows = part_rows(part) if rows is None else rows
    for name in rows:
        touch(folder / name)
    touch(folder / "metadata.json")
    (folder / "metadata.json").write_text(json.dumps(rows))
    return rows


def held_out_rows(split: str, clips: int = 6) -> list[tuple[str, int]]:
    """Return (file, 0 or 1) of validation or test."""
    first = {"validation": 60_000, "test": 70_000}[split]
    return [(file_name(first + i), i % 2) for i in range(clips)]


def write_held_out(root: Path, split: str) -> list[tuple[str, int]]:
    """Write validation or test with `labels.csv`."""
    rows = held_out_rows(split)
    for name, _ in rows:
        touch(root / split / name)
    with open(root / split / "labels.csv", "w", newline="") as file:
        csv.writer(file).writerows([("filename", "label"), *rows])
    return rows


def write_dfdc(root: Path, parts: tuple[int, ...] = (0, 7, 49), held_out=("validation", "test")) -> None:
    """Write a copy with some parts, and folders of the challenge that do not belong to the corpus."""
    for part in parts:
        write_part(root / f"dfdc_train_part_{part}", part)
    for split in held_out:
        write_held_out(root, split)
    touch(root / "train_sample_videos" / file_name(1))
    touch(root / "dfdc_train_part_12.zip")
