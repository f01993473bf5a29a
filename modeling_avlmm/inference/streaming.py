"""Verdicts on a recording while it grows: a score for the last seconds every second, in bounded memory.

    python -m modeling_avlmm stream recording.ts --model my-org/my-detector

Windows, and their scores, are those of `pipeline("av-deepfake-detection")` with the same `hop_seconds` on the finished file.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from ..configuration_detector import SCORE_NAMES
from ..media import SAMPLING_RATE, Clip
from ..media_errors import UnreadableMediaError
from ..media_sources import finite
from ..media_tracks import EPS
from ..media_windows import MeanOverTime
from ..modeling_outputs import score_columns
from ..pipeline_avd import OVERFLOW, calibrated_scores, verdict
from ..processing_ssavd import SSAVDProcessor
from .growing_file import JOIN, GrowingFile, GrowingTracks, Picture
from .onnx_detector import ENGINES, MODEL_FILE, ONNXDetector

MAX_JUMP = 60.0
"""Seconds that timestamps may jump before they count as damaged; our own choice."""
MAX_LAG = 10.0
"""Seconds by which one track may be behind the end of a window that the other is past; our own choice."""
MAX_HOP = 0.5
"""Largest hop in windows: beyond it the pipeline's last windows depend on the file's length, which isn't known yet."""
BATCH = 4
"""Windows of one pass, where many are ready at once."""
GROUPS_AHEAD = 4
"""Groups of windows decoded before they are scored: some take longer to decode and some to score, and neither then waits."""
NO_NUMBER = f"the network gave no number for some windows: {OVERFLOW}"


