"""The recipe of facevoice: two networks from genuine recordings alone, with fakes that are made on the fly."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from ..evaluation.robustness.perturbations import PERTURBATIONS
from .recipe_parts import DataRecipe, OptimisationRecipe
from .recipe_values import RecipeError, check_unset, one_of, unknown_field


@dataclass
class FaceVoiceRecipe:
    """
    The detector.

    Args:
        start (`str`, *optional*): Folder or Hub id of a facevoice to train further; a new one if left out.
        options (`dict`): Fields of [`FaceVoiceConfig`] that differ from its defaults.
        pretrained (`bool`): Begin the picture network with ImageNet weights (of a package, or of the Hub).
        picture_weights, sound_weights (`str`, *optional*): Files with trained weights of one network (safetensors, or a state
            dict saved by PyTorch). That network does not train.
        notice (`str`, *optional*): A sentence that every result of the detector has among its warnings.
    """

    start: str | None = None
    options: dict = field(default_factory=dict)
    pretrained: bool = True
    picture_weights: str | None = None
    sound_weights: str | None = None
    notice: str | None = None

    faces: ClassVar[str] = "all"
    trim_leading_silence: ClassVar[bool] = False

    def __post_init__(self):
        if self.start is not None and self.options:
            raise RecipeError("model.start brings its own configuration: leave model.options out.")


@dataclass
class GenuineDataRecipe(DataRecipe):
    """
    The genuine recordings: the clips of a dataset, and photographs and speech from elsewhere. Fakes are left out.

    Args:
        photos (`str`, *optional*): Folder of genuine photographs of faces, or one with a table `photos.csv` (dataset `wild`).
        speech (`str`, *optional*): Folder of genuine speech, or one with a table `speech.csv`.
        synthetic_speech (`str`, *optional*): Folder of synthetic speech to train against, beside what is made on the fly: a
            folder below it for each synthesiser.
        train_ok_only (`bool`): Use only files whose table says `train_ok: yes`, for weights that are given away.
        held_out (`float`): Share of the people kept for choosing weights and calibration. They train nothing.
        frames (`int`): Most crops of a face track that are kept to train on.
        store (`str`, *optional*): Folder of the crops and sounds, which runs on the same files may share; `store` in
            `output_dir` if left out.
        kwargs: Of [`DataRecipe`]: `dataset`, `protocol`, `data_dir`, `train_split`, `max_drop_share`, `num_workers` and
            `face_cache`.
    """

    not_for_it: ClassVar[tuple[str, ...]] = (
        *("validation_split", "exclude_generators", "clip_seconds", "crop", "balance"),
        *("video_share", "audio_share", "annotations"),
    )

    photos: str | None = None
    speech: str | None = None
    synthetic_speech: str | None = None
    train_ok_only: bool = False
    held_out: float = 0.2
    frames: int = 24
    store: str | None = None

    def __post_init__(self):
        super().__post_init__()
        check_unset(self, DataRecipe, self.not_for_it, "data.", "avlmm, ssavd or avpl")
        if not 0 < self.held_out < 1:
            raise RecipeError(f"data.held_out is a share of the people between 0 and 1, got {self.held_out}.")
        if self.frames < 1:
            raise RecipeError(f"data.frames must be at least 1, got {self.frames}.")


@dataclass
class PairsRecipe(OptimisationRecipe):
    """
    The training of one network on pairs: a genuine sample beside a fake made of it, both processed alike.

    Args:
        average (`float`): Decay of the average of weights that is scored and kept, per step; 0 keeps the weights themselves.
        rank_weight (`float`): Weight of the ranking loss, softplus(genuine - fake), beside the cross-entropy.
        rank_over (`str`): What a fake is ranked against: `pair`, the genuine one it was made of, or `batch`, every genuine one.
        label_smoothing (`float`): Of the cross-entropy.
        kinds (`dict[str, float]`): How often each kind of fake is made, relative to the others; as published if left out.
        freeze_norms (`bool`): Measure the statistics of batch norms once, before the first step, and keep them: faster, and
            steadier in small batches.
        validation_draws (`int`): Pairs made of every held-out sample to choose the weights.
        kwargs: Of [`OptimisationRecipe`], with `batch_size` in pairs.
    """

    not_for_it: ClassVar[tuple[str, ...]] = ("epochs", "warmup_epochs", "gradient_checkpointing", "patience")

    max_steps: int | None = 1000
    batch_size: int = 16
    lr_scheduler: str = "cosine"
    average: float = 0.99
    rank_weight: float = 0.5
    rank_over: str = "pair"
    label_smoothing: float = 0.0
    kinds: dict = field(default_factory=dict)
    freeze_norms: bool = False
    validation_draws: int = 4

    def __post_init__(self):
        super().__post_init__()
        check_unset(self, OptimisationRecipe, self.not_for_it, "training.", "avlmm, ssavd or avpl")
        if not self.max_steps or self.max_steps < 1:
            raise RecipeError("A network that trains needs max_steps of at least 1.")
        if not 0 <= self.average < 1:
            raise RecipeError(f"average is a decay of at least 0 and below 1, got {self.average}.")
        for name in ("rank_weight", "label_smoothing"):
            if vars(self)[name] < 0:
                raise RecipeError(f"{name} must be at least 0, got {vars(self)[name]}.")
        one_of("rank_over", self.rank_over, ("pair", "batch"))


@dataclass
class PictureRecipe(PairsRecipe):
    """
    The training of the picture network.

    Args:
        photo_share (`float`, *optional*): Share of the draws that are photographs; by their number if left out.
        redrawn_frames (`int`): Crops of each face that published super-resolution networks redraw, once, for kinds of fakes in
            which a decoder drew the face; 0 for none. Needs packages: see `decoder_redrawing.py`.
        redrawn_share (`float`): Share of the draws for which such a crop is taken.
        kwargs: Of [`PairsRecipe`]; `kinds` are those of `self_blended.py`.
    """

    photo_share: float | None = None
    redrawn_frames: int = 0
    redrawn_share: float = 0.4


@dataclass
class SoundRecipe(PairsRecipe):
    """
    The training of the sound network.

    Args:
        seconds (`float`): Length of a training sample.
        variants (`int`): Speeds in which each recording is used: its own, and others drawn, as if by other speakers.
        vocoder_steps (`int`): Steps of training each of the small neural vocoders, whose copies are fakes too; 0 for none.
        traces (`float`): Share of the pairs whose fake is the recording itself with a faint trace of synthesis
            (`vocoder_traces.py`), in place of a copy.
        one_band (`float`): Share of the copies of which only the part above or below a random frequency is used.
        held_out_kinds (`list[str]`): Synthesisers that train nothing: validation is on them, of held-out speakers.
        kwargs: Of [`PairsRecipe`]; `kinds` are those of `synthetic_speech.py` and `small_vocoders.py`, and
            the names of the folders of `data.synthetic_speech`.
    """

    seconds: float = 2.6
    variants: int = 3
    vocoder_steps: int = 400
    traces: float = 0.0
    one_band: float = 0.0
    held_out_kinds: list[str] = field(default_factory=list)

    def __post_init__(self):
        super().__post_init__()
        for name in ("traces", "one_band"):
            if not 0 <= vars(self)[name] <= 1:
                raise RecipeError(f"sound.{name} is a share between 0 and 1, got {vars(self)[name]}.")


@dataclass
class CalibrationRecipe:
    """
    From log-odds to verdicts, on held-out people.

    Args:
        false_alarms (`float`): Share of genuine clips that the threshold calls fake.
        abstain (`list[float]`): Shares of made fakes below the lower, and of genuine clips above the upper edge of the band in
            which the detector gives no verdict on request; empty for no band.
        conditions (`dict[str, int]`): Names and levels of perturbations (`evaluation/robustness/perturbations.py`). The shares
            must hold for the clips as they are, and again under each of these by itself: real recordings come in worse
            quality than those one collects.
    """

    false_alarms: float = 0.05
    abstain: list[float] = field(default_factory=lambda: [0.02, 0.02])
    conditions: dict = field(default_factory=dict)

    def __post_init__(self):
        for name, level in self.conditions.items():
            if name not in PERTURBATIONS:
                raise unknown_field(name, PERTURBATIONS, "calibration.conditions.")
            if level not in PERTURBATIONS[name].severities:
                raise RecipeError(
                    f"calibration.conditions.{name} is {level!r}; its levels are {list(PERTURBATIONS[name].severities)}."
                )
        if not 0 < self.false_alarms < 1:
            raise RecipeError(f"calibration.false_alarms is a share, got {self.false_alarms}.")
        if self.abstain and not (
            len(self.abstain) == 2 and 0 < self.abstain[0] < 1 and 0 < self.abstain[1] <= self.false_alarms
        ):
            raise RecipeError(
                f"calibration.abstain is {self.abstain}; it takes two shares, of fakes below and of genuine clips above the "
                f"band, the second at most calibration.false_alarms ({self.false_alarms}); or none."
            )
