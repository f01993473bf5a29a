"""Configuration of SSAVD, the single-stream detector with 0.48 million parameters."""

from .configuration_detector import AVDetectorConfig

SAMPLING_RATE = 16_000
"""Hz, of the sound that the network hears."""

WINDOW = 7
"""Side of the square windows into which the joint attention cuts a frame, pixels of the stage's feature map."""

FRONT_ENDS = ("sinc", "fast")

PRESETS = {
    "small": {"channels": (8, 16, 32, 64), "depths": (2, 2, 6, 2)},
    "large": {"channels": (32, 64, 128, 256), "depths": (3, 3, 9, 3)},
}
"""The two published sizes: 0.48 and 6.36 million parameters."""


class SSAVDConfig(AVDetectorConfig):
    """
    Configuration of [`SSAVDForDeepfakeDetection`]. The defaults are the published small network ("SS-AVD", arXiv
    2506.07358) as the authors' code has it; what they left open, and what is our own, is marked.

    Args:
        channels (`tuple[int]`, *optional*, defaults to `(8, 16, 32, 64)`):
            Channels of each stage, the same for picture and sound. Its length is the number of stages.
        depths (`tuple[int]`, *optional*, defaults to `(2, 2, 6, 2)`): Blocks of each stage.
        mlp_ratio (`int`, *optional*, defaults to 4): Width of a block's convolutional MLP over its input's.
        num_frames (`int`, *optional*, defaults to 10): Frames of a clip, `T`.
        image_size (`int`, *optional*, defaults to 224): Height and width of a frame, pixels.
        audio_samples (`int`, *optional*, defaults to 48000): Samples of a clip at 16 kHz.
        drop_path (`float`, *optional*, defaults to 0.1): Probability with which a block's branch is left out in training.
        interleave_windows (`bool`, *optional*, defaults to `False`):
            The authors' code puts the attention's output back with the two indices of each window swapped: pixel `h` of
            window `p` goes to row `h * P + p` instead of `p * 7 + h`. Set this to do the same.
        frontend (`str`, *optional*, defaults to `"sinc"`):
            What turns the waveform into bands. `"sinc"`, as published: 128 pairs of learned sinc filters at every
            sample, which takes 6.2 of the network's 8.4 GFLOPs. `"fast"` (our own): the envelopes of the same 128 pairs at
            every 16th sample, 2.3 GFLOPs in all and 0.007 M parameters less; other weights, so train anew.
        num_filters (`int`, *optional*, defaults to 256): Sinc filters, two for each band.
        filter_length (`int`, *optional*, defaults to 251): Taps of a filter; odd.
        rectified_pooling (`bool`, *optional*, defaults to `False`):
            Average only what is positive in the last features of picture and sound (our own; no weights more). As published
            the mean is of all, and sound reaches it almost linearly, from bands whose mean over time was taken away: what
            fluctuates differently in a fake is hardly seen then. See docs/small-detector.md.
        activation_limit (`float`, *optional*):
            Deviations at which the normalised input of every spatial attention is cut (our own; as published it is not). The
            attention multiplies features with features: what is far from all that training saw grows as a square from block
            to block, and a picture of noise can overflow. 64 is more than any clip reaches that resembles those of training.
        stream_heads (`bool`, *optional*, defaults to `True`):
            Verdicts on picture and on sound alone, with their losses. Without them there are no `video_logits` and
            `audio_logits`, and a clip without picture or sound is judged by the joint head on what the zeros give.
        label_smoothing (`float`, *optional*, defaults to 0.1): Of the three classification losses, and the mismatched one.
        video_weight, audio_weight (`float`, *optional*, default to 1.0):
            Weights of the classification losses of picture and sound; the overall one has 1. (Published weights unknown.)
        contrast_weight (`float`, *optional*, defaults to 1.0): Weight of the contrastive loss; 0 turns it off.
        contrast_margin (`float`, *optional*, defaults to 0.4):
            Cosine similarity up to which features of different labels are left alone.
        contrast_overall (`bool`, *optional*, defaults to `True`): Whether the joint features are contrasted too.
        shuffle_av (`bool`, *optional*, defaults to `True`):
            Train the joint head on pictures with other clips' sound as well.
        mismatch_is_fake (`bool`, *optional*, defaults to `False`):
            As published, a genuine picture with another clip's genuine sound is real. Set this to call it fake (our own).
        style_aug (`bool`, *optional*, defaults to `True`):
            Train on features whose per-channel mean and deviation are mixed with another clip's, and train style heads, which
            tell the label from style alone (0.0041 M parameters that only training uses).
        adversarial_weight (`float`, *optional*, defaults to 0.1):
            Weight of the loss that makes style useless to the style heads; 0 turns it off. Needs `style_aug`. (Published
            weight unknown; this is SagNet's.)
        threshold, temperature, abstain_band, calibration, notice, training_summary (*optional*):
            See [`AVDetectorConfig`].

    Raises:
        ValueError: for sizes that do not divide as the network divides them.
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
        # The frame is halved twice in the first stage and once in each other, and then cut into windows.
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
        """A published size, `"small"` or `"large"`; `kwargs` replace its fields."""
        if name not in PRESETS:
            raise ValueError(f"There is no preset {name!r}; there are {', '.join(PRESETS)}.")
        return cls(**{**PRESETS[name], **kwargs})

    @property
    def clip_seconds(self) -> float:
        """Length of a clip, seconds."""
        return self.audio_samples / SAMPLING_RATE

    def stage_sizes(self) -> list[tuple[int, int]]:
        """Side of the frames and length of the sound in each stage: 56 and 12000 in the first."""
        steps = [2 ** (stage + 2) for stage in range(len(self.channels))]
        return [(self.image_size // step, self.audio_samples // step) for step in steps]


__all__ = ["PRESETS", "SSAVDConfig"]
