"""Configuration of the facevoice detector: a network for faces and a network for speech."""

from .configuration_detector import AVDetectorConfig, check_clip_size

SAMPLING_RATE = 16_000
"""Sampling rate of the sound network's input in Hz."""

HOP = 160
"""Samples in one step of the sound's mask: 10 ms."""


class FaceVoiceConfig(AVDetectorConfig):
    """
    Configuration of [`FaceVoiceForDeepfakeDetection`].

    Args:
        backbone (`str`, *optional*, defaults to `"tf_efficientnet_lite0"`): The picture network, by its name in `timm`.
        image_size (`int`, *optional*, defaults to 160): Height and width of a face crop, in pixels.
        image_mean, image_std (`tuple[float]`, *optional*, default to 0.5 for each channel):
            Mean and deviation by which values in [0, 1] are normalised: those that the backbone was trained with.
        num_frames (`int`, *optional*, defaults to 20): Face crops in a row.
        clip_seconds (`float`, *optional*, defaults to 4.0): Length of a row in seconds.
        dropout (`float`, *optional*, defaults to 0.2): Dropout before the picture network's last layer.
        drop_path (`float`, *optional*, defaults to 0.0): Probability of dropping a block of the backbone in training.
        sound_network (`str`, *optional*, defaults to `"residual_spectra"`): Architecture of the sound network.
        sound_options (`dict`, *optional*): Sizes of the sound network that differ from the defaults of its class.
        label_smoothing (`float`, *optional*, defaults to 0.0): Label smoothing of both losses.
        video_weight, audio_weight (`float`, *optional*, default to 1.0): Weights of the losses of picture and sound.
        video_scale, video_bias, audio_scale, audio_bias (`float`, *optional*, default to 1 and 0):
            Calibration of the parts: their log-odds of fake are `scale * raw + bias`. Fitted on people and synthesisers
            that were not trained on, so that the two parts can be compared.
        half_precision (`bool`, *optional*, defaults to `False`):
            Store the weights in half precision. They are computed in float32 all the same.
        threshold, temperature, abstain_band, calibration, notice, training_summary (*optional*):
            See [`AVDetectorConfig`].

    Raises:
        ValueError: If a size is impossible.
    """

    model_type = "facevoice"

    backbone: str = "tf_efficientnet_lite0"
    image_size: int = 160
    image_mean: list[float] | tuple[float, ...] = (0.5, 0.5, 0.5)
    image_std: list[float] | tuple[float, ...] = (0.5, 0.5, 0.5)
    num_frames: int = 20
    clip_seconds: float = 4.0
    dropout: float = 0.2
    drop_path: float = 0.0
    sound_network: str = "residual_spectra"
    sound_options: dict | None = None
    label_smoothing: float = 0.0
    video_weight: float = 1.0
    audio_weight: float = 1.0
    video_scale: float = 1.0
    video_bias: float = 0.0
    audio_scale: float = 1.0
    audio_bias: float = 0.0
    half_precision: bool = False

    def __post_init__(self, **kwargs):
        super().__post_init__(**kwargs)
        self.image_mean, self.image_std = tuple(self.image_mean), tuple(self.image_std)
        if self.image_size < 32 or self.num_frames < 1:
            raise ValueError(
                f"FaceVoiceConfig: image_size must be at least 32 and num_frames at least 1, not {self.image_size} and "
                f"{self.num_frames}."
            )
        if not self.clip_seconds > 0 or self.audio_samples % HOP:
            raise ValueError(
                f"FaceVoiceConfig: clip_seconds must be a positive multiple of 0.01, not {self.clip_seconds}."
            )
        check_clip_size("FaceVoiceConfig", self.num_frames, self.image_size, self.audio_samples)
        for name in ("video_scale", "audio_scale"):
            if not vars(self)[name] > 0:
                raise ValueError(f"FaceVoiceConfig: {name} must be above 0, not {vars(self)[name]}.")

    @property
    def independent_parts(self) -> bool:
        return True

    @property
    def audio_samples(self) -> int:
        """Samples of a row's sound."""
        return round(self.clip_seconds * SAMPLING_RATE)


__all__ = ["FaceVoiceConfig"]
