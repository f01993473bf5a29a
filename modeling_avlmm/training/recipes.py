"""Recipes: a YAML file that says all of a training run, read into dataclasses."""

import dataclasses
import difflib
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path

import yaml

STAGE_KINDS = ("pretraining", "alignment", "encoders", "analysis")
TASKS = ("detection", "classification", "description", "conversation")
"""What conversations about a clip are of (DFA-GPT, arXiv 2501.01164)."""


class RecipeError(ValueError):
    """A recipe that cannot be run as written; the message names the field and the fix."""


@dataclass
class ModelRecipe:
    """
    The backbone and how it sees a clip.

    Args:
        backbone (`str`): Hub id or folder of an omni checkpoint, or of a detector to go on from. `demo` makes the
            tiny one of the demonstration.
        dtype (`str`): Type of the weights that are not trained. Trained weights are kept in float32.
        attn_implementation (`str`): `sdpa` or `eager`; `flash_attention_2` only with one question a clip.
        fps (`float`): Frames sampled per second.
        max_frames (`int`): Most frames of a clip.
        min_pixels, max_pixels (`int`): Smallest and largest frame, in pixels, after resizing. Both sides become
            multiples of 28, rounded down where the frame is larger than `max_pixels`: for squares of 56 allow a little
            more than 56 * 56, or they come out at 28.
        trim_leading_silence (`bool`): Clips begin where their sound sets in. For corpora whose fakes begin with a
            silence, such as FakeAVCeleb; saved with the detector, which then reads every file so.
        prompts (`dict[str, str]`, *optional*): Replaces the published prompts.
    """

    backbone: str = "Qwen/Qwen2.5-Omni-7B"
    dtype: str = "bfloat16"
    attn_implementation: str = "sdpa"
    fps: float = 2.0
    max_frames: int = 64
    min_pixels: int = 56 * 56
    max_pixels: int = 336 * 336
    trim_leading_silence: bool = False
    prompts: dict | None = None


@dataclass
class DataRecipe:
    """
    The clips.

    Args:
        dataset (`str`): Name of a registered dataset, e.g. `fakeavceleb`.
        protocol (`str`, *optional*): Its configuration, e.g. `identity_70_30`.
        data_dir (`str`): Folder of the unpacked corpus.
        train_split, validation_split (`str`): Names of its splits.
        exclude_generators (`list[str]`): Fakes whose picture or sound one of these made are in neither training nor
            validation, so that a test split measures what was never seen. Names as in the columns `generator` and
            `audio_generator`.
        clip_seconds (`float`): Longer clips are cut to this length for training.
        crop (`str`): Where to cut: `random` or `start`.
        balance (`str`): `modality` draws real and fake equally, and the kinds of fake (picture, sound, both) equally;
            `label` only the former; `family`, for `analysis` stages alone, draws the families of fakes equally, so that
            a rare one is learned as well; `none` takes the corpus as it is.
        video_share, audio_share (`float`): Share of the clips whose picture, or sound, is also asked about, of those
            that have the label.
        max_drop_share (`float`): Training stops when more than this share of the clips drawn was unreadable.
        num_workers (`int`): Processes that decode.
        annotations (`str`, *optional*): Dense annotations of genuine clips, for a `pretraining` stage.
    """

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
    annotations: str | None = None


