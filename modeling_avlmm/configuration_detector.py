"""What the configuration of every detector of this package holds: labels, threshold, calibration."""

from transformers.configuration_utils import PreTrainedConfig

LABELS = ("real", "fake")
"""Names of the labels: index 0 is real, index 1 is fake."""

PARTS = ("overall", "video", "audio")
"""What a detector judges: the clip as a whole, its picture, its sound."""

LOGITS = {"overall": "logits", "video": "video_logits", "audio": "audio_logits"}
"""Field of [`AVDetectionOutput`] that holds the logits of each part."""

LABEL_COLUMNS = {"overall": "labels", "video": "video_labels", "audio": "audio_labels"}
"""Column of a batch that holds the labels of each part."""

SCORE_NAMES = {"overall": "score", "video": "video_score", "audio": "audio_score"}
"""Name of each part's P(fake) in a result."""

IGNORE_INDEX = -100
"""Label of what is not to be learned: an unknown one, or a token that is not part of an answer."""

DEMONSTRATION_NOTICE = (
    "demonstration model trained on drawn faces: its verdict on a real recording means nothing"
)
"""The `notice` of detectors that were trained on synthetic clips."""


class AVDetectorConfig(PreTrainedConfig):
    """
    Base of the detectors' configurations.

    Args:
        threshold (`float`, *optional*, defaults to 0.5):
            Calibrated P(fake) from which the label is fake; chosen on validation data.
        temperature (`dict[str, float]`, *optional*):
            For each of `overall`, `video` and `audio`, what the log-odds of a file's score are divided by. Fitted on
            validation data by `evaluate_avd.py --calibrate`; 1 where it is not given.
        abstain_band (`list[float]`, *optional*):
            `[low, high]`: between the two, calibrated P(fake) is too uncertain for a verdict at the coverage that
            `calibration` states.
        calibration (`dict`, *optional*):
            What `temperature`, `threshold` and `abstain_band` were fitted on, for people; not read by code.
        training_summary (`dict`, *optional*):
            What produced the weights (backbone, stages, data), for people; not read by code.
        notice (`str`, *optional*):
            What everyone who uses these weights has to know: the pipeline warns of it when it is made, and it is among
            the `warnings` of every result. See `DEMONSTRATION_NOTICE`.
    """

    _auto_class = "AutoConfig"  # what is saved names, and brings, its own code

    threshold: float = 0.5
    temperature: dict | None = None
    abstain_band: list[float] | None = None
    calibration: dict | None = None
    training_summary: dict | None = None
    notice: str | None = None

    def __post_init__(self, **kwargs):
        kwargs["id2label"] = dict(enumerate(LABELS))
        kwargs["label2id"] = {name: index for index, name in enumerate(LABELS)}
        # With the package installed its own pipeline serves the task; the entry in a published config is for
        # those without it, and would make `pipeline()` ask for `trust_remote_code` where no remote code is needed.
        if not __name__.startswith("transformers_modules"):
            kwargs.pop("custom_pipelines", None)
        super().__post_init__(**kwargs)
