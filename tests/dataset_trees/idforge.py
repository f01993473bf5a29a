"""Write a small copy of IDForge v1: `main/` with the folders of its archives, and the lists of its repository."""

from __future__ import annotations

from pathlib import Path

from dataset_factory import touch

SWAPS = ("infoswap", "roop", "simswap")


def idforge_lists() -> dict[str, list[str]]:
    """Return the lines of each list: two people, all eleven kinds, the three forms of a shot's name."""
    lists: dict[str, list[str]] = {}
    for number, name in enumerate(("train", "val", "test")):
        lines = []
        for person in (f"id{2 * number:02d}", f"id{2 * number + 1:02d}"):
            session = f"{person}/{person}_03"
            shots = [f"{person}_scene_0012-{i}" for i in range(3)] + [
                f"{person}_scene_0058",
                f"{person}_03-314",
            ]
            lines += [f"pristine/{session}/{shot}.mp4" for shot in shots]
            for kind in ("face_audiomismatch_textmismatch", "face_rvc_textmismatch", "face_tts_textgen"):
                lines += [
                    f"{kind}/{session}/{person}_scene_0015_{i}_{swap}.mp4" for i, swap in enumerate(SWAPS)
                ]
            lines.append(f"face_tts/{session}/{person}_scene_0017_0_roop.mp4")
            lines.append(f"lip_audiomismatch_textmismatch/{session}/{shots[0]}.mp4")
            lines.append(f"lip_rvc_textmismatch/{session}/{shots[1]}.mp3.mp4")
            lines.append(f"lip_tts_textgen/{session}/{shots[2]}.mp4")
            lines.append(f"rvc_textmismatch/{session}/{shots[3]}.mp3.mp4")
            lines.append(f"tts_textgen/{session}/{shots[4]}.mp4")
            lines.append(
                f"tts_textmismatch/{session}/{person}_scene_0099-7.mp4"
            )  # its shot is not in the release
        lists[name] = lines
    return lists


def write_idforge(
    root: Path, lists: dict[str, list[str]] | None = None, place: str = "main"
) -> dict[str, list[str]]:
    """Write a copy below `root`, with the lists in its folder `place`, and return their lines."""
    lists = idforge_lists() if lists is None else lists
    for name, lines in lists.items():
        (root / place).mkdir(parents=True, exist_ok=True)
        (root / place / f"{name}.csv").write_text("".join(f"{line}\n" for line in lines))
        for line in lines:
            touch(root / "main" / line)
    touch(root / "main" / "pristine.zip")
    touch(root / "main" / "pristine" / "id00" / ".DS_Store")
    touch(
        root / "ref" / "id00" / "id00_30" / "id00_scene_0001-0.mp4"
    )  # the reference set, unpacked beside it
    return lists


def write_idforge_v2(root: Path) -> None:
    """Write a copy of v2, where a folder has the name of a clip."""
    clip = root / "train" / "face_tts" / "id53" / "id53_08" / "id53_scene_0092_0_roop.mp4"
    for name in ("frames_ndarray.npy", "id53_scene_0092_0_roop.mp3", "id53_scene_0092_0_roop.txt"):
        touch(clip / name)
