"""Text generation about a clip: the clip a model sees, and a dialogue that encodes everything once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import torch
from transformers import (
    DynamicCache,
    GenerationConfig,
    PreTrainedModel,
    StoppingCriteria,
    TextIteratorStreamer,
)

from ..configuration_avlmm import AVLMMConfig
from ..media import Clip, MediaReader
from ..modeling_avlmm import AVLMMForDeepfakeDetection
from ..pipeline_avd import AVDeepfakeDetectionPipeline
from ..pipeline_inputs import split_source
from ..processing_avlmm import AVLMMProcessor
from .conversation import (
    Turns,
    conversation_pieces,
    encode_conversations,
    encode_pieces,
    generation_batch,
    with_context,
)


def can_write(detector: AVDeepfakeDetectionPipeline) -> bool:
    """Return True for a detector with a language model, which can be taught to write."""
    return detector.model.config.model_type == AVLMMConfig.model_type


def generation_config(processor: AVLMMProcessor, max_new_tokens: int) -> GenerationConfig:
    """Return the settings of greedy generation up to the end of the turn: the same question has the same answer."""
    tokenizer = processor.tokenizer
    return GenerationConfig(
        max_new_tokens=max_new_tokens,
        do_sample=False,
        eos_token_id=processor.omni.end_of_turn(processor),
        pad_token_id=tokenizer.pad_token_id,
    )


def seen_clip(processor: AVLMMProcessor, file: Any, result: dict) -> tuple[Clip, list[str]]:
    """
    Decode the part of a file that a model sees: all of it, or the window with the highest score.

    Args:
        processor ([`AVLMMProcessor`]): Says how the model samples clips, and how much it sees at once.
        file (path, URL, ...): Any source the pipeline takes.
        result (`dict`): The pipeline's result for the file.

    Returns:
        `tuple[Clip, list[str]]`: the clip, and a note if it is not the whole file.

    Raises:
        MediaError: when the file cannot be read.
    """
    source, audio = split_source(file)
    with MediaReader(source, audio=audio, trim_leading_silence=processor.trim_leading_silence) as reader:
        start, end, notes = 0.0, reader.info.duration, []
        if end > processor.max_seconds:
            scored = [window for window in result["windows"] if window["score"] is not None]
            top = max(scored, key=lambda window: window["score"])["start"] if scored else 0.0
            start = max(0.0, min(top, end - processor.max_seconds))
            end = start + processor.max_seconds
            notes = [
                f"answers are about {start:.1f} to {end:.1f} s: the model sees at most {processor.max_seconds:g} s at once"
            ]
        return reader.read(start=start, end=end, fps=processor.fps, max_frames=processor.max_frames), notes


class Dialogue:
    """
    A conversation about one clip with a model that writes.

    The clip and every turn are encoded once. Their keys and values stay in a cache, so a further question adds only its
    own tokens.

    Args:
        writer ([`AVDeepfakeDetectionPipeline`]): The model with its processor.
        clip ([`Clip`]): The clip.
        context (`str`, *optional*): Text before the first question, such as [`measured_context`].

    Attributes:
        turns (`Turns`): The questions and answers so far.
        cut_off (`bool`): True if the last answer reached its longest length.
    """

    def __init__(self, writer: AVDeepfakeDetectionPipeline, clip: Clip, context: str = ""):
        self.model: AVLMMForDeepfakeDetection = writer.model
        self.processor: AVLMMProcessor = writer.processor
        self.clip, self.context = clip, context
        self.turns: Turns = []
        self.cut_off = False
        self._ids: torch.Tensor | None = None
        self._positions: torch.Tensor | None = None
        self._media: dict = {}
        self._cache: DynamicCache | None = None

    def stream(self, question: str, max_new_tokens: int = 256) -> Iterator[str]:
        """
        Yield the answer to the next question piece by piece.

        An answer that is not read to its end is stopped and does not become a turn.
        """
        ids, positions, media = self._prompt(question)
        stop = _Stop()
        streamer = TextIteratorStreamer(self.processor.tokenizer, skip_prompt=True, skip_special_tokens=True)
        written: dict[str, Any] = {}

        def write() -> None:
            try:
                written["ids"] = self._generate(ids, positions, media, max_new_tokens, streamer, stop)
            except Exception as error:  # raised again below, where the answer is read
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
                # Half an answer is no turn: the next question continues from the last whole one.
                stop.asked.set()
                thread.join()
                self._cache = None
        self._keep(written["ids"].cpu(), positions, media)
        self.turns.append((question, "".join(said)))

    def _prompt(self, question: str) -> tuple[torch.Tensor, torch.Tensor, dict]:
        """Return token ids `(1, L)` and positions `(3, 1, L)` of everything before the answer, and the clip's media."""
        asked: Turns = [*self.turns, (question, None)]
        asked = with_context(asked, self.context) if self.context else asked
        if self._ids is None:
            encoded = encode_conversations(self.processor, self.clip, [asked])
            batch = generation_batch(self.processor, [encoded])
            ids, positions = batch.pop("input_ids"), batch.pop("position_ids")
            batch.pop("attention_mask")
            return ids, positions, batch
        # Earlier turns keep exactly the tokens that were read and written.
        new, _ = encode_pieces(self.processor, conversation_pieces(self.processor, asked)[-1:])
        more = self._positions[..., -1:] + 1 + torch.arange(len(new))
        ids = torch.cat([self._ids, torch.tensor([new])], dim=1)
        return ids, torch.cat([self._positions, more], dim=-1), self._media

    def _generate(
        self,
        ids: torch.Tensor,
        positions: torch.Tensor,
        media: dict,
        max_new_tokens: int,
        streamer: TextIteratorStreamer,
        stop: _Stop,
    ) -> torch.Tensor:
        thinker = self.model.thinker
        if self._cache is None:
            self._cache = DynamicCache(config=thinker.config.get_text_config())
        inputs = {} if self._cache.get_seq_length() else on_device(media, thinker)
        return thinker.generate(
            **inputs,
            input_ids=ids.to(thinker.device),
            attention_mask=torch.ones_like(ids, device=thinker.device),
            position_ids=positions.to(thinker.device),
            past_key_values=self._cache,
            generation_config=generation_config(self.processor, max_new_tokens),
            streamer=streamer,
            stopping_criteria=[stop],
        )

    def _keep(self, sequence: torch.Tensor, positions: torch.Tensor, media: dict) -> None:
        """Keep all tokens, closed by an end of turn, with their positions."""
        end, length = self.processor.omni.end_of_turn(self.processor), positions.shape[-1]
        self.cut_off = int(sequence[0, -1]) != end
        if self.cut_off:
            sequence = torch.cat([sequence, torch.tensor([[end]])], dim=1)
        more = positions[..., -1:] + 1 + torch.arange(sequence.shape[1] - length)
        self._ids, self._positions, self._media = sequence, torch.cat([positions, more], dim=-1), media


def on_device(batch: dict, thinker: PreTrainedModel) -> dict:
    """Return a batch on the thinker's device, with spectra and pixels of its type; positions may be fractions, and stay as they are."""
    return {
        name: value.to(thinker.device, thinker.dtype)
        if value.is_floating_point() and name != "position_ids"
        else value.to(thinker.device)
        for name, value in batch.items()
    }


class _Stop(StoppingCriteria):
    """Stops generation once `asked` is set."""

    def __init__(self):
        self.asked = threading.Event()

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **kwargs) -> torch.Tensor:
        return torch.full(
            (input_ids.shape[0],), self.asked.is_set(), dtype=torch.bool, device=input_ids.device
        )
