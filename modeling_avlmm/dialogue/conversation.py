"""Conversations about a clip as a detector reads them: tokens, positions, and which of them are answers.

A conversation follows the clip exactly where a verdict question does, and in the same words of the chat template: one
encoding of the clip serves the verdicts and every conversation about it, in training and in a chat.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from ..configuration_detector import IGNORE_INDEX, LABELS, PARTS
from ..media import Clip
from ..processing_avlmm import AVLMMProcessor, Question, normalize_pixels

Turns = list[tuple[str, "str | None"]]
"""Questions with their answers, in order; the last answer is None where it is to be written."""

PART_WORDS = {"overall": "clip", "video": "picture", "audio": "sound"}


class ConversationError(ValueError):
    """Messages that are no conversation about a clip; the message says which and why."""


def turns_of(messages: Sequence[Mapping]) -> Turns:
    """
    Questions and answers of an instruction row's messages.

    Args:
        messages (`list[dict]`): `role` (`user` and `assistant` in turn) and `content` (a text, or parts with `type` and
            `text`). The first part of the first one is the clip: `{"type": "video"}` or `{"type": "audio"}`.

    Raises:
        ConversationError: when roles do not alternate, the clip is missing or named twice, or a text is empty.
    """
    turns: Turns = []
    for number, message in enumerate(messages):
        role = "assistant" if number % 2 else "user"
        if message["role"] != role:
            raise ConversationError(f"Message {number} is of {message['role']!r}, and should be of {role!r}.")
        content = message["content"]
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else list(content)
        if number == 0:
            if parts[0]["type"] not in ("video", "audio"):
                raise ConversationError(
                    "The first part of a conversation is the clip, of type video or audio."
                )
            parts = parts[1:]
        odd = [part["type"] for part in parts if part["type"] != "text"]
        if odd:
            raise ConversationError(
                f"Message {number} holds {odd[0]!r}: only the first part of all may be media."
            )
        text = "".join(part["text"] or "" for part in parts)
        if not text.strip():
            raise ConversationError(f"Message {number}, of {role!r}, is empty.")
        if role == "user":
            turns.append((text, None))
        else:
            turns[-1] = (turns[-1][0], text)
    if not turns:
        raise ConversationError("There are no messages.")
    return turns


def conversation_pieces(processor: AVLMMProcessor, turns: Turns) -> list[tuple[str, bool]]:
    """
    The text after the clip, piece by piece, each with whether it is an answer (closed by the end of the turn).

    The pieces joined are what the chat template writes. They are cut where a model that answers is cut: each answer is
    a piece of its own, so that what was learned and what is generated have the same tokens.

    Raises:
        ConversationError: when the chat template does not write a conversation as its beginning and what follows.
    """
    tokenizer, prompts = processor.tokenizer, processor.prompts
    end = tokenizer.eos_token

    def render(messages: list[dict], generate: bool) -> str:
        return tokenizer.apply_chat_template(
            messages, chat_template=processor.chat_template, tokenize=False, add_generation_prompt=generate
        )

    def follows(text: str, before: str) -> str:
        if not text.startswith(before):
            raise ConversationError(
                f"The chat template does not write turn after turn: {text!r} does not go on from {before!r}. Use the "
                "chat template that belongs to the backbone."
            )
        return text[len(before) :]

    messages = [{"role": "system", "content": [{"type": "text", "text": prompts["system"]}]}]
    opening = [{"type": "text", "text": prompts["prefix"]}, {"type": "video", "video": ""}]
    pieces, written = [], ""
    for number, (question, answer) in enumerate(turns):
        text = {"type": "text", "text": _opened(question) if number == 0 else question}
        messages.append({"role": "user", "content": [*opening, text] if number == 0 else [text]})
        prompt = render(messages, True)
        if number == 0:
            written, found, _ = prompt.partition(tokenizer.video_token + tokenizer.vision_eos_token)
            if not found:
                raise ConversationError(f"The chat template does not write a clip: it wrote {prompt!r}.")
            written += found
        pieces.append((follows(prompt, written), False))
        if answer is None:
            if number + 1 < len(turns):
                raise ConversationError(f"Only the last answer may be missing, not that to {question!r}.")
            break
        messages.append({"role": "assistant", "content": [{"type": "text", "text": answer}]})
        written = prompt + answer + end
        follows(render(messages, False), written)
        pieces.append((answer + end, True))
    return pieces


def encode_pieces(
    processor: AVLMMProcessor, pieces: Sequence[tuple[str, bool]]
) -> tuple[list[int], list[int]]:
    """Token ids of the pieces, and their labels: the ids of the answers, -100 elsewhere."""
    ids, labels = [], []
    for text, is_answer in pieces:
        tokens = processor.tokenizer.encode(text, add_special_tokens=False)
        ids += tokens
        labels += tokens if is_answer else [IGNORE_INDEX] * len(tokens)
    return ids, labels


def encode_conversations(
    processor: AVLMMProcessor,
    clip: Clip,
    conversations: Sequence[Turns],
    questions: Sequence[str | Question] = (),
) -> dict:
    """
    Encodes a clip with conversations about it, beside verdict questions; none of them sees another.

    Args:
        processor ([`AVLMMProcessor`]): Encodes the clip.
        clip ([`Clip`]): The decoded clip.
        conversations (`list[Turns]`): Each becomes a segment of its own after the clip.
        questions (`Sequence[str | Question]`, *optional*): Verdict questions, before the conversations.

    Returns:
        `dict`: as of [`AVLMMProcessor.encode`]; `labels` has every answer of every conversation.
    """
    encoded = processor.encode(clip, list(questions) or ["overall"])
    owner = encoded["question_ids"]
    length = len(owner) if questions else int((owner == 0).sum())
    ids, positions = encoded["input_ids"][:length], encoded["position_ids"][:, :length]
    # What follows a clip starts one after its closing tokens, whatever else follows it as well.
    first = int(positions[0, int((owner == 0).sum()) - 1]) + 1
    labels = encoded.get("labels", torch.full_like(encoded["input_ids"], IGNORE_INDEX))[:length]
    owner = owner[:length]
    for number, turns in enumerate(conversations, start=len(questions) + 1):
        more, answers = encode_pieces(processor, conversation_pieces(processor, turns))
        ids = torch.cat([ids, torch.tensor(more)])
        labels = torch.cat([labels, torch.tensor(answers)])
        owner = torch.cat([owner, torch.full((len(more),), number)])
        positions = torch.cat([positions, (first + torch.arange(len(more))).expand(3, -1)], dim=1)
    encoded |= {"input_ids": ids, "position_ids": positions, "question_ids": owner, "labels": labels}
    if not questions:
        encoded["answer_positions"] = torch.full((len(PARTS),), -1)
    return encoded


def generation_batch(processor: AVLMMProcessor, encoded: Sequence[dict]) -> dict:
    """What the thinker's `generate` takes, from clips encoded with one unanswered conversation each; padded on the left."""
    batch = normalize_pixels(dict(processor.collate(list(encoded), padding_side="left")))
    if "question_ids" in batch:
        raise ConversationError("Text is written to one conversation for each clip, not to several at once.")
    return {name: value for name, value in batch.items() if name not in ("answer_positions", "labels")}


