"""The laws of the house: imports point down, without circles."""

from __future__ import annotations

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FLAT = "flat"
ROOMS = (  # from the ground up: a room imports from itself and from those before it
    "dataset_scripts",
    FLAT,
    "inference",
    "explain",
    "evaluation",
    "casefile",
    "dialogue",
    "publishing",
    "training",
    "planning",
    "page",
    "cli",
    "__main__",
)
SCRIPTS = ("train_sft.py", "evaluate_avd.py")


def modules() -> dict[str, Path]:
    """Return every module of the two packages, by its dotted name."""
    found = {}
    for package in ("modeling_avlmm", "dataset_scripts"):
        for path in sorted((ROOT / package).rglob("*.py")):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            found[name.removesuffix(".__init__")] = path
    return found


MODULES = modules()


def imports_of(name: str) -> set[str]:
    """Return the modules of this repository that a module imports, also inside functions and for type checkers."""
    path = MODULES[name]
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, *filter(None, [node.module])])
            for alias in node.names:
                inside = f"{base}.{alias.name}"
                found.add(inside if inside in MODULES else base)
    return {module for module in found if module in MODULES and module != name}


IMPORTS = {name: imports_of(name) for name in MODULES}


def room_of(name: str) -> str:
    first, *rest = name.split(".")
    if first == "dataset_scripts":
        return first
    if not rest or rest[0] == "__main__":  # the package itself imports from every room, on demand
        return "__main__"
    return rest[0] if (ROOT / "modeling_avlmm" / rest[0]).is_dir() else FLAT


def test_every_module_is_in_a_known_room():
    assert {room_of(name) for name in MODULES} == set(ROOMS)


@pytest.mark.parametrize("room", ROOMS)
def test_imports_point_down(room):
    height = {name: number for number, name in enumerate(ROOMS)}
    upward = [
        f"{name} -> {other}"
        for name, others in IMPORTS.items()
        if room_of(name) == room
        for other in sorted(others)
        if height[room_of(other)] > height[room]
    ]
    assert upward == []


def test_the_flat_room_imports_nothing_of_this_repository_but_itself():
    outside = [
        f"{name} -> {other}"
        for name, others in IMPORTS.items()
        if room_of(name) == FLAT
        for other in sorted(others)
        if room_of(other) != FLAT
    ]
    assert outside == []


def test_no_import_circle():
    try:
        TopologicalSorter(IMPORTS).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))
