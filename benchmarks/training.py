"""Tokens a second, MFU and memory of both training stages: this package's trainer against `SFTTrainer` with the stock model.

    python benchmarks/training.py --threads 2 --save
    python benchmarks/training.py --device cuda --save

Weights are random; on a GPU they have the shape of Qwen2.5-Omni-7B, on the CPU about 90 M parameters beside the vocabulary
(`omni_shapes.py`). Each pass has clips of 4, 8 and 16 s in turn (square faces of 224 pixels, 2 frames a second, with sound), the
question and its answer. They are encoded beforehand: only the steps are timed, the first does not count, and the quickest of the
others does. Frozen weights are bfloat16 on a GPU and trained ones float32 (autocast), all are float32 on the CPU. Activations are
recomputed in both ways: it is TRL's default, and what the 7B recipes say.

- `stock`: the thinker of transformers with `sdpa` in TRL's `SFTTrainer` as it comes, spectra padded to 300 s as the stock
  processor does; where TRL is not installed in `transformers.Trainer`, and then so is `ours`: the column `trainer` says which.
- `ours`: the detector in `AVSFTTrainer`: no padding in the language model, one call for all windows of a length, loss on the
  answers' positions only, no backward pass through frozen encoders.
- `cached`: the same from the second epoch on with `encoder_cache`, in stage 1 alone: the encoders are not run, and their operations
  not counted.

MFU is useful work over time and the device's peak. Useful work of a pass over N tokens: 2 N for each weight of a linear layer or
convolution in the forward pass, 2 N more where a gradient passes through it, 2 N more where it trains. Frozen parts are counted so:
the encoders of stage 1 with 2 N, the language model of stage 2 with 4 N. Padding and recomputation are work but no use, and are
not counted (`modeling_avlmm.training.throughput.FlopsCounter`). The peak is the data sheet's, or that of a matrix product timed
here.

`loss` is that of the first step, the same in both ways as their weights are.
"""

import argparse
import contextlib
import gc
import importlib.util
import io
import math
import tempfile
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import torch
from omni_shapes import (
    VOCABULARIES,
    build_detector,
    parser_for,
    processor_for,
    settled,
    stock_arguments,
    stock_thinker,
    synthetic_clip,
)
from peft import get_peft_model
from results import write_results
from transformers import Trainer, TrainerCallback, TrainingArguments
from turns import peak, ratio, reset_peak, rounded, synchronize

from modeling_avlmm import AVLMMConfig, AVLMMForDeepfakeDetection, AVLMMProcessor
from modeling_avlmm.inference.provenance import environment
from modeling_avlmm.modeling_avlmm import ENCODER_INPUTS
from modeling_avlmm.processing_avlmm import normalize_pixels
from modeling_avlmm.training.recipes import DataRecipe, Recipe, StageRecipe
from modeling_avlmm.training.stages import count_trainable, freeze_for_stage, keep_in_float32, lora_config
from modeling_avlmm.training.throughput import FlopsCounter, peak_flops

CLIPS = (3, 6)
"""In a step, on the CPU and on a GPU."""
STAGES = ("alignment", "encoders")
STOCK_SPECTRUM = 30_000
"""Frames to which the stock processor pads every spectrum: 300 s."""

WITH_TRL = importlib.util.find_spec("trl") is not None
TRAINERS = {
    ("stock", True): "trl.SFTTrainer",
    ("ours", True): "AVSFTTrainer",
    ("cached", True): "AVSFTTrainer",
    ("stock", False): "transformers.Trainer (TRL is not installed)",
    ("ours", False): "transformers.Trainer (TRL is not installed)",
    ("cached", False): "transformers.Trainer (TRL is not installed)",
}
WHAT = {
    "stock": "stock thinker: padded rows, spectra of 300 s, a call per window",
    "ours": "detector: no padding, a call per length of window, frozen encoders without gradients",
    "cached": "as ours, with what the frozen encoders make of the clips from the encoder cache",
}
WAYS = {"alignment": ("stock", "ours", "cached"), "encoders": ("stock", "ours")}


class Clock(TrainerCallback):
    """Takes the time of each step but the first and their peak memory, and ends a training that lasts too long."""

    def __init__(self, device: str, until: float | None):
        self.device, self.until = device, until
        self.taken: list[float] = []
        self.peak_gib: float | None = None

    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == 1:
            reset_peak(self.device)
        synchronize(self.device)
        self.begin = time.perf_counter()

    def on_step_end(self, args, state, control, **kwargs):
        synchronize(self.device)
        if state.global_step > 1:
            self.taken.append(time.perf_counter() - self.begin)
            self.peak_gib = peak(self.device)
            if self.until is not None and time.monotonic() > self.until:
                control.should_training_stop = True


