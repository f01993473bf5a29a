"""Places that a model is loaded from: a folder, or an id on the Hub."""

from pathlib import Path

from huggingface_hub.utils import HFValidationError, validate_repo_id


def missing_folder(place: str | Path) -> str | None:
    """Return a sentence about a place that is neither there nor shaped like a Hub id; None for any other place."""
    if Path(place).exists():
        return None
    try:
        validate_repo_id(str(place))
    except HFValidationError:
        return f"There is no folder {place}, and it is not a Hub id either."
    return None
