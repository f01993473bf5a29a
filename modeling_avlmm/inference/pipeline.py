"""The pipeline of the installed package: the published one, with a gate before it."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from warnings import warn

from transformers import Pipeline

from .. import pipeline_avd
from .gate import Gate


class AVDeepfakeDetectionPipeline(pipeline_avd.AVDeepfakeDetectionPipeline):
    """
    Tell whether a video, or its picture or sound alone, is a deepfake.

    This is the published pipeline, [`~pipeline_avd.AVDeepfakeDetectionPipeline`], plus a gate: a small detector that
    answers for the files it is sure of, so that the model only looks at the others.

    ```python
    >>> import modeling_avlmm
    >>> from transformers import pipeline

    >>> detector = pipeline("av-deepfake-detection", model="my-org/large", gate="my-org/small", gate_band=(0.05, 0.9))
    >>> detector("clip.mp4")
    {'label': 'real', 'score': 0.02, ..., 'decided_by': 'gate', 'gate_score': 0.02}
    ```

    With a gate, every result has two more entries:

    - **decided_by** (`str`) -- `"gate"` or `"model"`: whose result this is, windows included.
    - **gate_score** (`float`) -- The gate's own score.

    Files that cannot be read are the gate's. `window_seconds`, `hop_seconds`, `temperature`, `abstain`, `faces` and
    `tracks` only apply to the model, all other options to both. Results come in blocks of [`~inference.gate.block_size`] files.

    Args:
        gate (`str`, `Path` or pipeline, *optional*):
            Folder or Hub id of the small detector, which is loaded on the same device, or its pipeline. (If the
            repository's own code has to run, make the pipeline yourself, with `trust_remote_code=True`.) The gate
            reads windows of its own length and keeps its own temperature.
        gate_band (`tuple[float, float]`, *optional*):
            The gate's verdict stands if its score is below the first or above the second. Defaults to the
            `abstain_band` of the gate's configuration.
        kwargs: See [`~pipeline_avd.AVDeepfakeDetectionPipeline`].

    Raises:
        ValueError: if there is a band without a gate, or the gate or its band cannot be used.
    """

    # This `__init__`, and the call of the stand-in that is registered (see `registration`).
    _frames_to_caller = pipeline_avd.AVDeepfakeDetectionPipeline._frames_to_caller + 2

    def __init__(
        self,
        *args,
        gate: str | Path | Pipeline | None = None,
        gate_band: tuple[float, float] | None = None,
        **kwargs,
    ):
        super().__init__(*args, **kwargs)
        if gate is None and gate_band is not None:
            raise ValueError("gate_band says when a gate is sure, but there is no gate.")
        self.gate = None if gate is None else Gate(gate, gate_band, self.device)

    def get_iterator(
        self, inputs, num_workers, batch_size, preprocess_params, forward_params, postprocess_params
    ) -> Iterator[dict]:
        score = partial(
            super().get_iterator,
            num_workers=num_workers,
            batch_size=batch_size,
            preprocess_params=preprocess_params,
            forward_params=forward_params,
            postprocess_params=postprocess_params,
        )
        if self.gate is None:
            return score(inputs)
        return self.gate.answers(
            inputs, score, num_workers, batch_size, preprocess_params, postprocess_params
        )

    def save_pretrained(self, save_directory: str | Path, **kwargs) -> None:
        """Save the model and its processor. A gate is another detector: save it by `gate.detector.save_pretrained`."""
        if self.gate is not None:
            warn(
                "Only the model is saved. Save its gate with `pipeline.gate.detector.save_pretrained(folder)`, and load both "
                f"with `pipeline(..., gate=folder, gate_band={self.gate.band})`.",
                stacklevel=2,
            )
        super().save_pretrained(save_directory, **kwargs)