class StreamingDetector:
    """
    Scores a recording window by window as it comes in.

    ```python
    >>> from modeling_avlmm.inference.streaming import StreamingDetector

    >>> detector = StreamingDetector("my-org/my-detector")
    >>> for window in detector.stream_file("recording.ts"):
    ...     print(window["start"], window["end"], window["score"])
    >>> detector.summary()["score"]
    ```

    Window `k` is `[k * hop_seconds, k * hop_seconds + processor.max_seconds)`. It is scored as soon as both tracks have
    reached its end; a track 10 seconds behind the other counts as ended there. Kept are the small frames of the
    windows not scored yet, and their sound.

    Args:
        model (`str`, `Path`, [`ONNXDetector`] or model):
            Folder or Hub id of an SSAVD detector, folder of an exported one, or either loaded.
        processor ([`SSAVDProcessor`], *optional*): Of a loaded model. Its `trim_leading_silence` has no effect here: how much
            there is to trim is not known when the first window is due (`summary` says so).
        hop_seconds (`float`, *optional*, defaults to 1.0):
            From one window's start to the next's, at most half a window.
        threads (`int`, *optional*, defaults to 1):
            With more than one, one of them decodes the next windows of a file while the others score. PyTorch's are those of
            the whole process, and stay as they are where none are given; a loaded [`ONNXDetector`] has its own.
        engine (`str`, *optional*, defaults to `"onnxruntime"`): Of an exported detector's folder, see [`ONNXDetector`].

    Raises:
        ValueError: for a hop out of range, or a detector that is not SSAVD.
    """

    def __init__(
        self,
        model: Any,
        processor: SSAVDProcessor | None = None,
        hop_seconds: float = 1.0,
        threads: int | None = None,
        engine: str = ENGINES[0],
    ):
        if threads is not None and threads < 1:
            raise ValueError(f"threads must be at least 1, not {threads}.")
        network = None if threads is None else max(1, threads - 1)
        self._score, self.config, self.processor = _scorer(model, processor, network, engine)
        self.window_seconds, self.hop_seconds = self.processor.max_seconds, hop_seconds
        self.threads = threads or 1
        if not 0 < hop_seconds <= MAX_HOP * self.window_seconds:
            raise ValueError(
                f"hop_seconds must be above 0 and at most {MAX_HOP * self.window_seconds:g}, half a window, "
                f"not {hop_seconds:g}."
            )
        self.reset()

    def reset(self, has_video: bool = True, has_audio: bool = True) -> None:
        """Begins a new recording.

        Args:
            has_video, has_audio (`bool`, *optional*, default to `True`): Tracks that windows wait for.
        """
        if not has_video and not has_audio:
            raise ValueError("A recording has picture, sound or both.")
        self.warnings: list[str] = []
        if self.processor.trim_leading_silence:
            self.warnings.append(
                "leading silence is not trimmed in a stream: scores may differ from the pipeline's"
            )
        self._has_video, self._has_audio = has_video, has_audio
        self._next = 0
        self._frames: dict[int, list[torch.Tensor]] = {}
        self._picture: Picture | None = None
        self._video_end = 0.0
        self._sound, self._sound_first, self._sound_end = torch.zeros(0), 0, None
        self._means = {name: MeanOverTime() for name in SCORE_NAMES.values()}
        self._largest: dict[str, float | None] = dict.fromkeys(self._means)
        self._windows, self._seconds, self._finished = 0, 0.0, False

    # -- what comes in -----------------------------------------------------------------------------------------------------

    def push(
        self,
        frames: torch.Tensor | None = None,
        timestamps: Any = None,
        audio: torch.Tensor | None = None,
        audio_start: float | None = None,
    ) -> list[dict]:
        """
        Takes what was recorded since the last call, in pieces of any length.

        Args:
            frames (`torch.Tensor` of shape `(n, 3, H, W)`, *optional*): uint8, RGB, upright.
            timestamps (sequence of `n` floats): When each frame appears, seconds from the recording's start, rising.
            audio (`torch.Tensor` of shape `(samples,)`, *optional*): 16 kHz, in [-1, 1].
            audio_start (`float`, *optional*): When `audio` begins, seconds. Defaults to the end of the last piece.

        Returns:
            `list[dict]`: the windows that became complete: `start` and `end` in seconds, `score`, `video_score` and
            `audio_score`, calibrated P(fake) in [0, 1], None where there is no such part.

        Raises:
            ValueError: for shapes, types or times that are not as above, or a track that `reset` left out.
            UnreadableMediaError: when times jump by more than a minute.
        """
        if self._finished:
            raise ValueError("This recording is finished; call reset() to begin another.")
        if frames is not None:
            if not self._has_video:
                raise ValueError("reset(has_video=False) announced a recording without picture.")
            if frames.ndim != 4 or frames.shape[1] != 3 or frames.dtype != torch.uint8:
                raise ValueError(
                    f"frames must be uint8 of shape (n, 3, H, W), not {frames.dtype} of {tuple(frames.shape)}."
                )
            times = [] if timestamps is None else [float(at) for at in timestamps]
            if len(times) != len(frames):
                raise ValueError(f"there are {len(times)} timestamps for {len(frames)} frames.")
            for frame, at in zip(frames, times, strict=True):
                self._add_picture(Picture(at, at, lambda frame=frame: frame))
        if audio is not None:
            if not self._has_audio:
                raise ValueError("reset(has_audio=False) announced a recording without sound.")
            if audio.ndim != 1 or not audio.is_floating_point():
                raise ValueError(
                    f"audio must be floats of shape (samples,), not {audio.dtype} of {tuple(audio.shape)}."
                )
            self._add_sound(audio.float(), audio_start)
        return self._scored(self._complete())

    def finish(self) -> list[dict]:
        """Ends the recording, and scores what is left of it.

        Returns:
            `list[dict]`: as from [`~StreamingDetector.push`].
        """
        return [] if self._finished else self._scored(self._end())

    def stream_file(self, source: Any, patience: float = 5.0, poll: float = 0.1) -> Iterator[dict]:
        """
        Scores a file while it is written, decoding every packet once.

        Args:
            source (path or binary file object): A growing or finished .ts, .mkv or fragmented mp4, a pipe of one, or a
                finished file of any kind.
            patience (`float`, *optional*, defaults to 5.0): Seconds without new bytes after which the file is finished.
            poll (`float`, *optional*, defaults to 0.1): Seconds from one look for new bytes to the next.

        Yields:
            `dict`: the windows, as from [`~StreamingDetector.push`].

        Raises:
            MediaError: when it cannot be read.
        """
        name = str(getattr(source, "name", source) if hasattr(source, "read") else source)
        file = GrowingFile(source, patience, poll)
        try:
            tracks = GrowingTracks(file, name)
            self.reset(tracks.has_video, tracks.has_audio)
            groups = self._follow(tracks)
            if self.threads == 1:
                for clips in groups:
                    yield from self._scored(clips)
            else:
                yield from self._scored_beside(groups)
        finally:
            file.close()
        if not self._windows:
            raise UnreadableMediaError(name, "has neither a frame nor a sample that can be decoded")

    def _scored_beside(self, groups: Iterator[list[Clip]]) -> Iterator[dict]:
        """Scores windows while a thread decodes the next ones, at most [`GROUPS_AHEAD`] groups of them."""
        thread = ThreadPoolExecutor(1, "decoding")
        try:
            coming = deque(thread.submit(next, groups, None) for _ in range(GROUPS_AHEAD))
            while clips := coming.popleft().result():
                coming.append(thread.submit(next, groups, None))
                yield from self._scored(clips)
        finally:
            thread.shutdown(cancel_futures=True)

    def _follow(self, tracks: GrowingTracks) -> Iterator[list[Clip]]:
        """Windows as they become complete, in groups that are never empty."""
        zero, early, late = None, [], 0
        for part in tracks:
            if zero is None:
                # Times count from the first picture, or from the first sample of what is sound alone.
                if tracks.has_video and not isinstance(part, Picture):
                    early.append(part)
                    if part.start - early[0].start <= self.window_seconds + MAX_JUMP:
                        continue
                    raise UnreadableMediaError(
                        tracks.name, f"has no picture in its first {MAX_JUMP:.0f} s of sound"
                    )
                zero = part.start
            for piece in (*early, part):
                if isinstance(piece, Picture):
                    # Recordings that were joined without decoding overlap by a few frames.
                    if self._picture is not None and piece.start - zero <= self._picture.start:
                        late += 1
                    else:
                        self._add_picture(Picture(piece.start - zero, piece.end - zero, piece.load))
                else:
                    self._add_sound(piece.samples, piece.start - zero)
            early = []
            if clips := list(self._complete()):
                yield clips
        if late:
            self.warnings.append(f"{late} frames come after later ones and were left out")
        if tracks.damaged:
            self.warnings.append(f"{tracks.damaged} packets cannot be decoded and were left out")
        if early:
            self._has_video = False
            self.warnings.append("the video track has no frame that can be decoded")
            for piece in early:
                self._add_sound(piece.samples, piece.start - early[0].start)
        if clips := list(self._end()):
            yield clips

    def _end(self) -> Iterator[Clip]:
        self._finished = True
        if self._picture is not None:
            self._show(self._video_end, last=True)
            self._picture = None
        return self._left()

    def _add_picture(self, picture: Picture) -> None:
        before = self._picture
        if before is not None:
            if picture.start <= before.start:
                raise ValueError(
                    f"frame times must rise: {picture.start:.3f} s follows {before.start:.3f} s."
                )
            self._check_jump(picture.start - before.start, picture.start)
            self._show(picture.start)
        self._picture = picture
        self._video_end = max(self._video_end, picture.start, picture.end)

    def _show(self, until: float, last: bool = False) -> None:
        """Gives the picture on screen to the windows in which it is sampled before `until`."""
        fps, image = self.processor.fps, None
        for window in range(self._next, max(self._next, math.ceil(until / self.hop_seconds + EPS))):
            start = window * self.hop_seconds
            taken = self._frames.setdefault(window, [])
            while len(taken) < self.processor.max_frames:
                if last:  # as MediaReader counts the frames of a track that ends
                    shown = len(taken) < max(until - start > EPS, math.ceil((until - start) * fps - EPS))
                else:
                    shown = start + len(taken) / fps + EPS < until
                if not shown:
                    break
                if image is None:
                    image = self._resized(self._picture.load())
                taken.append(image)

    def _resized(self, frame: torch.Tensor) -> torch.Tensor:
        size = (self.processor.image_size,) * 2
        if frame.shape[-2:] == size:
            return frame.clone()  # not a view that keeps a whole chunk alive
        return F.interpolate(frame[None], size=size, mode="bilinear", antialias=True)[0]

    def _add_sound(self, samples: torch.Tensor, start: float | None) -> None:
        if self._sound_end is None:
            self._sound_end = max(0, round((start or 0.0) * SAMPLING_RATE))
            self._sound_first = self._sound_end
        if start is not None:
            ahead = start - self._sound_end / SAMPLING_RATE
            first_cut = len(self._sound) == 0 and ahead < 0
            if abs(ahead) > JOIN or first_cut:
                self._check_jump(ahead, start)
                missing = round(ahead * SAMPLING_RATE)
                samples = samples[max(0, -missing) :]
                samples = F.pad(samples, (max(0, missing), 0))
        samples = finite(samples, self.warnings).clamp(-1, 1)
        # What no window needs any more goes.
        old = round(self._next * self.hop_seconds * SAMPLING_RATE) - self._sound_first
        old = min(max(0, old), len(self._sound))
        self._sound = torch.cat([self._sound[old:], samples])
        self._sound_first += old
        self._sound_end += len(samples)

    def _check_jump(self, seconds: float, at: float) -> None:
        if abs(seconds) > MAX_JUMP:
            reason = f"timestamps jump by {seconds:.1f} s to {at:.1f} s"
            raise UnreadableMediaError("the recording", reason, "Begin a new stream there")

    # -- windows -----------------------------------------------------------------------------------------------------------

    def _heard(self) -> float:
        return 0.0 if self._sound_end is None else self._sound_end / SAMPLING_RATE

    def _complete(self) -> Iterator[Clip]:
        """Windows that all tracks have reached the end of."""
        while True:
            start = self._next * self.hop_seconds
            end = start + self.window_seconds
            heard, furthest = self._heard(), max(self._heard(), self._video_end)
            frames = self._frames.get(self._next, ())
            seen = not self._has_video or len(frames) == self.processor.max_frames
            whole = seen and (not self._has_audio or heard > end - EPS)
            if furthest <= end - EPS or not (whole or furthest > end + MAX_LAG):
                return
            yield self._clip(start, end)

    def _left(self) -> Iterator[Clip]:
        """The windows that the end of the recording completes or cuts."""
        duration = max(self._heard(), self._video_end)
        while duration > EPS:
            start = self._next * self.hop_seconds
            end = min(start + self.window_seconds, duration)
            if self._next and start - self.hop_seconds + self.window_seconds >= duration - EPS:
                return
            yield self._clip(start, end)

    def _clip(self, start: float, end: float) -> Clip:
        """The next window, which is taken out."""
        frames = self._frames.pop(self._next, [])
        self._next += 1
        times = torch.arange(len(frames), dtype=torch.float64) / self.processor.fps
        audio = None
        begin = round(start * SAMPLING_RATE)
        length = 0
        if self._sound_end is not None:
            length = min(round((end - start) * SAMPLING_RATE), self._sound_end - begin)
        if length > 0:
            first = max(0, self._sound_first - begin)
            heard = self._sound[max(0, begin - self._sound_first) :][: max(0, length - first)]
            audio = F.pad(heard, (length - len(heard), 0))
        return Clip(torch.stack(frames) if frames else None, times, audio, start, end, "the recording")

    def _scored(self, clips: Iterable[Clip]) -> list[dict]:
        results, waiting = [], []
        for clip in clips:
            self._windows, self._seconds = self._windows + 1, clip.end
            if clip.has_video or clip.has_audio:
                waiting.append(clip)
            else:
                results.extend(self._judge(waiting))
                waiting = []
                results.append({"start": clip.start, "end": clip.end, **dict.fromkeys(self._means)})
            if len(waiting) == BATCH:
                results.extend(self._judge(waiting))
                waiting = []
        return results + self._judge(waiting)

    def _judge(self, clips: list[Clip]) -> list[dict]:
        if not clips:
            return []
        columns = self._score(self.processor.collate([self.processor.encode(clip) for clip in clips]))
        rows = []
        for index, clip in enumerate(clips):
            raw = {name: column[index] for name, column in columns.items()}
            for name, value in raw.items():
                if value is not None:
                    self._means[name].add(clip.start, clip.end, value)
                    largest = self._largest[name]
                    self._largest[name] = value if largest is None else max(largest, value)
            row = {"start": clip.start, "end": clip.end, **calibrated_scores(raw, self.config)}
            if row["score"] is None and NO_NUMBER not in self.warnings:
                self.warnings.append(NO_NUMBER)
            rows.append(row)
        return rows

    def summary(self) -> dict:
        """
        The verdict on all that was recorded so far, as the pipeline puts it together.

        Returns:
            `dict`: `label` (`"real"`, `"fake"`, None before the first window), `score`, `video_score`, `audio_score` (means over
            time, calibrated), the same with `max_` before them, `threshold`, `windows` (their number), `seconds` (the
            last one's end) and `warnings`.
        """
        largest = calibrated_scores(self._largest, self.config)
        return {
            **verdict({name: mean.value for name, mean in self._means.items()}, self.config),
            **{f"max_{name}": value for name, value in largest.items()},
            "windows": self._windows,
            "seconds": self._seconds,
            "warnings": list(dict.fromkeys(self.warnings)),
        }


def _scorer(
    model: Any, processor: Any, threads: int | None, engine: str
) -> tuple[Callable[[Mapping], dict], Any, Any]:
    """A function from a batch to columns of P(fake), the detector's configuration and its processor."""
    if isinstance(model, str | Path):
        if (Path(model) / MODEL_FILE).is_file():
            model = ONNXDetector(model, threads=threads or 1, engine=engine)
        else:
            from transformers import AutoProcessor

            from .auto import AutoModelForAVDeepfakeDetection

            processor = AutoProcessor.from_pretrained(model)
            model = AutoModelForAVDeepfakeDetection.from_pretrained(model)
    if isinstance(model, ONNXDetector):
        return model.scores, model.config, model.processor
    if not isinstance(processor, SSAVDProcessor):
        raise ValueError(
            f"Streaming takes an SSAVD detector with its SSAVDProcessor, not {type(processor).__name__}."
        )
    if threads is not None:
        torch.set_num_threads(threads)
    model.eval()

    @torch.inference_mode()
    def scores(batch: Mapping[str, torch.Tensor]) -> dict[str, list[float | None]]:
        return score_columns(model(**{name: values.to(model.device) for name, values in batch.items()}))

    return scores, model.config, processor


__all__ = ["StreamingDetector"]
