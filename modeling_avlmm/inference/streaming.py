"""Verdicts on a recording while it grows: a score for the last seconds every second, in bounded memory.

    python -m modeling_avlmm stream recording.ts --model my-org/my-detector

Windows and scores are those of `pipeline("av-deepfake-detection")` on the finished file, with the same `hop_seconds`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from transformers import AutoProcessor

from ..configuration_detector import AVDetectorConfig
from ..media import Clip
from ..media_errors import UnreadableMediaError
from ..modeling_outputs import score_columns
from ..processing_clips import VerdictProcessor
from ..processing_facevoice import FaceVoiceProcessor
from ..processing_ssavd import SSAVDProcessor
from .auto import AutoModelForAVDeepfakeDetection
from .growing_file import Picture
from .loading import without_loading_bar
from .onnx_detector import ONNXDetector, graph_files
from .places import DetectorError, faults_of_model, missing_folder
from .reader_process import WindowsElsewhere, readers_in_use
from .stream_reading import FileWindows
from .stream_scores import Scores, StreamScores
from .stream_windows import StreamWindows, WindowShape

MAX_HOP = 0.5
"""Largest hop in windows: beyond it the pipeline's last windows depend on the file's length, which isn't known yet."""
STREAMED = (SSAVDProcessor, FaceVoiceProcessor)
"""Processors of detectors that take short windows of regular frames."""
GROUPS_AHEAD = 4
"""Groups of windows that are decoded ahead of scoring: some take longer to decode, some to score, and neither waits."""