@dataclass
class AnalysisRecipe:
    """
    What the conversations of an `analysis` stage are.

    Args:
        tasks (`dict[str, float]`): Share of the draws for each task.
        per_clip (`int`): Conversations made for each clip and task, to draw from.
        per_pass (`int`): Conversations about a clip in one pass, which do not see one another: the drawn one, and others
            about the same clip. More words for the same pictures; more than one needs `sdpa` or `eager` attention.
        replay_share (`float`): Share of the draws in which the verdict is asked as well, as in the stages before, so
            that it is not forgotten. What else is asked about the clip does not see it.
        context_share (`float`): Share of the draws that begin with a detector's verdicts in words, as a chat does.
        evidence (`str`, *optional*): Folder for what is measured by comparing fakes with their sources; in the stage's
            own folder if left out. `none` trains on the labels alone.
        grow_vocabulary (`bool`): Gives every word of the conversations a token, and trains the embeddings and the
            language head as well. For the demonstration, whose tokenizer knows its prompts only.
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
        for name in ("replay_share", "context_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise RecipeError(
                    f"stages.*.analysis.{name} is {getattr(self, name)!r}; it must be in [0, 1]."
                )
        for name in ("per_clip", "per_pass"):
            if getattr(self, name) < 1:
                raise RecipeError(
                    f"stages.*.analysis.{name} is {getattr(self, name)!r}; it must be at least 1."
                )


@dataclass
class StageRecipe:
    """
    One stage of training.

    Args:
        kind (`str`): `alignment` trains LoRA on the language model with both encoders frozen, and merges it at the
            end. `encoders` trains both encoders in full with the language model frozen. `pretraining` trains a random
            backbone on dense questions about genuine clips; only the demonstration needs it. `analysis` teaches a
            detector to talk about a clip: LoRA and the projectors train, both encoders are frozen.
        name (`str`, *optional*): Folder of the stage; the kind if left out.
        epochs (`float`): Passes over as many clips as the training split has.
        max_steps (`int`, *optional*): Optimiser steps, instead of `epochs`.
        learning_rate (`float`): Of the LoRA weights, or of whatever has no rate of its own below.
        vision_learning_rate, audio_learning_rate, projector_learning_rate (`float`, *optional*): Of those parts,
            where the stage trains them.
        train_projectors (`bool`): Whether `encoders` and `analysis` train what maps features to the language model.
        lora_rank, lora_alpha (`int`), lora_dropout (`float`): LoRA.
        batch_size (`int`): Clips per device and pass.
        gradient_accumulation (`int`): Passes per optimiser step.
        weight_decay, adam_beta2, max_grad_norm, warmup_share (`float`), lr_scheduler (`str`): The usual.
        gradient_checkpointing (`bool`): Recomputes activations: less memory, about a third more time.
        save_steps, log_steps (`int`): Steps between checkpoints and between log lines.
        encoder_cache (`str`, *optional*): Folder in which an `alignment` stage keeps what the frozen encoders make of each
            clip, so that they run once and not every epoch. Needs `data.crop: start`. The stage says how large it may get;
            encoder_cache.py has the formula.
        analysis ([`AnalysisRecipe`], *optional*): Of an `analysis` stage.
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
        if self.kind not in STAGE_KINDS:
            raise RecipeError(f"stages.*.kind is {self.kind!r}; it must be one of {', '.join(STAGE_KINDS)}.")
        if self.kind == "analysis":
            self.analysis = self.analysis or AnalysisRecipe()
        elif self.analysis is not None:
            raise RecipeError(f"stages.*.analysis is for stages of kind analysis, not {self.kind}.")
        if self.encoder_cache and self.kind != "alignment":
            raise RecipeError(f"stages.*.encoder_cache is for stages of kind alignment, not {self.kind}.")
        frozen = {"alignment": ("vision", "audio", "projector"), "analysis": ("vision", "audio")}
        for part in frozen.get(self.kind, ()):
            if getattr(self, f"{part}_learning_rate") is not None:
                raise RecipeError(
                    f"stages.*.{part}_learning_rate is set, but stages of kind {self.kind} freeze that part: leave it out."
                )
        self.name = self.name or self.kind


@dataclass
class Recipe:
    """
    A training run.

    Args:
        name (`str`): What the run is called.
        output_dir (`str`): Where everything it writes goes.
        seed (`int`): Seed of everything random.
        model ([`ModelRecipe`]), data ([`DataRecipe`]), stages (`list[StageRecipe]`): The parts.
    """

    name: str
    output_dir: str
    seed: int = 0
    model: ModelRecipe = field(default_factory=ModelRecipe)
    data: DataRecipe = field(default_factory=DataRecipe)
    stages: list[StageRecipe] = field(default_factory=list)

    def __post_init__(self):
        if not self.stages:
            raise RecipeError("A recipe needs at least one entry under stages.")
        names = [stage.name for stage in self.stages]
        if len(set(names)) < len(names):
            raise RecipeError(f"Stages need different names, got {names}: set stages.*.name.")
        if self.data.balance not in ("modality", "label", "family", "none"):
            raise RecipeError(
                f"data.balance is {self.data.balance!r}; it must be modality, label, family or none."
            )
        if self.data.balance == "family" and any(stage.kind != "analysis" for stage in self.stages):
            raise RecipeError(
                "data.balance: family is for recipes of analysis stages alone; the others draw by modality."
            )
        if self.data.crop not in ("random", "start"):
            raise RecipeError(f"data.crop is {self.data.crop!r}; it must be random or start.")
        if self.data.crop != "start" and any(stage.encoder_cache for stage in self.stages):
            raise RecipeError(
                "stages.*.encoder_cache needs data.crop: start: a part cut at random is another one every time."
            )
        if self.model.trim_leading_silence and any(stage.kind == "analysis" for stage in self.stages):
            raise RecipeError(
                "An analysis stage needs model.trim_leading_silence: false: the times in its answers count from the "
                "file's own start."
            )
        if any(stage.kind == "pretraining" for stage in self.stages) and not self.data.annotations:
            raise RecipeError(
                "A pretraining stage needs data.annotations, the dense annotations of genuine clips."
            )


