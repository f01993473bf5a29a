"""The face of each clip that a recipe crops, and the clips that have none."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from accelerate import PartialState
from datasets import Dataset
from torch.utils.data import DataLoader

from dataset_scripts.files import write_whole

from ..evaluation.pace import telling_pace
from ..explain.words import count_of
from ..faces import FaceTrack
from ..inference.face_cache import FaceCache, largest_track
from ..media import MediaError
from ..processing_clips import MIN_FACE_SIZE
from .progress import say
from .recipe_values import RecipeError
from .recipes import AnyRecipe

NO_FACE = "no_face.txt"
UNREADABLE, NO_PICTURE = -1, -2


@dataclass
class ClipFaces:
    """
    The largest face of each clip.

    Args:
        cache ([`FaceCache`]): Finds faces, once for each file.
        folder (`Path`): Folder of the run, for the list of clips without a face.
        num_workers (`int`): Processes that look for faces.
        min_size (`float`): Longer side of the smallest face that counts, in pixels: smaller ones get no score.
    """

    cache: FaceCache
    folder: Path
    num_workers: int = 0
    min_size: float = MIN_FACE_SIZE

    def track(self, row: dict) -> FaceTrack | None:
        """Return the largest face of a row's clip; None where it has no face.

        Raises:
            MediaError: when the clip cannot be read.
        """
        tracks = [track for track in self.cache(row) if track.size >= self.min_size]
        return largest_track(tracks) if tracks else None

    def rows_with_faces(self, rows: Dataset) -> Dataset:
        """
        Return the rows whose clip has a face. The others are counted, and listed in `no_face.txt` in the run's folder.

        A picture without a face gets no score, so there is nothing to learn from it. Clips that cannot be read stay, as the
        collator lists them with their reasons, and so do sound files. Each process of a distributed run looks at its share of the clips.

        Raises:
            RecipeError: when no clip has a face.
        """
        state = PartialState()
        places = list(range(len(rows)))
        share = rows.select(places[state.process_index :: state.num_processes])
        say(f"  looking for faces in {count_of(len(rows), 'clip')}; tracks are kept in {self.cache.folder}")
        loader = DataLoader(share, batch_size=None, num_workers=self.num_workers, collate_fn=self._faces)
        for _ in telling_pace(
            loader, len(share), "clips", 10.0, state.num_processes, not state.is_main_process
        ):
            pass
        state.wait_for_everyone()
        # Every process reads what all of them found.
        found = np.array([self._faces(row) for row in rows])
        without = [rows[int(place)]["path"] for place in np.flatnonzero(found == 0)]
        if len(without) == len(rows):
            raise RecipeError(
                "model.faces: no clip shows a face. Set model.faces to off to train on whole frames, as for faces that are "
                "drawn, or cut to their edges."
            )
        if state.is_main_process and without:
            self._list(without)
        is_left = "is" if len(without) == 1 else "are"
        listed = f"; {len(without)} without one {is_left} left out, listed in {self.folder / NO_FACE}"
        say(
            f"  {np.count_nonzero(found > 0)} of {count_of(len(rows), 'clip')} have a face{listed if without else ''}"
        )
        return rows.select(np.flatnonzero(found != 0))

    def _faces(self, row: dict) -> int:
        if row["video"] is None:
            return NO_PICTURE
        try:
            return sum(track.size >= self.min_size for track in self.cache(row))
        except MediaError:
            return UNREADABLE

    def _list(self, paths: list[str]) -> None:
        """Add paths to the list, which training and validation share."""
        listing = self.folder / NO_FACE
        known = listing.read_text(encoding="utf-8").split("\n") if listing.is_file() else []
        every = sorted({*known, *paths} - {""})
        write_whole(listing, "\n".join(every) + "\n")


def clip_faces(recipe: AnyRecipe) -> ClipFaces | None:
    """Return what finds the faces of a recipe's clips; None for whole frames."""
    if recipe.model.faces == "off":
        return None
    folder = Path(recipe.output_dir)
    cache = FaceCache(
        recipe.data.face_cache or folder / "faces", trim_leading_silence=recipe.model.trim_leading_silence
    )
    return ClipFaces(cache, folder, recipe.data.num_workers)
