"""TRL's `SFTTrainer`, taught interleaved sound and picture."""

from pathlib import Path

import torch
from transformers import PrinterCallback
from trl import SFTConfig, SFTTrainer

from ..configuration_detector import IGNORE_INDEX
from .collator import DropList
from .progress import Progress
from .recipes import Recipe, StageRecipe
from .stages import parameter_groups
from .throughput import FlopsCounter


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
        self._flops = FlopsCounter(detector)
        self._progress = Progress(self.args.device, drops, max_drops)
        self.remove_callback(PrinterCallback)
        self.add_callback(self._progress)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        self._progress.count(
            clips=int((inputs["labels"] != IGNORE_INDEX).any(1).sum()),
            tokens=int(inputs["attention_mask"].sum()),
            flops=self._flops.step(inputs),
        )
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