class StreamingDetector:
    """
    Score a recording window by window as it comes in.

    ```python
    >>> from modeling_avlmm.inference.streaming import StreamingDetector

    >>> detector = StreamingDetector("my-org/my-detector")
    >>> for window in detector.stream_file("recording.ts"):
    ...     print(window["start"], window["end"], window["score"])
    >>> detector.summary()["score"]
    ```

    [`StreamWindows`] says when a window is complete. It is scored at once. With a detector for faces, each person is
    followed through the recording, as in the pipeline.

    Args:
        model (`str`, `Path`, [`ONNXDetector`] or model):
            Folder or Hub id of an SSAVD or a facevoice detector, folder of an exported one, or either of them loaded.
        processor ([`VerdictProcessor`], *optional*):
            Processor of a loaded model. Its `trim_leading_silence` has no effect: how much silence there is to trim is
            not known when the first window is due (`summary` says so).
        hop_seconds (`float`, *optional*, defaults to 1.0):
            Seconds from the start of one window to the start of the next, at most half a window.
        threads (`int`, *optional*, defaults to 1):
            With more than one, one thread decodes the next windows of a file while the others score. PyTorch's threads
            are those of the whole process, and are left alone if `threads` is not given; a loaded [`ONNXDetector`] has
            its own.

    Raises:
        ValueError: If the hop is out of range or the detector is of another kind.
        FaceFinderError: If the detector looks at faces and the face finder is not installed.
    """

    def __init__(
        self,
        model: Any,
        processor: VerdictProcessor | None = None,
        hop_seconds: float = 1.0,
        threads: int | None = None,
    ):
        if threads is not None and threads < 1:
            raise ValueError(f"threads must be at least 1, not {threads}.")
        network = None if threads is None else max(1, threads - 1)
        self._score, self.config, self.processor = _scorer(model, processor, network)
        self.window_seconds, self.hop_seconds = self.processor.max_seconds, hop_seconds
        self.threads = threads or 1
        if not 0 < hop_seconds <= MAX_HOP * self.window_seconds:
            raise ValueError(
                f"hop_seconds must be above 0 and at most {MAX_HOP * self.window_seconds:g}, half a window, "
                f"not {hop_seconds:g}."
            )
        self.reset()

    def reset(self, has_video: bool = True, has_audio: bool = True) -> None:
        """Begin a new recording.

        Args:
            has_video, has_audio (`bool`, *optional*, default to `True`): Tracks that a window waits for.
        """
        if not has_video and not has_audio:
            raise ValueError("A recording has picture, sound or both.")
        self.warnings: list[str] = []
        if self.processor.trim_leading_silence:
            self.warnings.append(
                "leading silence is not trimmed in a stream: scores may differ from the pipeline's"
            )
        shape = WindowShape.of(self.processor)
        self.windows = StreamWindows(shape, self.hop_seconds, has_video, has_audio, self.warnings)
        self._scores = StreamScores(self._score, self.config, self.processor, self.warnings)
        self._finished = False

    # -- pieces of a recording ---------------------------------------------------------------------------------------------

    def push(
        self,
        frames: torch.Tensor | None = None,
        timestamps: Any = None,
        audio: torch.Tensor | None = None,
        audio_start: float | None = None,
    ) -> list[dict]:
        """
        Take what was recorded since the last call, in pieces of any length.

        Args:
            frames (`torch.Tensor` of shape `(n, 3, H, W)`, *optional*): uint8, RGB, upright.
            timestamps (sequence of `n` floats): Time of each frame in seconds from the recording's start, rising.
            audio (`torch.Tensor` of shape `(samples,)`, *optional*): 16 kHz, in [-1, 1].
            audio_start (`float`, *optional*): Start of `audio` in seconds. Defaults to the end of the last piece.

        Returns:
            `list[dict]`: The windows that became complete, with `start` and `end` in seconds, and `score`, `video_score`
            and `audio_score`: calibrated P(fake) in [0, 1], None if there is no such part. From a detector for faces they
            are those of the most suspicious one, and `faces` has all that were scored, the most suspicious first: `index`,
            `video_score`, `score`, and `box` (left, top, right, bottom as fractions of the picture) where it was last seen.

        Raises:
            ValueError: If shapes, types or times are not as above, or a track was left out by `reset`.
            UnreadableMediaError: If times jump by more than a minute.
        """
        if self._finished:
            raise ValueError("This recording is finished; call reset() to begin another.")
        if frames is not None:
            if not self.windows.has_video:
                raise ValueError("reset(has_video=False) announced a recording without picture.")
            if frames.ndim != 4 or frames.shape[1] != 3 or frames.dtype != torch.uint8:
                raise ValueError(
                    f"frames must be uint8 of shape (n, 3, H, W), not {frames.dtype} of {tuple(frames.shape)}."
                )
            times = [] if timestamps is None else [float(at) for at in timestamps]
            if len(times) != len(frames):
                raise ValueError(f"there are {len(times)} timestamps for {len(frames)} frames.")
            for frame, at in zip(frames, times, strict=True):
                self.windows.add_picture(Picture(at, at, lambda frame=frame: frame))
        if audio is not None:
            if not self.windows.has_audio:
                raise ValueError("reset(has_audio=False) announced a recording without sound.")
            if audio.ndim != 1 or not audio.is_floating_point():
                raise ValueError(
                    f"audio must be floats of shape (samples,), not {audio.dtype} of {tuple(audio.shape)}."
                )
            self.windows.add_sound(audio.float(), audio_start)
        return self._scored(self.windows.complete())

    def finish(self) -> list[dict]:
        """End the recording and score the rest of it.

        Returns:
            `list[dict]`: The last windows, as from [`~StreamingDetector.push`].
        """
        return [] if self._finished else self._scored(self._end())

    def _end(self) -> Iterator[Clip]:
        self._finished = True
        return self.windows.end()

    # -- a whole recording -------------------------------------------------------------------------------------------------

    def stream_file(self, source: Any, patience: float = 5.0, poll: float = 0.1) -> Iterator[dict]:
        """
        Score a file while it is written, and decode every packet once: in a process of its own within [`reader_processes`].

        Args:
            source (path or binary file object):
                A growing or finished .ts, .mkv or fragmented mp4, a pipe of one, or a finished file of any kind.
            patience (`float`, *optional*, defaults to 5.0): Seconds without new bytes after which the file is finished.
            poll (`float`, *optional*, defaults to 0.1): Seconds between two looks for new bytes.

        Yields:
            `dict`: The windows, as from [`~StreamingDetector.push`].

        Raises:
            MediaError: If the file cannot be read.
        """
        name = str(getattr(source, "name", source) if hasattr(source, "read") else source)
        readers = readers_in_use()
        file = (FileWindows if readers is None else readers.windows)(
            source, name, WindowShape.of(self.processor), self.hop_seconds, patience, poll
        )
        try:
            self.reset(file.has_video, file.has_audio)
            groups = self._told(file)
            if self.threads == 1:
                for clips in groups:
                    yield from self._scored(clips)
            else:
                yield from self._scored_beside(groups)
        finally:
            file.close()
        if not self._scores.count:
            raise UnreadableMediaError(name, "has neither a frame nor a sample that can be decoded")

    def _scored_beside(self, groups: Iterator[list[Clip]]) -> Iterator[dict]:
        """Score windows while a thread decodes the next ones, at most [`GROUPS_AHEAD`] groups of them."""
        thread = ThreadPoolExecutor(1, "decoding")
        try:
            coming = deque(thread.submit(next, groups, None) for _ in range(GROUPS_AHEAD))
            while clips := coming.popleft().result():
                coming.append(thread.submit(next, groups, None))
                yield from self._scored(clips)
        finally:
            thread.shutdown(cancel_futures=True)

    def _told(self, file: FileWindows | WindowsElsewhere) -> Iterator[list[Clip]]:
        """Yield the windows of a file, and take over its warnings."""
        try:
            for clips in file:
                self._take(file.warnings)
                yield clips
        finally:
            self._take(file.warnings)

    def _take(self, warnings: list[str]) -> None:
        self.warnings += [text for text in dict.fromkeys(warnings) if text not in self.warnings]
        warnings.clear()

    # -- scores ------------------------------------------------------------------------------------------------------------

    def _scored(self, clips: Iterable[Clip]) -> list[dict]:
        return self._scores.add(clips)

    def summary(self) -> dict:
        """
        Return the verdict on all that was recorded so far, put together as in the pipeline.

        Returns:
            `dict`: `label` (`"real"`, `"fake"`, None before the first window), `score`, `video_score`, `audio_score` (means
            over time, calibrated), the same with `max_` before them, `threshold`, `windows` (their number), `seconds` (the
            end of the last one) and `warnings`. From a detector for faces also `faces_found` (their number) and `faces`,
            the 20 most suspicious ones: `index`, `start` and `end` in seconds, `video_score` and `score`. Of those that are
            gone, the 100 most suspicious are remembered.
        """
        return self._scores.summary()


