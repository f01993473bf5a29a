"""The dataset card of an export."""

from __future__ import annotations

from collections import Counter

import pytest
from dataset_factory import mavos_rows
from export_factory import export
from huggingface_hub import metadata_load

pytestmark = pytest.mark.filterwarnings("ignore::dataset_scripts.errors.CorpusWarning")


def test_the_card_counts(mavos, tmp_path):
    folder = export("mavos_dd", mavos, tmp_path / "out", ["open_full", "in_domain"])
    data = metadata_load(folder / "README.md")
    assert data["license"] == "cc-by-nc-sa-4.0"
    assert data["task_categories"] == ["video-classification"]
    assert data["language"] == ["ar", "de", "en", "hi"] and data["size_categories"] == ["n<1K"]
    assert {c["config_name"]: c.get("default", False) for c in data["configs"]} == {
        "open_full": True,
        "in_domain": False,
    }
    rows = mavos_rows(2)
    text = (folder / "README.md").read_text()
    for split, count in Counter(row["split"] for row in rows).items():
        fake = sum(row["split"] == split and row["label"] == "fake" for row in rows)
        assert f"| `open_full` | {split} | {count} | {count - fake} | {fake} | - |" in text
    makers = Counter(row["generative_method"] if row["video_fake"] else "real" for row in rows)
    for maker in makers.keys() - {"real"}:
        assert f"| {maker} | {makers[maker]} | 0 | {makers[maker]} |" in text
    assert "60 rows, not the known 87,038" in text  # the builder's note on this copy
    assert "gated or for research only" in text and "Nothing: every clip" in text
    assert "`ee` | 12" in text and "`ex` | 16" in text
    assert str(mavos) not in text and str(tmp_path) not in text
    assert "None" not in text


def test_the_card_of_a_users_folder(odd, tmp_path):
    folder = export("avfolder", odd, tmp_path / "out", license="cc-by-4.0")
    data = metadata_load(folder / "README.md")
    assert data["license"] == "cc-by-4.0" and data["language"] == [
        "fr"
    ]  # Klingon is not a code the Hub accepts
    text = (folder / "README.md").read_text()
    assert "| Klingon | 1 | 1 | 0 |" in text and "1 identities" in text
