"""Configuration of SSAVD, the single-stream detector with 0.48 million parameters."""

from .configuration_detector import AVDetectorConfig, check_clip_size

SAMPLING_RATE = 16_000
"""Sampling rate of the network's sound in Hz."""

WINDOW = 7
"""Side of the joint attention's square windows, in pixels of a stage's feature map."""

FRONT_ENDS = ("sinc", "fast")

PRESETS = {
    "small": {"channels": (8, 16, 32, 64), "depths": (2, 2, 6, 2)},
    "large": {"channels": (32, 64, 128, 256), "depths": (3, 3, 9, 3)},
}
"""The two published sizes: 0.48 and 6.36 million parameters."""


class SSAVDConfig(AVDetectorConfig):
    """
    Configuration of [`SSAVDForDeepfakeDetection`]. The defaults are the published small network ("SS-AVD", arXiv
    2506.07358) as in its authors' code; our own choices are marked.

    Args:
        channels (`tuple[int]`, *optional*, defaults to `(8, 16, 32, 64)`):
            Channels of each stage, the same for picture and sound. The number of stages is its length.
        depths (`tuple[int]`, *optional*, defaults to `(2, 2, 6, 2)`): Blocks of each stage.
        mlp_ratio (`int`, *optional*, defaults to 4): Ratio of the width of a block's convolutional MLP to its input's.
        num_frames (`int`, *optional*, defaults to 10): Frames of a clip, `T`.
        image_size (`int`, *optional*, defaults to 224): Height and width of a frame, in pixels.
        audio_samples (`int`, *optional*, defaults to 48000): Samples of a clip at 16 kHz.
        drop_path (`float`, *optional*, defaults to 0.1): Probability of dropping a block's branch in training.
        interleave_windows (`bool`, *optional*, defaults to `False`):
            Put the attention's output back as the authors' code does, with the two indices of each window swapped: pixel
            `h` of window `p` goes to row `h * P + p` instead of `p * 7 + h`.
        frontend (`str`, *optional*, defaults to `"sinc"`):
            Front end that turns the waveform into bands. `"sinc"`, as published: 128 pairs of learned sinc filters at every
            sample; they take 6.2 of the network's 8.4 GFLOPs. `"fast"` (our own): the envelopes of the same 128 pairs at
            every 16th sample; 2.3 GFLOPs in all and 0.007 M parameters fewer. The weights are not interchangeable.
        num_filters (`int`, *optional*, defaults to 256): Sinc filters, two for each band.
        filter_length (`int`, *optional*, defaults to 251): Taps of a filter; odd.
        rectified_pooling (`bool`, *optional*, defaults to `False`):
            Average only the positive values of the last features of picture and sound (our own; no extra weights). The
            published network averages all values. Sound then reaches the mean almost linearly, from bands without their
            own mean, and fluctuations that are peculiar to fakes hardly show. See docs/small-detector.md.
        activation_limit (`float`, *optional*):
            Limit, in standard deviations, for the normalised input of every spatial attention (our own; the published
            network has none). The attention multiplies features with features, so inputs far from the training data grow
            quadratically from block to block, and a picture of noise can overflow. Clips that resemble the training data
            stay below 64.
        stream_heads (`bool`, *optional*, defaults to `True`):
            Use separate heads and losses for picture and sound. Without them there are no `video_logits` and
            `audio_logits`, and the joint head judges a clip without picture or sound by the zeros in its place.
        label_smoothing (`float`, *optional*, defaults to 0.1):
            Label smoothing of the three classification losses and of the loss on shuffled sound.
        video_weight, audio_weight (`float`, *optional*, default to 1.0):
            Weights of the losses of picture and sound; the overall loss has 1. (The published weights are unknown.)
        contrast_weight (`float`, *optional*, defaults to 1.0): Weight of the contrastive loss; 0 turns it off.
        contrast_margin (`float`, *optional*, defaults to 0.4):
            Cosine similarity that features of different labels may have.
        contrast_overall (`bool`, *optional*, defaults to `True`): Apply the contrastive loss to the joint features too.
        shuffle_av (`bool`, *optional*, defaults to `True`):
            Also train the joint head on pictures with the sound of other clips.
        mismatch_is_fake (`bool`, *optional*, defaults to `False`):
            Call a genuine picture with the genuine sound of another clip fake (our own). The paper calls it real.
        style_aug (`bool`, *optional*, defaults to `True`):
            Train on features whose per-channel mean and deviation are mixed with another clip's, and train style heads that
            predict the label from style alone (0.0041 M parameters, used in training only).
        adversarial_weight (`float`, *optional*, defaults to 0.1):
            Weight of the loss that makes style useless to the style heads; 0 turns it off. Needs `style_aug`. (The
            published weight is unknown; this is SagNet's.)
        threshold, temperature, abstain_band, calibration, notice, training_summary (*optional*):
            See [`AVDetectorConfig`].

    Raises:
        ValueError: If sizes are not divisible as the network needs.
    """

    model_type = "ssavd"

    channels: list[int] | tuple[int, ...] = (8, 16, 32, 64)
    depths: list[int] | tuple[int, ...] = (2, 2, 6, 2)
    mlp_ratio: int = 4
    num_frames: int = 10
    image_size: int = 224
    audio_samples: int = 48_000
    drop_path: float = 0.1
    interleave_windows: bool = False
    frontend: str = "sinc"
    num_filters: int = 256
    filter_length: int = 251
    rectified_pooling: bool = False
    activation_limit: float | None = None
    stream_heads: bool = True
    label_smoothing: float = 0.1
    video_weight: float = 1.0
    audio_weight: float = 1.0
    contrast_weight: float = 1.0
    contrast_margin: float = 0.4
    contrast_overall: bool = True
    shuffle_av: bool = True
    mismatch_is_fake: bool = False
    style_aug: bool = True
    adversarial_weight: float = 0.1

    def __post_init__(self, **kwargs):
        super().__post_init__(**kwargs)
        self.channels, self.depths = tuple(self.channels), tuple(self.depths)
        check_clip_size("SSAVDConfig", self.num_frames, self.image_size, self.audio_samples)
        stages = len(self.channels)
        if not stages or stages != len(self.depths):
            raise ValueError(
                f"SSAVDConfig: channels {self.channels} and depths {self.depths} must be equally long and not empty."
            )
        if self.frontend not in FRONT_ENDS:
            raise ValueError(f"SSAVDConfig: frontend must be one of {FRONT_ENDS}, not {self.frontend!r}.")
        if self.activation_limit is not None and not self.activation_limit > 0:
            raise ValueError(f"SSAVDConfig: activation_limit must be above 0, not {self.activation_limit}.")
        if self.num_filters % 2 or not self.filter_length % 2:
            raise ValueError(
                f"SSAVDConfig: num_filters ({self.num_filters}) must be even and filter_length "
                f"({self.filter_length}) odd."
            )
        # A frame is halved twice in the first stage and once in each other one, then cut into windows.
        step = 2 ** (stages + 1) * WINDOW
        if self.image_size <= 0 or self.image_size % step:
            raise ValueError(
                f"SSAVDConfig: image_size must be a multiple of {step} for {stages} stages, not {self.image_size}."
            )
        step = 2 ** (stages + 1) * self.num_frames
        if self.audio_samples <= 0 or self.audio_samples % step:
            raise ValueError(
                f"SSAVDConfig: audio_samples must be a multiple of {step} for {stages} stages and {self.num_frames} "
                f"frames, so that every frame has its segment of sound; not {self.audio_samples}."
            )
        if self.frontend == "fast" and self.audio_samples % 16:
            raise ValueError(
                f"SSAVDConfig: audio_samples must be a multiple of 16 for frontend='fast', not {self.audio_samples}."
            )

    @classmethod
    def from_preset(cls, name: str, **kwargs) -> "SSAVDConfig":
        """Return a published size, `"small"` or `"large"`; `kwargs` replace its fields."""
        if name not in PRESETS:
            raise ValueError(f"There is no preset {name!r}; there are {', '.join(PRESETS)}.")
        return cls(**{**PRESETS[name], **kwargs})

    @property
    def clip_seconds(self) -> float:
        """Length of a clip in seconds."""
        return self.audio_samples / SAMPLING_RATE

    def stage_sizes(self) -> list[tuple[int, int]]:
        """Return the frames' side and the sound's length in each stage; 56 and 12000 in the first."""
        steps = [2 ** (stage + 2) for stage in range(len(self.channels))]
        return [(self.image_size // step, self.audio_samples // step) for step in steps]


__all__ = ["PRESETS", "SSAVDConfig"]
