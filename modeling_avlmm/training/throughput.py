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
    is a frame in the vision encoder's layers of full attention, and a window in the others. Recomputation and padding are
    not counted: they are work, but not progress.

    Args:
        model ([`AVLMMForDeepfakeDetection`]): The detector, with `requires_grad` set for the stage.
    """

    def __init__(self, model):
        config = model.config.thinker_config
        self.vision, self.audio, self.text = (
            config.vision_config,
            config.audio_config,
            config.get_text_config(),
        )
        encoders = [p for m in (model.vision_encoder, model.audio_encoder) for p in m.parameters()]
        # The language model needs gradients of its inputs where an encoder trains, or where LoRA sits in it.
        encoder_trains = any(p.requires_grad for p in encoders)
        self.text_cost = self._cost(model.language_model, encoder_trains)
        projector = model.projectors[0]
        self.vision_cost = self._cost(model.vision_encoder, False, without=projector)
        self.projector_cost = self._cost(
            projector, any(p.requires_grad for p in model.vision_encoder.parameters())
        )
        self.audio_cost = self._cost(model.audio_encoder, False)

    @staticmethod
    def _cost(module, gradient_arrives_before: bool, without=None) -> tuple[float, float]:
        """Return the operations per token of linear weights, and the multiple of the forward pass that attention costs."""
        left_out = set() if without is None else set(without.modules())
        matrices = [
            m
            for m in module.modules()
            if isinstance(m, torch.nn.Linear | torch.nn.Conv1d | torch.nn.Conv3d) and m not in left_out
        ]
        weights = sum(m.weight.numel() for m in matrices)
        trained = sum(m.weight.numel() for m in matrices if m.weight.requires_grad)
        through = gradient_arrives_before or trained > 0
        return 2 * weights + (2 * weights if through else 0) + 2 * trained, 3.0 if through else 1.0

    def step(self, batch: dict) -> float:
        """Return the operations of one pass over a batch, forward and backward."""
        total = 0.0
        lengths = batch["attention_mask"].sum(1).double()
        linear, passes = self.text_cost
        total += float(lengths.sum()) * linear
        # Causal: half of the square.
        attention = 2 * float((lengths**2).sum()) * self.text.hidden_size * self.text.num_hidden_layers
        total += passes * attention
        if batch.get("video_grid_thw") is not None:
            patches = batch["video_grid_thw"].prod(1).double()
            frame = batch["video_grid_thw"][:, 1:].prod(1).double()
            window = frame.clamp(max=(self.vision.window_size // self.vision.patch_size) ** 2)
            full = len(self.vision.fullatt_block_indexes)
            seen = full * frame + (self.vision.depth - full) * window
            linear, passes = self.vision_cost
            total += float(patches.sum()) * linear
            total += passes * 4 * float((patches * seen).sum()) * self.vision.hidden_size
            # The projector works on patches joined in fours.
            linear, _ = self.projector_cost
            total += float(patches.sum()) / self.vision.spatial_merge_size**2 * linear
        if batch.get("feature_attention_mask") is not None:
            steps = batch["feature_attention_mask"].sum(1).double() / 2
            linear, passes = self.audio_cost
            total += float(steps.sum()) * linear
            total += (
                passes
                * 4
                * float(steps.sum())
                * self.audio.n_window
                * self.audio.d_model
                * self.audio.encoder_layers
            )
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
