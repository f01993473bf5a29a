"""The documents: links lead somewhere, and the commands, recipes and scripts that they name exist."""

from __future__ import annotations

import ast
import importlib
import re
import shlex
from pathlib import Path

import pytest

from modeling_avlmm.__main__ import COMMANDS, build_parser

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", ROOT / "benchmarks" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def text_of(document: Path) -> str:
    return document.read_text(encoding="utf-8")


def anchors(document: Path) -> set[str]:
    """Return the anchors that GitHub gives to the headings of a document."""
    headings = re.findall(r"^#+ (.+)$", text_of(document), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def commands_in(document: Path) -> list[list[str]]:
    """Return the command lines of the document's bash blocks that run this repository, split into words."""
    blocks = re.findall(r"^```bash\n(.*?)^```", text_of(document), re.MULTILINE | re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    commands = [shlex.split(part, comments=True) for line in lines for part in line.split(" | ")]
    return [words[1:] for words in commands if words[:1] == ["python"]]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document):
    links = re.findall(r'(?:\]\(|src=")([^)"\s]+)', text_of(document))
    for link in links:
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (document.parent / path).resolve() if path else document
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_is_named_exists(document):
    text = text_of(document)
    for command in re.findall(r"`?python -m modeling_avlmm ([a-z]+)", text):
        assert command in COMMANDS, command
    for path in re.findall(
        r"(?<![\w./])(?:recipes|benchmarks|dataset_scripts|docs|modeling_avlmm)/[\w/.]+\b", text
    ):
        assert "..." in path or list(ROOT.glob(f"{path}*")), path


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_parse(document):
    parser = build_parser()
    for words in commands_in(document):
        if words[:2] == ["-m", "modeling_avlmm"]:
            options, unknown = parser.parse_known_args(words[2:])
            assert "overrides" in options or not unknown, words
        elif words[0] != "-m":
            assert (ROOT / words[0]).is_file(), words


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_in_examples_exist(document):
    for block in re.findall(r"^```python\n(.*?)^```", text_of(document), re.MULTILINE | re.DOTALL):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and node.module.startswith(
                ("modeling_avlmm", "dataset_scripts")
            ):
                module = importlib.import_module(node.module)
                assert [alias.name for alias in node.names if not hasattr(module, alias.name)] == []


def test_the_readme_is_a_shop_window():
    assert len(text_of(ROOT / "README.md").splitlines()) <= 150
