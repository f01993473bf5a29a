"""Compare verdicts a second and peak memory of this package's one pass with the stock model's `generate`, on the same tensors.

    python benchmarks/scoring.py --threads 2 --save
    python benchmarks/scoring.py --device cuda --save

Weights are random and shared by all ways. On a GPU they have the shape of Qwen2.5-Omni-7B, in bfloat16; on the CPU there are about
90 M parameters beside the vocabulary, in float32 (`omni_shapes.py`). Clips are square faces of 224 pixels, 2 frames a
second, with sound. Three ways take turns on each batch:

- `stock`: `thinker.generate(max_new_tokens=1, do_sample=False)` of transformers, attention `sdpa`. Rows are padded to the longest,
  positions are computed from the tokens, the language head runs on every position, a cache is filled, and attention runs on one
  window of picture or sound after another.
- `one pass`: `AVLMMForDeepfakeDetection.forward` with that stock attention. The language head runs on two rows and one position,
  positions come with the batch, there is no cache.
- `ours`: the same with packed attention, the default: no padding in the language model, one call for all windows of a length.

`clips_of_stock` is clips a second over those of `stock` in the same turns; `peak_of_stock` is the same for peak memory, weights
included. `logit_difference` is the largest difference of the two answers' logits from those of `stock`.
"""

import argparse
import math
from collections.abc import Iterator, Sequence

import torch
from omni_shapes import (
    VOCABULARIES,
    build_detector,
    measured,
    move,
    parser_for,
    settled,
    stock_arguments,
    stock_thinker,
    synthetic_clip,
)
from results import write_results
from turns import GIB, ratio, rounded, take_turns

from modeling_avlmm import AVLMMProcessor
from modeling_avlmm.modeling_packed_attention import attend_in_groups

CLIPS = (3, 48)
"""Clips in a batch, on the CPU and on a GPU."""
WHAT = {
    "stock": "thinker.generate of one token: padded rows, full language head, cache, a call per window",
    "one pass": "our forward with the stock attention: two rows of the head at one position, no cache",
    "ours": "our forward with packed attention: also no padding, a call per length of window",
}