def stage_recipe(kind: str, batch_size: int, steps: int, lora_rank: int) -> StageRecipe:
    """What the 7B recipes say, without dropout, so that both ways have the same loss."""
    return StageRecipe(
        kind=kind,
        max_steps=steps,
        learning_rate=1e-5,
        lora_rank=lora_rank,
        lora_alpha=2 * lora_rank,
        lora_dropout=0.0,
        batch_size=batch_size,
        gradient_checkpointing=True,
        log_steps=1,
        save_steps=steps + 1,
    )


def training_batch(processor: AVLMMProcessor, lengths: Sequence[float]) -> dict:
    """Clips of these lengths, seconds, each with the question and an answer."""
    encoded = [
        processor.encode(synthetic_clip(length, seed=index), [processor.question("overall", index % 2)])
        for index, length in enumerate(lengths)
    ]
    # floats, as the stock thinker of the first way takes them
    return normalize_pixels(dict(processor.collate(encoded, padding_side="right")))


@torch.no_grad()
def cached_batch(batch: dict, model: AVLMMForDeepfakeDetection) -> dict:
    """The same with what the encoders make of the clips, as the encoder cache gives it."""
    media = {name: batch[name].to(model.device) for name in ENCODER_INPUTS}
    sound, picture = model.encode_media(**media)
    rest = {name: value for name, value in batch.items() if name not in ENCODER_INPUTS}
    return {**rest, "audio_embeds": sound.cpu(), "video_embeds": picture.cpu()}


def stock_batch(batch: dict) -> dict:
    """The same as the stock processor gives it, with the same labels."""
    stock = {**stock_arguments(batch), "labels": batch["labels"]}
    for name in ("input_features", "feature_attention_mask"):
        missing = max(0, STOCK_SPECTRUM - stock[name].shape[-1])
        stock[name] = torch.nn.functional.pad(stock[name], (0, missing))
    return stock


def make_trainer(way: str, model, processor, stage, batch: dict, device: str, folder: Path):
    """A trainer of one stage on one batch, drawn again and again."""
    bf16, steps = device == "cuda", stage.max_steps
    recipe = Recipe("benchmark", str(folder), data=DataRecipe(num_workers=0), stages=[stage])
    freeze_for_stage(model, stage)
    lora = lora_config(model, stage) if stage.kind == "alignment" else None
    trained = stock_thinker(model) if way == "stock" else model
    rows = [{"index": index} for index in range(steps * stage.batch_size)]
    shared = {"model": trained, "data_collator": lambda _: dict(batch)}
    plain = {
        "output_dir": str(folder),
        "max_steps": steps,
        "per_device_train_batch_size": stage.batch_size,
        "learning_rate": stage.learning_rate,
        "bf16": bf16,
        "use_cpu": device == "cpu",
        "logging_steps": 1,
        "save_strategy": "no",
        "remove_unused_columns": False,
        "report_to": "none",
        "disable_tqdm": True,
    }
    if WITH_TRL:
        from datasets import Dataset
        from trl import SFTConfig, SFTTrainer

        from modeling_avlmm.training.collator import DropList
        from modeling_avlmm.training.trainer import AVSFTTrainer, sft_config

        shared |= {"train_dataset": Dataset.from_list(rows), "peft_config": lora}
        if way != "stock":
            arguments = sft_config(recipe, stage, folder, bf16)
            arguments.use_cpu = device == "cpu"
            drops = DropList(folder / "drops.jsonl")
            more = {"processing_class": processor, "stage": stage, "drops": drops, "max_drops": 0}
            return AVSFTTrainer(args=arguments, **shared, **more)
        arguments = SFTConfig(dataset_kwargs={"skip_prepare_dataset": True}, max_length=None, **plain)
        return SFTTrainer(args=arguments, processing_class=processor.tokenizer, **shared)
    arguments = TrainingArguments(gradient_checkpointing=True, **plain)
    if lora is not None:
        shared["model"] = get_peft_model(trained, lora)
        shared["model"].enable_input_require_grads()  # as TRL does
    return Trainer(args=arguments, train_dataset=rows, **shared)


def without_weights(config: AVLMMConfig, stage: StageRecipe) -> AVLMMForDeepfakeDetection:
    """The detector as a stage trains it, to count its operations; both ways do the same useful ones."""
    with torch.device("meta"):
        model = AVLMMForDeepfakeDetection(config)
        freeze_for_stage(model, stage)
        if stage.kind == "alignment":
            return get_peft_model(model, lora_config(model, stage)).get_base_model()
    return model


