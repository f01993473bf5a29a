"""MAVOS-DD (arXiv:2505.11109): multilingual audio-visual deepfakes with unseen generators and unseen languages.

The folder is the `unibuc-cs/MAVOS-DD` repository of the Hub as downloaded: a table written by `save_to_disk` next to
one folder per language. Two releases circulate. The first labels whole clips; the second adds `video_fake`,
`audio_fake` and `audio_generative_method`. The builder tells them apart by these columns and compares the number of
rows with that of the release.

The open test sets of the paper contain the in-domain one: each open set adds clips to it. If the two flags were read as
a partition into four disjoint sets, the last one would have no real clip at all.
"""

from __future__ import annotations

import glob
import os
from dataclasses import dataclass
from typing import Any

import datasets

from .builder import CorpusBuilder, CorpusConfig
from .corpus import Corpus, MissingFiles
from .errors import MetadataError, nearest
from .schema import FAKE, REAL, ClipRow, make_row, parse_label
from .splits import SPLITS, by_split

_FIRST = (
    "video_path",
    "label",
    "split",
    "open_set_model",
    "open_set_language",
    "language",
    "generative_method",
)
_SECOND = ("audio_generative_method", "audio_fake", "video_fake")
_KNOWN_ROWS = {1: 60_364, 2: 87_038}  # release -> rows
_CODES = {
    "arabic": "ar",
    "english": "en",
    "german": "de",
    "hindi": "hi",
    "mandarin": "zh",
    "romanian": "ro",
    "russian": "ru",
    "spanish": "es",
}
_CLOSED, _MODEL, _LANGUAGE, _BOTH = (False, False), (True, False), (False, True), (True, True)
# Protocol -> its test set, as (open_set_model, open_set_language) flags, and what it is.
_TESTS: dict[str, tuple[tuple[tuple[bool, bool], ...], str]] = {
    "open_full": ((_CLOSED, _MODEL, _LANGUAGE, _BOTH), "test is the whole test split."),
    "in_domain": ((_CLOSED,), "test has the generators and languages of training."),
    "open_model": ((_CLOSED, _MODEL), "test is in_domain and unseen generators in known languages."),
    "open_language": ((_CLOSED, _LANGUAGE), "test is in_domain and unseen languages with known generators."),
    "open_model_any": ((_CLOSED, _MODEL, _BOTH), "test is in_domain and unseen generators in any language."),
    "open_language_any": (
        (_CLOSED, _LANGUAGE, _BOTH),
        "test is in_domain and unseen languages, any generator.",
    ),
}


@dataclass
class MavosDDConfig(CorpusConfig):
    """Settings of `mavos_dd`; `name` is the protocol.

    Attributes:
        languages (`list[str]`, *optional*):
            Load only these of the language folders (`["english", "german"]`), for a partial download. The protocols
            keep their meaning, but the results are not those of the whole corpus.
    """

    CORPUS = "MAVOS-DD"
    LOOKED_FOR = "a table of `save_to_disk` (state.json and *.arrow)"

    languages: list[str] | None = None

    def metadata_in(self, folder: str) -> list[str]:
        """See [`CorpusConfig.metadata_in`]."""
        names = [os.path.join(folder, name) for name in ("state.json", "dataset_info.json")]
        tables = sorted(glob.glob(os.path.join(glob.escape(folder), "*.arrow")))
        if not tables or not all(map(os.path.isfile, names)):
            return []
        return [os.path.basename(name) for name in names + tables]


