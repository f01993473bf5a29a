"""The detector that is used when no model is named."""

import os
from pathlib import Path

DEFAULT_MODEL = "AVLMM_DEFAULT_MODEL"
"""Environment variable that names the user's own default: a folder or Hub id."""

EMBEDDED_MODEL = Path(__file__).parents[1] / "default_model"
"""A small demonstration detector inside the package, for a first result without a download."""


def default_model() -> str:
    """Return the folder or Hub id of the detector that is used when no model is named."""
    return os.environ.get(DEFAULT_MODEL) or str(EMBEDDED_MODEL)
