"""Encoding of conversations about a clip: token ids, positions, and labels for the answers.

A conversation follows the clip in the same position and with the same chat template as a verdict question. One encoding of
the clip therefore serves the verdicts and all conversations about it, in training and in a chat.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from ..configuration_detector import IGNORE_INDEX, PARTS
from ..media import Clip
from ..processing_avlmm import AVLMMProcessor, Question, normalize_pixels

Turns = list[tuple[str, "str | None"]]
"""Questions with their answers, in order. The last answer is None if it is still to be written."""


class ConversationError(ValueError):
    """Messages that do not form a conversation about a clip; the error says which message and why."""


def turns_of(messages: Sequence[Mapping]) -> Turns:
    """
    Return the questions and answers of an instruction row's messages.

    Args:
        messages (`list[dict]`):
            Messages with `role` (`user` and `assistant` in turn) and `content` (a text, or parts with `type` and `text`).
            The first part of the first message is the clip: `{"type": "video"}` or `{"type": "audio"}`.

    Raises:
        ConversationError: when roles do not alternate, the clip is missing or given twice, or a text is empty.
    """
    turns: Turns = []
    for number, message in enumerate(messages):
        role = "assistant" if number % 2 else "user"
        if message["role"] != role:
            raise ConversationError(
                f"Message {number} has the role {message['role']!r}; it should be {role!r}."
            )
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
                f"Message {number} has a part of type {odd[0]!r}: only the first part of the first message may be media."
            )
        text = "".join(part["text"] or "" for part in parts)
        if not text.strip():
            raise ConversationError(f"Message {number}, with the role {role!r}, is empty.")
        if role == "user":
            turns.append((text, None))
        else:
            turns[-1] = (turns[-1][0], text)
    if not turns:
        raise ConversationError("There are no messages.")
    return turns


def conversation_pieces(processor: AVLMMProcessor, turns: Turns) -> list[tuple[str, bool]]:
    """
    Return the text after the clip in pieces, each with True if it is an answer (with its end of turn).

    Joined, the pieces are the output of the chat template. Each answer is a piece of its own, so that an answer has the
    same tokens in training as when it is generated.

    Raises:
        ConversationError: when the chat template does not write turn after turn, each as an addition to the last.
    """
    tokenizer, prompts = processor.tokenizer, processor.prompts
    end = tokenizer.convert_ids_to_tokens(processor.omni.end_of_turn(processor))

    def render(messages: list[dict], generate: bool) -> str:
        return tokenizer.apply_chat_template(
            messages, chat_template=processor.chat_template, tokenize=False, add_generation_prompt=generate
        )

    def follows(text: str, before: str) -> str:
        if not text.startswith(before):
            raise ConversationError(
                f"The chat template does not write turn after turn: {text!r} does not continue {before!r}. Use the "
                "chat template of the backbone."
            )
        return text[len(before) :]

    messages = [{"role": "system", "content": [{"type": "text", "text": prompts["system"]}]}]
    media = [{"type": part, part: ""} for part in processor.omni.media_parts("both")]
    opening = [{"type": "text", "text": prompts["prefix"]}, *media]
    pieces, written = [], ""
    for number, (question, answer) in enumerate(turns):
        text = {"type": "text", "text": _opened(question) if number == 0 else question}
        messages.append({"role": "user", "content": [*opening, text] if number == 0 else [text]})
        prompt = render(messages, True)
        if number == 0:
            try:
                _, after = processor.split_at_media(prompt, "both")
            except ValueError as error:
                raise ConversationError(f"The chat template wrote no clip: {prompt!r}.") from error
            written = prompt[: len(prompt) - len(after)]
        pieces.append((follows(prompt, written), False))
        if answer is None:
            if number + 1 < len(turns):
                raise ConversationError(f"Only the last answer may be missing, not the one to {question!r}.")
            break
        messages.append({"role": "assistant", "content": [{"type": "text", "text": answer}]})
        written = prompt + answer + end
        follows(render(messages, False), written)
        pieces.append((answer + end, True))
    return pieces


def encode_pieces(
    processor: AVLMMProcessor, pieces: Sequence[tuple[str, bool]]
) -> tuple[list[int], list[int]]:
    """Return the token ids of the pieces, and their labels: the ids of the answers, -100 elsewhere."""
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
    Encode a clip with conversations about it and with verdict questions, none of which attends to another.

    Args:
        processor ([`AVLMMProcessor`]): Encodes the clip.
        clip ([`Clip`]): The decoded clip.
        conversations (`list[Turns]`): Conversations. Each becomes a segment of its own after the clip.
        questions (`Sequence[str | Question]`, *optional*): Verdict questions, placed before the conversations.

    Returns:
        `dict`: like that of [`AVLMMProcessor.encode`]; `labels` has every answer of every conversation.
    """
    encoded = processor.encode(clip, list(questions) or ["overall"])
    owner = encoded["question_ids"]
    length = len(owner) if questions else int((owner == 0).sum())
    ids, positions = encoded["input_ids"][:length], encoded["position_ids"][:, :length]
    # Every segment after the clip starts at the same position, one after the clip's closing tokens.
    step = processor.omni.position_scale
    first = positions[0, int((owner == 0).sum()) - 1] + step
    labels = encoded.get("labels", torch.full_like(encoded["input_ids"], IGNORE_INDEX))[:length]
    owner = owner[:length]
    for number, turns in enumerate(conversations, start=len(questions) + 1):
        more, answers = encode_pieces(processor, conversation_pieces(processor, turns))
        ids = torch.cat([ids, torch.tensor(more)])
        labels = torch.cat([labels, torch.tensor(answers)])
        owner = torch.cat([owner, torch.full((len(more),), number)])
        positions = torch.cat(
            [positions, (first + step * torch.arange(len(more))).expand(len(positions), -1)], dim=1
        )
    encoded |= {"input_ids": ids, "position_ids": positions, "question_ids": owner, "labels": labels}
    if not questions:
        encoded["answer_positions"] = torch.full((len(PARTS),), -1)
    return encoded


def generation_batch(processor: AVLMMProcessor, encoded: Sequence[dict]) -> dict:
    """
    Return the arguments of the thinker's `generate`, padded on the left.

    Args:
        processor ([`AVLMMProcessor`]): Collates the batch.
        encoded (`Sequence[dict]`): Results of [`encode_conversations`], each with one unanswered conversation.

    Raises:
        ConversationError: when a clip has several conversations.
    """
    batch = normalize_pixels(dict(processor.collate(list(encoded), padding_side="left")), processor.omni)
    if "question_ids" in batch:
        raise ConversationError(
            "Text can be generated for one conversation about each clip, not for several."
        )
    kept = {name: value for name, value in batch.items() if name not in ("answer_positions", "labels")}
    return processor.omni.stock_inputs(kept)


def with_context(turns: Turns, context: str) -> Turns:
    """Return the conversation with a text, such as a measured context, before its first question."""
    (question, answer), *rest = turns
    return [(context + _opened(question), answer), *rest]


def _opened(question: str) -> str:
    """Return a question with a space before it, as after the clip in the verdict prompts."""
    return question if question[:1].isspace() else " " + question
