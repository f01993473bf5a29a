"""Protocols beside the official lists: judgements, the command `protocols`, and what a report says."""

from __future__ import annotations

import json

import datasets
import pytest
from dataset_factory import fakeavceleb_rows, write_fakeavceleb, write_mavos
from dataset_trees.lav_df import write_lav_df

from dataset_scripts import protocol_lists
from dataset_scripts.protocol_lists import ProtocolList, SplitList, read_lists, write_lists
from modeling_avlmm.__main__ import main
from modeling_avlmm.evaluation.evaluation_error import EvaluationError
from modeling_avlmm.evaluation.fingerprints import describe_splits, freeze, judge
from modeling_avlmm.evaluation.protocols import load_protocol, protocol_name
from modeling_avlmm.evaluation.scored_elsewhere import ScoresOptions, evaluate_scores

pytestmark = [
    pytest.mark.filterwarnings("ignore::dataset_scripts.errors.CorpusWarning"),
    pytest.mark.usefixtures("dataset_cache"),
]


def pinned(splits: dict[str, SplitList], **changes) -> dict[str, SplitList]:
    """Return splits as a file without paths has them, with some fields replaced."""
    fields = {
        name: {"clips": part.clips, "fake": part.fake, "sha256": part.sha256} for name, part in splits.items()
    }
    return {name: SplitList(**(part | changes)) for name, part in fields.items()}


@pytest.fixture
def official(tmp_path, monkeypatch):
    """A function that makes lists the official ones."""
    folder = tmp_path / "official"
    monkeypatch.setattr(protocol_lists, "OFFICIAL", folder)

    def set_lists(*lists: ProtocolList) -> None:
        write_lists(folder / f"{lists[0].dataset}.json", lists)

    return set_lists


def test_every_judgement(tmp_path, official):
    rows = fakeavceleb_rows()
    root = tmp_path / "FakeAVCeleb_v1.2"
    write_fakeavceleb(root, rows)
    builder = datasets.load_dataset_builder("fakeavceleb", "mrdf_fold1", data_dir=str(root))
    found = freeze(builder).splits

    def judged(splits: dict[str, SplitList], release: str = "") -> dict[str, tuple[str, str]]:
        official(ProtocolList("fakeavceleb", "mrdf_fold1", splits, "", release))
        return {each.split: (each.state, each.text) for each in judge(builder, found)}

    assert judge(builder, found) == []  # none is known
    assert judged(pinned(found), "v1.2")["test"] == ("official", "the official list (v1.2)")
    state, text = judged(pinned(found, sha256=None))["validation"]
    assert (state, text) == (
        "same size",
        "as many clips as the official list, whose fingerprint is not known",
    )
    size = found["test"].size()
    assert judged(pinned(found, clips=9, fake=None, sha256=None))["test"] == (
        "different",
        f"not the official list: {found['test'].clips} clips, not 9 clips",
    )
    assert judged(pinned(found, clips=9, fake=4, sha256="0" * 64))["test"][1] == (
        f"not the official list: {size}, not 9 clips (5 real, 4 fake)"
    )
    assert judged(pinned(found, sha256="0" * 64))["test"] == (
        "different",
        "not the official list: as many clips, but other paths or labels",
    )
    official(ProtocolList("fakeavceleb", "mrdf_fold1", pinned(found), "", "v1.2", own=True))
    assert {each.text for each in judge(builder, found)} == {
        "this package's split of the released corpus (v1.2)"
    }
    both = SplitList.of(found["train"].labels | found["validation"].labels)
    assert judged(pinned({"train+validation": both}))["train+validation"][0] == "official"
    assert "train+nothing" not in judged(pinned({"train+nothing": both, "test": found["test"]}))


def test_missing_files_are_told_from_another_list(tmp_path, official):
    rows = fakeavceleb_rows()
    root = tmp_path / "FakeAVCeleb_v1.2"
    write_fakeavceleb(root, rows)
    frozen = freeze(datasets.load_dataset_builder("fakeavceleb", "all", data_dir=str(root)))
    official(frozen)
    gone = next(row for row in rows if row[4] == "D")
    (root / gone[5] / gone[6] / gone[7] / gone[0] / gone[8]).unlink()
    builder = load_protocol("fakeavceleb", "all", root, max_missing=0.1)
    described = describe_splits(builder, builder.as_dataset())
    assert described["official"] == {
        "full": {
            "state": "incomplete",
            "text": "the official list; 1 of its clips are not on disk",
        }
    }
    assert described["fingerprints"]["full"] != frozen.splits["full"].sha256


def test_the_release_that_fits_is_named(tmp_path, official):
    write_mavos(tmp_path / "MAVOS-DD", 2)
    builder = load_protocol("mavos_dd", "open_model", tmp_path / "MAVOS-DD")
    splits = freeze(builder).splits
    official(
        ProtocolList(
            "mavos_dd", "open_model", pinned(splits, clips=5, fake=None, sha256=None), "", "first release"
        ),
        ProtocolList("mavos_dd", "open_model", pinned(splits), "", "second release"),
    )
    found = describe_splits(builder, builder.as_dataset())["official"]
    assert {each["text"] for each in found.values()} == {"the official list (second release)"}