def load_recipe(path: str | Path, overrides: list[str] = (), kind: type = Recipe):
    """
    Reads a recipe and applies `--any.field value` overrides.

    Args:
        path (`str` or `Path`): The YAML file.
        kind (`type`, *optional*, defaults to [`Recipe`]): The dataclass that it fills.
        overrides (`list[str]`): Command-line words: `--field value` or `--field=value`, with dots between levels; a
            stage is named by its number or its name (`--stages.alignment.learning_rate 1e-4`).

    Raises:
        RecipeError: for an unknown field (with the nearest known one), a wrong type, or an impossible combination.
    """
    path = Path(path)
    if not path.is_file():
        near = sorted(p.stem for p in path.parent.glob("*.yaml")) if path.parent.is_dir() else []
        raise RecipeError(f"There is no recipe {path}." + (f" There are: {', '.join(near)}." if near else ""))
    values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    if not isinstance(values, dict):
        raise RecipeError(f"{path} holds {type(values).__name__}, not named fields.")
    for key, text in _split_overrides(list(overrides)):
        _override(values, key, yaml.safe_load(text))
    return _build(kind, values, "")


def _split_overrides(words: list[str]) -> list[tuple[str, str]]:
    pairs = []
    while words:
        word = words.pop(0)
        if not word.startswith("--"):
            raise RecipeError(f"Expected --field value, got {word!r}.")
        key, equals, text = word[2:].partition("=")
        if not equals:
            if not words:
                raise RecipeError(f"--{key} needs a value.")
            text = words.pop(0)
        pairs.append((key, text))
    return pairs


def _override(values: dict, key: str, value) -> None:
    *parents, last = key.split(".")
    for depth, part in enumerate(parents):
        if isinstance(values, list):
            names = [stage.get("name") or stage.get("kind") for stage in values]
            if part.isdigit() and int(part) < len(values):
                values = values[int(part)]
            elif part in names:
                values = values[names.index(part)]
            else:
                raise RecipeError(
                    f"--{key}: there is no stage {part!r}; the stages are {', '.join(map(str, names))}."
                )
        else:
            values = values.setdefault(part, {})
        if not isinstance(values, dict | list):
            raise RecipeError(f"--{key}: {'.'.join(parents[: depth + 1])} has no fields.")
    values[last] = value


def _build(cls, values: dict, where: str):
    """A dataclass from plain values, checking names and types all the way down."""
    if not isinstance(values, dict):
        raise RecipeError(f"{where.rstrip('.') or 'The recipe'} must be named fields, got {values!r}.")
    hints = typing.get_type_hints(cls)
    known = {f.name: f for f in dataclasses.fields(cls)}
    for name in values:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
            hint = f" Did you mean {where}{near[0]}?" if near else f" Known fields: {', '.join(known)}."
            raise RecipeError(f"Unknown field {where}{name}.{hint}")
    missing = [
        name
        for name, f in known.items()
        if name not in values
        and f.default is dataclasses.MISSING
        and f.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise RecipeError(f"The recipe lacks {', '.join(where + name for name in missing)}.")
    return cls(**{name: _convert(hints[name], value, where + name) for name, value in values.items()})


def _convert(hint, value, where: str):
    options = typing.get_args(hint) if typing.get_origin(hint) in (types.UnionType, typing.Union) else (hint,)
    if value is None and type(None) in options:
        return None
    target = next(option for option in options if option is not type(None))
    if dataclasses.is_dataclass(target):
        return _build(target, value, where + ".")
    if typing.get_origin(target) is list:
        if not isinstance(value, list):
            raise RecipeError(f"{where} must be a list, got {value!r}.")
        item = typing.get_args(target)[0]
        return [_convert(item, entry, f"{where}.{index}") for index, entry in enumerate(value)]
    if target is float and not isinstance(value, bool):
        # YAML reads 1e-4 as text.
        try:
            return float(value)
        except (TypeError, ValueError):
            pass
    elif isinstance(value, target) and not (target is int and isinstance(value, bool)):
        return value
    raise RecipeError(f"{where} must be {target.__name__}, got {value!r}.")
