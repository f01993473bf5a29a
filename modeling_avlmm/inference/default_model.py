"""The detectors inside the package: the one that is used when no model is named, and the demonstration's."""

import os
from pathlib import Path

DEFAULT_MODEL = "AVLMM_DEFAULT_MODEL"
"""Environment variable that names the user's own default: a folder or Hub id."""

DEMONSTRATION_MODEL = Path(__file__).parents[1] / "demonstration_model"
"""SSAVD, trained on drawn faces: it shows that the software works, and knows nothing of real recordings."""

EMBEDDED_MODEL = Path(__file__).parents[1] / "default_model"
"""The detector that is used when no model is named: facevoice, trained on genuine recordings of real people."""


def default_model() -> str:
    """Return the folder or Hub id of the detector that is used when no model is named."""
    return os.environ.get(DEFAULT_MODEL) or str(EMBEDDED_MODEL)


def embedded_title(folder: str) -> str | None:
    """Return what people call a detector that is inside the package; None for any other."""
    titles = {
        EMBEDDED_MODEL: "the package's own detector",
        DEMONSTRATION_MODEL: "the package's demonstration detector",
    }
    return titles.get(Path(folder))
