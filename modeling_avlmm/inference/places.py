"""Places that a model is loaded from: a folder, or an id on the Hub. What is there may be damaged, or made to do harm."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub.utils import HFValidationError, validate_repo_id


class DetectorError(ValueError):
    """A detector that cannot be loaded; the message says what to change."""


@contextmanager
def faults_of_model(place: str | Path) -> Iterator[None]:
    """Turn every fault of loading what is at a place into a [`DetectorError`]."""
    try:
        yield
    except DetectorError:
        raise
    except (OSError, ValueError, ImportError) as error:  # in words for the user
        raise DetectorError(f"{place} cannot be loaded: {str(error).strip()}") from error
    except Exception as error:  # whatever the libraries make of damaged files
        told = (str(error).strip() or "no message").splitlines()[0]
        raise DetectorError(
            f"{place} cannot be loaded ({type(error).__name__}: {told.rstrip('.')}). Its files are damaged, or not those of a "
            "detector."
        ) from error


def missing_folder(place: str | Path) -> str | None:
    """Return a sentence about a place that is neither there nor shaped like a Hub id; None for any other place."""
    if Path(place).exists():
        return None
    try:
        validate_repo_id(str(place))
    except HFValidationError:
        return f"There is no folder {place}, and it is not a Hub id either."
    return None
