"""A clip, and answers to questions about it: by an instruction-tuned detector, or composed from what was measured."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from transformers import DynamicCache, GenerationConfig, StoppingCriteria, TextIteratorStreamer, pipeline

from ..configuration_detector import LABELS
from ..explain.regions import BAND_NAMES, FACE_REGIONS
from ..hub_mixin import PIPELINE_TASK
from ..inference.default_model import default_model
from ..media import Clip, MediaReader
from ..modeling_avlmm import AVLMMForDeepfakeDetection
from ..pipeline_avd import AVDeepfakeDetectionPipeline, split_source
from .answer_parsing import contradictions, family_in
from .answer_schema import checked_analysis
from .composed_answers import compose, fake_segments
from .conversation import (
    Turns,
    conversation_pieces,
    encode_conversations,
    encode_pieces,
    generation_batch,
    measured_context,
    with_context,
)
from .families import FAMILIES
from .phrasing import named_in

FAMILY_QUESTION = "What kind of manipulation was used?"
DESCRIPTION_QUESTION = "Describe the artifacts in this clip, if there are any."


class AnalystError(RuntimeError):
    """A question that cannot be asked now; the message says what to do first."""


class AVAnalyst:
    """
    Answers questions about a clip, on the ground of what a detector measured.

    ```python
    >>> from modeling_avlmm import AVAnalyst

    >>> analyst = AVAnalyst.from_pretrained("my-org/my-analyst")
    >>> analyst.load("clip.mp4")["label"]
    'fake'
    >>> analyst.ask("Is it the picture, the sound, or both?")
    'The picture was manipulated. The sound was not.'
    ```

    With an instruction-tuned model the detector's verdicts stand before the first question, as in training, and every
    answer is held against them: one that contradicts them ends in a note that says so, also listed in `warnings`.
    Without one, answers are composed from the detector's numbers alone.

    Args:
        model (pipeline, *optional*):
            A detector that was taught to talk by an `analysis` stage. Without one, nothing is generated.
        detector (pipeline, *optional*): The detector that measures, of any kind. Defaults to `model`.
        window_seconds, hop_seconds (`float`, *optional*): Windows of the detector's timeline, as for the pipeline.

    Raises:
        ValueError: if there is neither a model nor a detector, or `model` is a detector that cannot write text.
    """

    @classmethod
    def from_pretrained(
        cls,
        model: str | Path | None = None,
        detector: str | Path | None = None,
        *,
        device: str | None = None,
        dtype: str = "auto",
        trust_remote_code: bool = False,
        **kwargs,
    ) -> AVAnalyst:
        """
        Load an analyst by name.

        Args:
            model (`str` or `Path`, *optional*): Folder or Hub id of the model that writes.
            detector (`str` or `Path`, *optional*):
                Folder or Hub id of the detector that measures. Defaults to `model`; without either, to the package's
                default detector.
            device, dtype (`str`, *optional*): As for `pipeline`.
            trust_remote_code (`bool`, *optional*, defaults to `False`): Run the code in the models' repositories.
            kwargs: Windows, as for [`AVAnalyst`].

        Returns:
            [`AVAnalyst`]

        Raises:
            ValueError: if `model` is a detector that cannot write text.
        """
        if model is None and detector is None:
            detector = default_model()
        writer, measures = (
            None
            if name is None
            else pipeline(
                PIPELINE_TASK,
                model=str(name),
                device=device,
                dtype=dtype,
                trust_remote_code=trust_remote_code or None,
            )
            for name in (model, detector)
        )
        return cls(writer, measures, **kwargs)

    def __init__(
        self,
        model: AVDeepfakeDetectionPipeline | None = None,
        detector: AVDeepfakeDetectionPipeline | None = None,
        window_seconds: float | None = None,
        hop_seconds: float | None = None,
    ):
        if model is None and detector is None:
            raise ValueError(
                "An analyst needs a model or a detector. AVAnalyst.from_pretrained() loads one by name."
            )
        self.writer = model
        if self.writer is not None and not can_write(self.writer):
            raise ValueError(
                f"{_name(self.writer)} cannot write text: it is a {type(self.writer.model).__name__}. Give it as "
                "detector=..., and as model=... one that was trained by an `analysis` stage, or none."
            )
        self.detector = self.writer if detector is None else detector
        windows = {"window_seconds": window_seconds, "hop_seconds": hop_seconds}
        self._windows = {name: value for name, value in windows.items() if value is not None}
        self._forget()

    def _forget(self) -> None:
        self.result: dict | None = None
        self._clip: Clip | None = None
        self._findings: dict | None = None
        self.reset()

    def reset(self) -> None:
        """Forgets the conversation; the clip and its verdicts stay."""
        self.history: list[dict] = []
        self._dialogue: Dialogue | None = None

    @property
    def warnings(self) -> list[str]:
        """What the reader has to know: of the clip, and of every answer so far."""
        of_clip = [] if self.result is None else self.result["warnings"]
        return list(
            dict.fromkeys([*of_clip, *(text for entry in self.history for text in entry.get("warnings", ()))])
        )

    def load(self, file: Any, result: dict | None = None) -> dict:
        """
        Takes up a clip: its verdicts and timeline are measured, and the conversation begins anew.

        Args:
            file: Whatever the pipeline takes.
            result (`dict`, *optional*): The pipeline's result for it, where it was scored before.

        Returns:
            `dict`: the result of the pipeline.

        Raises:
            MediaError: when it cannot be read; there is no clip then.
        """
        self._forget()
        result = self.detector(file, **self._windows) if result is None else result
        if result["error"] is not None:
            raise AnalystError(
                f"The result is of a file that could not be read: {result['error']['message']}"
            )
        result = {**result, "warnings": list(result["warnings"])}
        if self.writer is not None:
            self._clip, notes = seen_clip(self.writer.processor, file, result)
            result["warnings"] += notes
        self.result = result
        return result

    def ask(self, text: str, stream: bool = False, max_new_tokens: int = 256) -> str | Iterator[str]:
        """
        Answers a question, with all that was said before in mind.

        Args:
            text (`str`): The question.
            stream (`bool`, *optional*, defaults to `False`):
                Give the answer piece by piece, as it is written. The pieces joined are the answer. An answer that is
                not read to its end is stopped and forgotten.
            max_new_tokens (`int`, *optional*, defaults to 256): Longest answer.

        Returns:
            `str`, or an iterator of its pieces.

        Raises:
            AnalystError: when no clip is loaded, or the question is empty.
        """
        if self.result is None:
            raise AnalystError("There is no clip to ask about: call load(file) first.")
        if not text.strip():
            raise AnalystError("The question is empty.")
        pieces = self._answer(text.strip(), max_new_tokens)
        return pieces if stream else "".join(pieces)

    def _answer(self, question: str, max_new_tokens: int) -> Iterator[str]:
        if self.writer is None:
            answer, intent = compose(question, self.result)
            notes = [] if intent else ["The question was not understood."]
            yield answer
            shown = answer
        else:
            if self._dialogue is None:
                self._dialogue = Dialogue(self.writer, self._clip, self._context())
            said = []
            for piece in self._dialogue.stream(question, max_new_tokens):
                said.append(piece)
                yield piece
            answer = shown = "".join(said)
            notes = self._judged(question, answer)
            if self._dialogue.cut_off:
                notes.append(f"The answer was cut off after {max_new_tokens} tokens.")
            if notes:
                note = "\n\nNote: " + " ".join(notes)
                shown += note
                yield note
        self.history.append({"role": "user", "content": question})
        entry = {"role": "assistant", "content": shown}
        if notes:
            entry["warnings"] = notes
        self.history.append(entry)

    def _context(self) -> str:
        """What was measured, as in training; nothing where the model was trained without."""
        if (self.writer.model.config.analysis or {}).get("context") is False:
            return ""
        return measured_context(self._scores(), self.result["threshold"], fake_segments(self.result))

    def _scores(self) -> dict[str, float | None]:
        return {
            "overall": self.result["score"],
            "video": self.result["video_score"],
            "audio": self.result["audio_score"],
        }

    def _judged(self, question: str, answer: str) -> list[str]:
        return contradictions(answer, question, self._scores(), self.result["threshold"])

    def json(self) -> dict:
        """
        All that is known of the clip, in the form of [`ANALYSIS_SCHEMA`].

        Family and places come from the model, asked beside the conversation; without one they are None and empty.

        Raises:
            AnalystError: when no clip is loaded.
        """
        if self.result is None:
            raise AnalystError("There is no clip to report on: call load(file) first.")
        if self._findings is None:
            self._findings = self._find()
        result, found = self.result, self._findings
        modalities = {}
        for name, key in (("video", "video_score"), ("audio", "audio_score")):
            score = result[key]
            modalities[name] = None if score is None else {"label": LABELS[int(score >= 0.5)], "score": score}
        return checked_analysis(
            {
                "label": result["label"],
                "score": result["score"],
                "threshold": float(result["threshold"]),
                "modalities": modalities,
                "family": found["family"],
                "regions": found["regions"],
                "bands": found["bands"],
                "segments": fake_segments(result),
                "duration": result["duration"],
                "warnings": list(dict.fromkeys([*self.warnings, *found["warnings"]])),
                "model": {
                    "detector": _name(self.detector),
                    "analyst": None if self.writer is None else _name(self.writer),
                },
            }
        )

    def _find(self) -> dict:
        found = {"family": None, "regions": [], "bands": [], "warnings": []}
        if self.result["label"] == "real":
            found["family"] = "genuine"
        elif self.writer is not None:
            answers = {}
            for question in (FAMILY_QUESTION, DESCRIPTION_QUESTION):
                aside = Dialogue(self.writer, self._clip, self._context())
                answers[question] = "".join(aside.stream(question, 256))
                found["warnings"] += self._judged(question, answers[question])
            family = family_in(answers[FAMILY_QUESTION])
            found["family"] = family if family in FAMILIES and family != "genuine" else None
            named = named_in(answers[DESCRIPTION_QUESTION])
            found["regions"] = [name for name in FACE_REGIONS if name in named.regions]
            found["bands"] = [name for name in BAND_NAMES if name in named.bands]
        return found


class Dialogue:
    """
    A conversation about one clip with a model that writes.

    The clip and every turn are encoded once: keys and values of all that was read stay in a cache, and a further
    question adds its own tokens only.

    Args:
        writer ([`AVDeepfakeDetectionPipeline`]): The model, with its processor.
        clip ([`Clip`]): What it is about.
        context (`str`, *optional*): What stands before the first question.
    """

    def __init__(self, writer: AVDeepfakeDetectionPipeline, clip: Clip, context: str = ""):
        self.model: AVLMMForDeepfakeDetection = writer.model
        self.processor = writer.processor
        self.clip, self.context = clip, context
        self.turns: Turns = []
        self.cut_off = False
        self._ids: torch.Tensor | None = None
        self._positions: torch.Tensor | None = None
        self._media: dict = {}
        self._cache: DynamicCache | None = None

    def stream(self, question: str, max_new_tokens: int = 256) -> Iterator[str]:
        """The answer to the next question, piece by piece as it is written."""
        ids, positions, media = self._prompt(question)
        thinker, tokenizer = self.model.thinker, self.processor.tokenizer
        if self._cache is None:
            self._cache = DynamicCache(config=thinker.config.get_text_config())
        inputs = {} if self._cache.get_seq_length() else self._on_device(media)
        streamer = TextIteratorStreamer(tokenizer, skip_prompt=True, skip_special_tokens=True)
        stop = _Stop()
        written: dict[str, Any] = {}

        def write():
            try:
                written["ids"] = thinker.generate(
                    **inputs,
                    input_ids=ids.to(thinker.device),
                    attention_mask=torch.ones_like(ids, device=thinker.device),
                    position_ids=positions.to(thinker.device),
                    past_key_values=self._cache,
                    generation_config=generation_config(self.processor, max_new_tokens),
                    streamer=streamer,
                    stopping_criteria=[stop],
                )
            except Exception as error:  # any error of the thread is raised again where the answer is read
                written["error"] = error
            finally:
                streamer.end()

        thread = threading.Thread(target=write, daemon=True)
        thread.start()
        finished, said = False, []
        try:
            for piece in streamer:
                if piece:
                    said.append(piece)
                    yield piece
            thread.join()
            if "error" in written:
                raise written["error"]
            finished = True
        finally:
            if not finished:
                # Half an answer is no turn: the next question goes on from the last whole one.
                stop.asked.set()
                thread.join()
                self._cache = None
        sequence = written["ids"].cpu()
        end = tokenizer.eos_token_id
        self.cut_off = int(sequence[0, -1]) != end
        if self.cut_off:
            sequence = torch.cat([sequence, torch.tensor([[end]])], dim=1)
        new = sequence.shape[1] - ids.shape[1]
        more = positions[..., -1:] + 1 + torch.arange(new)
        self._ids, self._positions, self._media = sequence, torch.cat([positions, more], dim=-1), media
        self.turns.append((question, "".join(said)))

    def _prompt(self, question: str) -> tuple[torch.Tensor, torch.Tensor, dict]:
        """Token ids `(1, L)` and positions `(3, 1, L)` of all up to the answer, and the clip's media."""
        asked: Turns = [*self.turns, (question, None)]
        asked = with_context(asked, self.context) if self.context else asked
        if self._ids is None:
            batch = generation_batch(
                self.processor, [encode_conversations(self.processor, self.clip, [asked])]
            )
            ids, positions = batch.pop("input_ids"), batch.pop("position_ids")
            batch.pop("attention_mask")
            return ids, positions, batch
        # All before is there as it was read and written, token by token.
        new, _ = encode_pieces(self.processor, conversation_pieces(self.processor, asked)[-1:])
        more = self._positions[..., -1:] + 1 + torch.arange(len(new))
        ids = torch.cat([self._ids, torch.tensor([new])], dim=1)
        return ids, torch.cat([self._positions, more], dim=-1), self._media

    def _on_device(self, media: dict) -> dict:
        thinker = self.model.thinker
        return {
            name: value.to(thinker.device, thinker.dtype)
            if value.is_floating_point()
            else value.to(thinker.device)
            for name, value in media.items()
        }


