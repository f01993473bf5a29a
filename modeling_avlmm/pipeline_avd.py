"""`pipeline("av-deepfake-detection")`: a file in, a verdict with a timeline out."""

import math
from collections.abc import Callable, Iterator
from functools import partial
from types import GeneratorType
from typing import Any
from warnings import warn

import torch
from torch.utils.data import DataLoader
from transformers.pipelines.base import ChunkPipeline
from transformers.pipelines.pt_utils import PipelineChunkIterator

from .configuration_detector import PARTS, SCORE_NAMES
from .face_crops import FaceTrack
from .face_finder import FaceFinderError
from .face_windows import FaceWindows
from .media import Clip, MediaError, MediaReader
from .media_errors import NothingToScoreError
from .media_sources import name_of
from .modeling_outputs import log_odds_columns, score_columns
from .pipeline_inputs import Files, batched, in_known_form, split_source
from .pipeline_results import (
    Settings,
    file_result,
    place_of,
)
from .processing_clips import checked_faces
from .reading_ahead import ahead


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

    A detector made for faces (`processor.faces`) finds them, follows each through the file, and scores one after another.
    The scores of a file, and those of a window, are those of the most suspicious face: of the face with the highest
    `score`. The sound is shared. Where no face is found the picture is not scored, but the sound is. A face that is there for
    less than half a second decides only where no other is there for longer. A cut ends a face that the next picture
    does not show, even if the same person is seen again later.

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
        faces: str | None = None,
        tracks: Callable[[Any], list[FaceTrack] | None] | None = None,
        private_links: bool | None = None,
    ):
        if on_error not in (None, "raise", "return"):
            raise ValueError(f"on_error must be 'raise' or 'return', not {on_error!r}.")
        if aggregate not in (None, "mean", "max"):
            raise ValueError(f"aggregate must be 'mean' or 'max', not {aggregate!r}.")
        if questions is not None and ("overall" not in questions or set(questions) - set(PARTS)):
            raise ValueError(f"questions must be of {PARTS} and hold 'overall', not {questions!r}.")
        if threshold is not None and not 0 <= threshold <= 1:
            raise ValueError(f"threshold must be in [0, 1], as the scores are, not {threshold!r}.")
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
            "faces": None if faces is None else checked_faces(faces),
            "tracks": tracks,
            "private_links": private_links,
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
            inputs (path, URL, `bytes`, file object, arrays, `{"video": ..., "audio": ...}`, or many of them):
                The files. In `{"video": ..., "audio": ...}`, the sound is taken from the second file. A row of one of
                this package's datasets is such an input. Arrays are given by name, with their rates:
                `{"audio": samples, "sampling_rate": 16000}`, `{"frames": frames, "fps": 25}`. Many inputs are a list, a
                dataset or a column of one, a pandas Series or a generator.
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
            faces (`str`, *optional*):
                The picture: `"off"` for whole frames, `"largest"` for the largest face of each window, `"all"` for every face.
                Defaults to what the detector was made for (`processor.faces`).
            tracks (`Callable`, *optional*):
                Function from an input to the faces in it, a list of [`FaceTrack`]s, or None to look for them. It is called once
                for each input, in the process that reads it, and not for a detector of whole frames. Times are those of a
                [`MediaReader`] with the processor's `trim_leading_silence`.
            private_links (`bool`, *optional*, defaults to `True`):
                Follow links to addresses that are not public, as [`MediaReader`] does. Turn it off where strangers give the
                links.
            on_error (`str`, *optional*):
                `"raise"`, or `"return"` to get a result with `error`. Defaults to raising for one input and returning
                for many.
            batch_size (`int`, *optional*, defaults to 1):
                Windows in a forward pass, from one or several files; with faces, a window counts once for each of them.
            num_workers (`int`, *optional*, defaults to 0):
                Processes that decode. Several share the files of a list or dataset; a generator uses one.

        Returns:
            `dict`, or one for each input:

            - **label** (`str`) -- `"real"`, `"fake"` or, with `abstain`, `"uncertain"`; None if the file could not be read.
            - **score** (`float`) -- P(fake), in [0, 1].
            - **video_score**, **audio_score** (`float`) -- The same for picture and sound; None if there is none.
            - **log_odds**, **video_log_odds**, **audio_log_odds** (`float`) -- The log-odds of the three scores. They rank clips
              that are so sure that their scores are 1.
            - **threshold** (`float`), **abstain_band** (`list[float]`, *optional*) -- What decided the label; the band
              only with `abstain`.
            - **independent_parts** (`bool`) -- Whether `score` is that of the more suspicious part, see
              [`AVDetectorConfig.independent_parts`].
            - **windows** (`list[dict]`) -- `start` and `end` in seconds and the three scores of every window.
            - **faces** (`list[dict]`) -- The faces that were followed, in order of appearance; None if the detector looks at
              whole frames, empty if there is none. For each: `index`; `start` and `end` in seconds; `size`, the median of the
              longer sides of its boxes in pixels; `video_score` and `score`, P(fake) of the picture and of the clip with
              this face, None if it was not scored; `windows`, with `start`, `end` and `video_score`; and `boxes`, at most
              300 of `{"time": ..., "box": [left, top, right, bottom]}` as fractions of the picture's width and height.
            - **disagreement** (`float`), **timeline** (`list[dict]`) -- Only from detectors that match picture and sound
              over time: how little the two belong together, in [0, 1], as a mean (None if one is missing) and for every
              frame with sound, with `time` in seconds; with faces, of the most suspicious face of each window. A score of
              its own, not calibrated.
            - **duration** (`float`), **has_video**, **has_audio** (`bool`), **num_frames** (`int`) -- What was read; None
              for a track that is there but cannot be decoded.
            - **warnings** (`list[str]`) -- What the reader should know, such as a missing sound track.
            - **error** (`dict`) -- `type` and `message`; None if all went well. The type is `NoVerdictError`, also for a
              single input, if the clip was read but there was nothing to score, or the network's numbers overflowed.

        Raises:
            MediaError: If the only input cannot be read.
            FaceFinderError: If faces are to be found and the face finder is not installed.
        """
        inputs = in_known_form(inputs)
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
        faces: str | None = None,
        tracks: Callable[[Any], list[FaceTrack] | None] | None = None,
        private_links: bool = True,
    ) -> Iterator[dict]:
        self._check_window(window_seconds)
        people = None
        try:
            people = self.processor.face_windows(faces, None if tracks is None else partial(tracks, source))
            # The next row is made while the network judges the last one.
            media, audio = split_source(source)
            trim = self.processor.trim_leading_silence
            with MediaReader(
                media, audio=audio, trim_leading_silence=trim, private_links=private_links
            ) as reader:
                yield from ahead(self._rows(reader, (window_seconds, hop_seconds), questions, people))
        except MediaError as error:
            if on_error == "raise":
                raise
            yield _broken_off(error, str(error), people)
        except (OSError, ImportError, FaceFinderError):
            raise  # what is missing or full is missing for every file
        except Exception as error:  # one file never ends a run
            if on_error == "raise":
                raise
            told = (str(error).strip() or "no message").splitlines()[0]
            text = f"{name_of(split_source(source)[0])}: cannot be scored ({type(error).__name__}: {told})"
            yield _broken_off(error, text, people)

    def _check_window(self, window_seconds: float | None) -> None:
        longest = self.processor.max_seconds
        if window_seconds is not None and window_seconds > longest:
            raise ValueError(f"window_seconds={window_seconds:g} is more than one pass takes ({longest:g}).")

    def _rows(
        self, reader: MediaReader, window_and_hop, questions, people: FaceWindows | None
    ) -> Iterator[dict]:
        """Yield what the network takes at once: a window, or one face in a window."""
        spans = self._spans(reader, *window_and_hop)
        clips = (self._read(reader, start, end, is_all=len(spans) == 1) for start, end in spans)
        # Faces are found in one window while the next is decoded.
        for index, clip in enumerate(clips if people is None else ahead(clips)):
            start, end = spans[index]
            faces, notes = ([], []) if people is None else people.choose(clip)
            faces = faces or [None]
            for place, face in enumerate(faces):
                row = {
                    "window": index,
                    "start": float(start),
                    "end": float(end),
                    "name": clip.name,
                    "duration": float(reader.info.duration),
                    "has_video": reader.info.has_video,
                    "has_audio": reader.info.has_audio,
                    "num_frames": 0 if clip.frames is None or place else len(clip.frames),
                    "warnings": [*reader.warnings, *clip.warnings, *notes],
                    "is_last": index == len(spans) - 1 and face is faces[-1],
                    **place_of(face),
                }
                if row["is_last"]:
                    row["people"] = None if people is None else people.found
                yield self._encode(
                    row, clip if people is None else self.processor.part(clip, face), questions
                )

    def _read(self, reader: MediaReader, start: float, end: float, is_all: bool) -> Clip:
        """Return a window; an empty one in place of a damaged passage of a file that has other windows."""
        read = reader.read if is_all else reader.read_passage
        return read(start, end, fps=self.processor.fps, max_frames=self.processor.max_frames)

    def _encode(self, row: dict, clip: Clip, questions: tuple[str, ...]) -> dict:
        """Return the row with the tensors of its clip, or without if there is nothing in it to score."""
        asked = [
            name
            for name in questions
            if name == "overall" or (clip.has_video if name == "video" else clip.has_audio)
        ]
        try:
            row["encoded"] = self.processor.encode(clip, asked)
        except NothingToScoreError as error:
            row["nothing"] = error.reason
        row["warnings"] = list(dict.fromkeys([*row["warnings"], *clip.warnings]))
        return row

    def _spans(
        self, reader: MediaReader, window_seconds: float | None, hop_seconds: float | None
    ) -> list[tuple[float, float]]:
        longest = self.processor.max_seconds
        if window_seconds is None:
            if reader.info.duration <= longest:
                return [(0.0, reader.info.duration)]
            window_seconds = longest
        return reader.windows(window_seconds, hop_seconds)

    def get_iterator(
        self, inputs, num_workers, batch_size, preprocess_params, forward_params, postprocess_params
    ) -> Iterator[dict]:
        if num_workers > 1 and isinstance(inputs, list | torch.utils.data.Dataset):
            files = Files(inputs, self.preprocess, preprocess_params)
            loader = DataLoader(files, num_workers=num_workers, batch_size=None)
            windows = (window for number, read in enumerate(loader) for window in files.whole(number, read))
            batches = (self.collate(batch) for batch in batched(windows, batch_size))
        else:
            windows = PipelineChunkIterator(inputs, self.preprocess, preprocess_params)
            # All windows come from one generator. Several processes would each run all of it.
            batches = DataLoader(
                windows, num_workers=min(num_workers, 1), batch_size=batch_size, collate_fn=self.collate
            )
        return self._gather(batches, forward_params, postprocess_params)

    def _gather(self, batches, forward_params, postprocess_params) -> Iterator[dict]:
        """Score batches of rows and yield a result for each input, from all of its rows."""
        rows = []
        for batch in batches:
            for row in self.forward(batch, **forward_params):
                rows.append(row)
                if row["is_last"]:
                    yield self.postprocess(rows, **postprocess_params)
                    rows = []

    def collate(self, rows: list[dict]) -> dict:
        encoded = []
        for row in rows:
            row["judged"] = "encoded" in row
            if row["judged"]:
                encoded.append(row.pop("encoded"))
        return {"inputs": dict(self.processor.collate(encoded)) if encoded else None, "rows": rows}

    def _forward(self, batch: dict) -> list[dict]:
        rows = batch["rows"]
        for row in rows:
            row.update(dict.fromkeys(SCORE_NAMES.values()))
        if batch["inputs"] is None:
            return rows
        output = self.model(**batch["inputs"])
        columns = score_columns(output) | log_odds_columns(output)
        disagreements = None if output.frame_scores is None else output.frame_scores.tolist()
        for place, row in enumerate(row for row in rows if row["judged"]):
            row.update({name: column[place] for name, column in columns.items()})
            if disagreements is not None:
                times = batch["inputs"]["frame_times"][place].tolist()
                row["frames"] = [
                    (row["start"] + time, value)
                    for time, value in zip(times, disagreements[place], strict=True)
                    if not math.isnan(value)
                ]
        return rows

    def postprocess(
        self,
        rows: list[dict],
        aggregate: str = "mean",
        threshold: float | None = None,
        temperature: float | None = None,
        abstain: bool = False,
    ) -> dict:
        settings = Settings(aggregate, threshold, temperature, abstain, self.processor.min_face_size)
        return file_result(rows, self.model.config, settings)

    def save_pretrained(self, save_directory, **kwargs):
        """Save everything the pipeline needs: model, custom code, pipeline entry and the whole processor."""
        self.model.save_pretrained(save_directory, **kwargs)
        self.processor.save_pretrained(save_directory, **kwargs)


def _broken_off(error: Exception, message: str, people: FaceWindows | None) -> dict:
    """Return the last row of a file that cannot be read further."""
    found = None if people is None else people.found
    return {"error": {"type": type(error).__name__, "message": message}, "people": found, "is_last": True}
