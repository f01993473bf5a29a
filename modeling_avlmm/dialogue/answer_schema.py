"""The JSON Schema of an analysis."""

from __future__ import annotations

from typing import Any

from ..configuration_detector import LABELS
from ..explain.regions import BAND_NAMES, FACE_REGIONS
from .families import FAMILIES

_SCORE = {"type": "number", "minimum": 0, "maximum": 1}
_PART = {
    "type": ["object", "null"],
    "properties": {"label": {"enum": list(LABELS)}, "score": _SCORE},
    "required": ["label", "score"],
    "additionalProperties": False,
}
_PROPERTIES: dict[str, Any] = {
    "label": {"enum": [*LABELS, "uncertain"], "description": "The detector's verdict on the clip."},
    "score": {**_SCORE, "description": "P(fake) of the clip."},
    "threshold": {**_SCORE, "description": "Score from which the label is fake."},
    "modalities": {
        "type": "object",
        "properties": {"video": _PART, "audio": _PART},
        "required": ["video", "audio"],
        "additionalProperties": False,
        "description": "The verdicts on picture and sound; null if there is none.",
    },
    "family": {
        "enum": [*FAMILIES, None],
        "description": "Kind of manipulation, according to the model; null if unknown.",
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
        "description": "[start, end] in seconds that the detector scored as fake; empty if the clip is one window.",
    },
    "duration": {"type": "number", "minimum": 0, "description": "Seconds."},
    "warnings": {"type": "array", "items": {"type": "string"}},
    "model": {
        "type": "object",
        "properties": {"detector": {"type": "string"}, "analyst": {"type": ["string", "null"]}},
        "required": ["detector", "analyst"],
        "additionalProperties": False,
        "description": "The detector, and the model that wrote; analyst is null if there was none.",
    },
}

ANALYSIS_SCHEMA: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "Analysis of an audio-visual clip",
    "type": "object",
    "properties": _PROPERTIES,
    "required": list(_PROPERTIES),
    "additionalProperties": False,
}
"""JSON Schema (draft 2020-12) of [`AVAnalyst.json`]."""
