"""`pipeline("av-deepfake-detection")`: a file in, a verdict with a timeline out."""

import math
from collections.abc import Iterator, Mapping
from itertools import islice
from types import GeneratorType
from typing import Any
from warnings import warn

import torch
from torch.utils.data import DataLoader
from transformers.pipelines.base import ChunkPipeline
from transformers.pipelines.pt_utils import PipelineChunkIterator

from .configuration_detector import PARTS, SCORE_NAMES, AVDetectorConfig
from .media import MediaError, MediaReader
from .media_errors import merged_warnings
from .media_windows import mean_over_time
from .modeling_outputs import calibrated, score_columns

UNCERTAIN = "uncertain"
"""Label of a score in the model's `abstain_band`, on request."""
NO_VERDICT = "NoVerdictError"
"""Type of the error of a file that was read but for which the network gave no number."""
OVERFLOW = "its activations overflowed, as on material that is nothing like what it was trained on"
MOST_SPANS = 5
WORKER_WINDOWS = 16
"""A file with more windows is read in the main process, so that no worker holds a long recording in memory."""


class AVDeepfakeDetectionPipeline(ChunkPipeline):
    """
    Tell whether a video, or its picture or sound alone, is a deepfake.

    ```python
    >>> import modeling_avlmm
    >>> from transformers import pipeline

    >>> detector = pipeline("av-deepfake-detection", model="my-org/my-detector")
    >>> detector("clip.mp4")
    {'label': 'fake', 'score': 0.97, 'video_score': 0.99, 'audio_score': 0.12, 'windows': [...], 'warnings': [], ...}
    ```

    A file that is longer than one pass takes is read window by window and never held in memory as a whole. Its score is
    the mean over time: a window counts by its length, and where windows overlap they share the time equally. In a list,
    a file that cannot be read gives a result with `error` set, and the others go on.

    Args:
        kwargs:
            Arguments of [`Pipeline`], and options of [`~AVDeepfakeDetectionPipeline.__call__`] that hold for all calls.

    Raises:
        ValueError: If the processor's prompts are not those that the model was trained with.
    """

    _load_processor = True
    _load_tokenizer = False
    _load_feature_extractor = False
    _load_image_processor = False
    _load_video_processor = False
    _pipeline_calls_generate = False

    _frames_to_caller = 3
    """Frames from a warning in `__init__` to the line that called `pipeline`."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        # A model fresh from training would still drop units, and a clip's score would depend on its batch.
        self.model.eval()
        trained, used = self.model.config.prompts, self.processor.prompts
        if trained != used:
            raise ValueError(
                "The processor's prompts are not those the model was trained with, so its verdicts would mean nothing. "
                f"Model: {trained}. Processor: {used}. Load both from the same folder or repository."
            )
        if self.model.config.notice:
            warn(self.model.config.notice, stacklevel=self._frames_to_caller)

    def _sanitize_parameters(
        self,
        window_seconds: float | None = None,
        hop_seconds: float | None = None,
        questions: tuple[str, ...] | None = None,
        on_error: str | None = None,
        aggregate: str | None = None,
        threshold: float | None = None,
        temperature: float | None = None,
        abstain: bool | None = None,
    ):
        if on_error not in (None, "raise", "return"):
            raise ValueError(f"on_error must be 'raise' or 'return', not {on_error!r}.")
        if aggregate not in (None, "mean", "max"):
            raise ValueError(f"aggregate must be 'mean' or 'max', not {aggregate!r}.")
        if questions is not None and ("overall" not in questions or set(questions) - set(PARTS)):
            raise ValueError(f"questions must be of {PARTS} and hold 'overall', not {questions!r}.")
        if temperature is not None and not temperature > 0:
            raise ValueError(f"temperature must be above 0, not {temperature!r}.")
        if abstain and not self.model.config.abstain_band:
            raise ValueError(
                "abstain=True needs a detector with an abstain_band in its configuration; "
                "`evaluate_avd.py --calibrate --coverage 0.9` fits one on validation data."
            )
        given = {
            "window_seconds": window_seconds,
            "hop_seconds": hop_seconds,
            "questions": questions,
            "on_error": on_error,
        }
        preprocess = {name: value for name, value in given.items() if value is not None}
        given = {
            "aggregate": aggregate,
            "threshold": threshold,
            "temperature": temperature,
            "abstain": abstain,
        }
        return preprocess, {}, {name: value for name, value in given.items() if value is not None}

    def __call__(self, inputs, **kwargs) -> dict | list[dict] | Iterator[dict]:
        """
        Score files.

        Args:
            inputs (path, URL, `bytes`, file object, arrays, `{"video": ..., "audio": ...}`, or a list, dataset or generator of them):
                The files. In `{"video": ..., "audio": ...}`, the sound is taken from the second file. A row of one of
                this package's datasets is such an input.
            window_seconds (`float`, *optional*):
                Length of a window. Defaults to the whole file if one pass takes it, and otherwise to the longest pass
                (`processor.max_seconds`).
            hop_seconds (`float`, *optional*):
                Seconds from the start of one window to the start of the next. Defaults to `window_seconds`.
            questions (`tuple[str]`, *optional*, defaults to `("overall", "video", "audio")`): Verdicts to ask for.
            aggregate (`str`, *optional*, defaults to `"mean"`):
                How the windows' scores make the file's: `"mean"` over time, or `"max"` if no short fake passage may be
                missed.
            threshold (`float`, *optional*): Score from which on the label is fake. Defaults to the model's own.
            temperature (`float`, *optional*):
                Divisor of the log-odds of all scores. Defaults to the model's own, fitted on validation data; 1 gives
                the network's own scores.
            abstain (`bool`, *optional*, defaults to `False`):
                Give the label `"uncertain"` to a score in the model's `abstain_band`. By default only a warning says so.
            on_error (`str`, *optional*):
                `"raise"`, or `"return"` to get a result with `error`. Defaults to raising for one input and returning
                for many.
            batch_size (`int`, *optional*, defaults to 1): Windows in a forward pass, from one or several files.
            num_workers (`int`, *optional*, defaults to 0):
                Processes that decode. Several share the files of a list or dataset; a generator uses one.

        Returns:
            `dict`, or one for each input:

            - **label** (`str`) -- `"real"`, `"fake"` or, with `abstain`, `"uncertain"`; None if the file could not be read.
            - **score** (`float`) -- P(fake), in [0, 1].
            - **video_score**, **audio_score** (`float`) -- The same for picture and sound; None if there is none.
            - **threshold** (`float`), **abstain_band** (`list[float]`, *optional*) -- What decided the label; the band
              only with `abstain`.
            - **windows** (`list[dict]`) -- `start` and `end` in seconds and the three scores of every window.
            - **disagreement** (`float`), **timeline** (`list[dict]`) -- Only from detectors that match picture and sound
              over time: how little the two belong together, in [0, 1], as a mean (None if one is missing) and for every
              frame with sound, with `time` in seconds. A score of its own, not calibrated.
            - **duration** (`float`), **has_video**, **has_audio** (`bool`), **num_frames** (`int`) -- What was read.
            - **warnings** (`list[str]`) -- What the reader should know, such as a missing sound track.
            - **error** (`dict`) -- `type` and `message`; None if all went well. The type is `NoVerdictError`, also for a
              single input, if the clip was read but the network's numbers overflowed.

        Raises:
            MediaError: If the only input cannot be read.
        """
        # A `datasets` table, or an iterator. An open file is an iterator too, but one input.
        if hasattr(inputs, "column_names"):
            inputs = _Rows(inputs) if hasattr(inputs, "num_rows") else (row for row in inputs)
        elif isinstance(inputs, Iterator) and not hasattr(inputs, "read"):
            inputs = (item for item in inputs)
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
        questions: tuple[str, ...] = PARTS,
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
        trim = self.processor.trim_leading_silence
        with MediaReader(source, audio=audio, trim_leading_silence=trim) as reader:
            spans = self._spans(reader, window_seconds, hop_seconds)
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
                    "warnings": [*reader.warnings, *clip.warnings],
                    "is_last": index == len(spans) - 1,
                }

    def _spans(
        self, reader: MediaReader, window_seconds: float | None, hop_seconds: float | None
    ) -> list[tuple[float, float]]:
        longest = self.processor.max_seconds
        if window_seconds is None:
            if reader.info.duration <= longest:
                return [(0.0, reader.info.duration)]
            window_seconds = longest
        if window_seconds > longest:
            raise ValueError(f"window_seconds={window_seconds:g} is more than one pass takes ({longest:g}).")
        return reader.windows(window_seconds, hop_seconds)

    def get_iterator(
        self, inputs, num_workers, batch_size, preprocess_params, forward_params, postprocess_params
    ) -> Iterator[dict]:
        if num_workers > 1 and isinstance(inputs, list | torch.utils.data.Dataset):
            files = _Files(inputs, self.preprocess, preprocess_params)
            loader = DataLoader(files, num_workers=num_workers, batch_size=None)
            windows = (window for number, read in enumerate(loader) for window in files.whole(number, read))
            batches = (self.collate(batch) for batch in _batched(windows, batch_size))
        else:
            windows = PipelineChunkIterator(inputs, self.preprocess, preprocess_params)
            # All windows come from one generator. Several processes would each run all of it.
            batches = DataLoader(
                windows, num_workers=min(num_workers, 1), batch_size=batch_size, collate_fn=self.collate
            )
        return self._gather(batches, forward_params, postprocess_params)

    def _gather(self, batches, forward_params, postprocess_params) -> Iterator[dict]:
        """Score batches of windows and yield a result for each input, from all of its windows."""
        windows = []
        for batch in batches:
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
        columns = score_columns(output)
        disagreements = None if output.frame_scores is None else output.frame_scores.tolist()
        row = 0
        for window in batch["windows"]:
            if "error" not in window:
                for name, column in columns.items():
                    window[name] = column[row]
                if disagreements is not None:
                    times = batch["inputs"]["frame_times"][row].tolist()
                    window["frames"] = [
                        (window["start"] + time, value)
                        for time, value in zip(times, disagreements[row], strict=True)
                        if not math.isnan(value)
                    ]
                row += 1
        return batch["windows"]

    def postprocess(
        self,
        windows: list[dict],
        aggregate: str = "mean",
        threshold: float | None = None,
        temperature: float | None = None,
        abstain: bool = False,
    ) -> dict:
        config = self.model.config
        scored = [window for window in windows if "error" not in window]
        # A file that breaks off keeps the verdict on what came before; the error says where it stopped.
        error = next((window["error"] for window in windows if "error" in window), None)
        warnings = [config.notice] if config.notice else []
        warnings += merged_warnings(text for window in scored for text in window["warnings"])
        raw = {name: _aggregate(scored, name, aggregate) for name in SCORE_NAMES.values()}
        found = verdict(raw, config, threshold, temperature)
        for window in scored:
            window.update(calibrated_scores(window, config, temperature))
        if without := [window for window in scored if window["score"] is None]:
            message = _no_number(without)
            if len(without) == len(scored):
                error = error or {"type": NO_VERDICT, "message": f"{without[0]['name']}: {message}"}
            else:
                warnings.append(message)
        low, high = config.abstain_band or (1.0, 0.0)
        if found["score"] is not None and low <= found["score"] <= high:
            if abstain:
                found["label"] = UNCERTAIN
            warnings.append(f"the score is in the range [{low:.3f}, {high:.3f}] where verdicts are uncertain")
        last = scored[-1] if scored else {}
        return {
            **found,
            "abstain_band": config.abstain_band if abstain else None,
            "windows": [{key: w[key] for key in ("start", "end", *SCORE_NAMES.values())} for w in scored],
            **(timeline(scored) if config.gives_frame_scores else {}),
            "name": last.get("name"),
            "duration": last.get("duration"),
            "has_video": last.get("has_video"),
            "has_audio": last.get("has_audio"),
            "num_frames": sum(window["num_frames"] for window in scored),
            "warnings": warnings,
            "error": error,
        }

    def save_pretrained(self, save_directory, **kwargs):
        """Save everything the pipeline needs: model, custom code, pipeline entry and the whole processor."""
        self.model.save_pretrained(save_directory, **kwargs)
        self.processor.save_pretrained(save_directory, **kwargs)


class _Rows(torch.utils.data.Dataset):
    """A `datasets` table in the form that `transformers` recognizes. Rows are read when they are used."""

    def __init__(self, table):
        self.table = table

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, index: int) -> dict:
        return self.table[index]


class _Files(torch.utils.data.Dataset):
    """The files of a list, each as all of its windows, so that workers keep the order and batches of one process."""

    def __init__(self, inputs, windows_of, parameters: dict):
        self.inputs, self.windows_of, self.parameters = inputs, windows_of, parameters

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, index: int) -> list[dict] | None:
        windows = list(islice(self.windows_of(self.inputs[index], **self.parameters), WORKER_WINDOWS + 1))
        return None if len(windows) > WORKER_WINDOWS else windows

    def whole(self, index: int, windows: list[dict] | None) -> Iterator[dict]:
        """Return the windows of a file, which are read here if a worker found that there are too many to hand over."""
        return (
            iter(windows) if windows is not None else self.windows_of(self.inputs[index], **self.parameters)
        )


def _batched(windows: Iterator[dict], size: int) -> Iterator[list[dict]]:
    while batch := list(islice(windows, size)):
        yield batch


def verdict(
    raw: Mapping[str, float | None],
    config: AVDetectorConfig,
    threshold: float | None = None,
    temperature: float | None = None,
) -> dict:
    """
    Return the verdict on a file.

    Args:
        raw (`Mapping[str, float | None]`): The file's `score`, `video_score` and `audio_score`, not calibrated.
        config ([`AVDetectorConfig`]): The detector's configuration.
        threshold, temperature (`float`, *optional*): In place of those of the configuration.

    Returns:
        `dict`: `label` (None without a score), the calibrated scores and `threshold`.
    """
    threshold = config.threshold if threshold is None else threshold
    scores = calibrated_scores(raw, config, temperature)
    label = None if scores["score"] is None else config.id2label[int(scores["score"] >= threshold)]
    return {"label": label, **scores, "threshold": threshold}


def calibrated_scores(
    raw: Mapping[str, float | None], config: AVDetectorConfig, temperature: float | None = None
) -> dict[str, float | None]:
    """Return `score`, `video_score` and `audio_score`, each with its log-odds divided by its temperature."""
    own = config.temperature or {}
    return {
        name: calibrated(raw[name], own.get(part, 1.0) if temperature is None else temperature)
        for part, name in SCORE_NAMES.items()
    }


def split_source(source: Any) -> tuple[Any, Any]:
    """Return the clip and the separate sound file, if any, of an input: a source, a pair by name, or a dataset's row."""
    if not isinstance(source, Mapping) or not ({"video", "audio"} & set(source)) or "frames" in source:
        return source, None
    video, audio = source.get("video"), source.get("audio")
    return (audio, None) if video is None else (video, audio)


