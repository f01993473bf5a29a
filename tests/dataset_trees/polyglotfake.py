"""Write a small copy of PolyGlotFake: `real/<language>`, `fake/to_<language>` and the json files."""

from __future__ import annotations

import json
from pathlib import Path

from dataset_factory import touch

LANGUAGES = ("ar", "en", "es", "fr", "ja", "ru", "zh")
# Spelling in the names -> spelling in the json files.
SPEECH = {"Bark": "Bark", "Micro": "MicroTts", "Tacotron": "Tacotron", "Vall": "Vall", "Xtts": "Xtts"}
SYNC = ("Wav2Lip", "video_retalking")


def polyglot_clips(per_language: int = 10) -> list[dict[str, object]]:
    """Return the entries of the json files, and the `folder` of each clip. Clips 1 and 2 are from one video."""
    clips: list[dict[str, object]] = []
    for place, language in enumerate(LANGUAGES):
        for n in range(1, per_language + 1):
            name = f"{language}_{n}"
            clips.append(
                {
                    "folder": f"real/{language}",
                    "filename": f"{name}.mp4",
                    "lang": language,
                    "duration": "00:00:10",
                    "source": f"URL:https://video.example/{language}/{max(n, 2)}",
                    "characters": [{"age": 20 + n, "sex": "female"}, {"age": 5, "sex": "male"}],
                }
            )
            for step in (1, 2):
                target = LANGUAGES[(place + step) % len(LANGUAGES)]
                speech = list(SPEECH)[(n + step) % len(SPEECH)]
                clips.append(
                    {
                        "folder": f"fake/to_{target}",
                        "filename": f"{name}_to_{target}_{speech}.mp4",
                        "raw_lang": language,
                        "target_lang": target,
                        "tts_technique": SPEECH[speech],
                        "sync_tech": SYNC[n % 2],
                    }
                )
    return clips


def write_polyglotfake(
    root: Path, clips: list[dict[str, object]] | None = None, with_json: bool = True, below: str = ""
) -> list[dict[str, object]]:
    """Write a copy below `root`, its clips in the folder `below`, and return what the json files say."""
    clips = polyglot_clips() if clips is None else clips
    for clip in clips:
        touch(root / below / str(clip["folder"]) / str(clip["filename"]))
    touch(root / below / "real" / "readme.txt")
    if with_json:
        write_json(root, clips)
    return clips


def write_json(root: Path, clips: list[dict[str, object]]) -> None:
    """Write the two json files, whose lists have different keys."""
    entries = [{key: value for key, value in clip.items() if key != "folder"} for clip in clips]
    for folder, name, key, of_fakes in (
        ("real_json_file", "all_real_video.json", "videos", False),
        ("fake_Json_file", "all_fake_video.json", "video", True),
    ):
        path = root / "json_file" / folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        listed = [entry for entry in entries if ("_to_" in str(entry["filename"])) == of_fakes]
        path.write_text(json.dumps({"version": "1.0", key: listed}), encoding="utf-8")