def train(
    way: str,
    kind: str,
    shape: str,
    processor: AVLMMProcessor,
    lengths: Sequence[float],
    steps: int,
    device: str,
    vocabulary: int | None = None,
    lora_rank: int = 64,
    until: float | None = None,
) -> dict:
    """A row: one way through some steps of one stage."""
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    stage = stage_recipe(kind, len(lengths), steps, lora_rank)
    batch = training_batch(processor, lengths)
    model = build_detector(shape, processor, device, dtype, vocabulary)
    vocabulary = model.config.get_text_config().vocab_size
    parameters = sum(weight.numel() for weight in model.parameters())
    error, clock = None, Clock(device, until)
    with tempfile.TemporaryDirectory(prefix="training-") as folder:
        given = {"stock": stock_batch, "ours": dict, "cached": partial(cached_batch, model=model)}[way](batch)
        trainer = make_trainer(way, model, processor, stage, given, device, Path(folder))
        flops = FlopsCounter(without_weights(model.config, stage)).step(given if way == "cached" else batch)
        del model
        trained = count_trainable(trainer.model)
        keep_in_float32(trainer.model)
        trainer.add_callback(clock)
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                trainer.train()
        except torch.cuda.OutOfMemoryError:
            error = "out of memory"
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    seconds = min(clock.taken, default=None)
    useful = int(batch["attention_mask"].sum())
    top, source = peak_flops(torch.device(device), dtype)
    del trainer
    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()
    return {
        "way": way,
        "stage": kind,
        "trainer": TRAINERS[way, WITH_TRL],
        "clips": len(lengths),
        "seconds": "+".join(f"{length:g}" for length in sorted(set(lengths))),
        "tokens": useful,
        "padded_tokens": batch["attention_mask"].numel(),
        "shape": shape,
        "parameters_m": round(parameters / 1e6, 1),
        "trained_m": round(trained / 1e6, 4),
        "vocabulary": vocabulary,
        "dtype": str(dtype).removeprefix("torch."),
        "steps": len(clock.taken),
        "clips_per_s": None if seconds is None else float(f"{len(lengths) / seconds:.4g}"),
        "tokens_per_s": None if seconds is None else float(f"{useful / seconds:.4g}"),
        "tokens_of_stock": None,
        "mfu": None if seconds is None else round(flops / seconds / top, 4),
        "peak_tflops": round(top / 1e12, 3),
        "peak_tflops_from": source,
        "peak_gib": rounded(clock.peak_gib, 3),
        "peak_of_stock": None,
        "loss": losses[0] if losses else None,
        "note": error or WHAT[way],
    }


def compare(rows: Sequence[dict]) -> list[dict]:
    """The quickest of each way's rounds of a stage, with its ratios to `stock`."""
    best: dict[str, dict] = {}
    for row in rows:
        known = best.get(row["way"])
        if known is None or (row["tokens_per_s"] or 0) > (known["tokens_per_s"] or 0):
            best[row["way"]] = row
    stock = best.get("stock", {})
    for row in best.values():
        row["tokens_of_stock"] = ratio(row["tokens_per_s"], stock.get("tokens_per_s"))
        row["peak_of_stock"] = ratio(row["peak_gib"], stock.get("peak_gib"))
    return list(best.values())


def measure(options: argparse.Namespace, processor: AVLMMProcessor) -> Iterator[list[dict]]:
    lengths = [options.seconds[index % len(options.seconds)] for index in range(options.batch_size)]
    for kind in options.stages:
        rows = []
        for _ in range(options.rounds):
            for way in WAYS[kind]:
                more = {"vocabulary": options.vocabulary, "lora_rank": options.lora_rank}
                found = train(
                    way, kind, options.shape, processor, lengths, options.steps + 1, options.device, **more
                )
                rows.append(found)
        yield compare(rows)


def show(rows: Sequence[dict]) -> None:
    for row in rows:
        print(
            f"{row['stage']:<9} {row['clips']:>2} x {row['seconds']:<7} s  {row['way']:<5} in {row['trainer']:<14.14}  "
            f"{row['tokens_per_s'] or math.nan:8.4g} tokens/s, {row['tokens_of_stock'] or math.nan:5.2f} of stock  "
            f"MFU {row['mfu'] or math.nan:6.1%}  peak {row['peak_gib'] or math.nan:6.2f} GiB, "
            f"{row['peak_of_stock'] or math.nan:5.2f} of stock  loss {row['loss'] or math.nan:.5f}",
            flush=True,
        )


def main() -> None:
    parser = parser_for(__doc__, CLIPS, "a step")
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=STAGES, help="[both]")
    parser.add_argument("--vocabulary", type=int, help="rows of the language head [the shape's own]")
    parser.add_argument("--lora-rank", type=int, default=64, help="[%(default)s]")
    parser.add_argument("--steps", type=int, default=2, help="that count, of each round [%(default)s]")
    parser.add_argument("--rounds", type=int, default=2, help="[%(default)s]")
    options = settled(parser, CLIPS)
    options.vocabulary = options.vocabulary or VOCABULARIES[options.shape]
    rows, begin = [], time.monotonic()
    with tempfile.TemporaryDirectory(prefix="training-") as work:
        for found in measure(options, processor_for(work)):
            show(found)
            rows += found
    print(f"on {environment()['device']}, {time.monotonic() - begin:.0f} s")
    if options.save:
        packages = ("torch", "transformers", "trl")
        name = f"training_{options.shape}"
        write_results(rows, name, packages, vocabulary=options.vocabulary, **options.conditions)


if __name__ == "__main__":
    main()
