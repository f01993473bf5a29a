"""What a pass of AV-LMMDetect takes of a device's memory, derived before anything is loaded.

The real classes run at their real size on tensors without values (`FakeTensorMode`), and every storage is counted from the
operation that makes it to the moment it is freed: weights, gradients, optimiser states, what the forward pass keeps for the
backward pass, what checkpointing computes anew, masks, the autocast copies of weights. Nothing is estimated from formulas.

Not seen are buffers inside of single operations, the caching allocator's fragments and what the driver takes for itself: see
[`HEADROOM_SHARE`]. Attention is that of PyTorch's fused CPU kernel, which keeps what a GPU's fused kernels keep.
"""

import math
import re
import weakref
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from peft import get_peft_model
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import PreTrainedConfig

from ..configuration_avlmm import DEFAULT_PROMPTS, AVLMMConfig
from ..configuration_detector import IGNORE_INDEX, PARTS
from ..modeling_avlmm import AVLMMForDeepfakeDetection
from ..training.recipes import StageRecipe
from ..training.stages import LORA_KINDS, freeze_for_stage, keep_in_float32, lora_config

GIB = 1024**3
HEADROOM_SHARE, HEADROOM_GIB = 0.05, 1.0
"""Our own choice of what stays free beside what is predicted: fragments of the caching allocator, and the driver's context with
the libraries' workspaces."""
ADAMW_BYTES = 8
"""AdamW's two moments of a weight, in float32."""
MEL_RATE = 100
"""Frames of the log-mel spectrum a second."""
CHAT_TOKENS = 24
"""What a chat template writes around system prompt, clip and question: about so many tokens (Qwen2.5: 20 and the markers)."""
CONVERSATION_TOKENS = 256
"""Assumed length of a conversation of an `analysis` stage, or of the dense questions of a `pretraining` stage."""

_aten = torch.ops.aten
_INDEXING = {
    _aten.index.Tensor,
    _aten._unsafe_index.Tensor,
    _aten.index_put.default,
    _aten.index_put_.default,
}


