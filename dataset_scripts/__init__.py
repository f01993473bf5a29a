"""`datasets` builders for audio-visual deepfake corpora.

The media of these corpora are gated or are the user's own, so each builder reads a folder that is already on disk:

```py
>>> import dataset_scripts
>>> from datasets import load_dataset

>>> dataset_scripts.register()  # `import modeling_avlmm` does this too
>>> faces = load_dataset("fakeavceleb", "identity_70_30", data_dir="FakeAVCeleb_v1.2")
>>> faces["test"].features["label"].names
['real', 'fake']
```

Nothing of `modeling_avlmm` is imported here, and `datasets` itself is imported only when it is needed.
"""

from __future__ import annotations

import hashlib
import importlib.abc
import importlib.machinery
import os
import sys
from types import ModuleType
from typing import Any

__all__ = ["BUILDERS", "register"]

# The name given to `load_dataset` -> the module that holds the builder.
BUILDERS: dict[str, str] = {
    "fakeavceleb": "dataset_scripts.fakeavceleb",
    "mavos_dd": "dataset_scripts.mavos_dd",
    "dfdc": "dataset_scripts.dfdc",
    "df_timit": "dataset_scripts.df_timit",
    "lav_df": "dataset_scripts.lav_df",
    "av_deepfake1m": "dataset_scripts.av_deepfake1m",
    "av_deepfake1m_pp": "dataset_scripts.av_deepfake1m_pp",
    "polyglotfake": "dataset_scripts.polyglotfake",
    "idforge": "dataset_scripts.idforge",
    "kodf": "dataset_scripts.kodf",
    "deepspeak": "dataset_scripts.deepspeak",
    "avfolder": "dataset_scripts.avfolder",
}


def register() -> None:
    """Make `load_dataset("fakeavceleb", ...)` and the other names of `BUILDERS` known to `datasets`.

    `datasets` takes about a second to import, so it is not imported here: where it is not loaded yet, the names are
    added right after it loads. Calling this twice changes nothing. Worker processes need no call: what they unpickle
    names the builder's own module.
    """
    load = sys.modules.get("datasets.load")
    if load is not None and hasattr(load, "PackagedDatasetModuleFactory"):
        _register_with(load)
    elif not any(isinstance(finder, _AfterDatasets) for finder in sys.meta_path):
        sys.meta_path.insert(0, _AfterDatasets())


class _AfterDatasets(importlib.abc.MetaPathFinder):
    """Wait for the import of `datasets.load`, register the builders, and leave the import system as it was."""

    def find_spec(
        self, fullname: str, path: Any, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != "datasets.load":
            return None
        if self in sys.meta_path:
            sys.meta_path.remove(self)
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def execute_and_register(module: ModuleType) -> None:
            execute(module)
            _register_with(module)

        spec.loader.exec_module = execute_and_register  # type: ignore[method-assign]
        return spec


def _register_with(load: ModuleType) -> None:
    """Add `BUILDERS` to the packaged modules of `datasets`, of which `load` is the `datasets.load` module."""
    for name, module in BUILDERS.items():
        load._PACKAGED_DATASETS_MODULES[name] = (module, _code_hash(module))
    if getattr(load.PackagedDatasetModuleFactory, "knows_corpora", False):
        return

    class CorpusModuleFactory(load.PackagedDatasetModuleFactory):
        """Find the builder of a corpus without looking at its files.

        For its own formats `datasets` first lists every file below `data_dir` (or below the working directory when
        there is none), which takes minutes for tens of thousands of clips and is repeated at every call, and counts
        the load over the network. The builders here need neither: they find their files and key their cache
        themselves (see `dataset_scripts.builder`).
        """

        knows_corpora = True

        def __init__(self, name: str, *args: Any, **kwargs: Any) -> None:
            if name in BUILDERS:
                self.name, self.data_files = name, kwargs.get("data_files")
            else:
                super().__init__(name, *args, **kwargs)

        def get_module(self) -> Any:
            if self.name not in BUILDERS:
                return super().get_module()
            if self.data_files is not None:
                raise ValueError(
                    f"`{self.name}` reads a folder, not `data_files`: pass `data_dir` with the corpus folder."
                )
            module, code_hash = load._PACKAGED_DATASETS_MODULES[self.name]
            # An empty table of files: `load_dataset` refuses None for packaged builders.
            return load.DatasetModule(
                module, code_hash, {"data_files": load.DataFilesDict(), "dataset_name": self.name}
            )

    load.PackagedDatasetModuleFactory = CorpusModuleFactory


def _code_hash(module: str) -> str:
    """Hash a builder's name and the source of all of them: a new version of any never reads an old cache.

    Builders use one another's parts. What else is in this folder has no say in a table.
    """
    digest = hashlib.sha256(module.encode())
    folder = os.path.dirname(__file__)
    for name in sorted(os.listdir(folder)):
        if name.endswith(".py") and not name.startswith(("demo_", "export")):
            with open(os.path.join(folder, name), "rb") as source:
                digest.update(source.read())
    return digest.hexdigest()
