"""Many arrays of one type in one file, written once and mapped into memory: face crops and waveforms to train on."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dataset_scripts.files import written_whole

from .recipe_values import RecipeError

VALUES, INDEX, SETTINGS = "values.bin", "index.npz", "settings.json"


@dataclass(frozen=True)
class ArrayStore:
    """
    Arrays on disk, by number, each with a row of columns.

    Workers map the same file, so that it is in memory once, as far as there is room, and read from disk otherwise.

    Args:
        values (`np.memmap`): The arrays, flattened, one after another.
        shapes (`np.ndarray` of shape `(N, dimensions)`): Shape of each.
        columns (`dict[str, np.ndarray]`): What is known about each, `N` rows.
    """

    values: np.memmap
    shapes: np.ndarray
    columns: dict[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.shapes)

    def __getitem__(self, number: int) -> np.ndarray:
        """Return a copy of array `number`."""
        ends = self.columns["_ends"]
        begin = int(ends[number - 1]) if number else 0
        return np.array(self.values[begin : int(ends[number])]).reshape(self.shapes[number])

    @classmethod
    def build(
        cls, folder: Path, settings: dict, dtype: type, rows: Iterable[tuple[np.ndarray, dict]]
    ) -> ArrayStore:
        """
        Write a store, whole or not at all, and open it.

        Args:
            folder (`Path`): The store's folder.
            settings (`dict`): What the arrays depend on; see [`ArrayStore.open`].
            dtype (`type`): Type of the arrays.
            rows (`Iterable`): Arrays, each with its columns: numbers or arrays of one shape.

        Raises:
            ValueError: where there are no rows.
        """
        ends, shapes, columns = [], [], {}
        end = 0
        with written_whole(folder) as partial:
            partial.mkdir()
            with open(partial / VALUES, "wb") as file:
                for array, known in rows:
                    file.write(np.ascontiguousarray(array, dtype=dtype).tobytes())
                    end += array.size
                    ends.append(end)
                    shapes.append(array.shape)
                    for name, value in known.items():
                        columns.setdefault(name, []).append(value)
            if not ends:
                raise ValueError("a store of no arrays")
            arrays = {name: np.array(values) for name, values in columns.items()}
            np.savez(partial / INDEX, _ends=np.array(ends), _shapes=np.array(shapes), **arrays)
            described = {"dtype": np.dtype(dtype).name, **settings}
            (partial / SETTINGS).write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")
        return cls.open(folder, settings)

    @classmethod
    def open(cls, folder: Path, settings: dict) -> ArrayStore | None:
        """
        Open a store that is there; None where there is none.

        Raises:
            RecipeError: for one that was made with other settings.
        """
        if not (folder / SETTINGS).is_file():
            return None
        known = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
        dtype = known.pop("dtype")
        if different := sorted(key for key in {*known, *settings} if known.get(key) != settings.get(key)):
            raise RecipeError(
                f"{folder} was made with another {', '.join(different)}. Delete it, or name another folder in data.store."
            )
        with np.load(folder / INDEX, allow_pickle=False) as index:
            columns = dict(index)
        shapes = columns.pop("_shapes")
        return cls(np.memmap(folder / VALUES, dtype=dtype, mode="r"), shapes, columns)