def batches(seconds: Sequence[float], size: int) -> dict[str, list[float]]:
    """Return the lengths of clips in each batch: one clip, clips of one length, and clips of all lengths in turn."""
    middle = sorted(seconds)[len(seconds) // 2]
    found = {"one": [middle], "alike": [middle] * size}
    if len(set(seconds)) > 1:
        found["mixed"] = [seconds[index % len(seconds)] for index in range(size)]
    return found


class ScoringWays:
    """
    A detector with random weights that scores in three ways.

    Args:
        shape (`str`): Key of `omni_shapes.SHAPES`.
        processor ([`AVLMMProcessor`]): Encodes the clips.
        device (`str`), dtype (`torch.dtype`): Device and type of the weights.
        vocabulary (`int`): Rows of the language head.
    """

    def __init__(
        self, shape: str, processor: AVLMMProcessor, device: str, dtype: torch.dtype, vocabulary: int
    ):
        self.shape, self.processor, self.device, self.dtype = shape, processor, device, dtype
        self.vocabulary = vocabulary
        self.model = build_detector(shape, processor, device, dtype, vocabulary)
        self.thinker = stock_thinker(self.model)

    def with_stock_attention(self, batch: dict):
        """Return the output of a pass with the attention that `transformers` comes with."""
        modules = (self.model.language_model, self.model.vision_encoder, self.model.audio_encoder)
        for module in modules:
            module.config._attn_implementation = "sdpa"
        try:
            return self.model(**batch)
        finally:
            attend_in_groups(modules[0], modules[1:])

    @torch.inference_mode()
    def measure(
        self, name: str, lengths: Sequence[float], turns: int, until: float | None = None
    ) -> list[dict]:
        """Return a row for each way, on a batch of clips of these lengths in seconds."""
        clips = [synthetic_clip(length, seed=index) for index, length in enumerate(lengths)]
        batch = move(dict(self.processor(clips)), self.device, self.dtype)
        stock = stock_arguments(batch)
        options = {"max_new_tokens": 1, "do_sample": False}
        ways = {
            "stock": lambda: self.thinker.generate(**stock, **options),
            "one pass": lambda: self.with_stock_attention(batch),
            "ours": lambda: self.model(**batch),
        }
        found = take_turns(ways, turns, self.device, until)
        answers = {}
        if "error" not in found["stock"]:
            told = self.thinker.generate(
                **stock, **options, return_dict_in_generate=True, output_logits=True
            ).logits[0]
            expected = told[:, self.model.config.label_token_ids].float()
            answers = {
                "one pass": self.with_stock_attention(batch).logits,
                "ours": self.model(**batch).logits,
            }
        weights = sum(weight.numel() * weight.element_size() for weight in self.model.parameters()) / GIB
        rows = []
        for way, result in found.items():
            taken, stock_taken = result["seconds"], found["stock"]["seconds"]
            rows.append(
                {
                    "way": way,
                    "batch": name,
                    "clips": len(lengths),
                    "seconds": "+".join(f"{length:g}" for length in sorted(set(lengths))),
                    "tokens": int(batch["attention_mask"].sum()),
                    "padded_tokens": batch["attention_mask"].numel(),
                    "shape": self.shape,
                    "parameters_m": round(sum(w.numel() for w in self.model.parameters()) / 1e6, 1),
                    "vocabulary": self.vocabulary,
                    "dtype": str(self.dtype).removeprefix("torch."),
                    "turns": result["turns"],
                    "clips_per_s": None if taken is None else float(f"{len(lengths) / taken:.4g}"),
                    "clips_of_stock": ratio(stock_taken, taken),
                    "peak_gib": rounded(result["peak_gib"], 3),
                    "peak_of_stock": ratio(result["peak_gib"], found["stock"]["peak_gib"]),
                    "weights_gib": round(weights, 3),
                    "logit_difference": (
                        float(f"{(answers[way] - expected).abs().max().item():.2g}")
                        if way in answers
                        else None
                    ),
                    "note": result.get("error", WHAT[way]),
                }
            )
        return rows


def measure(options: argparse.Namespace, processor: AVLMMProcessor) -> Iterator[list[dict]]:
    """Yield the rows of each batch."""
    dtype = torch.bfloat16 if options.device == "cuda" else torch.float32
    for vocabulary in options.vocabulary or [VOCABULARIES[options.shape]]:
        scoring = ScoringWays(options.shape, processor, options.device, dtype, vocabulary)
        for name, lengths in batches(options.seconds, options.batch_size).items():
            yield scoring.measure(name, lengths, options.turns)


def show(rows: Sequence[dict]) -> None:
    """Print rows."""
    for row in rows:
        print(
            f"{row['batch']:<6} {row['clips']:>3} x {row['seconds']:<7} s  vocabulary {row['vocabulary']:>6}  "
            f"{row['way']:<9} {row['clips_per_s'] or math.nan:8.4g} clips/s  {row['clips_of_stock'] or math.nan:6.2f} of stock"
            f"  peak {row['peak_gib'] or math.nan:6.2f} GiB, {row['peak_of_stock'] or math.nan:5.2f} of stock"
            f"  logits {row['logit_difference']}",
            flush=True,
        )


def main() -> None:
    parser = parser_for(__doc__, CLIPS, "a batch")
    parser.add_argument(
        "--vocabulary", type=int, nargs="+", help="rows of the language head [the shape's own]"
    )
    parser.add_argument("--turns", type=int, default=3, help="timed turns of each way [%(default)s]")
    options = settled(parser, CLIPS)
    rows = measured(measure, show, options)
    if options.save:
        write_results(rows, f"scoring_{options.shape}", ("torch", "transformers"), **options.conditions)


if __name__ == "__main__":
    main()
