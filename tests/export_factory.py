"""Helpers for tests of the export: write small corpora, export them and read them back."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import datasets
from dataset_factory import rows_of
from datasets import load_dataset

import dataset_scripts
from dataset_scripts.export.export import ExportOptions
from dataset_scripts.export.export import export as export_with_options

ROOT = Path(__file__).parents[1]
FORMATS = ["parquet", "webdataset"]
dataset_scripts.register()
datasets.disable_progress_bars()


def export(dataset: str, data_dir: Path, output_dir: Path, protocols: list[str] | None = None, **settings):
    """Export with `settings` of [`ExportOptions`] and of the builder."""
    names = {field.name for field in fields(ExportOptions)} & settings.keys()
    options = ExportOptions(**{name: settings.pop(name) for name in names})
    return export_with_options(dataset, data_dir, output_dir, protocols, options, **settings)


def unique(clip: bytes, number: int) -> bytes:
    """Append a box that players skip, so that no two files are equal."""
    text = f"{number:08d}".encode()
    return clip + (8 + len(text)).to_bytes(4, "big") + b"free" + text


def fill(root: Path, clip: bytes) -> None:
    """Write the clip into every mp4 file below `root`."""
    for number, path in enumerate(sorted(root.rglob("*.mp4"))):
        path.write_bytes(unique(clip, number))


def builder_rows(dataset: str, root: Path, protocol: str, **config) -> dict[str, dict[str, dict]]:
    """Return split -> path -> row of the builder, with the files' content in place of their paths."""
    splits = load_dataset(dataset, protocol, data_dir=str(root), streaming=True, **config)
    found = {}
    for split, rows in splits.items():
        found[split] = {}
        for row in rows_of(rows):
            sound = row.pop("audio")
            row["video"] = Path(row["video"]["path"]).read_bytes()
            row["audio"] = None if sound is None else Path(sound).read_bytes()
            found[split][row["path"]] = row
    return found


def exported_rows(folder: Path, protocol: str) -> dict[str, dict[str, dict]]:
    """Return the same from an export, in either format."""
    found = {}
    for split, rows in load_dataset(str(folder), protocol, streaming=True).items():
        for name, feature in rows.features.items():
            if isinstance(feature, datasets.Video | datasets.Audio):
                rows = rows.cast_column(name, type(feature)(decode=False))
        found[split] = {}
        for row in rows:
            media = {
                name: value["bytes"]
                for name, value in row.items()
                if isinstance(value, dict) and name != "json"
            }
            if "json" in row:
                sounds = {name: value for name, value in media.items() if name in ("wav", "flac")}
                (video,) = (value for name, value in media.items() if name not in sounds)
                media = {"video": video, "audio": next(iter(sounds.values()), None)}
                row = row["json"]
            row = {**row, "audio": None, **media}
            assert row["path"] not in found[split]
            found[split][row["path"]] = row
    return found


def tree(folder: Path) -> dict[str, bytes]:
    """Return every file of an export; the day it was made is masked."""
    files = {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
    day = json.loads(files["export.json"])["started"].encode()
    return {
        name: data.replace(day, b"DAY") if not name.startswith("data/") else data
        for name, data in files.items()
    }


def run(*arguments: str | Path, cwd: Path, **environment: str) -> subprocess.CompletedProcess:
    """Run Python offline, with this checkout."""
    variables = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
        **environment,
    }
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env=variables, capture_output=True, text=True, timeout=120)
