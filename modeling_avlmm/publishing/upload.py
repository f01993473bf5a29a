"""Upload a folder to the Hub, with errors that say what to do."""

from dataclasses import dataclass
from pathlib import Path

import httpx2
import huggingface_hub
from huggingface_hub.errors import HfHubHTTPError

STALE = [".eval_results/*", "report*.json", "model*.safetensors", "model.safetensors.index.json"]
"""Files of an earlier upload that must not outlive it: numbers, and weights, of another detector."""
AGAIN = "Run the same command again: what has arrived is not sent again."


class PublishError(ValueError):
    """A detector that cannot be published as asked; the message says what to change."""


@dataclass(frozen=True)
class Upload:
    """
    Options of an upload to the Hub.

    Args:
        private (`bool`, *optional*, defaults to `True`): Make a new repository private.
        token (`str` or `bool`, *optional*): Hub token. Defaults to that of `hf auth login`.
        commit_message (`str`, *optional*): Message of the commit.
    """

    private: bool = True
    token: str | bool | None = None
    commit_message: str = "Upload audio-visual deepfake detector"


def upload_folder(folder: Path, repository: str, upload: Upload, space: bool = False) -> str:
    """
    Upload a folder as a model or a Space, which is made if it does not exist.

    Files that have not changed are not sent again. Reports and weights of an earlier upload that the folder lacks are
    deleted; other files of the repository stay.

    Args:
        folder (`Path`): The folder.
        repository (`str`): `owner/name`.
        upload ([`Upload`]): The options.
        space (`bool`, *optional*, defaults to `False`): Upload a Space.

    Returns:
        `str`: The URL of the repository.

    Raises:
        PublishError: If the Hub refuses the upload or cannot be reached.
    """
    kind = {"repo_type": "space"} if space else {}
    sdk = {"space_sdk": "gradio"} if space else {}
    try:
        api = huggingface_hub.HfApi(token=upload.token)
        made = api.create_repo(repository, private=upload.private, exist_ok=True, **kind, **sdk)
        api.upload_folder(
            repo_id=made.repo_id,
            folder_path=folder,
            commit_message=upload.commit_message,
            delete_patterns=STALE,
            **kind,
        )
    except HfHubHTTPError as error:
        raise PublishError(_refused(error, repository)) from error
    except ValueError as error:  # such as a card whose metadata the Hub does not take
        raise PublishError(f"The upload to {repository} failed: {' '.join(str(error).split())}") from error
    except (httpx2.HTTPError, OSError, RuntimeError) as error:  # no connection, or a file that did not arrive
        reason = " ".join(str(error.__cause__ or error).split()) or type(error).__name__
        raise PublishError(f"The upload to {repository} broke off: {reason}. {AGAIN}") from error
    return str(made)


def _refused(error: HfHubHTTPError, repository: str) -> str:
    status = error.response.status_code
    if status in (401, 403):
        return (
            f"The Hub does not let you write to {repository} ({status}): log in with `hf auth login`, or give a --token with "
            "the right to write there."
        )
    told = error.server_message or str(error).splitlines()[0]
    return f"The Hub refused the upload to {repository} ({status}): {told.rstrip('.')}. {AGAIN if status >= 500 else ''}".strip()
