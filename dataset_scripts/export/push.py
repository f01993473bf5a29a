"""Upload an exported folder to the Hub. What the Hub would refuse is checked before anything is written."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import huggingface_hub

# HTTPError is that of the HTTP client huggingface_hub uses: connection errors are not its own.
from huggingface_hub.errors import (
    HFValidationError,
    HTTPError,
    LocalTokenNotFoundError,
    RepositoryNotFoundError,
)
from huggingface_hub.utils import validate_repo_id

from .plan import ExportError

_KIND = "dataset"


def check_repository(
    repository: str, files: Sequence[str], *, private: bool = True, token: str | bool | None = None
) -> None:
    """Make sure that `repository` can be pushed to, and create it if it does not exist.

    Only creating it proves the right to write there; an export of days should not end in a refusal.

    Args:
        repository (`str`): `owner/name`.
        files (`Sequence[str]`): The files to be uploaded, `data/...`.
        private, token: See [`~export.ExportOptions`].

    Raises:
        [`ExportError`]: there is no valid token, it may not write, the repository is public and `private` is set, or
            it has other data files, which `load_dataset` would mix with these.
    """
    try:
        validate_repo_id(repository)
    except HFValidationError as error:
        raise ExportError(f"{repository} is not a repository name: use owner/name.") from error
    if repository.count("/") != 1:
        raise ExportError(f"{repository} is not a repository name: use owner/name.")
    api = huggingface_hub.HfApi(token=token)
    with _explained(repository, "nothing was exported"):
        role = api.whoami().get("auth", {}).get("accessToken", {}).get("role")
        if role == "read":
            raise ExportError(f"The Hub token can only read. Make one that may write to {repository}.")
        try:
            existing = api.repo_info(repository, repo_type=_KIND)
        except RepositoryNotFoundError:
            existing = None
        if existing is not None:
            if private and not existing.private:
                raise ExportError(
                    f"{repository} exists and is public: pushing there publishes the media. Make it private, take "
                    "another name, or say that you may share them: private=False, or --public."
                )
            present = api.list_repo_files(repository, repo_type=_KIND)
            others = sorted({name for name in present if name.startswith("data/")} - set(files))
            if others:
                raise ExportError(
                    f"{repository} has data files of something else, such as {others[0]}: delete them, or take another "
                    "repository."
                )
        api.create_repo(repository, repo_type=_KIND, private=private, exist_ok=True)


def push(
    repository: str,
    folder: Path,
    names: Sequence[str],
    *,
    private: bool = True,
    token: str | bool | None = None,
) -> str:
    """Upload an exported folder. Started again, a stopped upload continues.

    Args:
        repository (`str`): `owner/name`, checked by [`check_repository`].
        folder (`Path`): The exported folder.
        names (`Sequence[str]`): The files and subfolders to upload.
        private, token: See [`~export.ExportOptions`].

    Returns:
        `str`: URL of the repository.

    Raises:
        [`ExportError`]: the Hub refuses, the connection fails, or the repository has become public meanwhile.
    """
    api = huggingface_hub.HfApi(token=token)
    with _explained(repository, f"{folder} is whole; the same command continues the upload"):
        if private and not api.repo_info(repository, repo_type=_KIND).private:
            raise ExportError(
                f"{repository} has become public since the export was started: nothing was uploaded."
            )
        # This resumes, and commits large folders in several steps.
        api.upload_folder(
            repo_id=repository,
            repo_type=_KIND,
            folder_path=folder,
            allow_patterns=[pattern for name in names for pattern in (name, f"{name}/*")],
            commit_message="Upload dataset",
        )
    return f"{api.endpoint}/datasets/{repository}"


@contextlib.contextmanager
def _explained(repository: str, state: str) -> Iterator[None]:
    try:
        yield
    except LocalTokenNotFoundError as error:
        raise ExportError(
            f"There is no Hub token to push to {repository} with: run `hf auth login`, or pass token; {state}."
        ) from error
    except (HTTPError, OSError) as error:
        status = getattr(getattr(error, "response", None), "status_code", None)
        advice = {
            401: "The token is not valid: run `hf auth login`, or pass another one.",
            403: f"The token may not write to {repository}.",
        }
        raise ExportError(
            f"The Hub cannot be pushed to: {error} {advice.get(status, 'Try again.')} ({state})"
        ) from error
