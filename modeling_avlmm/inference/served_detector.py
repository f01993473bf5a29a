"""A detector whose network a vLLM server runs. Files, windows, faces and verdicts are the pipeline's, as ever."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.special import expit
from torch import nn
from transformers import AutoConfig, BatchFeature, PreTrainedModel
from transformers.utils import cached_file

from ..backbone_qwen2_5_omni import QWEN2_5_OMNI
from ..configuration_avlmm import AVLMMConfig, known_thinker
from ..configuration_detector import LOG_ODDS_NAMES, SCORE_NAMES
from ..media import Clip
from ..processing_avlmm import AVLMMProcessor, Question
from .pipeline import AVDeepfakeDetectionPipeline
from .served_client import EndpointError, RequestRefusedError, RequestTimeoutError, ServedModelClient
from .served_clip import ServedClip, even_rate, quicktime_file, sized, wave_file
from .served_settings import DETECTOR_FILE, SERVED_AS

MOST_REQUESTS = 48
"""Requests on their way at once; our own choice."""

LogOdds = dict[str, float | None]


class ServedProcessor(AVLMMProcessor):
    """The processor of a served detector: from a clip to what is sent. Arguments are those of [`AVLMMProcessor`]."""

    def encode(self, clip: Clip, questions: Sequence[str | Question] = ("overall",)) -> dict:
        """
        Pack one clip.

        Args:
            clip ([`Clip`]): The decoded clip, with sound, picture or both.
            questions (`Sequence[str]`): Names of questions.

        Returns:
            `dict`: `clips` ([`ServedClip`]) and `questions`.

        Raises:
            NothingToScoreError: If there is nothing to look at or listen to.
            UnreadableMediaError: If the picture has a shape that the video processor refuses.
        """
        _, layout = self.encode_media(clip)  # for what it refuses, leaves out and warns of
        sound = clip.audio if layout.has_audio else None
        if not layout.has_video:
            return {"clips": ServedClip(wave_file(sound), "audio"), "questions": tuple(questions)}
        joined = self.omni.frames_per_grid(self.video_processor)
        whole = self.backbone == QWEN2_5_OMNI.model_type
        rate, off = even_rate(layout.grid_times, self.position_id_per_seconds, joined, self.fps, whole)
        if off:
            clip.warnings.append(
                f"frames are missing in between, and the server counts evenly (up to {off} positions of "
                f"{self.position_id_per_seconds} a second apart): the score may differ from that of the detector itself"
            )
        frames = sized(clip.frames, self.video_processor, self.min_pixels, self.max_pixels)
        data = quicktime_file(frames, rate, sound, clip.name)
        served = ServedClip(data, layout.kind, rate, (self.min_pixels, self.max_pixels))
        return {"clips": served, "questions": tuple(questions)}

    def collate(self, encoded: list[dict], padding_side: str = "left") -> BatchFeature:
        """Put packed clips in lists."""
        return BatchFeature({name: [item[name] for item in encoded] for name in ("clips", "questions")})

    def chat(self, clip: ServedClip, question: str) -> list[dict]:
        """Return the chat that asks a question, by name, about a clip."""
        asked = [
            {"type": "text", "text": self.prompts["prefix"]},
            clip.part(),
            {"type": "text", "text": self.prompts[question]},
        ]
        system = [{"type": "text", "text": self.prompts["system"]}]
        return [{"role": "system", "content": system}, {"role": "user", "content": asked}]


class ServedModel(PreTrainedModel):
    """
    A model of the pipeline that asks a server.

    Args:
        config ([`AVLMMConfig`]): The detector's configuration.
        client ([`ServedModelClient`]): The server.
        processor ([`ServedProcessor`]): Writes the chats.
        weights (`str`): The fingerprint of the served weights, or "" where it is not known.
    """

    config_class = AVLMMConfig
    main_input_name = "clips"

    def __init__(
        self, config: AVLMMConfig, client: ServedModelClient, processor: ServedProcessor, weights: str = ""
    ):
        super().__init__(config)
        self.client, self.processor = client, processor
        # The weights are elsewhere: a hash of what is known of them stands for them where detectors are compared.
        digest = hashlib.sha256(f"{weights} {client.model}".encode()).digest()
        self.served = nn.Parameter(
            torch.from_numpy(np.frombuffer(digest, np.uint8).astype(np.float32)), False
        )

    def forward(
        self, clips: list[ServedClip], questions: list[tuple[str, ...]]
    ) -> list[LogOdds | RequestRefusedError | RequestTimeoutError]:
        """
        Ask all questions about all clips at once, each in a request of its own.

        Returns:
            `list`: For each clip the log-odds of fake by question, or the error of one of its requests.

        Raises:
            EndpointError: If the server cannot be used.
        """
        asked = [(place, name) for place, names in enumerate(questions) for name in names]
        with ThreadPoolExecutor(min(MOST_REQUESTS, max(1, len(asked)))) as pool:
            told = list(pool.map(lambda item: self._ask(clips[item[0]], item[1]), asked))
        answers: list[Any] = [{} for _ in clips]
        for (place, name), answer in zip(asked, told, strict=True):
            if isinstance(answers[place], Exception):
                continue
            if isinstance(answer, Exception):
                answers[place] = answer
            else:
                answers[place][name] = answer
        return answers

    def _ask(
        self, clip: ServedClip, question: str
    ) -> float | RequestRefusedError | RequestTimeoutError | None:
        try:
            odds = self.client.log_odds(
                self.processor.chat(clip, question), self.config.label_token_ids, clip.options()
            )
        except (RequestRefusedError, RequestTimeoutError) as error:
            return error
        return odds


class ServedDetector(AVDeepfakeDetectionPipeline):
    """
    The pipeline of a served detector; see [`AVDeepfakeDetectionPipeline`] for its calls and results.

    A window whose request is refused, or takes too long, counts as one that cannot be scored, and the result has an `error`.
    A server that cannot be used raises [`EndpointError`].
    """

    def _forward(self, batch: dict) -> list[dict]:
        rows = batch["rows"]
        for row in rows:
            row.update(dict.fromkeys([*SCORE_NAMES.values(), *LOG_ODDS_NAMES.values()]))
        judged = [row for row in rows if row["judged"]]
        answers = self.model(**batch["inputs"]) if judged else []
        for row, answer in zip(judged, answers, strict=True):
            if isinstance(answer, Exception):
                row["judged"], row["nothing"] = False, str(answer)
                row["refused"] = {"type": type(answer).__name__, "message": f"{row['name']}: {answer}"}
            else:
                row.update({LOG_ODDS_NAMES[name]: odds for name, odds in answer.items()})
                known = {name: odds for name, odds in answer.items() if odds is not None}
                row.update({SCORE_NAMES[name]: float(expit(odds)) for name, odds in known.items()})
        return rows

    def postprocess(self, rows: list[dict], **options) -> dict:
        refused = next((row["refused"] for row in rows if "refused" in row), None)
        if refused is not None and "error" not in rows[-1]:
            rows = [*rows, {"error": refused, "people": rows[-1].get("people")}]
        return super().postprocess(rows, **options)


def served_detector(
    model: str | Path,
    endpoint: str,
    served_model: str | None = None,
    api_key: str | None = None,
    seconds: float = 120.0,
    **options,
) -> ServedDetector:
    """
    Return the pipeline of a detector that a server runs. No weights are loaded.

    ```python
    >>> from modeling_avlmm.inference.served_detector import served_detector

    >>> detector = served_detector("published/vllm", "http://localhost:8000")
    >>> detector("clip.mp4")["score"]
    0.97
    ```

    Args:
        model (`str` or `Path`):
            Folder or Hub id of the detector, for its prompts, sampling, threshold and temperature: what `publish --layout vllm`
            wrote, or what `publish` wrote.
        endpoint (`str`): Address of the server, such as `http://localhost:8000`.
        served_model (`str`, *optional*): Name under which the server has it. Defaults to its only model.
        api_key (`str`, *optional*): Key of the server.
        seconds (`float`, *optional*, defaults to 120.0): Longest wait for an answer.
        options: Arguments of [`AVDeepfakeDetectionPipeline`], such as `gate`.

    Raises:
        EndpointError: If the server cannot be used, or serves another model.
        ValueError: If the model is no such detector.
        OSError: If it cannot be found.
    """
    config, processor, weights = _settings(str(model))
    client = ServedModelClient(endpoint, served_model, api_key, seconds)
    network = ServedModel(config, client, processor, weights)
    network.name_or_path = config.name_or_path = str(model)
    return ServedDetector(model=network, processor=processor, device="cpu", **options)


def _settings(model: str) -> tuple[AVLMMConfig, ServedProcessor, str]:
    """Return the configuration, the processor and the fingerprint of the weights of a detector, as far as known."""
    found = cached_file(model, DETECTOR_FILE, _raise_exceptions_for_missing_entries=False)
    base = AutoConfig.from_pretrained(model)
    if found is not None:
        settings = json.loads(Path(found).read_text(encoding="utf-8"))
        config = AVLMMConfig(thinker_config=known_thinker(base, model), **settings["config"])
        return config, ServedProcessor.from_backbone(model, **settings["processor"]), settings["weights"]
    if not isinstance(base, AVLMMConfig):
        raise ValueError(
            f"{model} holds no detector with a language model (no {DETECTOR_FILE}, and model_type {base.model_type!r}). Give "
            "what `python -m modeling_avlmm publish --layout vllm` wrote."
        )
    if base.thinker_config.model_type not in SERVED_AS:
        raise ValueError(
            f"{model} is made of {base.thinker_config.model_type}, for which no server is known."
        )
    return base, ServedProcessor.from_pretrained(model), ""


__all__ = ["EndpointError", "ServedDetector", "ServedModel", "ServedProcessor", "served_detector"]