class MavosDD(CorpusBuilder):
    """MAVOS-DD from a local copy of its Hub repository.

    ```py
    >>> load_dataset("mavos_dd", "open_model", data_dir="MAVOS-DD")
    ```

    Every protocol has the official `train` and `validation` splits; they differ in `test`, by the flags of the table:

    - `open_full` (default): the whole test split. It is the default because it leaves nothing out: the other test
      sets are the rows of it that the columns `open_set_model` and `open_set_language` select.
    - `in_domain`: neither flag.
    - `open_model`: `in_domain` and the rows with `open_set_model` only; `open_language`: `in_domain` and the rows with
      `open_set_language` only. This is the reading of the paper (Fig. 1) and of its AVFF evaluation.
    - `open_model_any`, `open_language_any`: `in_domain` and the rows with that flag, whatever the other one is. This is
      the reading of the authors' evaluation scripts for MRDF and DeepfakeBench; these sets are larger. Say which one
      a number is for.

    In the first release the named generators are those of the picture, and the sound of a fake is not described:
    `video_label` is fake, `audio_label` and `audio_generator` are None. In the second, labels come from `video_fake`
    and `audio_fake`, never from the folder: a clip with fake sound only is in a `real` folder. The split is by clip:
    neither release names the person (`identity` is None) or the genuine clip (`source` is None).

    Columns after the common ones: `open_set_model`, `open_set_language`.
    """

    BUILDER_CONFIG_CLASS = MavosDDConfig
    PROTOCOLS = {name: description for name, (_, description) in _TESTS.items()}
    DESCRIPTION = "MAVOS-DD: multilingual audio-video open-set deepfake detection."
    HOMEPAGE = "https://huggingface.co/datasets/unibuc-cs/MAVOS-DD"
    LICENSE = "cc-by-nc-sa-4.0"
    CORPUS_COLUMNS = {
        "open_set_model": datasets.Value("bool"),
        "open_set_language": datasets.Value("bool"),
    }
    DEALING_COLUMNS = ("split",)
    GROUP_COLUMNS = ("open_set_model", "open_set_language")

    def read(self, corpus: Corpus) -> tuple[list[ClipRow], MissingFiles]:
        """See [`CorpusBuilder.read`]."""
        entries, release = self._read_table(corpus)
        wanted = self._languages({entry["language"] for entry in entries})
        on_disk = set(corpus.media)
        missing = MissingFiles()
        rows: list[ClipRow] = []
        contradictory = 0
        for number, entry in enumerate(entries):
            where = f"{corpus.root}, row {number}"
            if entry["split"] not in SPLITS:
                raise MetadataError(f"{where}: split {entry['split']!r} is none of {', '.join(SPLITS)}.")
            if entry["language"] not in wanted:
                continue
            path = _path(entry)
            missing.count(path, entry["language"], path in on_disk)
            label = parse_label(entry["label"], f"{where}, column label")
            video_label, audio_label = _track_labels(entry, label, release)
            if label != max(video_label or REAL, audio_label or REAL):
                contradictory += 1
                video_label = audio_label = None
            rows.append(
                make_row(
                    corpus.absolute(path) if path in on_disk else None,
                    path,
                    label,
                    video_label=video_label,
                    audio_label=audio_label,
                    generator=entry["generative_method"],
                    audio_generator=entry.get("audio_generative_method"),
                    language=_CODES.get(entry["language"], entry["language"]),
                    open_set_model=entry["open_set_model"],
                    open_set_language=entry["open_set_language"],
                    split=entry["split"],
                )
            )
        if contradictory:
            self.note(
                f"{contradictory:,} rows have a label that contradicts video_fake and audio_fake; label is kept, "
                "video_label and audio_label of fakes are None."
            )
        self.note_unlisted(corpus, set(map(_path, entries)), "the table", "video files")
        return rows, missing

    def deal(self, rows: list[ClipRow]) -> dict[str, list[ClipRow]]:
        """See [`CorpusBuilder.deal`]. A file that a split lists twice is kept once, with a note."""
        cells, _ = _TESTS[self.config.name]
        firsts: dict[tuple[str, str], ClipRow] = {}
        splits_of: dict[str, set[str]] = {}
        repeated = 0
        for row in rows:
            path, split = row["path"], row["split"]
            splits_of.setdefault(path, set()).add(split)
            if split == "test" and (row["open_set_model"], row["open_set_language"]) not in cells:
                continue
            first = firsts.setdefault((split, path), row)
            repeated += first is not row
            if first["label"] != row["label"]:
                raise MetadataError(f"{path} is listed as real and as fake in the {split} split.")
        if repeated:
            self.note(f"{repeated:,} rows repeat a file of the same split; each file is kept once.")
        shared = [path for path, splits in splits_of.items() if len(splits) > 1]
        if shared:
            self.note(f"{len(shared):,} files are in more than one split, such as {shared[0]}.")
        return by_split(firsts.values(), lambda row: row["split"])

    def _read_table(self, corpus: Corpus) -> tuple[list[dict[str, Any]], int]:
        """Return the rows of the saved table, and its release, 1 or 2."""
        table = datasets.load_from_disk(corpus.root)
        absent = [name for name in _FIRST if name not in table.column_names]
        if absent:
            raise MetadataError(
                f"The table in {corpus.root} has no column {', '.join(absent)}; it has {table.column_names}."
            )
        release = 2 if all(name in table.column_names for name in _SECOND) else 1
        known = _KNOWN_ROWS[release]
        if len(table) != known:
            self.note_size(
                f"this copy has the columns of release {release} but {len(table):,} rows", f"{known:,}"
            )
        columns = [*_FIRST, *(_SECOND if release == 2 else ())]
        return _texts(table.select_columns(columns)).to_list(), release

    def _languages(self, present: set[str]) -> set[str]:
        if self.config.languages is None:
            return present
        for language in self.config.languages:
            if language not in present:
                raise ValueError(
                    f"mavos_dd: no language {language!r}; there are {', '.join(sorted(present))}."
                    f"{nearest(language, present)}"
                )
        self.note(f"only the languages {', '.join(self.config.languages)} are loaded, as `languages` asks.")
        return set(self.config.languages)


def _path(entry: dict[str, Any]) -> str:
    return entry["video_path"].removeprefix("./")


def _track_labels(entry: dict[str, Any], label: int, release: int) -> tuple[int | None, int | None]:
    """Return the labels of picture and sound, None where the release does not say."""
    if release == 2:
        return (FAKE if entry["video_fake"] else REAL), (FAKE if entry["audio_fake"] else REAL)
    return (REAL, REAL) if label == REAL else (FAKE, None)


def _texts(table: datasets.Dataset) -> datasets.Dataset:
    """Turn class labels, if a copy has them, into text: their numbers may have the other polarity."""
    for name, feature in table.features.items():
        if isinstance(feature, datasets.ClassLabel):
            texts = [feature.names[number] for number in table[name]]
            table = table.remove_columns(name).add_column(name, texts)
    return table
