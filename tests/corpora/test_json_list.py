"""The reader of long JSON lists."""

from __future__ import annotations

import json
import tracemalloc

import pytest

from dataset_scripts.errors import MetadataError
from dataset_scripts.json_list import read_json_list


@pytest.mark.parametrize("block", [1, 2, 7, 64, 1 << 20])
def test_json_lists_with_any_block_size(tmp_path, block):
    listed = [
        {"a": 1, "deep": {"list": [[1.5, 2], []], "text": 'brackets ]},{[ and "quotes" \\'}},
        {},
        {"é": "\u2028 ü", "long": "x" * 300, "none": None},
        {"number": -1.25e-3},
    ]
    for i, text in enumerate(
        [json.dumps(listed), json.dumps(listed, indent=3, ensure_ascii=False) + "\n\n", json.dumps([])]
    ):
        path = tmp_path / f"{i}.json"
        path.write_text(text, encoding="utf-8")
        found = list(read_json_list(str(path), block))
        assert [entry for _, entry in found] == json.loads(text)
        assert [where for where, _ in found] == [f"{path}, entry {n}" for n in range(len(found))]
    (tmp_path / "marked.json").write_text("[{}]", encoding="utf-8-sig")
    assert [entry for _, entry in read_json_list(str(tmp_path / "marked.json"), block)] == [{}]


@pytest.mark.parametrize("block", [1, 1 << 20])
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "character 0: expected a JSON list; the file ends there"),
        ('{"a": 1}', "character 0: expected a JSON list; found '{"),
        ("[1, 2]", "character 1: expected entry 0 of the list, an object; found '1"),
        (
            '[{"a": 1}',
            r"character 9: expected ',' or '\]' after entry 0; is the file complete\?; the file ends there",
        ),
        ('[{"a": 1}, {"b": ', r"character 11: entry 1 is not JSON \(.*\), or is cut off; found '{"),
        ('[{"a": 1},]', "character 10: expected entry 1 of the list"),
        ('[{"a": 1} {"b": 2}]', "character 10: expected ',' or '\\]' after entry 0"),
        ("[{}] x", "character 5: expected nothing after the list; found 'x'"),
    ],
)
def test_other_json_is_refused(tmp_path, text, message, block):
    (tmp_path / "list.json").write_text(text)
    with pytest.raises(MetadataError, match=message):
        list(read_json_list(str(tmp_path / "list.json"), block))


def test_a_long_list_is_not_held_in_memory(tmp_path):
    with open(tmp_path / "list.json", "w") as file:
        file.write("[" + ",\n".join(json.dumps({"n": n, "text": "x" * 500}) for n in range(10_000)) + "]")
    tracemalloc.start()
    assert sum(entry["n"] for _, entry in read_json_list(str(tmp_path / "list.json"), 1 << 14)) == 49_995_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20  # of a file of 5 MB
