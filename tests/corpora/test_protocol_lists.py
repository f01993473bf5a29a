"""Lists of clips: fingerprints, files, loading a frozen list, and what ships of the official lists."""

from __future__ import annotations

import hashlib
import json
from functools import partial
from importlib import import_module

import datasets
import pytest
from dataset_factory import corpus_notes, fakeavceleb_rows, streamed, touch, write_fakeavceleb

import dataset_scripts
from dataset_scripts.builder import CorpusBuilder
from dataset_scripts.errors import MetadataError, MissingFilesError, ProtocolError
from dataset_scripts.protocol_lists import (
    OFFICIAL,
    Differences,
    ProtocolList,
    SplitList,
    choose_list,
    official_lists,
    read_lists,
    split_fingerprint,
    write_lists,
)

dataset_scripts.register()
datasets.disable_progress_bars()
stream = partial(streamed, "fakeavceleb")
pytestmark = pytest.mark.filterwarnings("ignore::dataset_scripts.errors.CorpusWarning")

CLIPS = {"b/2.mp4": 1, "a/1.mp4": 0, "ä.mp4": 1}


def labels_of(rows: list[dict]) -> dict[str, int]:
    return {row["path"]: row["label"] for row in rows}


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """FakeAVCeleb with 5 people in each group."""
    root = tmp_path_factory.mktemp("corpora") / "FakeAVCeleb_v1.2"
    write_fakeavceleb(root)
    return root


def test_a_fingerprint_can_be_made_by_hand(tmp_path):
    """The documented rule, written out; what `sort | sha256sum` gives."""
    text = "a/1.mp4\t0\nb/2.mp4\t1\nä.mp4\t1\n"
    assert split_fingerprint(CLIPS.items()) == hashlib.sha256(text.encode()).hexdigest()


def test_a_file_keeps_lists_and_pins(tmp_path):
    frozen = ProtocolList("wild", "mine", {"test": SplitList.of(CLIPS)}, "here", "v1")
    write_lists(tmp_path / "a.json", [frozen])
    assert read_lists(tmp_path / "a.json") == [frozen]
    assert choose_list(tmp_path / "a.json", "wild").splits["test"].labels == CLIPS
    write_lists(tmp_path / "pin.json", [frozen], with_paths=False)
    (pin,) = read_lists(tmp_path / "pin.json")
    assert (pin.splits["test"].sha256, pin.splits["test"].labels) == (frozen.splits["test"].sha256, None)
    assert pin.reference == frozen.reference == f"mine@{frozen.reference[-8:]}"
    with pytest.raises(ProtocolError, match="only numbers and fingerprints of test"):
        choose_list(tmp_path / "pin.json", "wild")
    with pytest.raises(ProtocolError, match="of the dataset wild, not dfdc"):
        choose_list(tmp_path / "a.json", "dfdc")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda split: split["paths"]["fake"].append("c.mp4"), "changed by hand, or cut short"),
        (lambda split: split["paths"]["real"].append("b/2.mp4"), "b/2.mp4 is there twice"),
        (lambda split: split.update(sha256="abc"), "64 hexadecimal digits"),
        (lambda split: split.update(clips="3"), "clips and fake are numbers"),
        (lambda split: split.pop("clips"), "is no list of clips"),
        (lambda split: split["paths"].pop("real"), "is no list of clips"),
    ],
)
def test_a_changed_file_is_refused(tmp_path, change, message):
    write_lists(tmp_path / "a.json", [ProtocolList("wild", "mine", {"test": SplitList.of(CLIPS)})])
    content = json.loads((tmp_path / "a.json").read_text())
    change(content["lists"][0]["splits"]["test"])
    (tmp_path / "a.json").write_text(json.dumps(content))
    with pytest.raises(MetadataError, match=message):
        read_lists(tmp_path / "a.json")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"dataset": "wild", "lists": [3]}'])
