"""Write a Hugging Face Space that shows the page for a detector."""

import json
import shutil
import sysconfig
import tempfile
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import yaml
from transformers import AutoConfig, AutoProcessor

import dataset_scripts
from dataset_scripts.files import written_whole

from .requirements import requirements_text
from .upload import PublishError, Upload, upload_folder

INSIDE = "detector"
"""Folder of a Space that holds the detector itself, under its name."""
GRADIO = "6.31.0"
"""Version of Gradio in a Space, if none is installed here."""
PACKAGES = (
    *("huggingface_hub", "numpy", "pillow", "soundfile", "pyyaml", "jinja2", "matplotlib"),
    *("scikit-learn", "filelock", "tqdm", "wrapt", "plutoprint"),
)
"""Packages that the page needs beside its detector's."""
APP = '''"""The page of a detector of audio-visual deepfakes. Limits for files are arguments of `serve`."""

{imports}from modeling_avlmm.page.space import serve

DETECTOR = {detector}

if __name__ == "__main__":
    serve(DETECTOR)
'''
README = """---
{metadata}---

# {title}

Drop a video or sound file, or record one, and [{name}]({address}) says what it makes of the picture and the sound, and when.
A file goes to the computer that runs this Space, and nowhere else. Closing the tab deletes it and everything made from it.

A score ranks recordings; it proves nothing. The detector knows only the kinds of fakes that it was trained on, and its card
has the numbers that were measured. **Do not base a decision about a person on a score alone.**

`app.py` starts the page, and `modeling_avlmm/` and `dataset_scripts/` are the package behind it. `python app.py` shows the same
page on your own computer, after `pip install -r requirements.txt "gradio=={gradio}"`.{private}
"""


@dataclass(frozen=True)
class SpaceDetector:
    """
    The detector that a Space shows.

    Args:
        name (`str`): Its name.
        source (`Path`): Its folder; without `repository` it is copied into the Space.
        repository (`str`, *optional*): Its repository on the Hub, from which the Space loads it.
        private (`bool`): The repository may be private.
        license (`str`, *optional*): Licence of the weights.
    """

    name: str
    source: Path
    repository: str | None = None
    private: bool = False
    license: str | None = None


def publish_space(
    detector: SpaceDetector, destination: str | Path, upload: Upload | None = None
) -> Path | str:
    """
    Write a Space that shows the page for a detector, and upload it on request.

    The folder holds `app.py`, `README.md` with the Space's settings, `requirements.txt`, `packages.txt`, and the code of this
    package. It runs by itself: `python app.py`.

    Args:
        detector ([`SpaceDetector`]): The detector.
        destination (`str` or `Path`): Folder to write, or with `upload` the Space, `owner/name`.
        upload ([`Upload`], *optional*): Upload to the Hub, with these options.

    Returns:
        `Path` of the folder, or with `upload` the URL of the Space.

    Raises:
        PublishError: If `destination` holds something else, or the Hub refuses the upload.
    """
    if upload:
        with tempfile.TemporaryDirectory() as temporary:
            write_space(Path(temporary), detector)
            return upload_folder(Path(temporary), str(destination), upload, space=True)
    check_space(destination)
    destination = Path(destination)
    if destination.resolve().is_relative_to(detector.source.resolve()):
        raise PublishError(f"{destination} is in the detector's own folder: give the Space another one.")
    with written_whole(destination.resolve()) as folder:
        folder.mkdir()
        write_space(folder, detector)
        if destination.exists():  # written before: `check_space` let it pass
            shutil.rmtree(destination)
    return destination


def check_space(destination: str | Path) -> None:
    """Raise [`PublishError`] for a folder that holds something that is not a Space of this package."""
    folder = Path(destination)
    if folder.is_file():
        raise PublishError(f"{folder} is a file: give a folder for the Space.")
    if folder.is_dir() and any(folder.iterdir()):
        app = folder / "app.py"
        if not app.is_file() or "modeling_avlmm.page.space" not in app.read_text(encoding="utf-8"):
            raise PublishError(
                f"{folder} holds something that is not a Space of this package: give an empty folder."
            )
        if (folder / ".git").exists():
            raise PublishError(f"{folder} is a git repository: write to another folder and copy from there.")


def write_space(folder: Path, detector: SpaceDetector) -> None:
    """Write the files of a Space into an existing folder."""
    (folder / "README.md").write_text(_readme(detector), encoding="utf-8")
    inside = f"{INSIDE}/{detector.name}"
    imports, place = "", json.dumps(detector.repository)
    if detector.repository is None:
        imports, place = "from pathlib import Path\n\n", f"str(Path(__file__).parent / {json.dumps(inside)})"
    (folder / "app.py").write_text(APP.format(imports=imports, detector=place), encoding="utf-8")
    system = AutoConfig.from_pretrained(detector.source).model_type
    needed = requirements_text(system, AutoProcessor.from_pretrained(detector.source), PACKAGES)
    (folder / "requirements.txt").write_text(needed, encoding="utf-8")
    (folder / "packages.txt").write_text("ffmpeg\n", encoding="utf-8")
    for package in (Path(__file__).parents[1], Path(dataset_scripts.__file__).parent):
        shutil.copytree(package, folder / package.name, ignore=shutil.ignore_patterns("__pycache__"))
    licence = Path(__file__).parents[2] / "LICENSE"
    if not licence.is_file():
        licence = Path(sysconfig.get_path("data")) / "LICENSE"
    if licence.is_file():
        shutil.copyfile(licence, folder / "LICENSE")
    if detector.repository is None:
        shutil.copytree(detector.source, folder / inside)


def _readme(detector: SpaceDetector) -> str:
    title = f"{detector.name}: is this recording real?"
    metadata = {
        "title": title,
        "emoji": "🎞️",
        "colorFrom": "gray",
        "colorTo": "indigo",
        "sdk": "gradio",
        "sdk_version": _gradio(),
        "python_version": "3.11",
        "app_file": "app.py",
        "fullWidth": True,
        "short_description": "Picture and sound, checked for deepfakes",
        "tags": ["deepfake-detection", "audio-visual"],
    }
    if detector.license:
        metadata["license"] = detector.license
    private, address = "", f"{INSIDE}/{detector.name}"
    if detector.repository:
        address = f"https://huggingface.co/{detector.repository}"
        metadata["models"] = [detector.repository]
        if detector.private:
            private = f"\n\nIf {detector.repository} is private, the Space needs a secret `HF_TOKEN` that can read it."
        else:
            metadata["preload_from_hub"] = [detector.repository]
    return README.format(
        metadata=yaml.safe_dump(metadata, sort_keys=False, allow_unicode=True),
        title=title,
        name=detector.name,
        address=address,
        gradio=metadata["sdk_version"],
        private=private,
    )


def _gradio() -> str:
    try:
        return version("gradio")
    except PackageNotFoundError:
        return GRADIO