def timeline(windows: list[dict]) -> dict:
    """Return `timeline` and `disagreement` of a file, from the `frames` of its windows; overlapping ones are averaged."""
    values: dict[float, list[float]] = {}
    for window in windows:
        for time, value in window.get("frames", ()):
            values.setdefault(round(time, 3), []).append(value)
    line = [{"time": time, "disagreement": sum(v) / len(v)} for time, v in sorted(values.items())]
    mean = sum(point["disagreement"] for point in line) / len(line) if line else None
    return {"disagreement": mean, "timeline": line}


def _aggregate(windows: list[dict], name: str, how: str) -> float | None:
    """Return a file's score from its windows': the largest, or the mean over time."""
    scores = [window[name] for window in windows]
    if how == "max":
        return max((score for score in scores if score is not None), default=None)
    return mean_over_time(scores, [(window["start"], window["end"]) for window in windows])


def _no_number(windows: list[dict]) -> str:
    """Return the message about windows that the network gave no number for."""
    spans = ", ".join(f"{w['start']:.1f} to {w['end']:.1f} s" for w in windows[:MOST_SPANS])
    more = f" and {len(windows) - MOST_SPANS} more" if len(windows) > MOST_SPANS else ""
    return f"the network gave no number for {spans}{more}: {OVERFLOW}"
