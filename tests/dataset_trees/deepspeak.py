"""Write small copies of DeepSpeak v1, v1.1 and v2: the tables of the Hub repository and the unpacked clips."""

from __future__ import annotations

import csv
from pathlib import Path

from dataset_factory import touch

HEADERS = {
    "v1": "video-file,kind,engine,identity-source,identity-target,recording-source,recording-target,gesture-type,"
    "script-type",
    "v1.1": "video-file,kind,engine,identity-source,identity-target,recording-source,recording-target,"
    "recording-target-ai-generated,gesture-type,script-type",
    "v2": "video-file,kind,engine,identity-source,identity-target,recording-source,recording-target,audio-config,"
    "gen-config,gesture-type,script-type",
}
REAL_HEADER = "video-file,identity,gesture-type,script-type"
PEOPLE = {str(n): "test" if n % 4 == 3 else "train" for n in range(24)}


def recordings(person: str) -> list[str]:
    """Return the numbers of a person's recordings; the last one has no speech."""
    return [str(4000 + 10 * int(person) + n) for n in range(3)]


def deepspeak_rows(release: str) -> tuple[list[list[str]], list[list[str]]]:
    """Return rows of the tables of genuine clips and of fakes, in the order of `REAL_HEADER` and `HEADERS`."""
    genuine, fakes = [], []
    for person, split in PEOPLE.items():
        other = str(int(person) ^ 1) if PEOPLE[str(int(person) ^ 1)] == split else person
        first, second, silent = recordings(person)
        for number in (first, second):
            genuine.append([f"{person}-{number}.mp4", person, "no-gesture", "scripted-long"])
        genuine.append([f"{person}-{silent}.mp4", person, "wave", "no-speech"])
        swapped = recordings(other)[1]
        if release == "v2":
            for engine, kind, source, driver, voice, audio, config in (
                ("facefusion", "face-swap", other, swapped, "", "real", "simswap_256_768768"),
                ("diff2lip", "lip-sync", person, second, "-playht", "playht", ""),
                ("latentsync", "lip-sync", person, second, "-real", "real", ""),
                # The name gives a voice that was not used.
                ("hellomeme", "avatar", person, second, "-elevenlabs", "real", ""),
            ):
                name = f"{engine}-{driver}-{first}{voice}.mp4"
                row = [name, kind, engine, source, person, driver, first, audio, config]
                fakes.append([*row, "no-gesture", "scripted-long"])
        else:
            for engine, kind, source, driver, number, speech in (
                ("facefusion", "face-swap", other, swapped, "0", "False"),
                ("facefusion_live", "face-swap", other, swapped, "1", "False"),
                ("wav2lip", "lip-sync", person, second, "0", "False"),
                ("wav2lip", "lip-sync", person, second, "1", "True"),
            ):
                name = f"{engine}--{source}-{person}--{driver}-{first}--{number}.mp4"
                flag = [speech] if release == "v1.1" else []
                row = [name, kind, engine, source, person, driver, first, *flag]
                fakes.append([*row, "no-gesture", "scripted-long"])
    return genuine, fakes


def write_table(path: Path, header: str, rows: list[list[str]], indexed: bool = False) -> None:
    """Write a table, with an unnamed column of row numbers before the others if `indexed`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(([""] if indexed else []) + header.split(","))
        writer.writerows([[str(n), *row] if indexed else row for n, row in enumerate(rows)])


def write_deepspeak(
    root: Path,
    release: str,
    rows: tuple[list[list[str]], list[list[str]]] | None = None,
    people: dict[str, str] | None = None,
) -> tuple[list[list[str]], list[list[str]]]:
    """Write a copy below `root` and return the rows of genuine clips and of fakes."""
    genuine, fakes = deepspeak_rows(release) if rows is None else rows
    indexed = release != "v2"  # the tables of v1.1 begin with a data frame's index
    write_table(root / "annotations-real.csv", REAL_HEADER, genuine, indexed)
    write_table(root / "annotations-fake.csv", HEADERS[release], fakes, indexed)
    split = [[person, name] for person, name in (PEOPLE if people is None else people).items()]
    write_table(root / "annotations-split-def.csv", "identity,split", split, indexed)
    for n, row in enumerate(genuine + fakes):
        touch(root / f"deepspeak-{n % 3}" / "videos" / row[0])
    touch(root / "README.md")
    return genuine, fakes
