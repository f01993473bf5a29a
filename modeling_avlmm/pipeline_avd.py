"""`pipeline("av-deepfake-detection")`: a file in, a verdict with a timeline out."""

import math
from collections.abc import Iterator, Mapping
from types import GeneratorType
from typing import Any

import torch
from torch.utils.data import DataLoader
from transformers.pipelines.base import ChunkPipeline
from transformers.pipelines.pt_utils import PipelineChunkIterator

from .configuration_avlmm import QUESTIONS
from .media import MediaError, MediaReader
from .modeling_outputs import fake_probability

SCORE_NAMES = {"overall": "score", "video": "video_score", "audio": "audio_score"}


class AVDeepfakeDetectionPipeline(ChunkPipeline):
    """
    Tells whether a video, or its picture or sound alone, is a deepfake.

    ```python
    >>> import modeling_avlmm
    >>> from transformers import pipeline

    >>> detector = pipeline("av-deepfake-detection", model="my-org/my-detector")
    >>> detector("clip.mp4")
    {'label': 'fake', 'score': 0.97, 'video_score': 0.99, 'audio_score': 0.12, 'windows': [...], 'warnings': [], ...}
    ```

    A file longer than one pass takes is read window by window, never held whole. In a list, a file that cannot be
    read gives a result with `error` set, and the others go on.
    """

    _load_processor = True
    _load_tokenizer = False
    _load_feature_extractor = False
    _load_image_processor = False
    _load_video_processor = False
    _pipeline_calls_generate = False

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        trained, used = getattr(self.model.config, "prompts", None), getattr(self.processor, "prompts", None)
        if trained != used:
            raise ValueError(
                "The processor's prompts are not those the model was trained with, so its verdicts would mean nothing. "
                f"Model: {trained}. Processor: {used}. Load both from the same folder or repository."
            )

    def _sanitize_parameters(
        self,
        window_seconds: float | None = None,
        hop_seconds: float | None = None,
        questions: tuple[str, ...] | None = None,
        on_error: str | None = None,
        aggregate: str | None = None,
        threshold: float | None = None,
    ):
        if on_error not in (None, "raise", "return"):
            raise ValueError(f"on_error must be 'raise' or 'return', not {on_error!r}.")
        if aggregate not in (None, "mean", "max"):
            raise ValueError(f"aggregate must be 'mean' or 'max', not {aggregate!r}.")
        if questions is not None and ("overall" not in questions or set(questions) - set(QUESTIONS)):
            raise ValueError(f"questions must be of {QUESTIONS} and hold 'overall', not {questions!r}.")
        given = {
            "window_seconds": window_seconds,
            "hop_seconds": hop_seconds,
            "questions": questions,
            "on_error": on_error,
        }
        preprocess = {name: value for name, value in given.items() if value is not None}
        given = {"aggregate": aggregate, "threshold": threshold}
        return preprocess, {}, {name: value for name, value in given.items() if value is not None}

    def __call__(self, inputs, **kwargs) -> dict | list[dict] | Iterator[dict]:
        """
        Args:
            inputs (path, URL, `bytes`, file object, arrays, `{"video": ..., "audio": ...}`, or a list, dataset or generator of them):
                What to look at. With `{"video": ..., "audio": ...}` the sound is taken from the second file. A row of
                one of this package's datasets is such an input.
            window_seconds (`float`, *optional*):
                Length of a window. Defaults to all of a file that one pass takes, and to the longest pass
                (`processor.max_seconds`) otherwise.
            hop_seconds (`float`, *optional*): From one window's start to the next's. Defaults to `window_seconds`.
            questions (`tuple[str]`, *optional*, defaults to `("overall", "video", "audio")`): What is asked.
            aggregate (`str`, *optional*, defaults to `"mean"`):
                The file's score from its windows': `"mean"`, or `"max"` where a short fake passage must not be missed.
            threshold (`float`, *optional*): Score from which the label is fake. Defaults to the model's own.
            on_error (`str`, *optional*):
                `"raise"` or `"return"` a result with `error`. Defaults to raising for one input, returning for many.
            batch_size (`int`, *optional*, defaults to 1): Windows of one forward pass, of one or several files.
            num_workers (`int`, *optional*, defaults to 0): 1 decodes in a process of its own.

        Returns:
            `dict`, or one for each input:

            - **label** (`str`) -- `"real"` or `"fake"`; None where the file could not be read.
            - **score** (`float`) -- P(fake), in [0, 1].
            - **video_score**, **audio_score** (`float`) -- The same for picture and sound; None where there is none.
            - **windows** (`list[dict]`) -- `start` and `end` in seconds, and the three scores, of every window.
            - **duration** (`float`), **has_video**, **has_audio** (`bool`), **num_frames** (`int`) -- What was looked at.
            - **warnings** (`list[str]`) -- What the reader should know, such as a missing sound track.
            - **error** (`dict`) -- `type` and `message`; None where all went well.

        Raises:
            MediaError: when the only input cannot be read.
        """
        # A `datasets` table, or an iterator other than an open file, which is one input.
        if hasattr(inputs, "column_names") or (isinstance(inputs, Iterator) and not hasattr(inputs, "read")):
            inputs = (row for row in inputs)
        many = isinstance(inputs, list | GeneratorType | torch.utils.data.Dataset)
        if isinstance(inputs, list) and not inputs:
            return []
        kwargs.setdefault("on_error", self._preprocess_params.get("on_error", "return" if many else "raise"))
        return super().__call__(inputs, **kwargs)

    def preprocess(
        self,
        source: Any,
        window_seconds: float | None = None,
        hop_seconds: float | None = None,
        questions: tuple[str, ...] = QUESTIONS,
        on_error: str = "raise",
    ) -> Iterator[dict]:
        try:
            yield from self._windows(source, window_seconds, hop_seconds, questions)
        except MediaError as error:
            if on_error == "raise":
                raise
            yield {"error": {"type": type(error).__name__, "message": str(error)}, "is_last": True}

    def _windows(self, source, window_seconds, hop_seconds, questions) -> Iterator[dict]:
        source, audio = split_source(source)
        with MediaReader(source, audio=audio) as reader:
            longest = self.processor.max_seconds
            if window_seconds is None and reader.info.duration > longest:
                window_seconds = longest
            if window_seconds is None:
                spans = [(0.0, reader.info.duration)]
            elif window_seconds > longest:
                raise ValueError(
                    f"window_seconds={window_seconds:g} is more than one pass takes ({longest:g})."
                )
            else:
                spans = reader.windows(window_seconds, hop_seconds)
            for index, (start, end) in enumerate(spans):
                clip = reader.read(
                    start=start, end=end, fps=self.processor.fps, max_frames=self.processor.max_frames
                )
                asked = [
                    name
                    for name in questions
                    if name == "overall" or (clip.has_video if name == "video" else clip.has_audio)
                ]
                yield {
                    "encoded": self.processor.encode(clip, asked),
                    "start": float(start),
                    "end": float(end),
                    "name": clip.name,
                    "duration": float(reader.info.duration),
                    "has_video": reader.info.has_video,
                    "has_audio": reader.info.has_audio,
                    "num_frames": 0 if clip.frames is None else len(clip.frames),
                    "warnings": list(dict.fromkeys([*reader.warnings, *clip.warnings])),
                    "is_last": index == len(spans) - 1,
                }

    def get_iterator(
        self, inputs, num_workers, batch_size, preprocess_params, forward_params, postprocess_params
    ):
        windows = PipelineChunkIterator(inputs, self.preprocess, preprocess_params)
        # Windows come out of one generator, which one process can run but several would each run whole.
        loader = DataLoader(
            windows, num_workers=min(num_workers, 1), batch_size=batch_size, collate_fn=self.collate
        )
        return self._gather(loader, forward_params, postprocess_params)

    def _gather(self, loader, forward_params, postprocess_params) -> Iterator[dict]:
        """Scores batches of windows and puts the windows of each input together again."""
        windows = []
        for batch in loader:
            for window in self.forward(batch, **forward_params):
                windows.append(window)
                if window["is_last"]:
                    yield self.postprocess(windows, **postprocess_params)
                    windows = []

    def collate(self, windows: list[dict]) -> dict:
        encoded = [window.pop("encoded") for window in windows if "encoded" in window]
        return {"inputs": dict(self.processor.collate(encoded)) if encoded else None, "windows": windows}

    def _forward(self, batch: dict) -> list[dict]:
        if batch["inputs"] is None:
            return batch["windows"]
        output = self.model(**batch["inputs"])
        columns = {
            SCORE_NAMES[name]: None if logits is None else fake_probability(logits).tolist()
            for name, logits in zip(
                QUESTIONS, (output.logits, output.video_logits, output.audio_logits), strict=True
            )
        }
        row = 0
        for window in batch["windows"]:
            if "error" not in window:
                for name, column in columns.items():
                    value = math.nan if column is None else column[row]
                    window[name] = None if math.isnan(value) else value
                row += 1
        return batch["windows"]

    def postprocess(
        self, windows: list[dict], aggregate: str = "mean", threshold: float | None = None
    ) -> dict:
        scored = [window for window in windows if "error" not in window]
        # A file that breaks off keeps the verdict on what came before; the error says where it stopped.
        error = next((window["error"] for window in windows if "error" in window), None)
        if threshold is None:
            threshold = getattr(self.model.config, "threshold", 0.5)
        scores = {name: _aggregate([w[name] for w in scored], aggregate) for name in SCORE_NAMES.values()}
        label = None
        if scores["score"] is not None:
            label = self.model.config.id2label[int(scores["score"] >= threshold)]
        last = scored[-1] if scored else {}
        return {
            "label": label,
            **scores,
            "threshold": threshold,
            "windows": [{key: w[key] for key in ("start", "end", *SCORE_NAMES.values())} for w in scored],
            "name": last.get("name"),
            "duration": last.get("duration"),
            "has_video": last.get("has_video"),
            "has_audio": last.get("has_audio"),
            "num_frames": sum(window["num_frames"] for window in scored),
            "warnings": list(dict.fromkeys(text for window in scored for text in window["warnings"])),
            "error": error,
        }

    def save_pretrained(self, save_directory, **kwargs):
        """Saves everything the pipeline needs: model, custom code, pipeline entry and the whole processor."""
        self.model.save_pretrained(save_directory, **kwargs)
        self.processor.save_pretrained(save_directory, **kwargs)


def split_source(source: Any) -> tuple[Any, Any]:
    """The clip and its separate sound file, if any, of an input: a source, a pair by name, or a dataset's row."""
    if not isinstance(source, Mapping) or not ({"video", "audio"} & set(source)) or "frames" in source:
        return source, None
    video, audio = source.get("video"), source.get("audio")
    return (audio, None) if video is None else (video, audio)


def _aggregate(scores: list[float | None], how: str) -> float | None:
    known = [score for score in scores if score is not None]
    if not known:
        return None
    return max(known) if how == "max" else sum(known) / len(known)
