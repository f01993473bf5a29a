"""Dataclasses filled from YAML values and `--any.field value` overrides, with errors that name the field and the fix."""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Iterable
from typing import Any

from ..inference.places import missing_folder


class RecipeError(ValueError):
    """A recipe that cannot be run as written; the message names the field and the fix."""


def one_of(name: str, value: object, choices: Iterable[str]) -> None:
    """Raise [`RecipeError`] unless a field has one of the values it can have."""
    choices = list(choices)
    if value not in choices:
        near = difflib.get_close_matches(str(value), choices, n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise RecipeError(f"{name} is {value!r}; it must be one of {', '.join(choices)}.{hint}")


def unknown_field(name: str, known: Iterable[str], where: str = "", cutoff: float = 0.5) -> RecipeError:
    """Return the error for a misspelt field, with the nearest known one or with all of them."""
    known = list(known)
    near = difflib.get_close_matches(name, known, n=1, cutoff=cutoff)
    hint = f"Did you mean {where}{near[0]}?" if near else f"Known fields: {', '.join(known)}."
    return RecipeError(f"Unknown field {where}{name}. {hint}")


def check_unset(part: object, base: type, names: Iterable[str], where: str, systems: str) -> None:
    """
    Raise [`RecipeError`] where a part of a recipe sets a field that means nothing to its system.

    The recipe.yaml of a run has every field, so the default of `base`, which declares them, is let through.
    """
    defaults = {field.name: field for field in dataclasses.fields(base)}
    for name in names:
        field = defaults[name]
        default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        if vars(part)[name] != default:
            raise RecipeError(f"{where}{name} is for recipes with system: {systems}: leave it out.")


def check_place(name: str, place: object, hint: str = "") -> None:
    """Raise [`RecipeError`] where a field names a folder that is not there; `hint` says how to make it."""
    if absent := missing_folder(place):
        raise RecipeError(f"{name} cannot be read. {absent}{hint}")


def split_overrides(words: Iterable[str]) -> list[tuple[str, str]]:
    """Return the field and the text of each override in command-line words: `--field value` or `--field=value`."""
    words, pairs = list(words), []
    while words:
        word = words.pop(0)
        if not word.startswith("--"):
            raise RecipeError(f"Expected --field value, got {word!r}.")
        key, equals, text = word[2:].partition("=")
        if not equals:
            if not words:
                raise RecipeError(f"--{key} needs a value.")
            text = words.pop(0)
        pairs.append((key, text))
    return pairs


def override(values: dict, key: str, value: object) -> None:
    """
    Set one field of nested values, in place.

    Args:
        values (`dict`): A recipe as YAML gives it.
        key (`str`): Names with dots between levels; an entry of a list goes by its number, its `name` or its `kind`.
        value: The new value.

    Raises:
        RecipeError: for an entry that is not there, or a field that has no fields.
    """
    *parents, last = key.split(".")
    for depth, part in enumerate(parents):
        if isinstance(values, list):
            names = [stage.get("name") or stage.get("kind") for stage in values]
            if part.isdigit() and int(part) < len(values):
                values = values[int(part)]
            elif part in names:
                values = values[names.index(part)]
            else:
                raise RecipeError(
                    f"--{key}: there is no stage {part!r}; the stages are {', '.join(map(str, names))}."
                )
        else:
            values = values.setdefault(part, {})
        if not isinstance(values, dict | list):
            raise RecipeError(f"--{key}: {'.'.join(parents[: depth + 1])} has no fields.")
    values[last] = value


def filled(cls: type, values: object, where: str = "") -> Any:
    """
    Make a dataclass from plain values, checking names and types all the way down.

    Args:
        cls (`type`): The dataclass; its fields are numbers, texts, lists, dicts, dataclasses, or None.
        values (`dict`): Values by field name. A single text stands for a list of one.
        where (`str`): Prefix of the names in errors.

    Raises:
        RecipeError: for an unknown or missing field, or a value of the wrong type.
    """
    if not isinstance(values, dict):
        raise RecipeError(f"{where.rstrip('.') or 'The recipe'} must be named fields, got {values!r}.")
    hints = typing.get_type_hints(cls)
    known = {field.name: field for field in dataclasses.fields(cls)}
    for name in values:
        if name not in known:
            raise unknown_field(name, known, where)
    missing = [
        where + name
        for name, field in known.items()
        if name not in values
        and field.default is dataclasses.MISSING
        and field.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise RecipeError(f"The recipe lacks {', '.join(missing)}.")
    return cls(**{name: _converted(hints[name], value, where + name) for name, value in values.items()})


def _converted(hint: Any, value: object, where: str) -> Any:
    options = typing.get_args(hint) if typing.get_origin(hint) in (types.UnionType, typing.Union) else (hint,)
    if value is None and type(None) in options:
        return None
    target = next(option for option in options if option is not type(None))
    if dataclasses.is_dataclass(target):
        return filled(target, value, where + ".")
    if typing.get_origin(target) is list:
        (item,) = typing.get_args(target)
        if item is str and isinstance(value, str):
            value = [value]
        if not isinstance(value, list):
            raise RecipeError(f"{where} must be a list, got {value!r}.")
        return [_converted(item, entry, f"{where}.{index}") for index, entry in enumerate(value)]
    if target is float and not isinstance(value, bool):
        # YAML reads 1e-4 as text.
        try:
            return float(value)
        except (TypeError, ValueError):
            pass
    elif target is str and value is False:
        return "off"  # YAML's reading of the word
    elif isinstance(value, target) and not (target is int and isinstance(value, bool)):
        return value
    raise RecipeError(f"{where} must be {target.__name__}, got {value!r}.")
