"""The settings of a detector that stand beside a served model, which knows nothing of them."""

DETECTOR_FILE = "detector.json"
"""File of a vLLM folder with the detector's settings, in three entries: `weights` (a fingerprint), `config`, `processor`."""

DETECTOR_FIELDS = (
    "label_token_ids",
    "prompts",
    "threshold",
    "temperature",
    "abstain_band",
    "calibration",
    "notice",
    "training_summary",
)
"""Fields of [`AVLMMConfig`] in the file."""

PROCESSOR_FIELDS = (
    "prompts",
    "fps",
    "max_frames",
    "min_pixels",
    "max_pixels",
    "max_seconds",
    "trim_leading_silence",
    "faces",
    "face_margin",
    "min_face_size",
)
"""Arguments of [`AVLMMProcessor`] in the file."""

SERVED_AS = {
    "qwen2_5_omni_thinker": ("qwen2_5_omni", "Qwen2_5OmniForConditionalGeneration"),
    "qwen3_omni_moe_thinker": ("qwen3_omni_moe", "Qwen3OmniMoeForConditionalGeneration"),
}
"""Thinker -> `model_type` and architecture of the whole model, under which vLLM 0.33 registers its loader."""