def _scorer(
    model: Any, processor: Any, threads: int | None
) -> tuple[Callable[[Mapping], Scores], AVDetectorConfig, VerdictProcessor]:
    """Return a function from a batch to columns of P(fake), with the detector's configuration and processor."""
    if isinstance(model, str | Path):
        if graph_files(model):
            model = ONNXDetector(model, threads=threads or 1)
        else:
            if absent := missing_folder(model):
                raise DetectorError(absent)
            with faults_of_model(model), without_loading_bar():
                processor = AutoProcessor.from_pretrained(model)
                model = AutoModelForAVDeepfakeDetection.from_pretrained(model)
    if isinstance(model, ONNXDetector):
        return model.scores, model.config, model.processor
    if not isinstance(processor, STREAMED):
        names = " or a ".join(known.__name__ for known in STREAMED)
        raise ValueError(
            f"Streaming takes an SSAVD or a facevoice detector with its {names}, not {type(processor).__name__}."
        )
    if threads is not None:
        torch.set_num_threads(threads)
    model.eval()

    @torch.inference_mode()
    def scores(batch: Mapping[str, torch.Tensor]) -> Scores:
        return score_columns(model(**{name: values.to(model.device) for name, values in batch.items()}))

    return scores, model.config, processor


__all__ = ["StreamingDetector"]
