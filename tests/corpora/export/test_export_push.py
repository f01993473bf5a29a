"""Pushing an export to the Hub, without a network."""

from __future__ import annotations

import pytest
from export_factory import export
from huggingface_hub.errors import HTTPError, LocalTokenNotFoundError, RepositoryNotFoundError
from huggingface_hub.utils import filter_repo_objects

from dataset_scripts.export import folder as export_folder
from dataset_scripts.export.plan import ExportError
from dataset_scripts.run_lock import LOCK

pytestmark = pytest.mark.filterwarnings("ignore::dataset_scripts.errors.CorpusWarning")


class Hub:
    """A stand-in for `HfApi`, without a network."""

    endpoint = "https://huggingface.co"

    def __init__(
        self, exists: bool = False, private: bool = True, files: tuple[str, ...] = (), role: str = "write"
    ):
        self.exists, self.private, self.files, self.role = exists, private, files, role
        self.calls: list[tuple] = []
        self.errors: dict[str, Exception] = {}

    def __call__(self, token=None):
        self.token = token
        return self

    def _call(self, name, *arguments):
        self.calls.append((name, *arguments))
        if name in self.errors:
            raise self.errors.pop(name)

    def whoami(self):
        self._call("whoami")
        return {"name": "me", "auth": {"accessToken": {"role": self.role}}}

    def repo_info(self, repository, repo_type):
        assert repo_type == "dataset"
        if not self.exists:
            response = type("Response", (), {"headers": {}, "request": None, "status_code": 404})()
            raise RepositoryNotFoundError("404", response=response)
        return type("Info", (), {"private": self.private})()

    def list_repo_files(self, repository, repo_type):
        return list(self.files)

    def create_repo(self, repository, **options):
        self._call("create_repo", repository, options)
        if not self.exists:
            self.exists, self.private = True, options["private"]

    def upload_folder(self, **options):
        self._call("upload_folder", options)


@pytest.fixture
def hub(monkeypatch) -> Hub:
    hub = Hub()
    monkeypatch.setattr("huggingface_hub.HfApi", hub)
    return hub


@pytest.mark.parametrize("private", [True, False])
def test_push(private, hub, small, tmp_path):
    options = {} if private else {"private": False}
    url = export("avfolder", small, tmp_path / "out", push_to="me/clips", token="hf_x", **options)
    assert url == "https://huggingface.co/datasets/me/clips"
    assert hub.token == "hf_x"
    assert [call[0] for call in hub.calls] == ["whoami", "create_repo", "upload_folder"]
    assert hub.calls[1][1:] == ("me/clips", {"repo_type": "dataset", "private": private, "exist_ok": True})
    upload = hub.calls[2][1]
    assert (upload["repo_id"], upload["repo_type"]) == ("me/clips", "dataset")
    assert upload["folder_path"] == tmp_path / "out"
    present = [str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*") if p.is_file()]
    kept = filter_repo_objects([*present, ".export.lock"], allow_patterns=upload["allow_patterns"])
    assert (
        set(kept)
        == set(present) - {LOCK}
        >= {"README.md", "export.json", "data/train-00000-of-00001.parquet"}
    )
    assert "load_dataset('me/clips', 'all')" in (tmp_path / "out" / "README.md").read_text()


def test_a_stopped_upload_continues(hub, small, tmp_path, monkeypatch):
    hub.errors["upload_folder"] = HTTPError("connection reset")
    with pytest.raises(ExportError, match=r"connection reset.*continues the upload"):
        export("avfolder", small, tmp_path / "out", push_to="me/clips")
    hub.files = ("README.md", "data/train-00000-of-00001.parquet")  # some of it has arrived
    monkeypatch.setattr(export_folder, "write_shard", lambda *_: pytest.fail("written again"))
    assert export("avfolder", small, tmp_path / "out", push_to="me/clips").endswith("me/clips")


def response_error(status: int, message: str) -> HTTPError:
    error = HTTPError(message)
    error.response = type("Response", (), {"status_code": status})()
    return error


@pytest.mark.parametrize(
    ("state", "errors", "message"),
    [
        ({"exists": True, "private": False}, {}, "me/clips exists and is public.*private=False, or --public"),
        (
            {"exists": True, "files": ("data/train-0.parquet",)},
            {},
            r"data files of something else, such as data/train-0",
        ),
        ({"role": "read"}, {}, "token can only read"),
        ({}, {"whoami": LocalTokenNotFoundError("none")}, "no Hub token.*hf auth login"),
        ({}, {"whoami": response_error(401, "401")}, "token is not valid"),
        ({}, {"create_repo": response_error(403, "403")}, "may not write to me/clips"),
        ({}, {"whoami": HTTPError("no route to host")}, "no route to host.*nothing was exported"),
    ],
)
def test_refusals_of_the_hub_come_before_exporting(state, errors, message, hub, small, tmp_path):
    vars(hub).update(state, errors=errors)
    with pytest.raises(ExportError, match=message):
        export("avfolder", small, tmp_path / "out", push_to="me/clips")
    assert not (tmp_path / "out").exists()
    assert "upload_folder" not in [call[0] for call in hub.calls]


def test_a_repository_that_becomes_public_meanwhile_gets_nothing(hub, small, tmp_path, monkeypatch):
    write_shard = export_folder.write_shard

    def publish(*arguments):
        hub.private = False
        return write_shard(*arguments)

    monkeypatch.setattr(export_folder, "write_shard", publish)
    with pytest.raises(ExportError, match="has become public"):
        export("avfolder", small, tmp_path / "out", push_to="me/clips")
    assert "upload_folder" not in [call[0] for call in hub.calls]


@pytest.mark.parametrize("name", ["clips", "not a/name", "a/b/c"])
def test_repository_names(name, hub, small, tmp_path):
    with pytest.raises(ExportError, match="not a repository name: use owner/name"):
        export("avfolder", small, tmp_path / "out", push_to=name)
    assert hub.calls == []
