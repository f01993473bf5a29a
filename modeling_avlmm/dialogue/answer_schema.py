"""The form of an analysis as JSON, and a check of it."""

from __future__ import annotations

from typing import Any

from ..explain.regions import BAND_NAMES, FACE_REGIONS
from .families import FAMILIES

_SCORE = {"type": "number", "minimum": 0, "maximum": 1}
_PART = {
    "type": ["object", "null"],
    "properties": {"label": {"enum": ["real", "fake"]}, "score": _SCORE},
    "required": ["label", "score"],
    "additionalProperties": False,
}

ANALYSIS_SCHEMA: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "Analysis of an audio-visual clip",
    "type": "object",
    "properties": {
        "label": {
            "enum": ["real", "fake", "uncertain"],
            "description": "The detector's verdict on the clip.",
        },
        "score": {**_SCORE, "description": "P(fake) of the clip."},
        "threshold": {**_SCORE, "description": "Score from which the label is fake."},
        "modalities": {
            "type": "object",
            "properties": {"video": _PART, "audio": _PART},
            "required": ["video", "audio"],
            "additionalProperties": False,
            "description": "The verdicts on picture and sound; null where there is none.",
        },
        "family": {
            "enum": [*FAMILIES, None],
            "description": "Kind of manipulation, by the model; null where it is not known.",
        },
        "regions": {
            "type": "array",
            "items": {"enum": list(FACE_REGIONS)},
            "description": "Places in the face that the model names.",
        },
        "bands": {
            "type": "array",
            "items": {"enum": list(BAND_NAMES)},
            "description": "Frequency bands of the sound that the model names.",
        },
        "segments": {
            "type": "array",
            "items": {
                "type": "array",
                "items": {"type": "number", "minimum": 0},
                "minItems": 2,
                "maxItems": 2,
            },
            "description": "[start, end] in seconds that the detector scored as fake; empty where the clip was looked at "
            "as one window.",
        },
        "duration": {"type": "number", "minimum": 0, "description": "Seconds."},
        "warnings": {"type": "array", "items": {"type": "string"}},
        "model": {
            "type": "object",
            "properties": {"detector": {"type": "string"}, "analyst": {"type": ["string", "null"]}},
            "required": ["detector", "analyst"],
            "additionalProperties": False,
            "description": "Whose verdict, and whose words; analyst is null where none was used.",
        },
    },
    "required": [
        "label",
        "score",
        "threshold",
        "modalities",
        "family",
        "regions",
        "bands",
        "segments",
        "duration",
        "warnings",
        "model",
    ],
    "additionalProperties": False,
}
"""JSON Schema (draft 2020-12) of [`AVAnalyst.json`]."""

_TYPES = {"object": dict, "array": list, "string": str, "null": type(None), "number": (int, float)}


class AnalysisFormatError(ValueError):
    """An analysis that is not of the form of [`ANALYSIS_SCHEMA`]; the message says where."""


def checked_analysis(value: Any, schema: dict = ANALYSIS_SCHEMA, where: str = "analysis") -> Any:
    """
    The value itself, if it is of the schema's form. Knows the keywords that [`ANALYSIS_SCHEMA`] uses.

    Raises:
        AnalysisFormatError: naming the first place that is not.
    """
    if "enum" in schema and value not in schema["enum"]:
        raise AnalysisFormatError(f"{where} is {value!r}, which is none of {schema['enum']}.")
    kinds = schema.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if kinds and (isinstance(value, bool) or not any(isinstance(value, _TYPES[kind]) for kind in kinds)):
        raise AnalysisFormatError(f"{where} is {value!r}, which is no {' or '.join(kinds)}.")
    if isinstance(value, int | float):
        # Written so that NaN, which compares with nothing, is refused.
        if not schema.get("minimum", float("-inf")) <= value <= schema.get("maximum", float("inf")):
            raise AnalysisFormatError(f"{where} is {value!r}, which is out of range.")
    elif isinstance(value, dict):
        properties = schema.get("properties", {})
        missing = [name for name in schema.get("required", ()) if name not in value]
        unknown = [name for name in value if name not in properties]
        if missing or (unknown and schema.get("additionalProperties") is False):
            raise AnalysisFormatError(f"{where} lacks {missing}, or has {unknown}, which it should not.")
        for name, part in value.items():
            checked_analysis(part, properties[name], f"{where}.{name}")
    elif isinstance(value, list):
        if not schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value)):
            raise AnalysisFormatError(f"{where} has {len(value)} items.")
        for index, item in enumerate(value):
            checked_analysis(item, schema.get("items", {}), f"{where}[{index}]")
    return value


__all__ = ["ANALYSIS_SCHEMA", "AnalysisFormatError", "checked_analysis"]
