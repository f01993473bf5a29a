"""New words for a small tokenizer, so that a tiny backbone can write whole sentences. A real backbone needs none.

Existing tokens keep their ids, and the verdict's prompts keep their tokens. So a detector trained with the smaller
vocabulary gives the same verdicts with the larger one.
"""

from __future__ import annotations

import itertools
import json
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from accelerate import PartialState
from datasets import Dataset
from transformers import PreTrainedTokenizerFast

from dataset_scripts.files import written_whole

from ...dialogue.conversation import turns_of
from ...modeling_avlmm import AVLMMForDeepfakeDetection
from ...processing_avlmm import AVLMMProcessor
from ..recipe_values import RecipeError

MOST_NEW_TOKENS = 8000
CONTEXT_TEXTS = (
    " Measured: clip fake 0.97, picture fake 0.99, sound real 0.03; fake from 0.5 to 1.5 s, from 2.0 to 2.5 s.",
    " clip real 0.97, picture real 0.99, sound fake 0.03.",
)


def learn_merges(words: Counter, known: set[str], most: int = MOST_NEW_TOKENS) -> list[tuple[str, str]]:
    """
    Learn byte-pair merges, most frequent pair first, until every word is one token.

    Args:
        words (`Counter`): How often each word occurs. A word is the tuple of its present tokens.
        known (`set[str]`): Existing tokens. A merge into one of them costs no new token.
        most (`int`, *optional*, defaults to 8000): The highest number of new tokens.

    Returns:
        `list[tuple[str, str]]`: the merges in the order in which they apply; ties go by the alphabet.
    """
    merges, made = [], set()
    pieces = dict(words)
    while len(made) < most:
        pairs = Counter()
        for word, count in pieces.items():
            for pair in itertools.pairwise(word):
                pairs[pair] += count
        if not pairs:
            break
        first, second = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append((first, second))
        if first + second not in known:
            made.add(first + second)
        merged: dict[tuple[str, ...], int] = {}
        for word, count in pieces.items():
            tokens, index = [], 0
            while index < len(word):
                joined = word[index : index + 2] == (first, second)
                tokens.append(first + second if joined else word[index])
                index += 2 if joined else 1
            merged[tuple(tokens)] = merged.get(tuple(tokens), 0) + count
        pieces = merged
    return merges


def grown_tokenizer(
    tokenizer: PreTrainedTokenizerFast, texts: Iterable[str], kept: Iterable[str]
) -> tuple[PreTrainedTokenizerFast, list[tuple[int, int, int]]]:
    """
    Return a larger tokenizer in which every word of some texts is one token.

    New merges rank below the old ones, so that every existing token stays whole.

    Args:
        tokenizer ([`PreTrainedTokenizerFast`]): A byte-level BPE tokenizer.
        texts (`Iterable[str]`): What the model will read and write.
        kept (`Iterable[str]`): Texts whose tokens must not change.

    Returns:
        `tuple`: the tokenizer, and a list of each new token with the two it joins, as ids.

    Raises:
        RecipeError: if the tokenizer is of another kind, or the tokens of a text in `kept` would change.
    """
    backend = tokenizer.backend_tokenizer
    plan = json.loads(backend.to_str())
    if plan["model"]["type"] != "BPE":
        raise RecipeError(
            f"analysis.grow_vocabulary is for byte-level BPE tokenizers, not for {plan['model']['type']}: set it to false."
        )
    counts = Counter(word for text in texts for word, _ in backend.pre_tokenizer.pre_tokenize_str(text))
    words = Counter({tuple(token.value for token in backend.model.tokenize(w)): n for w, n in counts.items()})
    vocabulary = plan["model"]["vocab"]
    made = []
    for first, second in learn_merges(words, set(vocabulary)):
        plan["model"]["merges"].append([first, second])
        if first + second not in vocabulary:
            made.append((len(tokenizer) + len(made), vocabulary[first], vocabulary[second]))
            vocabulary[first + second] = made[-1][0]
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        (Path(folder) / "tokenizer.json").write_text(json.dumps(plan), encoding="utf-8")
        grown = type(tokenizer).from_pretrained(folder)
    for text in kept:
        before, after = (t.encode(text, add_special_tokens=False) for t in (tokenizer, grown))
        if before != after:
            raise RecipeError(
                f"New words would change the tokens of {text!r}, which the detector was trained on. "
                "Set analysis.grow_vocabulary to false."
            )
    return grown, made


@torch.no_grad()
def grow_vocabulary(model: AVLMMForDeepfakeDetection, processor: AVLMMProcessor, texts: Iterable[str]) -> int:
    """
    Give model and processor a token for every word of `texts`, in place.

    A new token starts as the mean of the two it joins, in the embeddings and in the language head.

    Returns:
        `int`: the number of new tokens.
    """
    grown, made = grown_tokenizer(processor.tokenizer, texts, processor.prompts.values())
    thinker = model.thinker
    if len(grown) > thinker.get_input_embeddings().num_embeddings:
        thinker.resize_token_embeddings(len(grown), mean_resizing=False)
        model.config.thinker_config = thinker.config
    tables = [thinker.get_input_embeddings().weight, thinker.get_output_embeddings().weight]
    for token, *joined in made:
        for table in tables:
            table[token] = table[joined].mean(0)
    processor.tokenizer = grown
    # Cached layouts hold tokens of the old tokenizer.
    processor._layouts.clear()
    return len(made)


def texts_of(rows: Iterable[dict]) -> Iterator[str]:
    """Yield all that is said in conversations, and the words of a context: the text that the tokenizer must cover."""
    yield from CONTEXT_TEXTS
    for row in rows:
        for question, answer in turns_of(row["messages"]):
            yield " " + question.strip()
            yield answer


def write_grown(
    model: AVLMMForDeepfakeDetection, processor: AVLMMProcessor, rows: Dataset, folder: Path
) -> int:
    """Grow a detector's vocabulary in place and save it as the stage's starting point; return the number of new tokens."""
    made = grow_vocabulary(model, processor, texts_of(rows.select_columns("messages")))
    if PartialState().is_main_process:
        with written_whole(folder) as partial:
            model.save_pretrained(partial)
            processor.save_pretrained(partial)
    PartialState().wait_for_everyone()
    return made
