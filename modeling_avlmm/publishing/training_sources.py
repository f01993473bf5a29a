"""The recordings behind a detector's weights, counted by repository and licence, for its card.

    python -m modeling_avlmm.publishing.training_sources --data-dir FOLDER --to runs/genuine

writes `sources.json` into a run's folder, from the tables `clips.csv`, `photos.csv` and `speech.csv` of a folder in the
layout of the dataset `wild`. `publish` copies it and lists it in the card.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections import Counter
from pathlib import Path

SOURCES = "sources.json"
TABLES = {"clips.csv": "clips", "photos.csv": "photographs", "speech.csv": "sounds"}
"""Tables of a folder, and what a row of each is."""
PEOPLE = ("identity", "speaker")
LICENCES = ("licence", "licence_corpus")


class SourcesError(ValueError):
    """Recordings that weights must not be trained on, or that nobody can name."""


def training_sources(folder: str | Path, split: str = "train", systems: list[str] = ()) -> dict:
    """
    Count the genuine recordings of a split.

    Args:
        folder (`str` or `Path`): The folder with the tables; those that are missing count as empty.
        split (`str`, *optional*, defaults to `"train"`): The split. Tables without this column belong to it.
        systems (`list[str]`, *optional*): Names of the systems that made the fakes of the training.

    Returns:
        `dict`: `counts` of `people`, `clips`, `photographs` and `sounds`; `systems`; and `sources`: for each repository and
        licence, `repository`, `licence` and the counts of its `clips`, `photographs` and `sounds`.

    Raises:
        SourcesError: If there is none, a row may not be trained on (`train_ok` is not `yes`), or it has no repository.
    """
    counts: Counter = Counter()
    people: set[str] = set()
    kinds: dict[tuple[str, str], Counter] = {}
    for table, what in TABLES.items():
        for row in _rows(Path(folder) / table):
            if row.get("split", split) != split:
                continue
            name = f"{table}: {row.get('file_name')}"
            if row.get("train_ok") != "yes":
                raise SourcesError(
                    f"{name} is in the split {split!r}, but train_ok is {row.get('train_ok')!r}."
                )
            if not row.get("repo"):
                raise SourcesError(f"{name} names no repository.")
            licence = next((row[key] for key in LICENCES if row.get(key)), "")
            if not licence:
                raise SourcesError(f"{name} names no licence.")
            kinds.setdefault((row["repo"], licence), Counter())[what] += 1
            counts[what] += 1
            people |= {f"{key}:{row[key]}" for key in PEOPLE if row.get(key)}
    if not counts:
        raise SourcesError(f"{folder} has no recordings of the split {split!r} in {', '.join(TABLES)}.")
    return {
        "counts": {"people": len(people), **{what: counts[what] for what in TABLES.values()}},
        "systems": sorted(systems),
        "sources": [
            {"repository": repository, "licence": licence, **found}
            for (repository, licence), found in sorted(kinds.items())
        ],
    }


def _rows(table: Path) -> list[dict]:
    if not table.is_file():
        return []
    with table.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def main(arguments: list[str] | None = None) -> None:
    """Write the file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-dir", required=True, help="folder with the tables")
    parser.add_argument("--to", required=True, help="folder of the run, which holds its recipe")
    parser.add_argument("--split", default="train", help="[%(default)s]")
    parser.add_argument("--systems", nargs="*", default=[], help="what made the fakes")
    options = parser.parse_args(arguments)
    try:
        found = training_sources(options.data_dir, options.split, options.systems)
    except SourcesError as error:
        parser.error(str(error))
    path = Path(options.to) / SOURCES
    path.write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"{path}: {', '.join(f'{count} {what}' for what, count in found['counts'].items())}")


if __name__ == "__main__":
    main()