def test_the_command_lists_freezes_and_compares(tmp_path, capsys):
    rows = fakeavceleb_rows()
    root = tmp_path / "FakeAVCeleb_v1.2"
    write_fakeavceleb(root, rows)
    for row in rows:  # the table is enough
        (root / row[5] / row[6] / row[7] / row[0] / row[8]).unlink(missing_ok=True)
    words = ["protocols", "--dataset", "fakeavceleb", "--data-dir", str(root)]
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert shown.count(" clips ") >= 2 * 16 and "leave_out_fvfa_wl" in shown
    assert "\n  test is not the official list (v1.2): " in shown
    assert ", not 4,147 clips (100 real, 4,047 fake)\n" in shown and "\n  train+validation " in shown
    folder = tmp_path / "protocols"
    assert main([*words, "--protocols", "mrdf_fold1", "all", "--to", str(folder), "--source", "a test"]) == 0
    assert sorted(path.name for path in folder.iterdir()) == [
        "fakeavceleb.all.json",
        "fakeavceleb.mrdf_fold1.json",
    ]
    (frozen,) = read_lists(folder / "fakeavceleb.mrdf_fold1.json")
    assert frozen.source == "a test" and frozen.reference in capsys.readouterr().out
    assert frozen.splits["test"].sha256 in shown
    compare = [*words, "--compare", str(folder / "fakeavceleb.mrdf_fold1.json")]
    assert main(compare) == 0
    assert "mrdf_fold1, test: the same" in capsys.readouterr().out
    write_fakeavceleb(root, rows[:-1])
    assert main(compare) == 1
    assert "1 of the list are missing, such as FakeVideo-FakeAudio/" in capsys.readouterr().out
    assert main([*words, "--protocols", "all", "--to", str(folder), "--without-paths"]) == 0
    assert "paths" not in (folder / "fakeavceleb.all.json").read_text()
    assert main([*words, "--compare", str(protocol_lists.OFFICIAL / "fakeavceleb.json")]) == 1
    assert "mrdf_fold1 (v1.2), test: not the list: " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--dataset", "fakeavcelebb"], "did you mean 'fakeavceleb'"),
        (["--dataset", "fakeavceleb", "--protocols", "mrdf"], "mrdf"),
        (["--dataset", "fakeavceleb", "--compare", "nothing.json"], "nothing.json cannot be read"),
        (["--dataset", "fakeavceleb", "--compare", "a.json", "--to", "x"], "leave out --protocols and --to"),
        (["--dataset", "fakeavceleb", "--without-paths"], "--without-paths is about the files of --to"),
        (["--dataset", "dfdc"], "looked for"),
    ],
)
def test_wrong_usage_of_the_command(tmp_path, capsys, words, message):
    write_fakeavceleb(tmp_path / "copy", fakeavceleb_rows(1, fakes=False))
    assert main(["protocols", *words, "--data-dir", str(tmp_path / "copy")]) == 2
    assert message in capsys.readouterr().err


def test_a_report_of_a_frozen_list(tmp_path, official, capsys):
    root = tmp_path / "LAV-DF"
    write_lav_df(root)
    builder = load_protocol("lav_df", None, root)
    frozen = freeze(builder)
    labels = frozen.splits["test"].labels
    (tmp_path / "theirs.json").write_text(
        json.dumps({path: 0.1 + 0.8 * label for path, label in labels.items()})
    )

    def report(protocol: str | None) -> dict:
        options = ScoresOptions(
            scores=tmp_path / "theirs.json",
            higher_is="fake",
            dataset="lav_df",
            data_dir=root,
            protocol=protocol,
            output_dir=tmp_path / "out",
            n_resamples=0,
        )
        return evaluate_scores(options)[0]

    official(ProtocolList("lav_df", "official", pinned(frozen.splits, clips=5, fake=None, sha256=None)))
    found = report(None)
    assert found["official"]["test"]["text"] == "not the official list: 8 clips, not 5 clips"
    assert "not the official list: 8 clips" in (tmp_path / "out" / "report.md").read_text()
    some = SplitList.of(dict(list(labels.items())[2:]))
    path = tmp_path / "mine.json"
    write_lists(path, [mine := ProtocolList("lav_df", "mine", {"test": some})])
    listed = report(str(path))
    assert (listed["protocol"], listed["official"]) == (mine.reference, None)
    assert listed["clips"] == len(labels) - 2 and listed["fingerprints"] == {"test": some.sha256}
    assert protocol_name(load_protocol("lav_df", str(path), root)) == mine.reference
    path.write_text("{}")
    with pytest.raises(EvaluationError, match="is no list of clips"):
        load_protocol("lav_df", str(path), root)
