"""TRL's `SFTTrainer`, taught interleaved sound and picture."""

import json
import time
from pathlib import Path

import torch
from transformers import PrinterCallback, TrainerCallback
from trl import SFTConfig, SFTTrainer

from ..configuration_avlmm import IGNORE_INDEX
from .collator import DropList
from .recipes import Recipe, StageRecipe
from .stages import parameter_groups
from .throughput import FlopsCounter, peak_flops


class TooManyDropsError(RuntimeError):
    """More clips were unreadable than the recipe allows."""


def sft_config(recipe: Recipe, stage: StageRecipe, output_dir: Path, bf16: bool) -> SFTConfig:
    """The trainer's arguments for a stage of a recipe."""
    return SFTConfig(
        output_dir=str(output_dir),
        # The schedule is the whole stage, in order: one pass over it.
        num_train_epochs=1,
        max_steps=stage.max_steps or -1,
        train_sampling_strategy="sequential",
        per_device_train_batch_size=stage.batch_size,
        gradient_accumulation_steps=stage.gradient_accumulation,
        learning_rate=stage.learning_rate,
        lr_scheduler_type=stage.lr_scheduler,
        warmup_steps=stage.warmup_share,
        weight_decay=stage.weight_decay,
        adam_beta2=stage.adam_beta2,
        max_grad_norm=stage.max_grad_norm,
        gradient_checkpointing=stage.gradient_checkpointing,
        bf16=bf16,
        logging_steps=stage.log_steps,
        save_steps=stage.save_steps,
        save_total_limit=2,
        seed=recipe.seed,
        data_seed=recipe.seed,
        dataloader_num_workers=recipe.data.num_workers,
        dataloader_persistent_workers=recipe.data.num_workers > 0,
        dataloader_prefetch_factor=2 if recipe.data.num_workers > 0 else None,
        # TRL has no path for sound and video: rows reach our collator untouched.
        dataset_kwargs={"skip_prepare_dataset": True},
        remove_unused_columns=False,
        max_length=None,
        dataloader_pin_memory=torch.cuda.is_available(),
        report_to="none",
        disable_tqdm=True,
    )


class AVSFTTrainer(SFTTrainer):
    """
    [`~trl.SFTTrainer`] with the detector's own loss, a learning rate for each part, and honest progress lines.

    Args:
        stage ([`StageRecipe`]): The stage that is trained.
        drops ([`DropList`]): Where the collator lists unreadable clips.
        max_drops (`int`): Different unreadable clips after which training stops.
        kwargs: As for `SFTTrainer`.
    """

    def __init__(self, *args, stage: StageRecipe, drops: DropList, max_drops: int, **kwargs):
        self.stage = stage
        super().__init__(*args, **kwargs)
        detector = self.model.get_base_model() if hasattr(self.model, "get_base_model") else self.model
        self._progress = Progress(FlopsCounter(detector), self.args.device, drops, max_drops)
        self.remove_callback(PrinterCallback)
        self.add_callback(self._progress)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        self._progress.count(inputs)
        outputs = model(**inputs, num_items_in_batch=num_items_in_batch)
        loss = outputs.loss
        if self.args.average_tokens_across_devices and num_items_in_batch is not None:
            # The divisor counts the answers of all processes, and their gradients are averaged.
            loss = loss * self.accelerator.num_processes
        return (loss, outputs) if return_outputs else loss

    def create_optimizer(self, model=None):
        if self.optimizer is None:
            model = self.model if model is None else model
            optimizer_class, options = self.get_optimizer_cls_and_kwargs(self.args, model)
            self.optimizer = optimizer_class(parameter_groups(model, self.stage), **options)
        return self.optimizer

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs and self.optimizer is not None:
            logs.pop("learning_rate", None)
            for group in self.optimizer.param_groups:
                logs[f"lr/{group.get('name', 'all')}"] = group["lr"]
            logs.update(self._progress.rates(self.state, self.accelerator.num_processes))
        super().log(logs, start_time)

    def create_model_card(self, *args, **kwargs):
        """Checkpoints of a run get no model card: a detector gets its own when it is published."""


class Progress(TrainerCallback):
    """Counts clips, tokens and operations, prints a line for each log step, and stops a run that drops too much."""

    def __init__(self, flops: FlopsCounter, device: torch.device, drops: DropList, max_drops: int):
        self.flops = flops
        self.drops = drops
        self.max_drops = max_drops
        dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
        self.peak, self.peak_source = peak_flops(device, dtype)
        self._reset()

    def _reset(self):
        self._clips = self._tokens = self._flops = 0
        self._since = time.perf_counter()

    def count(self, inputs: dict) -> None:
        """Counts a batch of this process."""
        self._clips += int((inputs["labels"] != IGNORE_INDEX).any(1).sum())
        self._tokens += int(inputs["attention_mask"].sum())
        self._flops += self.flops.step(inputs)

    def rates(self, state, processes: int) -> dict[str, float]:
        """Clips/s, tokens/s and MFU since the last call (this process, times the number of processes), and ETA."""
        seconds = max(time.perf_counter() - self._since, 1e-9)
        done = state.global_step - self._first_step
        elapsed = time.perf_counter() - self._begin
        rates = {
            "clips_per_s": processes * self._clips / seconds,
            "tokens_per_s": processes * self._tokens / seconds,
            "mfu": self._flops / seconds / self.peak,
            "eta_s": elapsed / max(done, 1) * (state.max_steps - state.global_step),
        }
        self._reset()
        return rates

    def on_train_begin(self, args, state, control, **kwargs):
        self._begin = time.perf_counter()
        self._first_step = state.global_step
        self._reset()
        if state.is_world_process_zero:
            print(f"  MFU is relative to {self.peak / 1e12:.3g} TFLOP/s ({self.peak_source}).", flush=True)

    def on_step_end(self, args, state, control, **kwargs):
        dropped = {entry["path"] for entry in self.drops.entries()}
        if len(dropped) > self.max_drops:
            raise TooManyDropsError(
                f"{len(dropped)} clips could not be read, more than the {self.max_drops} that data.max_drop_share "
                f"allows. They are listed with their reasons in {self.drops.path}. Mend or remove them, or raise "
                "data.max_drop_share."
            )

    def on_log(self, args, state, control, logs=None, **kwargs):
        if not state.is_world_process_zero or not logs or "loss" not in logs:
            return
        rates = " ".join(f"{k[3:]} {v:.1e}" for k, v in logs.items() if k.startswith("lr/"))
        eta = int(logs["eta_s"])
        print(
            f"  step {state.global_step:>5}/{state.max_steps}  loss {logs['loss']:.4f}  lr {rates}  "
            f"{logs['clips_per_s']:.1f} clips/s  {logs['tokens_per_s']:.0f} tokens/s  MFU {logs['mfu']:.1%}  "
            f"ETA {eta // 3600}:{eta // 60 % 60:02}:{eta % 60:02}",
            flush=True,
        )


def latest_checkpoint(folder: Path) -> Path | None:
    """The last checkpoint that was written to its end: the trainer's state is written last of all."""
    complete = []
    for checkpoint in folder.glob("checkpoint-*"):
        try:
            state = json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
        except (OSError, json.JSONDecodeError):
            continue
        complete.append((state["global_step"], checkpoint))
    return max(complete)[1] if complete else None