def test_another_file_is_refused(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(MetadataError, match=r"a\.json"):
        read_lists(tmp_path / "a.json")


def test_differences_are_named():
    found = {"a": 0, "b": 1, "c": 1}
    apart = Differences.between(found, {"b": 0, "c": 1, "d": 1})
    assert apart == Differences(["d"], ["a"], ["b"])
    assert str(apart) == (
        "1 of the list are missing, such as d; 1 are not on the list, such as a; 1 have another label, such as b"
    )
    assert str(Differences.between(found, found)) == "the same"


@pytest.mark.parametrize("protocol", ["mrdf_fold2", "random_70_30", "leave_out_fvfa_fs", "all"])
def test_the_table_alone_lists_what_a_whole_copy_loads(copy, tmp_path, protocol):
    alone = tmp_path / "table_only"
    alone.mkdir()
    (alone / "meta_data.csv").write_bytes((copy / "meta_data.csv").read_bytes())
    listed = datasets.load_dataset_builder("fakeavceleb", protocol, data_dir=str(alone)).list_clips()
    assert listed == {split: labels_of(rows) for split, rows in stream(copy, protocol).items()}


def test_a_frozen_list_takes_the_place_of_the_splits(copy, tmp_path):
    builder = datasets.load_dataset_builder("fakeavceleb", "mrdf_fold1", data_dir=str(copy))
    splits = {name: SplitList.of(labels) for name, labels in builder.list_clips().items()}
    path = tmp_path / "fold.json"
    write_lists(path, [ProtocolList("fakeavceleb", "mrdf_fold1", splits)])
    expected = stream(copy, "mrdf_fold1")
    assert stream(copy, "by_ethnicity", protocol_list=str(path)) == expected
    # A list of one's own: other splits, some of the clips.
    some = dict(list(splits["test"].labels.items())[:6])
    write_lists(path, [ProtocolList("fakeavceleb", "mine", {"dev": SplitList.of(some)})])
    with pytest.warns(
        UserWarning, match=r"clips of this copy are not on the list mine@[0-9a-f]{8}"
    ) as caught:
        found = stream(copy, protocol_list=str(path))
    assert {split: labels_of(rows) for split, rows in found.items()} == {"dev": some}
    assert not any("missing" in note for note in corpus_notes(caught))


def test_a_frozen_list_names_what_it_lacks(copy, tmp_path):
    listed = datasets.load_dataset_builder("fakeavceleb", "all", data_dir=str(copy)).list_clips()["full"]
    path = tmp_path / "list.json"
    some = dict(list(listed.items())[:9])
    write_lists(path, [ProtocolList("fakeavceleb", "mine", {"test": SplitList.of(some | {"gone/x.mp4": 1})})])
    with pytest.raises(MissingFilesError, match="1 of 10 files are missing: 1 of 10 of 'mine, test'"):
        stream(copy, protocol_list=str(path))
    assert labels_of(stream(copy, protocol_list=str(path), max_missing=0.1)["test"]) == some
    first, label = next(iter(some.items()))
    write_lists(
        path, [ProtocolList("fakeavceleb", "mine", {"test": SplitList.of(some | {first: 1 - label})})]
    )
    with pytest.raises(ProtocolError, match=f"{first} is fake on the list of mine and real in this copy"):
        stream(copy, protocol_list=str(path))
    with pytest.raises(ProtocolError, match="is no file"):
        stream(copy, protocol_list=str(tmp_path / "nothing.json"))


def test_a_list_does_not_depend_on_missing_files(tmp_path):
    rows = fakeavceleb_rows()
    write_fakeavceleb(tmp_path / "copy", rows)
    builder = partial(datasets.load_dataset_builder, "fakeavceleb", "identity_70_30")
    before = builder(data_dir=str(tmp_path / "copy")).list_clips()
    gone = next(row for row in rows if row[4] == "C")
    (tmp_path / "copy" / gone[5] / gone[6] / gone[7] / gone[0] / gone[8]).unlink()
    touch(tmp_path / "copy" / gone[5] / gone[6] / gone[7] / gone[0] / "other.mp4")
    assert builder(data_dir=str(tmp_path / "copy")).list_clips() == before


def builder_class(dataset: str) -> type[CorpusBuilder]:
    module = import_module(dataset_scripts.BUILDERS[dataset])
    (found,) = (
        each
        for each in vars(module).values()
        if isinstance(each, type) and issubclass(each, CorpusBuilder) and each.__module__ == module.__name__
    )
    return found


@pytest.mark.parametrize("path", sorted(OFFICIAL.glob("*.json")), ids=lambda path: path.stem)
def test_shipped_lists_are_of_known_protocols(path):
    lists = read_lists(path)
    assert {each.dataset for each in lists} == {path.stem}
    assert {each.protocol for each in lists} <= builder_class(path.stem).PROTOCOLS.keys()
    assert all(each.source and each.splits for each in lists)
    assert len({(each.protocol, each.release) for each in lists}) == len(lists)


def test_every_protocol_of_fakeavceleb_has_its_fingerprints():
    lists = official_lists("fakeavceleb")
    assert [each.protocol for each in lists] == list(builder_class("fakeavceleb").PROTOCOLS)
    parts = [part for each in lists for part in each.splits.values()]
    assert all(part.sha256 and part.fake is not None for part in parts)
    assert len({part.sha256 for part in parts}) == len(parts)
    assert {each.protocol for each in lists if not each.own} == {
        "all",
        *(f"mrdf_fold{n}" for n in range(1, 6)),
    }
    whole = {"identity_70_30", "random_70_30", "by_ethnicity"}
    sums = {each.protocol: sum(part.clips for part in each.splits.values()) for each in lists}
    assert {sums[name] for name in whole} == {sums["all"]}


def test_shipped_numbers_are_those_that_the_builders_know():
    def sizes(dataset: str, protocol: str, release: str = "") -> dict[str, int]:
        (found,) = [e for e in official_lists(dataset) if (e.protocol, e.release) == (protocol, release)]
        return {name: part.clips for name, part in found.splits.items()}

    def module(dataset: str):
        return import_module(dataset_scripts.BUILDERS[dataset])

    for number, release in ((1, "first release"), (2, "second release")):
        whole = sum(sizes("mavos_dd", "open_full", release).values())
        assert whole == module("mavos_dd")._KNOWN_ROWS[number]
    every = module("fakeavceleb")._FILES
    assert sizes("fakeavceleb", "all", "v1.2") == {"full": every}
    folds = [sizes("fakeavceleb", f"mrdf_fold{i}", "v1.2") for i in range(1, 6)]
    assert all(sum(fold.values()) == every for fold in folds)
    assert sum(fold["test"] for fold in folds) == every  # each person is tested once
    assert list(sizes("lav_df", "official").values()) == list(module("lav_df")._KNOWN_ROWS.values())
    assert sizes("dfdc", "official") == module("dfdc")._KNOWN_ROWS
    assert list(sizes("av_deepfake1m", "official").values()) == [
        *builder_class("av_deepfake1m").KNOWN_ROWS.values()
    ]
    assert sizes("av_deepfake1m_pp", "official") == {"validation": 77_326}
    assert sizes("polyglotfake", "all")["full"] == sum(module("polyglotfake")._KNOWN.values())
    assert sizes("idforge", "official", "v1") == {"validation": module("idforge")._KNOWN_VALIDATION}
    assert sizes("kodf", "all")["full"] == sum(map(sum, module("kodf")._KNOWN.values()))
    for release, *known in module("deepspeak")._KNOWN.values():
        assert sizes("deepspeak", "all", release) == {"full": sum(known)}
