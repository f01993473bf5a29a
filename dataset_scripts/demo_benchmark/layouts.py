"""Plan the clips of the demonstration benchmark, and write its metadata, in the layouts of the corpora it copies."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from .face import FRAME_RATE, SKIN
from .forgery import DrawnClip, truth, utterance_of
from .speech import LANGUAGES, SAMPLE_RATE, name_seed

FAKEAVCELEB, MAVOS_DD, LAV_DF = "fakeavceleb", "mavos_dd", "lav_df"
GROUPS = [(race, gender) for race in SKIN for gender in ("men", "women")]
TYPES = {
    "A": "RealVideo-RealAudio",
    "B": "RealVideo-FakeAudio",
    "C": "FakeVideo-RealAudio",
    "D": "FakeVideo-FakeAudio",
}
OPEN_LANGUAGES = ("german", "hindi")
IN_DOMAIN_METHODS = ("echomimic", "inswapper", "liveportrait", "memo")
OPEN_METHODS = ("hififace", "roop", "sonic")
PICTURE_METHODS = ("faceswap", "fsgan", "wav2lip")
"""Methods of a forged picture with genuine sound in FakeAVCeleb."""
# MAVOS-DD clips per language: (split, open-set language?, (reals, in-domain fakes, open-set fakes), identities).
MAVOS_CELLS = (
    ("train", False, (16, 16, 0), 8),
    ("validation", False, (3, 4, 0), 2),
    ("test", False, (6, 4, 3), 3),
    ("test", True, (10, 8, 6), 4),
)

# LAV-DF clips: split -> people for each ten of the FakeAVCeleb copy.
LAV_DF_SHARES = {"train": 1, "dev": 1, "test": 2}
LAV_DF_SECONDS = 6.0
FORGED_SECONDS = (1.5, 3.0)
"""Shortest and longest forged part of a clip of the LAV-DF copy."""

Person = tuple[str, str, str]
"""Name, race and gender."""


def _youtube_id(rng: np.random.Generator) -> str:
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-"
    return "".join(letters[i] for i in rng.integers(len(letters), size=11))


def plan_fakeavceleb(seed: int, identities: int) -> tuple[list[DrawnClip], list[list[str]]]:
    """Plan the FakeAVCeleb copy: its clips, and the rows of `meta_data.csv`, with junk and duplicated rows.

    The corpus has one genuine clip per person. Here each person has three A, two B, three C and three D clips, because
    a model of two million parameters that is trained from scratch needs more genuine clips.

    Args:
        seed (`int`): Seed of the benchmark.
        identities (`int`): Number of people, a positive multiple of 10: the ten (race, gender) groups are equally large.
    """
    if identities < 10 or identities % 10:
        raise ValueError(
            f"identities must be a positive multiple of 10 (ten race and gender groups), got {identities}"
        )
    rng = np.random.default_rng([seed, *name_seed("plan", FAKEAVCELEB)])
    numbers = np.sort(rng.choice(9000, size=identities, replace=False)) + 20
    names = rng.permutation([f"id{number:05d}" for number in numbers])
    people = [(str(name), *GROUPS[k % 10]) for k, name in enumerate(names)]
    people.sort(key=lambda p: (p[1], p[2], p[0]))
    clips: list[DrawnClip] = []
    rows: list[list[str]] = []
    for index, person in enumerate(people):
        peers = [p for p in people if p[1:] == person[1:] and p != person] or [
            p for p in people if p != person
        ]
        own_clips, own_rows = _plan_person(index, person, peers, rng)
        clips += own_clips
        rows += own_rows
    rows.sort(key=lambda row: row[4])
    return clips, rows


def _plan_person(
    index: int, person: Person, peers: list[Person], rng: np.random.Generator
) -> tuple[list[DrawnClip], list[list[str]]]:
    """Plan the eleven clips of one person of the FakeAVCeleb copy; `peers` lend faces and voices."""
    name, race, gender = person
    donors = [peers[int(i)] for i in rng.integers(len(peers), size=8)]
    d = [donor[0] for donor in donors]
    spoken = sorted(set(LANGUAGES) - set(OPEN_LANGUAGES))
    language = spoken[index % len(spoken)]
    first = int(rng.integers(1, 400))
    one, two, three = takes = [f"{first + k:05d}" for k in range(3)]
    tube = _youtube_id(rng)
    number = str(int(rng.integers(1, 12)))
    clips: list[DrawnClip] = []
    rows: list[list[str]] = []

    def add(category: str, method: str, file: str, *targets: str, donor: Person = donors[0]) -> None:
        folder = f"{TYPES[category]}/{race}/{gender}/{name}"
        scene = f"{TYPES['A']}/{race}/{gender}/{name}/{file.removesuffix('.mp4').split('_')[0]}.mp4"
        clips.append(DrawnClip(f"{folder}/{file}", scene, person, donor, language, method, category in "BD"))
        target1, target2 = (*targets, "-", "-")[:2]
        row = [name, target1, target2, method, category, TYPES[category], race, gender, file]
        rows.append([*row, f"FakeAVCeleb/{folder}"])

    for take in takes:
        add("A", "real", f"{take}.mp4")
    for take in takes[:2]:
        add("B", "rtvc", f"{take}_fake.mp4", "fake.mp4")
    if index % 2:
        add("C", "faceswap", f"{one}_{d[0]}_{tube}_faceswap.mp4", d[0])
    else:
        add("C", "faceswap", f"{one}_{number}.mp4", f"{number}.mp4")
    add("C", "fsgan", f"{two}_{d[1]}_{tube}.mp4", d[1], donor=donors[1])
    add("C", "wav2lip", f"{three}_{d[2]}_wavtolip.mp4", d[2], donor=donors[2])
    if index % 2:
        file = f"{two}_{d[3]}_{tube}_faceswap_{d[4]}_wavtolip.mp4"
        add("D", "faceswap-wav2lip", file, d[3], "faceswap", donor=donors[3])
    else:
        add("D", "faceswap-wav2lip", f"{two}_{number}_{d[4]}_wavtolip.mp4", number, donor=donors[3])
    add("D", "fsgan-wav2lip", f"{three}_{d[5]}_{tube}_{d[6]}_wavtolip.mp4", d[5], d[6], donor=donors[5])
    add("D", "wav2lip", f"{one}_{d[7]}_wavtolip.mp4", d[7], donor=donors[7])
    if index % 10 == 0:  # the corpus lists 22 D files twice, under two methods
        twice = list(rows[-1])
        twice[3] = "faceswap-wav2lip"
        rows.insert(len(rows) - 1, twice)
    return clips, rows


def plan_mavos(seed: int, scale: float = 1.0) -> tuple[list[DrawnClip], list[dict[str, object]]]:
    """Plan the MAVOS-DD copy: its clips, and the rows of its table, with the columns of the first release.

    People never appear in two splits. Open-set methods and languages appear in the test split only.

    Args:
        seed (`int`): Seed of the benchmark.
        scale (`float`, *optional*, defaults to 1): Factor on the number of clips of each cell (at least one clip each).
    """
    rng = np.random.default_rng([seed, *name_seed("plan", MAVOS_DD)])
    clips: list[DrawnClip] = []
    rows: list[dict[str, object]] = []
    for language in sorted(LANGUAGES):
        unseen = language in OPEN_LANGUAGES
        for split, for_open, full_counts, people_count in MAVOS_CELLS:
            if for_open == unseen:
                counts = [0 if n == 0 else max(1, round(n * scale)) for n in full_counts]
                people = [
                    (f"mavos-{language}-{split}-{k}", *GROUPS[int(rng.integers(10))])
                    for k in range(max(2, round(people_count * scale)))
                ]
                for clip in _plan_cell(language, counts, people, rng):
                    clips.append(clip)
                    rows.append(_mavos_row(clip, split))
    return clips, rows


def _plan_cell(
    language: str, counts: list[int], people: list[Person], rng: np.random.Generator
) -> list[DrawnClip]:
    """Plan the clips of one split in one language: reals, in-domain fakes and open-set fakes."""
    reals, fakes, open_fakes = counts
    clips: list[DrawnClip] = []
    scenes: list[tuple[str, Person]] = []
    for k in range(reals):
        person = people[k % len(people)]
        file = f"{_youtube_id(rng)}_{int(rng.integers(10, 900))}_{k}.mp4"
        scenes.append((f"{language}/real/{file}", person))
        clips.append(DrawnClip(scenes[-1][0], scenes[-1][0], person, person, language, "real"))
    for methods, count in ((IN_DOMAIN_METHODS, fakes), (OPEN_METHODS, open_fakes)):
        for k in range(count):
            scene, person = scenes[int(rng.integers(len(scenes)))]
            others = [p for p in people if p != person]
            donor = others[int(rng.integers(len(others)))]
            stem = scene.rsplit("/", 1)[1]
            method = methods[k % len(methods)]
            path = f"{language}/{method}/{int(rng.integers(100000)):05d}.png_{stem}.mp4"
            clips.append(DrawnClip(path, scene, person, donor, language, method))
    return clips


def _mavos_row(clip: DrawnClip, split: str) -> dict[str, object]:
    return {
        "video_path": clip.path,
        "label": "real" if clip.method == "real" else "fake",
        "split": split,
        "open_set_model": clip.method in OPEN_METHODS,
        "open_set_language": clip.language in OPEN_LANGUAGES,
        "language": clip.language,
        "generative_method": clip.method,
    }


def plan_lav_df(seed: int, identities: int) -> tuple[list[DrawnClip], list[dict[str, object]]]:
    """Plan the LAV-DF copy: its clips, and the rows of `metadata.min.json`.

    People never appear in two splits. Each has two genuine clips, and three fakes of the first: picture, sound and both
    are forged for a few seconds. Half of the forged pictures of the test split are by methods that the other splits and
    the FakeAVCeleb copy do not have.

    Args:
        seed (`int`): Seed of the benchmark.
        identities (`int`): People in the FakeAVCeleb copy; this one has 0.4 times as many.
    """
    rng = np.random.default_rng([seed, *name_seed("plan", LAV_DF)])
    clips: list[DrawnClip] = []
    rows: list[dict[str, object]] = []
    for split, share in LAV_DF_SHARES.items():
        people = [
            (f"lav-{split}-{k}", *GROUPS[int(rng.integers(10))]) for k in range(share * identities // 10)
        ]
        methods = _methods_of(split, rng)
        for number, person in enumerate(people):
            first = len(clips)  # names are unique over all splits, as in the corpus
            donor = (
                people[(number + 1) % len(people)] if len(people) > 1 else (f"lav-{split}-donor", *person[1:])
            )
            for clip, row in _plan_takes(split, first, person, donor, methods, rng):
                clips.append(clip)
                rows.append(row)
    return clips, rows


def _methods_of(split: str, rng: np.random.Generator) -> Iterator[str]:
    """Yield methods of forged pictures without end, each as often as the others."""
    while True:
        yield from map(str, rng.permutation([*PICTURE_METHODS, *(OPEN_METHODS if split == "test" else ())]))


def _plan_takes(
    split: str, first: int, person: Person, donor: Person, methods: Iterator[str], rng: np.random.Generator
) -> Iterator[tuple[DrawnClip, dict[str, object]]]:
    """Yield the five clips of one person of the LAV-DF copy, with their rows; `first` is the number of the first file."""
    spoken = sorted(set(LANGUAGES) - set(OPEN_LANGUAGES))
    language = spoken[int(rng.integers(len(spoken)))]
    scene = f"{split}/{first:06d}.mp4"
    for number, (picture, sound) in enumerate(
        ((False, False), (False, False), (True, False), (False, True), (True, True)), start=first
    ):
        path = f"{split}/{number:06d}.mp4"
        genuine = not (picture or sound)
        length = rng.uniform(*FORGED_SECONDS)
        start = round(float(rng.uniform(0.5, LAV_DF_SECONDS - 0.5 - length)), 2)
        part = None if genuine else (start, round(start + float(length), 2))
        method = next(methods) if picture else "real"
        yield (
            DrawnClip(
                path,
                path if genuine else scene,
                person,
                donor,
                language,
                method,
                sound,
                seconds=LAV_DF_SECONDS,
                forged=part,
            ),
            {
                "file": path,
                "n_fakes": int(not genuine),
                "fake_periods": [] if part is None else [list(part)],
                "duration": LAV_DF_SECONDS,
                "original": None if genuine else scene,
                "modify_video": picture,
                "modify_audio": sound,
                "split": split,
                "video_frames": round(LAV_DF_SECONDS * FRAME_RATE),
                "audio_channels": 1,
                "audio_frames": round(LAV_DF_SECONDS * SAMPLE_RATE),
            },
        )


def write_fakeavceleb_metadata(root: Path, seed: int, clips: list[DrawnClip], rows: list[list[str]]) -> None:
    """Write `meta_data.csv`, the corpus' stray text files, and the annotations of the genuine clips."""
    header = ["source", "target1", "target2", "method", "category", "type", "race", "gender", "path", ""]
    with open(root / "meta_data.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\r\n")
        writer.writerow(header)
        writer.writerows(rows)
    genuine = [clip for clip in clips if clip.method == "real"]
    for folder in {(root / clip.path).parent for clip in genuine}:
        (folder / f"{folder.name}.txt").write_text("stray text file, as in the corpus\n")
    (root / "readme.txt").write_text("Synthetic demonstration copy; see ../README.md\n")
    with open(root.parent / "real_annotations.jsonl", "w", encoding="utf-8") as file:
        for clip in genuine:
            known = {"path": clip.path, "identity": clip.person[0], "language": clip.language}
            file.write(json.dumps(known | truth(utterance_of(seed, clip))) + "\n")


def write_mavos_table(root: Path, rows: list[dict[str, object]]) -> None:
    """Save the table of MAVOS-DD."""
    from datasets import Dataset, Features, Value
    from datasets.utils.logging import disable_progress_bar, enable_progress_bar

    kinds = {name: Value("bool" if name.startswith("open_set") else "string") for name in rows[0]}
    disable_progress_bar()
    Dataset.from_list(rows, features=Features(kinds)).save_to_disk(str(root))
    enable_progress_bar()


def write_lav_df_metadata(root: Path, rows: list[dict[str, object]]) -> None:
    """Write `metadata.min.json`."""
    (root / "metadata.min.json").write_text(json.dumps(rows, separators=(",", ":")), encoding="utf-8")
