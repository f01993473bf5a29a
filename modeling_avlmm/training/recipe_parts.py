"""The parts of a recipe, with every field that a YAML file can set."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from ..dialogue.families import TASKS
from ..processing_clips import FACE_MARGIN, FACES, MAX_FACE_MARGIN
from .recipe_values import RecipeError, check_unset, one_of

STAGE_KINDS = ("pretraining", "alignment", "encoders", "analysis")
FROZEN_PARTS = {"alignment": ("vision", "audio", "projector"), "analysis": ("vision", "audio")}
"""Parts that a kind of stage never trains, so that they can have no learning rate."""
BEST = ("auc", "last")
STABLE = "warmup_stable_decay"


@dataclass
class ModelRecipe:
    """
    AV-LMMDetect's backbone, and how it sees a clip.

    Args:
        backbone (`str`): Hub id or folder of an omni checkpoint, or of a detector to train further. `demo` makes the tiny
            one of the demonstration.
        dtype (`str`): Type of the weights that do not train. Trained weights are kept in float32.
        attn_implementation (`str`): `sdpa` or `eager`; `flash_attention_2` only with one question per clip.
        fps (`float`): Frames sampled per second.
        max_frames (`int`): Most frames of a clip.
        min_pixels, max_pixels (`int`): Smallest and largest frame after resizing, in pixels. Both sides become multiples
            of 28, rounded down where the frame is larger than `max_pixels`: for squares of 56 allow a little more than
            56 * 56, or they come out at 28.
        trim_leading_silence (`bool`): Start each clip where its sound sets in. For corpora whose fakes begin with a
            silence, such as FakeAVCeleb. Saved with the detector, which then reads every file that way.
        faces (`str`): Part of the picture to look at: `off` for whole frames, `largest` for the crop that follows the largest
            face, `all` for every face. For corpora of whole frames. Saved with the detector, which then reads every file that
            way. Training crops the largest face for `all` as well, as the label of a clip does not say whose face is fake.
        face_margin (`float`): Side of the square crop, as a multiple of the face box's longer side.
        prompts (`dict[str, str]`, *optional*): Texts that replace the published prompts.
    """

    backbone: str = "Qwen/Qwen2.5-Omni-7B"
    dtype: str = "bfloat16"
    attn_implementation: str = "sdpa"
    fps: float = 2.0
    max_frames: int = 64
    min_pixels: int = 56 * 56
    max_pixels: int = 336 * 336
    trim_leading_silence: bool = False
    faces: str = "off"
    face_margin: float = FACE_MARGIN
    prompts: dict | None = None

    def __post_init__(self):
        check_faces(self)


@dataclass
class NetworkRecipe:
    """
    A small detector's network.

    Args:
        start (`str`, *optional*): Folder or Hub id of a detector to train further; random weights if left out.
        preset (`str`, *optional*): A published size, e.g. `small` or `large`.
        options (`dict`): Fields of the configuration that differ from the preset's, or from those of the detector to start
            from, as long as its weights fit.
        trim_leading_silence (`bool`): Start each clip where its sound sets in; see [`ModelRecipe`].
        faces (`str`), face_margin (`float`): Part of the picture to look at; see [`ModelRecipe`].
    """

    start: str | None = None
    preset: str | None = None
    options: dict = field(default_factory=dict)
    trim_leading_silence: bool = False
    faces: str = "off"
    face_margin: float = FACE_MARGIN

    def __post_init__(self):
        check_faces(self)


def check_faces(part: ModelRecipe | NetworkRecipe) -> None:
    """Raise [`RecipeError`] for faces or a margin that cannot be cropped."""
    one_of("model.faces", part.faces, FACES)
    if not 1 <= part.face_margin <= MAX_FACE_MARGIN:
        raise RecipeError(
            f"model.face_margin is {part.face_margin}; it must be from 1, the box of the face, to {MAX_FACE_MARGIN}."
        )


@dataclass
class DataRecipe:
    """
    The clips.

    Args:
        dataset (`str`): Name of a registered dataset, e.g. `fakeavceleb`.
        protocol (`str`, *optional*): Its configuration, e.g. `identity_70_30`, or a JSON file with a list of clips.
        data_dir (`str`): Folder of the unpacked corpus.
        train_split, validation_split (`str`): Names of its splits.
        exclude_generators (`list[str]`): Leave out fakes whose picture or sound one of these made, in training and in
            validation, so that the test split measures generators never seen. Names as in the columns `generator` and
            `audio_generator`.
        clip_seconds (`float`): Longer clips are cut to this length for training.
        crop (`str`): Where to cut: `random` or `start`.
        balance (`str`): `modality` draws real and fake equally often, and the kinds of fake (picture, sound, both)
            equally often; `label` only the former; `none` takes the corpus as it is. `family`, for `analysis` stages
            only, draws the families of fakes equally often, so that rare ones are learned too.
        video_share, audio_share (`float`): Share of the clips whose picture, or sound, is asked about as well, among those
            that have the label. AV-LMMDetect only.
        max_drop_share (`float`): Training stops when more than this share of the drawn clips cannot be read.
        num_workers (`int`): Processes that decode.
        face_cache (`str`, *optional*): Folder of the face tracks, which several runs may share; `faces` in `output_dir` if
            left out.
        annotations (`str`, *optional*): Dense annotations of genuine clips, for a `pretraining` stage. AV-LMMDetect only.
    """

    balances: ClassVar[tuple[str, ...]] = ("modality", "label", "family", "none")

    dataset: str = "fakeavceleb"
    protocol: str | None = None
    data_dir: str = ""
    train_split: str = "train"
    validation_split: str = "validation"
    exclude_generators: list[str] = field(default_factory=list)
    clip_seconds: float = 8.0
    crop: str = "random"
    balance: str = "modality"
    video_share: float = 0.5
    audio_share: float = 0.5
    max_drop_share: float = 0.01
    num_workers: int = 4
    face_cache: str | None = None
    annotations: str | None = None

    def __post_init__(self):
        one_of("data.balance", self.balance, self.balances)
        one_of("data.crop", self.crop, ("random", "start"))


@dataclass
class ClipsRecipe(DataRecipe):
    """
    The clips of a small detector: the fields of [`DataRecipe`], but for those that only AV-LMMDetect has, and those below.

    Args:
        clip_seconds (`float`, *optional*): Longer clips are cut to this length; the network's own length if left out.
        augment (`bool`): Flip, turn, blur and recompress pictures, and stretch sound, as published for SSAVD.
        pseudo_fakes (`float`): Share of the draws that are made fake on the fly from genuine clips ([`PseudoFaker`]); the
            others are genuine. The fakes of the corpus are then used neither for training nor for choosing weights:
            validation makes its own from genuine clips too. 0 trains on the fakes of the corpus.
        pseudo_fake_kinds (`dict[str, float]`): How often each kind is made, relative to the others; all equally often if
            left out.
        pseudo_fake_pairs (`bool`): Follow every genuine clip by a fake of itself, cut and processed alike, so that within
            a batch nothing but the forgery tells them apart. Needs `pseudo_fakes: 0.5`.
        validation_clips (`int`, *optional*): Most clips scored to choose the best weights. If left out, all; with
            pseudo-fakes, four draws of every genuine clip.
        held_out (`float`, *optional*): Share of the people of the training split who train nothing: validation makes its
            fakes of their clips, in place of those of `validation_split`. Needs `pseudo_fakes`.
        train_ok_only (`bool`): Use only clips whose table says `train_ok: yes`, for weights that are given away. Needs
            `held_out`.
        store (`str`, *optional*): Folder of the face crops and the sound of every clip, so that each is decoded once; runs on
            the same files may share it. Without it every draw decodes its clip. Needs `model.faces`.
        store_seconds (`float`): Seconds of a clip that the store keeps, from where its face is first seen.
    """

    balances: ClassVar[tuple[str, ...]] = ("modality", "label", "none")
    not_for_it: ClassVar[tuple[str, ...]] = ("video_share", "audio_share", "annotations")

    clip_seconds: float | None = None
    balance: str = "label"
    augment: bool = False
    pseudo_fakes: float = 0.0
    pseudo_fake_kinds: dict = field(default_factory=dict)
    pseudo_fake_pairs: bool = False
    validation_clips: int | None = None
    held_out: float | None = None
    train_ok_only: bool = False
    store: str | None = None
    store_seconds: float = 30.0

    def __post_init__(self):
        super().__post_init__()
        check_unset(self, DataRecipe, self.not_for_it, "data.", "avlmm")
        if not 0 <= self.pseudo_fakes < 1:
            raise RecipeError(f"data.pseudo_fakes is a share below 1, got {self.pseudo_fakes}.")
        if self.pseudo_fake_pairs and self.pseudo_fakes != 0.5:
            raise RecipeError("data.pseudo_fake_pairs are half fakes: set data.pseudo_fakes to 0.5.")
        if self.pseudo_fake_kinds and not self.pseudo_fakes:
            raise RecipeError("data.pseudo_fake_kinds needs data.pseudo_fakes, their share.")
        if self.held_out is not None and not (0 < self.held_out < 1 and self.pseudo_fakes):
            raise RecipeError(
                f"data.held_out is {self.held_out}: it is a share of the people between 0 and 1, for recipes with "
                "data.pseudo_fakes."
            )
        if self.train_ok_only and self.held_out is None:
            raise RecipeError("data.train_ok_only needs data.held_out, the people to choose weights on.")
        if not self.store_seconds > 0:
            raise RecipeError(f"data.store_seconds must be above 0, got {self.store_seconds}.")


@dataclass
class OptimisationRecipe:
    """
    The training of a small detector.

    Args:
        epochs (`float`): Passes over as many clips as the training split has.
        max_steps (`int`, *optional*): Optimiser steps, instead of `epochs`.
        batch_size (`int`): Clips per device and pass.
        gradient_accumulation (`int`): Passes per optimiser step.
        learning_rate, weight_decay, adam_beta2, max_grad_norm (`float`): Settings of AdamW.
        warmup_epochs (`float`): Epochs until the rate is reached. `warmup_steps` (`int`, *optional*) instead.
        lr_scheduler (`str`): Name in `transformers`.
        lr_end (`float`): Share of the rate that a `linear` schedule ends at.
        decay_steps (`int`, *optional*): Last steps, over which `lr_scheduler: warmup_stable_decay` falls to 0.
        evaluate_steps (`int`, *optional*): Steps between checkpoints, at which the validation split is scored; an epoch if
            left out.
        keep (`str`): `auc` keeps the weights with the best overall AUC on validation, and of ties the later; `last` keeps
            the last ones.
        patience (`int`, *optional*): Stop after this many scorings in a row without improvement.
        log_steps (`int`): Steps between log lines.
        bf16 (`bool`): Compute in bfloat16 where that is safe (autocast). Weights stay in float32.
        gradient_checkpointing (`bool`): Recompute activations in the backward pass: less memory, about a third more time.
            Not for SSAVD.
    """

    epochs: float = 30.0
    max_steps: int | None = None
    batch_size: int = 32
    gradient_accumulation: int = 1
    learning_rate: float = 5e-4
    weight_decay: float = 0.01
    adam_beta2: float = 0.999
    max_grad_norm: float = 1.0
    warmup_epochs: float = 0.0
    warmup_steps: int | None = None
    lr_scheduler: str = "linear"
    lr_end: float = 0.0
    decay_steps: int | None = None
    evaluate_steps: int | None = None
    keep: str = "auc"
    patience: int | None = None
    log_steps: int = 10
    bf16: bool = False
    gradient_checkpointing: bool = False

    def __post_init__(self):
        one_of("training.keep", self.keep, BEST)
        if (self.decay_steps is None) == (self.lr_scheduler == STABLE):
            raise RecipeError(
                f"training.decay_steps belongs to training.lr_scheduler: {STABLE}, and the other way round."
            )
        if self.patience is not None and self.keep == "last":
            raise RecipeError("training.patience needs training.keep: auc.")


@dataclass
class AnalysisRecipe:
    """
    The conversations of an `analysis` stage.

    Args:
        tasks (`dict[str, float]`): Share of the draws for each task.
        per_clip (`int`): Conversations made for each clip and task, to draw from.
        per_pass (`int`): Conversations about a clip in one pass, which do not see one another: the drawn one, and others
            about the same clip. More words for the same pictures; more than one needs `sdpa` or `eager` attention.
        replay_share (`float`): Share of the draws that also ask for the verdict, as in the stages before, so that it is
            not forgotten. The other questions about the clip do not see it.
        context_share (`float`): Share of the draws that begin with a detector's verdicts in words, as a chat does.
        evidence (`str`, *optional*): Folder for the evidence measured by comparing fakes with their sources; the stage's
            own folder if left out. `none` trains on the labels alone.
        grow_vocabulary (`bool`): Give every word of the conversations a token of its own, and train embeddings and
            language head as well. For the demonstration, whose tokenizer knows only its prompts.
        seed (`int`): Seed of the texts.
    """

    tasks: dict = field(
        default_factory=lambda: {
            "detection": 0.2,
            "classification": 0.25,
            "description": 0.35,
            "conversation": 0.2,
        }
    )
    per_clip: int = 1
    per_pass: int = 1
    replay_share: float = 0.5
    context_share: float = 0.5
    evidence: str | None = None
    grow_vocabulary: bool = False
    seed: int = 0

    def __post_init__(self):
        unknown = set(self.tasks) - set(TASKS)
        shares = list(self.tasks.values())
        if unknown or not all(isinstance(x, int | float) and x >= 0 for x in shares) or not sum(shares) > 0:
            raise RecipeError(
                f"stages.*.analysis.tasks is {self.tasks!r}; it gives shares of at least 0, not all 0, of "
                f"{', '.join(TASKS)}."
            )
        for name, share in (("replay_share", self.replay_share), ("context_share", self.context_share)):
            if not 0 <= share <= 1:
                raise RecipeError(f"stages.*.analysis.{name} is {share!r}; it must be in [0, 1].")
        for name, count in (("per_clip", self.per_clip), ("per_pass", self.per_pass)):
            if count < 1:
                raise RecipeError(f"stages.*.analysis.{name} is {count!r}; it must be at least 1.")

    @property
    def wanted(self) -> dict[str, float]:
        """The tasks that have a share, with their shares."""
        return {task: share for task, share in self.tasks.items() if share > 0}


@dataclass
class StageRecipe:
    """
    One stage of AV-LMMDetect's training.

    Args:
        kind (`str`): `alignment` trains LoRA on the language model with both encoders frozen, and merges it at the end.
            `encoders` trains both encoders in full with the language model frozen. `analysis` teaches a detector to talk
            about a clip: LoRA and the projectors train, both encoders are frozen. `pretraining` trains a random backbone on
            dense questions about genuine clips; only the demonstration needs it.
        name (`str`, *optional*): Folder of the stage; its kind if left out.
        epochs (`float`): Passes over as many clips as the training split has.
        max_steps (`int`, *optional*): Optimiser steps, instead of `epochs`.
        learning_rate (`float`): Of the LoRA weights, or of any part without a rate of its own below.
        vision_learning_rate, audio_learning_rate, projector_learning_rate (`float`, *optional*): Rates of these parts, where
            the stage trains them.
        train_projectors (`bool`): Whether `encoders` and `analysis` train the projectors to the language model.
        lora_rank, lora_alpha (`int`), lora_dropout (`float`): LoRA.
        batch_size (`int`): Clips per device and pass.
        gradient_accumulation (`int`): Passes per optimiser step.
        weight_decay, adam_beta2, max_grad_norm, warmup_share (`float`), lr_scheduler (`str`): The usual ones.
        gradient_checkpointing (`bool`): Recompute activations: less memory, about a third more time.
        save_steps, log_steps (`int`): Steps between checkpoints and between log lines.
        encoder_cache (`str`, *optional*): Folder in which an `alignment` stage keeps the outputs of the frozen encoders, so
            that they run once per clip and not every epoch. Needs `data.crop: start`. The stage says how large it may get.
        analysis ([`AnalysisRecipe`], *optional*): Settings of an `analysis` stage.
    """

    kind: str = "alignment"
    name: str | None = None
    epochs: float = 1.0
    max_steps: int | None = None
    learning_rate: float = 1e-4
    vision_learning_rate: float | None = None
    audio_learning_rate: float | None = None
    projector_learning_rate: float | None = None
    train_projectors: bool = True
    lora_rank: int = 64
    lora_alpha: int = 128
    lora_dropout: float = 0.05
    batch_size: int = 1
    gradient_accumulation: int = 1
    weight_decay: float = 0.0
    adam_beta2: float = 0.95
    max_grad_norm: float = 1.0
    warmup_share: float = 0.03
    lr_scheduler: str = "cosine"
    gradient_checkpointing: bool = False
    save_steps: int = 200
    log_steps: int = 10
    encoder_cache: str | None = None
    analysis: AnalysisRecipe | None = None

    def __post_init__(self):
        one_of("stages.*.kind", self.kind, STAGE_KINDS)
        if self.kind == "analysis":
            self.analysis = self.analysis or AnalysisRecipe()
        elif self.analysis is not None:
            raise RecipeError(f"stages.*.analysis is for stages of kind analysis, not {self.kind}.")
        if self.encoder_cache and self.kind != "alignment":
            raise RecipeError(f"stages.*.encoder_cache is for stages of kind alignment, not {self.kind}.")
        for part in FROZEN_PARTS.get(self.kind, ()):
            if self.part_rates[part] is not None:
                raise RecipeError(
                    f"stages.*.{part}_learning_rate is set, but stages of kind {self.kind} freeze that part: leave it out."
                )
        self.name = self.name or self.kind

    @property
    def part_rates(self) -> dict[str, float | None]:
        """Learning rates of the parts that can have one of their own."""
        return {
            "vision": self.vision_learning_rate,
            "audio": self.audio_learning_rate,
            "projector": self.projector_learning_rate,
        }
