"""Options of an evaluation, checked when they are made."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TypeVar

from ..inference.engine_options import RayOptions
from ..inference.sharding import Shard
from .evaluation_error import EvaluationError
from .robustness.conditions import choose_conditions

Options = TypeVar("Options", bound="ReportOptions")


@dataclass(kw_only=True)
class ReportOptions:
    """
    Options that turn scores into a report.

    Args:
        threshold (`float` or `"model"`, *optional*):
            A fixed threshold, or the model's own. If left out, it is chosen for balanced accuracy on the validation
            split; without such a split, or with one class in it, it is the model's own.
        calibrate (`bool`, *optional*, defaults to `False`):
            Fit temperatures on the validation split. [`evaluate_protocol`] also stores them, and the threshold, in the
            model's folder.
        coverage (`float`, *optional*):
            Fit a band of uncertain scores, see [`conformal_band`]; a share in (0, 1), say 0.9. Stored as well when
            `calibrate` is set.
        n_resamples (`int`, *optional*, defaults to 1000): Resamples of the bootstrap for intervals; 0 for no intervals.

    Raises:
        EvaluationError: for a threshold or coverage out of range.
    """

    threshold: float | str | None = None
    calibrate: bool = False
    coverage: float | None = None
    n_resamples: int = 1000

    def __post_init__(self) -> None:
        if self.threshold not in (None, "model"):
            self.threshold = _share(self.threshold)
        if self.coverage is not None and not 0 < self.coverage < 1:
            raise EvaluationError(f"coverage must be a share between 0 and 1, not {self.coverage}.")

    @classmethod
    def from_arguments(cls: type[Options], arguments: Namespace) -> Options:
        """Return the options that a command line gives; other arguments are ignored."""
        given = vars(arguments)
        return cls(**{field.name: given[field.name] for field in fields(cls)})

    def fits_on_validation(self) -> bool:
        """Return whether anything is fitted on the validation split."""
        return self.threshold is None or self.calibrate or self.coverage is not None

    def for_report(self) -> dict:
        """Return the options of [`build_report`] as keyword arguments."""
        return {
            "threshold": self.threshold,
            "calibrate": self.calibrate,
            "coverage": self.coverage,
            "n_resamples": self.n_resamples,
        }


@dataclass(kw_only=True)
class EvaluationOptions(ReportOptions):
    """
    Options of [`evaluate_protocol`]: the detector, the protocol, and how to score.

    Args:
        model (`str`):
            Folder or Hub id of a detector, or of an omni backbone, which is then scored untrained (zero-shot).
        dataset (`str`): Name of a registered dataset.
        data_dir (`str` or `Path`): Folder of the unpacked corpus.
        gate (`str`, *optional*):
            Folder or Hub id of a small detector that answers for the clips it is sure of, see [`Gate`]. Scores are then
            calibrated, each by its own detector's temperatures, and `calibrate` is not possible.
        gate_band (`tuple[float, float]`, *optional*): The gate answers for scores outside of this band.
        protocol (`str`, *optional*): The dataset's configuration; its default if left out.
        split (`str`, *optional*, defaults to `"test"`): The split that is reported.
        validation_split (`str`, *optional*, defaults to `"validation"`):
            The split that threshold and calibration are fitted on. With a `threshold`, it is scored only to calibrate.
        max_missing (`float`, *optional*): Share of the corpus' files that may be missing on disk; 0.01 if left out.
        output_dir (`str` or `Path`, *optional*): Defaults to `runs/evaluation/<dataset>_<protocol>/<model>`.
        batch_size (`int`, *optional*, defaults to 1): Windows in one pass.
        num_workers (`int`, *optional*, defaults to 0): Processes that decode; 0 decodes in the main process.
        window_seconds, hop_seconds (`float`, *optional*), aggregate (`str`, *optional*):
            As for [`~AVDeepfakeDetectionPipeline.__call__`].
        perturb (`Sequence[str]`, *optional*): Perturbations to score the split under, or `["all"]`.
        severities (`Sequence[int]`, *optional*): Levels of the perturbations; all of them if left out.
        audit (`bool`, *optional*, defaults to `False`): Look for shortcuts and leaks in the data.
        device (`str`, *optional*): Defaults to an accelerator where there is one.
        dtype (`str`, *optional*, defaults to `"auto"`): Type of the weights.
        trust_remote_code (`bool`, *optional*, defaults to `False`): Run the code in the model's repository.
        ray ([`RayOptions`], *optional*): Score the clips on a Ray cluster. In this process if left out.
        shard ([`Shard`], *optional*): Score only this share of the clips; there is no report then.

    Raises:
        EvaluationError: for values out of range, an unknown perturbation, or a calibration that could not be stored.
    """

    model: str
    dataset: str
    data_dir: str | Path
    gate: str | None = None
    gate_band: tuple[float, float] | None = None
    protocol: str | None = None
    split: str = "test"
    validation_split: str = "validation"
    max_missing: float | None = None
    output_dir: str | Path | None = None
    batch_size: int = 1
    num_workers: int = 0
    window_seconds: float | None = None
    hop_seconds: float | None = None
    aggregate: str | None = None
    perturb: Sequence[str] | None = None
    severities: Sequence[int] | None = None
    audit: bool = False
    device: str | None = None
    dtype: str = "auto"
    trust_remote_code: bool = False
    ray: RayOptions | None = None
    shard: Shard | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.perturb:
            try:
                choose_conditions(self.perturb, self.severities)
            except ValueError as error:
                raise EvaluationError(str(error)) from error
        if self.max_missing is not None and not 0 <= self.max_missing <= 1:
            raise EvaluationError(
                f"max_missing is a share of all files, from 0 to 1, not {self.max_missing}."
            )
        if self.shard and (self.perturb or self.audit or self.calibrate):
            raise EvaluationError(
                "A shard only scores its share: perturbations, audit and calibration belong to the run without --shard."
            )
        if self.ray and self.perturb:
            raise EvaluationError(
                "Clips are perturbed in this process: score them on Ray first, and then start the same command with --perturb "
                "and without --engine ray; it takes the scores over."
            )
        if self.calibrate and self.gate:
            raise EvaluationError(
                "Calibration is stored with one detector: calibrate the gate and the model each by itself, then run with "
                "--gate."
            )
        if self.calibrate and not (Path(self.model) / "config.json").is_file():
            raise EvaluationError(
                f"Calibration is stored with the model, and {self.model} is not a local folder with one."
            )

    def windows(self) -> dict:
        """Return the given options of windows, as keyword arguments of the pipeline."""
        given = {
            "window_seconds": self.window_seconds,
            "hop_seconds": self.hop_seconds,
            "aggregate": self.aggregate,
        }
        return {name: value for name, value in given.items() if value is not None}


def _share(threshold: float | str) -> float:
    try:
        value = float(threshold)
    except ValueError:
        value = float("nan")
    if not 0 <= value <= 1:
        raise EvaluationError(f"threshold must be a number in [0, 1] or 'model', not {threshold!r}.")
    return value
