"""Write small copies of AV-Deepfake1M and AV-Deepfake1M++."""

from __future__ import annotations

import json
from pathlib import Path

from dataset_factory import touch

KINDS = {  # modify_type -> file name in the first edition, picture modified, sound modified
    "real": ("real", False, False),
    "visual_modified": ("fake_video_real_audio", True, False),
    "audio_modified": ("real_video_fake_audio", False, True),
    "both_modified": ("fake_video_fake_audio", True, True),
}


def _row(kind: str, file: str, original: str | None, split: str) -> dict[str, object]:
    _, picture, sound = KINDS[kind]
    seen, heard = ([[1.5, 1.75]] if picture else []), ([[1.5, 1.875]] if sound else [])
    return {
        "file": file,
        "original": original,
        "split": split,
        "modify_type": kind,
        "audio_model": "yourtts" if sound else None,
        "fake_segments": heard or seen,
        "audio_fake_segments": heard,
        "visual_fake_segments": seen,
        "video_frames": 120,
        "audio_frames": 76_800,
    }


def first_edition_rows(split: str, clips: int = 3) -> list[dict[str, object]]:
    """Return rows of `<split>_metadata.json`: every kind of fake for each genuine clip."""
    rows = []
    for n in range(clips):
        folder = f"id{(12 if split == 'train' else 900) + n:05d}/21Uxsk56VDQ/{n:05d}"
        for kind, (name, _, _) in KINDS.items():
            original = None if kind == "real" else f"{folder}/real.mp4"
            rows.append(_row(kind, f"{folder}/{name}.mp4", original, split))
    return rows


def second_edition_rows(split: str) -> list[dict[str, object]]:
    """Return rows of `<split>_metadata.json` of every origin, with originals inside and outside the release."""
    clips = {
        "vox_celeb_2/id00017/01dfn2spqyE/00001": "VoxCeleb2/dev/mp4/id00017/01dfn2spqyE/00001.mp4",
        "lrs3/0Fi83BHQsMA/00002": "lrs3/0Fi83BHQsMA/00002/real.mp4",
        "silent_videos/subject_12_3fa9_vid_4_0": "silent_videos/subject_12_3fa9_vid_4_0/real.mp4",
    }
    models = {"visual_modified": "diff2lip", "both_modified": "Talklip"}
    rows = []
    for folder, original in clips.items():
        for kind, (name, _, _) in KINDS.items():
            row = _row(kind, f"{folder}/{name}.mp4", original, split)
            row["video_model"] = models.get(kind)
            if folder.startswith("silent_videos"):
                row["audio_frames"] = 0
            rows.append(row)
    return rows


def write_part(root: Path, split: str, rows: list[dict[str, object]], inside: str = "") -> list[dict]:
    """Write one part: its metadata, and its clips with a file of metadata for each."""
    root.mkdir(parents=True, exist_ok=True)
    (root / f"{split}_metadata.json").write_text(json.dumps(rows, indent=2))
    for row in rows:
        path = root / split / inside / str(row["file"])
        touch(path)
        touch(path.with_suffix(".json"))
    return rows


def write_test(root: Path) -> None:
    """Write the unlabelled test split of the first edition."""
    touch(root / "test" / "000000.mp4")
    (root / "test_files.txt").write_text("000000.mp4\n")
