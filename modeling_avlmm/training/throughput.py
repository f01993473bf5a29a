"""The floating-point operations of a training step, and the peak of the hardware, for MFU."""

import time

import torch

# Dense peak of the tensor cores in bfloat16, from the vendors' data sheets, FLOP/s.
PEAK_BFLOAT16 = {
    "H200": 989e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "RTX 4090": 165e12,
    "MI300X": 1307e12,
}


class FlopsCounter:
    """
    Count the floating-point operations of a training step of AV-LMMDetect.

    A weight of a linear layer costs 2 operations per token in the forward pass, 2 more for the gradient of its input where
    anything before it trains, and 2 more for its own gradient where it trains itself. Attention costs 4 x length x width per
    token and layer in the forward pass, and twice that in the backward pass where a gradient passes through it. Its length
    is a frame in the vision encoder's layers of full attention, and a window in the others. Of a mixture of experts only
    those that a token is sent to are counted. Recomputation and padding are not counted: they are work, but not progress.

    Args:
        model ([`AVLMMForDeepfakeDetection`]): The detector, with `requires_grad` set for the stage.
    """

    def __init__(self, model):
        self.backbone, self.config = model.config.backbone, model.config.thinker_config
        encoders = [p for m in (model.vision_encoder, model.audio_encoder) for p in m.parameters()]
        encoders += [p for m in model.projectors for p in m.parameters()]
        # The language model needs gradients of its inputs where an encoder trains, or where LoRA sits in it.
        encoder_trains = any(p.requires_grad for p in encoders)
        experts = self.backbone.active_expert_weights(model.language_model)
        self.text_cost = self._cost([model.language_model], encoder_trains, frozen=experts)
        self.vision_cost = self._cost([model.vision_encoder], False, without=model.vision_projectors)
        self.projector_cost = self._cost(
            model.vision_projectors, any(p.requires_grad for p in model.vision_encoder.parameters())
        )
        inside = {id(module) for module in model.audio_encoder.modules()}
        outside = [module for module in model.audio_projectors if id(module) not in inside]
        self.audio_cost = self._cost([model.audio_encoder, *outside], False)

    @staticmethod
    def _cost(
        modules: list, gradient_arrives_before: bool, without: tuple | list = (), frozen: int = 0
    ) -> tuple[float, float]:
        """
        Return the operations per token of linear weights, and the multiple of the forward pass that attention costs.

        `frozen` is a number of weights that are not in linear layers and do not train.
        """
        left_out = {module for part in without for module in part.modules()}
        matrices = [
            m
            for module in modules
            for m in module.modules()
            if isinstance(m, torch.nn.Linear | torch.nn.Conv1d | torch.nn.Conv3d) and m not in left_out
        ]
        weights = sum(m.weight.numel() for m in matrices) + frozen
        trained = sum(m.weight.numel() for m in matrices if m.weight.requires_grad)
        through = gradient_arrives_before or trained > 0
        return 2 * weights + (2 * weights if through else 0) + 2 * trained, 3.0 if through else 1.0

    def step(self, batch: dict) -> float:
        """Return the operations of one pass over a batch, forward and backward."""
        total = 0.0
        lengths = batch["attention_mask"].sum(1).double()
        linear, passes = self.text_cost
        total += float(lengths.sum()) * linear
        for layers, window, width in self.backbone.text_attention(self.config):
            # Causal: half of the square.
            seen = lengths / 2 if window is None else torch.minimum(lengths / 2, lengths * 0 + window)
            total += passes * 4 * float((lengths * seen).sum()) * width * layers
        vision_layers, (steps_per_frame, steps_seen) = self.backbone.attention_spans(self.config)
        if batch.get("video_grid_thw") is not None:
            patches = batch["video_grid_thw"].prod(1).double()
            frame = batch["video_grid_thw"][:, 1:].prod(1).double()
            seen = sum(
                layers * (frame if window is None else frame.clamp(max=window))
                for layers, window in vision_layers
            )
            linear, passes = self.vision_cost
            total += float(patches.sum()) * linear
            total += passes * 4 * float((patches * seen).sum()) * self.config.vision_config.hidden_size
            # The projector works on tokens, of several patches each.
            linear, _ = self.projector_cost
            total += float(patches.sum()) / self.backbone.patches_per_side(self.config) ** 2 * linear
        if batch.get("feature_attention_mask") is not None:
            audio = self.config.audio_config
            steps = float(batch["feature_attention_mask"].sum(1).double().sum()) * steps_per_frame
            linear, passes = self.audio_cost
            total += steps * linear
            total += passes * 4 * steps * steps_seen * audio.hidden_size * audio.num_hidden_layers
        return total


def peak_flops(device: torch.device, dtype: torch.dtype) -> tuple[float, str]:
    """Return the peak FLOP/s of a device, and its source: the data sheet, or a matrix product timed here."""
    if device.type == "cuda" and dtype in (torch.bfloat16, torch.float16):
        name = torch.cuda.get_device_name(device)
        for known, peak in PEAK_BFLOAT16.items():
            if known in name:
                return peak, f"{known} data sheet"
    size = 4096 if device.type == "cuda" else 1024
    a = torch.randn(size, size, device=device, dtype=dtype)
    best = float("inf")
    for _ in range(5):
        _synchronize(device)
        begin = time.perf_counter()
        a @ a
        _synchronize(device)
        best = min(best, time.perf_counter() - begin)
    return 2 * size**3 / best, "measured matrix product"


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
