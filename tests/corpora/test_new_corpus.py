"""The example of a new builder in docs/datasets.md works as printed."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

from dataset_factory import touch

from dataset_scripts import builder, corpus, json_list, schema, splits

DOCUMENT = Path(__file__).parents[2] / "docs" / "datasets.md"


def test_the_documented_builder(tmp_path):
    (code,) = re.findall(r"```python\n(@dataclass\n.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.S)
    namespace = {"__name__": __name__, "os": os, "dataclass": dataclass}
    for module in (builder, corpus, json_list, schema, splits):
        namespace |= {name: value for name, value in vars(module).items() if not name.startswith("__")}
    exec(code, namespace)
    clips = [
        (f"{split}/{i}.mp4", split, i % 2) for split in ("train", "validation", "test") for i in range(4)
    ]
    for path, _, _ in clips:
        touch(tmp_path / "data" / path)
    entries = [{"path": p, "split": s, "label": ("real", "fake")[f], "person": "p"} for p, s, f in clips]
    (tmp_path / "data" / "labels.json").write_text(json.dumps(entries))

    def load(protocol: str) -> dict:
        made = namespace["MyCorpus"](
            config_name=protocol, data_dir=str(tmp_path / "data"), cache_dir=str(tmp_path / "cache")
        )
        made.download_and_prepare()
        return made.as_dataset()

    found = load("official")
    assert {split: rows["path"][:] for split, rows in found.items()} == {
        split: [path for path, where, _ in clips if where == split]
        for split in ("train", "validation", "test")
    }
    assert found["test"]["label"][:] == [0, 1, 0, 1]
    assert len(load("all")["full"]) == 12
