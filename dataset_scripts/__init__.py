"""`datasets` builders for audio-visual deepfake corpora.

The media of these corpora are gated, or your own, so each builder reads a folder that is already on disk:

```py
>>> import dataset_scripts
>>> from datasets import load_dataset

>>> dataset_scripts.register()  # `import modeling_avlmm` does this too
>>> faces = load_dataset("fakeavceleb", "identity_70_30", data_dir="FakeAVCeleb_v1.2")
>>> faces["test"].features["label"].names
['real', 'fake']
```

This package imports nothing of `modeling_avlmm`, and `datasets` only when it is needed.
"""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import wrapt

from .files import sha256_of

__all__ = ["BUILDERS", "register"]

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
    "mega_mmdf": "dataset_scripts.mega_mmdf",
    "talkingheadbench": "dataset_scripts.talkingheadbench",
    "hifi_avdf": "dataset_scripts.hifi_avdf",
    "deepfake_eval_2024": "dataset_scripts.deepfake_eval_2024",
    "avfolder": "dataset_scripts.avfolder",
    "wild": "dataset_scripts.wild",
}
"""Name for `load_dataset` -> module of the builder."""


def register() -> None:
    """Make `load_dataset("fakeavceleb", ...)` and the other names of `BUILDERS` known to `datasets`.

    If `datasets` is not loaded yet, the names are added right after it loads: importing it takes 1.3 s of CPU, which
    a command that reads no corpus should not pay. Calling this twice changes nothing. Worker processes need no call: they
    unpickle the builder from its own module.
    """
    wrapt.register_post_import_hook(_add_builders, "datasets.load")


def _add_builders(load: ModuleType) -> None:
    """Add `BUILDERS` to the builders that `datasets` (5.2) finds by name; `load` is the module `datasets.load`.

    `datasets` has no public way to do this since it dropped loading scripts: `load_dataset` takes a path, a repository
    or a key of the private `_PACKAGED_DATASETS_MODULES`. An entry there would be enough to load a corpus, but the stock
    factory of these modules first lists and stats every file below `data_dir` (below the working directory without
    one), at every call, and reports the load over the network. Listing 21,600 clips took 16 s of CPU; the builders,
    which find their files and key their cache themselves, list them in 0.02 s. So the factory is replaced too.

    Both figures and that of the import: benchmarks/corpus_listing.py, 2 cores of an Intel Xeon, datasets 5.2.0,
    2026-11-30.
    """
    code = sha256_of(
        *sorted(Path(__file__).parent.glob("*.py"))
    )  # a new version of any builder is a new cache
    for name, module in BUILDERS.items():
        load._PACKAGED_DATASETS_MODULES[name] = (module, code)
    stock = load.PackagedDatasetModuleFactory
    if stock.__module__ == __name__:
        return

    class CorpusModuleFactory(stock):
        """Find the builder of a corpus without looking at its files."""

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
            # An empty table of files: `load_dataset` refuses None for packaged builders.
            kwargs = {"data_files": load.DataFilesDict(), "dataset_name": self.name}
            return load.DatasetModule(*load._PACKAGED_DATASETS_MODULES[self.name], kwargs)

    load.PackagedDatasetModuleFactory = CorpusModuleFactory
