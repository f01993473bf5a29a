"""The `pretraining` stage: a backbone with random weights learns to see and hear from genuine clips.

Only the demonstration needs it: a real omni backbone can see and hear already.
"""

from __future__ import annotations

import dataclasses

from datasets import Dataset

from ...modeling_avlmm import AVLMMForDeepfakeDetection
from ...processing_avlmm import AVLMMProcessor
from ..avlmm_stages import AVLMMStage
from ..batches import DropList, build_schedule
from ..recipe_values import RecipeError
from .dense import DenseCollator, genuine_rows, load_annotations


class PretrainingStage(AVLMMStage):
    """Trains all weights on dense questions about genuine clips with annotations."""

    def rows(self, dataset: Dataset) -> Dataset:
        annotations = self.recipe.data.annotations
        annotated = genuine_rows(dataset, load_annotations(annotations))
        if not annotated:
            raise RecipeError(f"None of the training split's genuine clips has annotations in {annotations}.")
        return dataset.filter(lambda path: path in annotated, input_columns="path")

    def collator(
        self, model: AVLMMForDeepfakeDetection, processor: AVLMMProcessor, rows: Dataset, drops: DropList
    ) -> DenseCollator:
        annotations = load_annotations(self.recipe.data.annotations)
        return DenseCollator(
            annotations=annotations,
            sounds=genuine_rows(rows, annotations),
            **self.collator_options(processor, drops),
        )

    def schedule(self, rows: Dataset, draws: int) -> Dataset:
        data = dataclasses.replace(self.recipe.data, balance="none")
        return build_schedule(rows, data, draws, self.recipe.seed)
