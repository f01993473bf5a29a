"""Genuine recordings to train on - clips, photographs, speech - and the people among them that are held out."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from datasets import Dataset, Video, get_dataset_split_names, load_dataset

from dataset_scripts.corpus import scan_files
from dataset_scripts.errors import CorpusError
from dataset_scripts.splits import stable_order
from dataset_scripts.wild import TABLES

from ..modeling_verdicts import REAL
from .genuine_recipe import GenuineDataRecipe
from .recipe_parts import ClipsRecipe
from .recipe_values import RecipeError

TRAINING_FILES = "training_files.csv"
COLUMNS = ("kind", "path", "person", "held_out", "licence", "repo", "repo_path", "train_ok")
SUFFIXES = {
    "photos": (".jpg", ".jpeg", ".png", ".webp", ".bmp"),
    "speech": (".flac", ".wav", ".mp3", ".ogg", ".opus", ".m4a"),
}


@dataclass(frozen=True)
class Recording:
    """
    A genuine file.

    Attributes:
        kind (`str`): `clips`, `photos` or `speech`.
        path (`str`): Name of the file in its folder.
        file (`str`): Path of the file.
        audio (`str`, *optional*): A separate sound file.
        person (`str`): The person in it, or the name of the file where nobody says.
        held_out (`bool`): Whether it is kept for choosing and calibrating weights.
        licence, repo, repo_path (`str`, *optional*), train_ok (`bool`, *optional*): Its origin, where the table says.
    """

    kind: str
    path: str
    file: str
    audio: str | None
    person: str
    held_out: bool
    licence: str | None = None
    repo: str | None = None
    repo_path: str | None = None
    train_ok: bool | None = None


def genuine_recordings(data: GenuineDataRecipe | ClipsRecipe, clips: Dataset, seed: int) -> list[Recording]:
    """
    Return all recordings of a recipe, those of held-out people marked.

    People are held out in each table by itself, and a person that is held out in one is so in all. A file whose person is
    not known counts as a person of its own.

    Args:
        data ([`GenuineDataRecipe`] or [`ClipsRecipe`]): Clips, photographs and speech; or clips alone.
        clips (`Dataset`): The training split; its fakes are left out.
        seed (`int`): Chooses the people.

    Raises:
        RecipeError: for a folder without such files, clips that may not be used, or people too few to hold one out.
    """
    tables = {"clips": clips.filter(lambda label: label == REAL, input_columns="label").to_list()}
    extra = {"photos": data.photos, "speech": data.speech} if isinstance(data, GenuineDataRecipe) else {}
    for kind, place in extra.items():
        if place is not None:
            tables[kind] = extra_rows(kind, place)
    if data.train_ok_only:
        tables = {kind: _allowed(kind, rows) for kind, rows in tables.items()}
    held_out: set[str] = set()
    for kind, rows in tables.items():
        people = {person_of(row) for row in rows}
        if len(people) < 2:
            raise RecipeError(
                f"data: the {kind} show {len(people)} people, and at least 2 are needed: one is held out to choose weights."
            )
        count = min(max(1, round(data.held_out * len(people))), len(people) - 1)
        held_out |= set(stable_order(people, seed)[:count])
    return [_recording(kind, row, held_out) for kind, rows in tables.items() for row in rows]


def person_of(row: dict) -> str:
    """Return the person in a row's file; without one, the file that it belongs to."""
    return row.get("identity") or row["path"]


def extra_rows(kind: str, place: str) -> list[dict]:
    """
    Return the rows of more genuine files.

    Args:
        kind (`str`): `photos` or `speech`.
        place (`str`): A folder with the table `photos.csv` or `speech.csv`, as of the dataset `wild` (of a table with splits,
            its split `train` is taken, and of that the genuine files), or any folder, whose files are all taken as genuine.

    Raises:
        RecipeError: for a folder without such files.
    """
    folder = Path(place)
    if not folder.is_dir():
        raise RecipeError(f"data.{kind}: there is no folder {place}.")
    if not (folder / TABLES[kind]).is_file():
        found, _ = scan_files(str(folder), SUFFIXES[kind])
        if not found:
            raise RecipeError(f"data.{kind}: {place} holds no file that ends in {', '.join(SUFFIXES[kind])}.")
        return [{"path": path, "video": str(folder / path)} for path in found]
    try:
        split = get_dataset_split_names("wild", kind, data_dir=str(folder))
        table = load_dataset(
            "wild", kind, data_dir=str(folder), split="train" if "train" in split else split[0]
        )
    except CorpusError as error:
        raise RecipeError(f"data.{kind}: {error}") from error
    rows = table.cast_column("video", Video(decode=False)).to_list()
    return [row for row in rows if row["label"] == REAL]


def _allowed(kind: str, rows: list[dict]) -> list[dict]:
    """Return the rows that the table marks by `train_ok`; refuse a table that does not say."""
    if rows and "train_ok" not in rows[0]:
        raise RecipeError(
            f"data.train_ok_only: the {kind} come without the column train_ok, so nobody says which may be used. "
            "Use a table that has it (dataset wild), or set data.train_ok_only to false."
        )
    allowed = [row for row in rows if row["train_ok"]]
    if not allowed:
        raise RecipeError(f"data.train_ok_only: no row of the {kind} has train_ok = yes.")
    return allowed


def _recording(kind: str, row: dict, held_out: set[str]) -> Recording:
    video = row["video"]["path"] if isinstance(row["video"], dict) else row["video"]
    person = person_of(row)
    return Recording(
        kind=kind,
        path=row["path"],
        file=video,
        audio=row.get("audio"),
        person=person,
        held_out=person in held_out,
        **{name: row.get(name) for name in ("licence", "repo", "repo_path", "train_ok")},
    )


def training_files(recordings: Iterable[Recording]) -> str:
    """Return the list of files that weights are trained, chosen or calibrated on, as a CSV table."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    words = {True: "yes", False: "no", None: ""}
    for each in recordings:
        flags = {"held_out": words[each.held_out], "train_ok": words[each.train_ok]}
        writer.writerow((vars(each) | flags)[name] for name in COLUMNS)
    return text.getvalue()


def data_record(recordings: list[Recording]) -> dict:
    """
    Return what a checkpoint says about the recordings behind it: counts and sources, and no file or person.

    Returns:
        `dict`: `people`, `clips`, `photos` and `speech` (of all of them, held-out ones included), `held_out_people`;
        `train_ok`, True where a table says of every file that it may be used for weights that are given away; `sha256` of the
        list of files; and `sources`: a list of `repo`, `licence` and the number of its files.
    """
    sources: dict[tuple[str, str], int] = {}
    for each in recordings:
        if each.repo is not None:
            key = each.repo, each.licence or "not stated"
            sources[key] = sources.get(key, 0) + 1
    counts = {kind: sum(each.kind == kind for each in recordings) for kind in ("clips", "photos", "speech")}
    return {
        "people": len({each.person for each in recordings}),
        "held_out_people": len({each.person for each in recordings if each.held_out}),
        **counts,
        "train_ok": all(each.train_ok is True for each in recordings),
        "sha256": hashlib.sha256(training_files(recordings).encode()).hexdigest(),
        "sources": [
            {"repo": repo, "licence": licence, "files": count}
            for (repo, licence), count in sorted(sources.items())
        ],
    }
