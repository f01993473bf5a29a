"""Base of the detectors' configurations, and the names of labels, parts and scores."""

from transformers.configuration_utils import PreTrainedConfig

LABELS = ("real", "fake")
"""Names of the labels: index 0 is real, index 1 is fake."""

PARTS = ("overall", "video", "audio")
"""The parts that a detector judges: the clip as a whole, its picture, its sound."""

LOGITS = {"overall": "logits", "video": "video_logits", "audio": "audio_logits"}
"""Field of [`AVDetectionOutput`] that holds the logits of each part."""

LABEL_COLUMNS = {"overall": "labels", "video": "video_labels", "audio": "audio_labels"}
"""Column of a batch that holds the labels of each part."""

SCORE_NAMES = {"overall": "score", "video": "video_score", "audio": "audio_score"}
"""Name of each part's P(fake) in a result."""

LOG_ODDS_NAMES = {"overall": "log_odds", "video": "video_log_odds", "audio": "audio_log_odds"}
"""Name of each part's log-odds of fake in a result: scores tie from 37 on, and these do not."""

IGNORE_INDEX = -100
"""Label that training ignores: an unknown label, or a token outside an answer."""

DEMONSTRATION_NOTICE = (
    "demonstration model trained on drawn faces: its verdict on a real recording means nothing"
)
"""The `notice` of detectors trained on synthetic clips."""


MOST_CLIP_BYTES = 1024**3
"""Limit for the pictures and the sound of what one pass takes, in bytes; more is a damaged configuration. Our own choice."""


def check_clip_size(name: str, frames: int, side: int, samples: int) -> None:
    """
    Check what one pass of a detector takes.

    Args:
        name (`str`): Name of the class, for the message.
        frames (`int`): Number of pictures.
        side (`int`): Their height and width in pixels.
        samples (`int`): Number of samples of sound.

    Raises:
        ValueError: If it is nothing, or more than 1 GiB.
    """
    size = 3 * frames * side**2 + 4 * samples
    if min(frames, side, samples) < 1 or not size <= MOST_CLIP_BYTES:
        raise ValueError(
            f"{name}: {frames} frames of {side} x {side} pixels and {samples} samples of sound are not what a detector takes at "
            "once."
        )


class AVDetectorConfig(PreTrainedConfig):
    """
    Base of the detectors' configurations.

    Args:
        threshold (`float`, *optional*, defaults to 0.5):
            Calibrated P(fake) from which on the label is fake; chosen on validation data.
        temperature (`dict[str, float]`, *optional*):
            Divisors of the log-odds of a file's scores, for `overall`, `video` and `audio`; 1 where missing. Fitted on
            validation data by `evaluate_avd.py --calibrate`.
        abstain_band (`list[float]`, *optional*):
            `[low, high]`: calibrated scores between the two are too uncertain for a verdict at the coverage stated in
            `calibration`.
        calibration (`dict`, *optional*):
            The data behind `temperature`, `threshold` and `abstain_band`; for people, not read by code.
        training_summary (`dict`, *optional*):
            The origin of the weights (backbone, stages, data); for people, not read by code.
        notice (`str`, *optional*):
            A text that every user of these weights has to see: the pipeline warns with it once, and every result has it
            among its `warnings`. See `DEMONSTRATION_NOTICE`.
        prompts (`dict[str, str]`, *optional*):
            Texts that the weights were trained with; None for a detector that reads no text.
    """

    _auto_class = "AutoConfig"  # saved configurations name their code, which is saved with them

    threshold: float = 0.5
    temperature: dict | None = None
    abstain_band: list[float] | None = None
    calibration: dict | None = None
    training_summary: dict | None = None
    notice: str | None = None
    prompts: dict | None = None

    def __post_init__(self, **kwargs):
        kwargs["id2label"] = dict(enumerate(LABELS))
        kwargs["label2id"] = {name: index for index, name in enumerate(LABELS)}
        # With the package installed, its own pipeline serves the task. The entry in a published configuration is for
        # users without it; here it would make `pipeline()` ask for `trust_remote_code` for no reason.
        if not __name__.startswith("transformers_modules"):
            kwargs.pop("custom_pipelines", None)
        super().__post_init__(**kwargs)

    def to_dict(self) -> dict:
        """Return all fields as a dictionary; without `prompts` for a detector that reads no text.

        Where a backbone came from is left out: it is a folder of the machine that trained.
        """
        values = super().to_dict()
        for part in self.sub_configs:
            _forget_origin(values.get(part))
        if self.prompts is None:
            values.pop("prompts", None)
        return values

    @property
    def independent_parts(self) -> bool:
        """True for a detector that judges picture and sound apart: its `score` is that of the more suspicious part."""
        return False

    @property
    def gives_frame_scores(self) -> bool:
        """True for a detector that tells when picture and sound disagree."""
        return False


def _forget_origin(config: object) -> None:
    """Empty the place that a nested configuration was loaded from, in place, at every depth."""
    if isinstance(config, dict):
        if "_name_or_path" in config:
            config["_name_or_path"] = ""
        for value in config.values():
            _forget_origin(value)
