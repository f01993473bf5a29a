"""Write small copies of LAV-DF."""

from __future__ import annotations

import json
from pathlib import Path

from dataset_factory import touch

SPLITS = ("train", "dev", "test")


def lav_df_rows(groups: int = 2) -> list[dict[str, object]]:
    """Return rows of `metadata.min.json`: in each split some genuine clips, each with a fake of every kind."""
    rows: list[dict[str, object]] = []
    for split in SPLITS:
        for _ in range(groups):
            genuine = f"{split}/{len(rows):06d}.mp4"
            for video, audio in ((False, False), (True, False), (False, True), (True, True)):
                fake = video or audio
                rows.append(
                    {
                        "file": f"{split}/{len(rows):06d}.mp4",
                        "n_fakes": 2 if fake else 0,
                        "fake_periods": [[0.5, 0.9], [2, 2.25]] if fake else [],
                        "duration": 4.224,
                        "original": genuine if fake else None,
                        "modify_video": video,
                        "modify_audio": audio,
                        "split": split,
                        "video_frames": 103,
                        "audio_channels": 1,
                        "audio_frames": 65_536,
                    }
                )
    return rows


def write_lav_df(root: Path, rows: list[dict[str, object]] | None = None, full: bool = False) -> list[dict]:
    """Write a copy; `full` writes `metadata.json`, which adds transcripts, instead of the minimal table."""
    rows = lav_df_rows() if rows is None else rows
    root.mkdir(parents=True, exist_ok=True)
    if full:
        words = {"transcript": 'he said "no"', "timestamps": [["he", 0.1, 0.2]]}
        (root / "metadata.json").write_text(json.dumps([{**row, **words} for row in rows], indent=1))
    else:
        (root / "metadata.min.json").write_text(json.dumps(rows, separators=(",", ":")))
    for row in rows:
        touch(root / str(row["file"]))
    touch(root / "README.md")
    return rows