@dataclass(frozen=True)
class ClipShape:
    """
    How much of a clip the model sees.

    Args:
        grids (`int`): Pairs of frames, each one step of the vision encoder.
        height, width (`int`): Patches of a frame.
        mel_frames (`int`): Frames of the spectrum; 0 without sound.
        prompt_tokens (`int`): Of the texts before and after the clip, without the questions.
        question_tokens (`tuple[int, ...]`): Of each question, with its answer.
    """

    grids: int
    height: int
    width: int
    mel_frames: int
    prompt_tokens: int
    question_tokens: tuple[int, ...]

    @property
    def audio_tokens(self) -> int:
        return ((self.mel_frames - 1) // 2 + 1 - 2) // 2 + 1 if self.mel_frames else 0

    def video_tokens(self, merge: int) -> int:
        return self.grids * self.height * self.width // merge**2

    def tokens(self, merge: int) -> int:
        """Length of the clip's row, every question included."""
        media = self.video_tokens(merge) + self.audio_tokens
        return self.prompt_tokens + media + sum(self.question_tokens)


def clip_shape(
    config: PreTrainedConfig,
    seconds: float,
    fps: float,
    max_pixels: int,
    max_frames: int | None = None,
    prompts: dict | None = None,
    questions: tuple[str, ...] = PARTS,
    more_tokens: tuple[int, ...] = (),
) -> ClipShape:
    """
    The largest shape that a clip of so many seconds can have: of square frames, as many pixels as are allowed.

    Args:
        config (`PreTrainedConfig`): The thinker's.
        seconds, fps (`float`), max_frames (`int`, *optional*): As for [`AVLMMProcessor`].
        max_pixels (`int`): Most pixels of a frame.
        prompts (`dict[str, str]`, *optional*): Texts, whose tokens are counted as words and marks: about right.
        questions (`tuple[str, ...]`): Which of `prompts` are asked.
        more_tokens (`tuple[int, ...]`): Lengths of what else is asked.
    """
    vision = config.vision_config
    frames = max(1, math.ceil(seconds * fps - 1e-6))
    if max_frames is not None:
        frames = min(frames, max_frames)
    unit = vision.patch_size * vision.spatial_merge_size
    side = max(1, math.isqrt(max_pixels) // unit) * vision.spatial_merge_size
    texts = {**DEFAULT_PROMPTS, **(prompts or {})}
    asked = tuple(_count_tokens(texts[name]) + 8 for name in questions)
    return ClipShape(
        grids=-(-frames // vision.temporal_patch_size),
        height=side,
        width=side,
        mel_frames=round(seconds * MEL_RATE),
        prompt_tokens=CHAT_TOKENS + _count_tokens(texts["system"]) + _count_tokens(texts["prefix"]),
        question_tokens=asked + more_tokens,
    )


def _count_tokens(text: str) -> int:
    return len(re.findall(r"\w+|[^\w\s]", text))


@dataclass(frozen=True)
class MemoryNeed:
    """
    Bytes at the moment when most are in use.

    Args:
        weights (`int`): All of them, buffers included.
        optimizer (`int`): AdamW's moments.
        gradients (`int`): Those that are there at that moment.
        activations (`int`): Everything else: inputs, what is kept for the backward pass, results of single operations.
        trained (`int`): Weights (their number) that train.
        all_weights (`int`): Their number.
    """

    weights: int
    optimizer: int
    gradients: int
    activations: int
    trained: int
    all_weights: int

    @property
    def total(self) -> int:
        return self.weights + self.optimizer + self.gradients + self.activations

    @property
    def needed(self) -> float:
        """Bytes that a device must have: the total with headroom."""
        return self.total * (1 + HEADROOM_SHARE) + HEADROOM_GIB * GIB


class LiveBytes(TorchDispatchMode):
    """
    Counts the bytes of all storages that are alive, as operations make them and as they are freed.

    Indexing of tensors without values by masks with values is done by the places that the masks mark: how many these are
    cannot be known otherwise.

    Args:
        known (`Iterator[torch.Tensor]`): What is counted elsewhere.

    Attributes:
        now, peak (`int`): Bytes alive, and the most there were.
        gradients, gradients_at_peak (`int`): Those of them that are gradients of `model`'s weights, see `watch`.
    """

    def __init__(self, known: Iterator[torch.Tensor] = ()):
        super().__init__()
        self.now = self.peak = self.gradients = self.gradients_at_peak = 0
        self._references: dict[int, weakref.ref] = {}
        self._known = [tensor.untyped_storage() for tensor in known]  # kept, so that no address is used twice
        self._addresses = {storage._cdata for storage in self._known}

    def watch(self, model: nn.Module) -> None:
        """Tells gradients of weights, those that are there and those to come, from other tensors."""

        def arrived(weight: nn.Parameter) -> None:
            # Another pass adds to the one that is there.
            if id(weight) not in there:
                there.add(id(weight))
                self.gradients += weight.grad.untyped_storage().nbytes()

        there: set[int] = set()
        for weight in model.parameters():
            if weight.requires_grad:
                if weight.grad is not None:
                    self.count(weight.grad)
                    arrived(weight)
                weight.register_post_accumulate_grad_hook(arrived)

    def count(self, tensor: torch.Tensor) -> None:
        """Counts a tensor's storage until it is freed, once."""
        storage = tensor.untyped_storage()
        address = storage._cdata
        if address in self._addresses or address in self._references:
            return
        size = storage.nbytes()

        def freed(_, address=address, size=size):
            self.now -= size
            del self._references[address]

        self._references[address] = weakref.ref(storage, freed)
        self.now += size
        if self.now > self.peak:
            self.peak, self.gradients_at_peak = self.now, self.gradients

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func in _INDEXING:
            args = (args[0], _places(args[1]), *args[2:])
        result = func(*args, **(kwargs or {}))
        for leaf in result if isinstance(result, tuple | list) else (result,):
            if isinstance(leaf, torch.Tensor):
                self.count(leaf)
        return result


def _places(indices: list[torch.Tensor | None]) -> list[torch.Tensor | None]:
    """Indices with those that are masks as the places they mark."""
    found = []
    for index in indices:
        if index is not None and index.dtype == torch.bool and not isinstance(index, FakeTensor):
            found += index.nonzero(as_tuple=True)
        else:
            found.append(index)
    return found


# -- what runs ---------------------------------------------------------------------------------------------------------


def build(
    thinker_config: PreTrainedConfig, dtype: torch.dtype, attn_implementation: str = "sdpa"
) -> AVLMMForDeepfakeDetection:
    """A detector of a thinker's shape with random weights; the answers' token ids are of no consequence."""
    config = AVLMMConfig(thinker_config=thinker_config.to_dict(), label_token_ids=[0, 1])
    # A pass of `flash_attention_2` cannot be run without a GPU; it keeps what the other fused kernel keeps.
    attention = "eager" if attn_implementation == "eager" else "sdpa"
    return AVLMMForDeepfakeDetection._from_config(config, dtype=dtype, attn_implementation=attention)


def real_stage(
    thinker_config: PreTrainedConfig,
    stage: StageRecipe | None,
    dtype: torch.dtype = torch.bfloat16,
    attn_implementation: str = "sdpa",
) -> nn.Module:
    """
    The model as a stage trains it - types, what is frozen, LoRA, checkpointing - or as it scores (None).

    On the device of the context: under `torch.device("meta")` it has no weights.
    """
    model = build(thinker_config, dtype, attn_implementation)
    if stage is None:
        return model.eval()
    freeze_for_stage(model, stage)
    if stage.kind in LORA_KINDS:
        model = get_peft_model(model, lora_config(model, stage))
        keep_in_float32(model)
        if stage.gradient_checkpointing:
            model.enable_input_require_grads()  # as TRL's trainer does
    if stage.gradient_checkpointing:
        _checkpoint_activations(model)
    return model.train()


def _checkpoint_activations(model: nn.Module) -> None:
    # Newer versions of transformers call it by another name, which older ones do not know.
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable()


def without_values(model: nn.Module, fake: FakeTensorMode) -> nn.Module:
    """Gives a model on the meta device weights and buffers of the CPU that have no values."""
    made: dict[int, torch.Tensor] = {}

    def place(tensor: torch.Tensor) -> torch.Tensor:
        if id(tensor) not in made:
            with fake:
                empty = torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu")
            made[id(tensor)] = (
                nn.Parameter(empty, requires_grad=tensor.requires_grad)
                if isinstance(tensor, nn.Parameter)
                else empty
            )
        return made[id(tensor)]

    for module in model.modules():
        for kept in (module._parameters, module._buffers):
            for name, tensor in kept.items():
                if tensor is not None:
                    kept[name] = place(tensor)
    return model


def make_batch(
    config: PreTrainedConfig,
    shape: ClipShape,
    batch_size: int,
    labels: bool = False,
    fake: FakeTensorMode | None = None,
) -> dict[str, torch.Tensor]:
    """
    A batch of clips of one shape. Indices have values, as the model's flow depends on them; pixels and spectra have none
    where `fake` is given, and random ones otherwise.

    Args:
        config (`PreTrainedConfig`): The thinker's.
        shape ([`ClipShape`]): Of every clip.
        batch_size (`int`): Number of clips.
        labels (`bool`): Whether answers are trained on: the last two tokens of each question, or all of a long one.
        fake (`FakeTensorMode`, *optional*): What makes tensors without values.
    """
    vision, merge = config.vision_config, config.vision_config.spatial_merge_size
    media = [_token_id(config, "video")] * shape.video_tokens(merge)
    media += [_token_id(config, "audio")] * shape.audio_tokens
    before = shape.prompt_tokens + len(media)
    length = shape.tokens(merge)
    row = torch.zeros(length, dtype=torch.long)
    row[shape.prompt_tokens : before] = torch.tensor(media)
    owner, answers = torch.zeros(length, dtype=torch.long), torch.full((length,), IGNORE_INDEX)
    positions = torch.full((len(PARTS),), -1)
    cursor = before
    for number, size in enumerate(shape.question_tokens, start=1):
        owner[cursor : cursor + size] = number
        cursor += size
        trained = 2 if number <= len(PARTS) and size < CONVERSATION_TOKENS else size - 2
        answers[cursor - trained : cursor] = 1
        if number <= len(PARTS):
            positions[number - 1] = cursor - 3
    batch = {
        "input_ids": row.repeat(batch_size, 1),
        "attention_mask": torch.ones(batch_size, length, dtype=torch.long),
        "position_ids": torch.arange(length).repeat(3, batch_size, 1),
        "answer_positions": positions.repeat(batch_size, 1),
    }
    if len(shape.question_tokens) > 1:
        batch["question_ids"] = owner.repeat(batch_size, 1)
    if labels:
        batch["labels"] = answers.repeat(batch_size, 1)
    batch["video_grid_thw"] = torch.tensor([shape.grids, shape.height, shape.width]).repeat(batch_size, 1)
    patches = batch_size * shape.grids * shape.height * shape.width
    size = vision.in_channels * vision.temporal_patch_size * vision.patch_size**2
    batch["pixel_values_videos"] = _values((patches, size), fake, torch.uint8)
    if shape.mel_frames:
        bins = config.audio_config.num_mel_bins
        batch["input_features"] = _values((batch_size, bins, shape.mel_frames), fake)
        batch["feature_attention_mask"] = torch.ones(batch_size, shape.mel_frames, dtype=torch.long)
    return batch


def _token_id(config: PreTrainedConfig, kind: str) -> int:
    known = (getattr(config, f"{kind}_token_id", None), getattr(config, f"{kind}_token_index", None))
    return next(value for value in known if value is not None)


def _values(
    shape: tuple[int, ...], fake: FakeTensorMode | None, dtype: torch.dtype = torch.float32
) -> torch.Tensor:
    if fake is None:
        return torch.randn(shape) if dtype.is_floating_point else torch.randint(0, 256, shape, dtype=dtype)
    with fake:
        return torch.empty(shape, dtype=dtype)


# -- predictions -------------------------------------------------------------------------------------------------------


def predict_scoring(
    thinker_config: PreTrainedConfig,
    shape: ClipShape,
    batch_size: int = 1,
    dtype: torch.dtype = torch.bfloat16,
    attn_implementation: str = "sdpa",
) -> MemoryNeed:
    """
    Memory of a scoring pass.

    Args:
        thinker_config (`PreTrainedConfig`): The thinker's.
        shape ([`ClipShape`]): Of every clip of the batch.
        batch_size (`int`): Windows of one pass.
        dtype (`torch.dtype`): Type of the weights.
        attn_implementation (`str`): `eager` keeps all attention weights of a layer.
    """
    with torch.device("meta"):
        model = real_stage(thinker_config, None, dtype, attn_implementation)
    return _measure(model, thinker_config, shape, batch_size, trains=False)


def predict_stage(
    thinker_config: PreTrainedConfig,
    shape: ClipShape,
    stage: StageRecipe,
    dtype: torch.dtype = torch.bfloat16,
    attn_implementation: str = "sdpa",
    processes: int = 1,
) -> MemoryNeed:
    """
    Memory of a training step of a stage on one device, with everything on it.

    Args:
        thinker_config, shape, dtype, attn_implementation: As for [`predict_scoring`].
        stage ([`StageRecipe`]): What trains, how many clips at a time, whether activations are computed anew.
        processes (`int`): More than one keep a second copy of the gradients, to exchange them (DDP).
    """
    with torch.device("meta"):
        model = real_stage(thinker_config, stage, dtype, attn_implementation)
    return _measure(
        model,
        thinker_config,
        shape,
        stage.batch_size,
        trains=True,
        autocast=dtype == torch.bfloat16,
        accumulates=stage.gradient_accumulation > 1,
        processes=processes,
    )


def _measure(
    model: nn.Module,
    config: PreTrainedConfig,
    shape: ClipShape,
    batch_size: int,
    trains: bool,
    autocast: bool = False,
    accumulates: bool = False,
    processes: int = 1,
) -> MemoryNeed:
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    without_values(model, fake)
    batch = make_batch(config, shape, batch_size, trains, fake)
    live = run_pass(model, batch, trains, autocast, accumulates)
    trained = [weight for weight in model.parameters() if weight.requires_grad] if trains else []
    all_gradients = sum(weight.numel() * weight.element_size() for weight in trained)
    count = sum(weight.numel() for weight in trained)
    gradients, activations = live.gradients_at_peak, live.peak - live.gradients_at_peak
    if all_gradients > live.peak:  # the optimiser's step: all gradients, and nothing else
        gradients, activations = all_gradients, 0
    if processes > 1:
        gradients += all_gradients
    kept = [*model.parameters(), *model.buffers()]
    return MemoryNeed(
        weights=sum({t.untyped_storage()._cdata: t.untyped_storage().nbytes() for t in kept}.values()),
        optimizer=ADAMW_BYTES * count,
        gradients=gradients,
        activations=activations,
        trained=count,
        all_weights=sum(weight.numel() for weight in model.parameters()),
    )


def run_pass(
    model: nn.Module,
    batch: dict[str, torch.Tensor],
    trains: bool,
    autocast: bool = False,
    accumulates: bool = False,
) -> LiveBytes:
    """
    Runs a pass, forward and with `trains` backward, and counts what is alive beside the weights.

    Args:
        model (`nn.Module`): Ready to train, or to score.
        batch (`dict`): As of [`make_batch`].
        trains (`bool`): Whether the loss goes back.
        autocast (`bool`): Whether it computes in bfloat16, as the trainer does.
        accumulates (`bool`): Whether gradients of an earlier pass are there, as with gradient accumulation.
    """
    if accumulates:
        for weight in model.parameters():
            if weight.requires_grad:
                weight.grad = torch.empty_like(weight)
    live = LiveBytes([*model.parameters(), *model.buffers()])
    for tensor in batch.values():
        live.count(tensor)
    live.watch(model)
    with live:
        if not trains:
            with torch.no_grad():
                model(**batch)
        else:
            with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                loss = model(**batch).loss
            loss.backward()
    return live
