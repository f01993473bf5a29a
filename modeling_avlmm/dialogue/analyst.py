"""An analyst answers questions about a clip, with an instruction-tuned detector or from what a detector measured."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from transformers import pipeline

from ..explain.regions import BAND_NAMES, FACE_REGIONS
from ..explain.words import independent_parts, label_of
from ..hub_mixin import PIPELINE_TASK
from ..inference.default_model import default_model
from ..inference.places import faults_of_model
from ..inference.provenance import short_name
from ..media import Clip
from ..pipeline_avd import AVDeepfakeDetectionPipeline
from .answer_parsing import contradictions, family_in
from .composed_answers import compose
from .families import FAMILIES
from .generation import Dialogue, can_write, seen_clip
from .measured_context import context_of, fake_segments, part_scores
from .phrasing import named_in

FAMILY_QUESTION = "What kind of manipulation was used?"
DESCRIPTION_QUESTION = "Describe the artifacts in this clip, if there are any."


class AnalystError(RuntimeError):
    """A question that cannot be answered yet; the message says what to do first."""


class AVAnalyst:
    """
    Answers questions about a clip on the basis of what a detector measured.

    ```python
    >>> analyst = AVAnalyst.from_pretrained("my-org/my-analyst")
    >>> analyst.load("clip.mp4")["label"]
    'fake'
    >>> analyst.ask("Is it the picture, the sound, or both?")
    'The picture was manipulated. The sound was not.'
    ```

    A model that writes is told the detector's verdicts before the first question, as in training. Every answer is checked
    against them: an answer that contradicts them ends in a note, which is also listed in `warnings`. Without such a model,
    answers are composed from the detector's verdicts and timeline.

    Args:
        writer ([`AVDeepfakeDetectionPipeline`], *optional*):
            A detector that learned to talk in an `analysis` stage. Without it answers are composed.
        detector ([`AVDeepfakeDetectionPipeline`], *optional*): Any detector, which measures. Defaults to `writer`.
        window_seconds, hop_seconds (`float`, *optional*): Windows of the detector's timeline, as for the pipeline.

    Attributes:
        result (`dict`, *optional*): The detector's result for the loaded clip.
        history (`list[dict]`):
            The conversation as messages with `role` and `content`, and `warnings` on answers that have any.

    Raises:
        ValueError: when neither of the two is given, or `writer` cannot write text.
    """

    def __init__(
        self,
        writer: AVDeepfakeDetectionPipeline | None = None,
        detector: AVDeepfakeDetectionPipeline | None = None,
        window_seconds: float | None = None,
        hop_seconds: float | None = None,
    ):
        if writer is None and detector is None:
            raise ValueError(
                "An analyst needs a writer or a detector. AVAnalyst.from_pretrained() loads them by name."
            )
        if writer is not None and not can_write(writer):
            raise ValueError(
                f"{_name(writer)} cannot write text: it is a {type(writer.model).__name__}. Give it as detector=..., and "
                "as writer=... a model from an `analysis` stage, or none."
            )
        self.writer = writer
        self.detector = writer if detector is None else detector
        windows = {"window_seconds": window_seconds, "hop_seconds": hop_seconds}
        self._windows = {name: value for name, value in windows.items() if value is not None}
        self._forget()

    @classmethod
    def from_pretrained(
        cls,
        model: str | Path | None = None,
        detector: str | Path | None = None,
        *,
        device: str | None = None,
        dtype: str = "auto",
        trust_remote_code: bool = False,
        **windows: float | None,
    ) -> AVAnalyst:
        """
        Load an analyst from a folder or the Hub.

        ```python
        >>> AVAnalyst.from_pretrained("my-org/my-analyst")  # writes and measures
        >>> AVAnalyst.from_pretrained("my-org/my-analyst", detector="my-org/small-detector")  # the second one measures
        >>> AVAnalyst.from_pretrained("my-org/small-detector")  # cannot write: answers are composed
        >>> AVAnalyst.from_pretrained()  # the same with the package's default detector
        ```

        Args:
            model (`str` or `Path`, *optional*):
                The model that writes, and that measures unless `detector` is given. If it is given alone and cannot
                write, it measures, and answers are composed. Defaults to the package's default detector.
            detector (`str` or `Path`, *optional*): Any detector of this package, which measures.
            device (`str`, *optional*): Device such as `"cuda:0"`. Defaults to an accelerator if there is one.
            dtype (`str`, *optional*, defaults to `"auto"`): Type of the weights, such as `"bfloat16"`.
            trust_remote_code (`bool`, *optional*, defaults to `False`): Run the code in the models' repositories.
            windows: `window_seconds` and `hop_seconds` of the detector's timeline, as for [`AVAnalyst`].

        Raises:
            ValueError: when `model` cannot write and a `detector` is given as well.
            DetectorError: when there is no such folder or repository, or it cannot be loaded.
        """

        def loaded(name: str | Path) -> AVDeepfakeDetectionPipeline:
            options = {"device": device, "dtype": dtype, "trust_remote_code": trust_remote_code or None}
            with faults_of_model(name):
                return pipeline(PIPELINE_TASK, model=str(name), **options)

        if detector is not None:
            return cls(None if model is None else loaded(model), loaded(detector), **windows)
        only = loaded(default_model() if model is None else model)
        return cls(only if model is not None and can_write(only) else None, only, **windows)

    def _forget(self) -> None:
        self.result: dict | None = None
        self._clip: Clip | None = None
        self._findings: dict | None = None
        self.reset()

    def reset(self) -> None:
        """Forget the conversation; keep the clip and its verdicts."""
        self.history: list[dict] = []
        self._dialogue: Dialogue | None = None

    @property
    def warnings(self) -> list[str]:
        """Warnings about the clip and about every answer so far."""
        texts = [] if self.result is None else list(self.result["warnings"])
        texts += [text for entry in self.history for text in entry.get("warnings", ())]
        return list(dict.fromkeys(texts))

    def load(self, file: Any, result: dict | None = None) -> dict:
        """
        Measure a clip and start a new conversation about it.

        Args:
            file (path, URL, ...): Any source the pipeline takes.
            result (`dict`, *optional*): The pipeline's result for the file, if there is one already.

        Returns:
            `dict`: the result of the pipeline.

        Raises:
            MediaError: when the file cannot be read. No clip is loaded then.
            AnalystError: when `result` is that of a file that could not be read.
        """
        self._forget()
        result = self.detector(file, **self._windows) if result is None else result
        if result["error"] is not None:
            raise AnalystError(
                f"The result says that the file could not be read: {result['error']['message']}"
            )
        result = {**result, "warnings": list(result["warnings"])}
        if self.writer is not None:
            self._clip, notes = seen_clip(self.writer.processor, file, result)
            result["warnings"] += notes
        self.result = result
        return result

    def ask(self, text: str, stream: bool = False, max_new_tokens: int = 256) -> str | Iterator[str]:
        """
        Answer a question in the light of the whole conversation.

        Args:
            text (`str`): The question.
            stream (`bool`, *optional*, defaults to `False`):
                Return an iterator over the pieces of the answer as they are written. Joined, they are the answer. An
                answer that is not read to its end is stopped and forgotten.
            max_new_tokens (`int`, *optional*, defaults to 256): Longest answer.

        Returns:
            `str`, or an iterator over its pieces.

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
        else:
            if self._dialogue is None:
                self._dialogue = Dialogue(self.writer, self._clip, self._context())
            said = []
            for piece in self._dialogue.stream(question, max_new_tokens):
                said.append(piece)
                yield piece
            answer = "".join(said)
            notes = self._contradictions(question, answer)
            if self._dialogue.cut_off:
                notes.append(f"The answer was cut off after {max_new_tokens} tokens.")
            if notes:
                note = "\n\nNote: " + " ".join(notes)
                answer += note
                yield note
        self.history.append({"role": "user", "content": question})
        self.history.append({"role": "assistant", "content": answer} | ({"warnings": notes} if notes else {}))

    def _context(self) -> str:
        """Return the measured verdicts as text; empty for a model that was trained without."""
        if (self.writer.model.config.analysis or {}).get("context") is False:
            return ""
        return context_of(self.result)

    def _contradictions(self, question: str, answer: str) -> list[str]:
        scores, threshold = part_scores(self.result), self.result["threshold"]
        return contradictions(answer, question, scores, threshold, independent_parts(self.result))

    def json(self) -> dict:
        """
        Return all that is known about the clip, in the form of [`ANALYSIS_SCHEMA`].

        The model is asked for the family and the places in a dialogue of its own. Without a model the places are empty,
        and the family is None unless the verdict is real.

        Raises:
            AnalystError: when no clip is loaded.
        """
        if self.result is None:
            raise AnalystError("There is no clip to report on: call load(file) first.")
        if self._findings is None:
            self._findings = self._find()
        result, found = self.result, self._findings
        scores = part_scores(result)
        return {
            "label": result["label"],
            "score": result["score"],
            "threshold": float(result["threshold"]),
            "modalities": {
                part: None
                if scores[part] is None
                else {"label": label_of(scores[part], result, part), "score": scores[part]}
                for part in ("video", "audio")
            },
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

    def _find(self) -> dict:
        """Return the family, the places and the warnings about the answers that named them."""
        found = {"family": None, "regions": [], "bands": [], "warnings": []}
        if self.result["label"] == "real":
            found["family"] = "genuine"
        elif self.writer is not None:
            answers = {}
            for question in (FAMILY_QUESTION, DESCRIPTION_QUESTION):
                aside = Dialogue(self.writer, self._clip, self._context())
                answers[question] = "".join(aside.stream(question, 256))
                found["warnings"] += self._contradictions(question, answers[question])
            family = family_in(answers[FAMILY_QUESTION])
            found["family"] = family if family in FAMILIES and family != "genuine" else None
            named = named_in(answers[DESCRIPTION_QUESTION])
            found["regions"] = [name for name in FACE_REGIONS if name in named.regions]
            found["bands"] = [name for name in BAND_NAMES if name in named.bands]
        return found


def _name(detector: AVDeepfakeDetectionPipeline) -> str:
    """Return the folder name or Hub id of a detector, without its path on this machine."""
    return short_name(detector.model.name_or_path) or type(detector.model).__name__


__all__ = ["AVAnalyst", "AnalystError"]