def seen_clip(processor, file: Any, result: dict) -> tuple[Clip, list[str]]:
    """What a model sees of a clip: all of it, or of a longer one the window that scored highest, and a note on that."""
    source, audio = split_source(file)
    with MediaReader(source, audio=audio, trim_leading_silence=processor.trim_leading_silence) as reader:
        start, end, notes = 0.0, reader.info.duration, []
        if end > processor.max_seconds:
            scored = [w for w in result["windows"] if w["score"] is not None]
            top = max(scored, key=lambda w: w["score"])["start"] if scored else 0.0
            start = max(0.0, min(top, end - processor.max_seconds))
            end = start + processor.max_seconds
            notes = [
                f"answers are about {start:.1f} to {end:.1f} s: the model sees {processor.max_seconds:g} s at most"
            ]
        return reader.read(start=start, end=end, fps=processor.fps, max_frames=processor.max_frames), notes


class _Stop(StoppingCriteria):
    """Ends writing when nobody reads any more."""

    def __init__(self):
        self.asked = threading.Event()

    def __call__(self, input_ids, scores, **kwargs) -> torch.Tensor:
        return torch.full(
            (input_ids.shape[0],), self.asked.is_set(), dtype=torch.bool, device=input_ids.device
        )


def generation_config(processor, max_new_tokens: int) -> GenerationConfig:
    """Greedy writing up to the end of the turn: the same question has the same answer."""
    tokenizer = processor.tokenizer
    return GenerationConfig(
        max_new_tokens=max_new_tokens,
        do_sample=False,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def can_write(detector: AVDeepfakeDetectionPipeline) -> bool:
    """Whether a detector is a language model, which can be made to write."""
    return hasattr(detector.model, "thinker")


def _name(detector: AVDeepfakeDetectionPipeline) -> str:
    """Folder name or Hub id; where it lies on this machine is nobody's business."""
    source = str(getattr(detector.model.config, "_name_or_path", "") or type(detector.model).__name__)
    path = Path(source)
    if not path.is_absolute() and source.count("/") == 1 and not path.exists():
        return source
    parts = [part for part in path.parts[-3:] if part not in (path.anchor, "model", "..", ".")]
    return "/".join(parts[-2:]) or type(detector.model).__name__


__all__ = ["AVAnalyst", "AnalystError", "Dialogue"]