# -- what was measured, told to the model -------------------------------------------------------------------------------


def measured_context(
    scores: Mapping[str, float | None], threshold: float = 0.5, segments: Sequence[Sequence[float]] = ()
) -> str:
    """
    The detector's verdicts in words, which stand before the first question.

    Args:
        scores (`dict[str, float]`): P(fake) of `overall`, `video` and `audio`; None or missing where there is none.
        threshold (`float`, *optional*, defaults to 0.5): Score of the clip from which it is called fake.
        segments (`list[[start, end]]`, *optional*): Seconds that scored as fake, where only a part did.

    Returns:
        `str`: e.g. `" Measured: clip fake 0.97, picture fake 0.99, sound real 0.03; fake from 0.5 to 1.5 s."`
    """
    said = []
    for part in PARTS:
        score = scores.get(part)
        if score is not None:
            limit = threshold if part == "overall" else 0.5
            said.append(f"{PART_WORDS[part]} {LABELS[int(score >= limit)]} {score:.2f}")
    times = ", ".join(f"from {start:.1f} to {end:.1f} s" for start, end in segments)
    return f" Measured: {', '.join(said)}{f'; fake {times}' if times else ''}."


def simulated_context(row: Mapping, facts: Mapping, rng: np.random.Generator) -> str:
    """
    What a detector that is right would have measured of a training row: our own choice.

    Scores are drawn from 0.6 to 0.99 for what is fake and 0.01 to 0.4 for what is real. In training the context always
    agrees with the answer; it is left out of a share of the rows, in which the answer has to come from the clip.
    """
    scores = {}
    for part, label in zip(PARTS, (row["label"], row["video_label"], row["audio_label"]), strict=True):
        if label is not None:
            distance = rng.uniform(0.01, 0.4)
            scores[part] = 1 - distance if label else distance
    return measured_context(scores, segments=facts.get("segments") or ())


def with_context(turns: Turns, context: str) -> Turns:
    """The conversation with the measured context before its first question."""
    (question, answer), *rest = turns
    return [(context + _opened(question), answer), *rest]


def _opened(question: str) -> str:
    """A question with a space before it, as after the clip in the verdict prompts."""
    return question if question[:1].isspace() else " " + question


__all__ = [
    "ConversationError",
    "Turns",
    "conversation_pieces",
    "encode_conversations",
    "encode_pieces",
    "generation_batch",
    "measured_context",
    "simulated_context",
    "turns_of",
    "with_context",
]
