"""The two trainers: TRL's `SFTTrainer` for AV-LMMDetect, the plain `Trainer` for small detectors, and what they share."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    EarlyStoppingCallback,
    PreTrainedModel,
    PrinterCallback,
    Trainer,
    TrainingArguments,
)
from transformers.integrations import TensorBoardCallback
from transformers.utils import is_torch_bf16_gpu_available
from trl import SFTConfig, SFTTrainer

from ..configuration_detector import IGNORE_INDEX, LABEL_COLUMNS
from .batches import DropList
from .progress import Progress, say
from .recipe_parts import STABLE, OptimisationRecipe, StageRecipe
from .recipe_values import RecipeError
from .recipes import AVLMMRecipe, Recipe
from .stage_kinds import base_detector, parameter_groups
from .throughput import FlopsCounter

METRICS = ("auc", "auc_picture", "auc_sound")


# -- arguments ---------------------------------------------------------------------------------------------------------


def shared_arguments(
    recipe: Recipe, settings: StageRecipe | OptimisationRecipe, output_dir: Path, bf16: bool
) -> dict:
    """
    Return the trainer arguments that every stage has.

    Args:
        recipe ([`Recipe`]): The run.
        settings ([`StageRecipe`] or [`OptimisationRecipe`]): The stage.
        output_dir (`Path`): Folder of the checkpoints.
        bf16 (`bool`): Whether to compute in bfloat16. Without an accelerator the CPU does, by autocast as well.

    Raises:
        RecipeError: where there is an accelerator that cannot compute in bfloat16.
    """
    accelerator = torch.accelerator.is_available()
    if bf16 and accelerator and not is_torch_bf16_gpu_available():
        raise RecipeError(
            "This accelerator cannot compute in bfloat16: set model.dtype to float32, or training.bf16 to false."
        )
    workers = recipe.data.num_workers
    return {
        "output_dir": str(output_dir),
        # The schedule is the whole stage, in order.
        "train_sampling_strategy": "sequential",
        "per_device_train_batch_size": settings.batch_size,
        "gradient_accumulation_steps": settings.gradient_accumulation,
        "learning_rate": settings.learning_rate,
        "weight_decay": settings.weight_decay,
        "adam_beta2": settings.adam_beta2,
        "max_grad_norm": settings.max_grad_norm,
        "gradient_checkpointing": settings.gradient_checkpointing,
        "bf16": bf16,
        "use_cpu": not accelerator,
        "logging_steps": settings.log_steps,
        "save_strategy": "steps",
        "save_total_limit": 2,
        "seed": recipe.seed,
        "data_seed": recipe.seed,
        "dataloader_num_workers": workers,
        "dataloader_persistent_workers": workers > 0,
        "dataloader_prefetch_factor": 2 if workers > 0 else None,
        "dataloader_pin_memory": torch.cuda.is_available(),
        # Rows reach our collators untouched.
        "remove_unused_columns": False,
        "report_to": recipe.report_to or "none",
        "run_name": f"{recipe.name}/{output_dir.parent.name}",
        "disable_tqdm": True,
    }


def sft_config(recipe: AVLMMRecipe, stage: StageRecipe, output_dir: Path, bf16: bool) -> SFTConfig:
    """Return the trainer's arguments for a stage of AV-LMMDetect."""
    return SFTConfig(
        **shared_arguments(recipe, stage, output_dir, bf16),
        num_train_epochs=1,
        max_steps=stage.max_steps or -1,
        lr_scheduler_type=stage.lr_scheduler,
        warmup_steps=stage.warmup_share,
        save_steps=stage.save_steps,
        # TRL prepares no sound and no video.
        dataset_kwargs={"skip_prepare_dataset": True},
        max_length=None,
    )


def training_arguments(
    recipe: Recipe,
    training: OptimisationRecipe,
    output_dir: Path,
    steps: int,
    steps_per_epoch: int,
    scored: bool,
) -> TrainingArguments:
    """Return the trainer's arguments for a small detector; `scored` says whether validation chooses the weights."""
    every = min(training.evaluate_steps or steps_per_epoch, steps)
    warmup = training.warmup_steps
    if warmup is None:
        warmup = round(training.warmup_epochs * steps_per_epoch)
    scheduler = {"lr_scheduler_type": training.lr_scheduler}
    if training.lr_scheduler == "linear" and training.lr_end:
        scheduler = {
            "lr_scheduler_type": "polynomial",
            "lr_scheduler_kwargs": {"power": 1.0, "lr_end": training.lr_end * training.learning_rate},
        }
    elif training.lr_scheduler == STABLE:
        scheduler["lr_scheduler_kwargs"] = {"num_decay_steps": training.decay_steps}
    return TrainingArguments(
        **shared_arguments(recipe, training, output_dir, training.bf16),
        **scheduler,
        max_steps=steps,
        warmup_steps=warmup,
        per_device_eval_batch_size=training.batch_size,
        gradient_checkpointing_kwargs={"use_reentrant": False} if training.gradient_checkpointing else None,
        eval_strategy="steps" if scored else "no",
        eval_steps=every,
        save_steps=every,
        load_best_model_at_end=scored,
        metric_for_best_model="auc" if scored else None,
        greater_is_better=True if scored else None,
        label_names=list(LABEL_COLUMNS.values()),
    )


# -- trainers ----------------------------------------------------------------------------------------------------------


class ProgressMixin:
    """
    The progress lines of all runs, for a `Trainer`.

    Args:
        drops ([`DropList`]): Where the collator lists unreadable clips.
        max_drops (`int`): Number of different unreadable clips above which training stops.
        kwargs: As for the trainer.
    """

    def __init__(self, *args, drops: DropList, max_drops: int, **kwargs):
        super().__init__(*args, **kwargs)
        self.remove_callback(PrinterCallback)
        self.progress = Progress(self.args.device, drops, max_drops)
        self.add_callback(self.progress)
        for callback in self.callback_handler.callbacks:
            if isinstance(callback, TensorBoardCallback) and callback.logging_dir is None:
                # Not among the checkpoints, which are deleted at the end.
                callback.logging_dir = str(Path(self.args.output_dir).with_name("tensorboard"))

    def learning_rates(self, rate: float) -> dict[str, float]:
        """Return the rates to log; `rate` is the one that the trainer would log."""
        return {"lr/all": rate}

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs and self.optimizer is not None:
            logs.update(self.learning_rates(logs.pop("learning_rate", self.args.learning_rate)))
            logs.update(self.progress.rates(self.state, self.accelerator.num_processes))
        super().log(logs, start_time)


class AVSFTTrainer(ProgressMixin, SFTTrainer):
    """
    [`~trl.SFTTrainer`] for interleaved sound and picture: the detector's own loss, and a learning rate for each part.

    Args:
        stage ([`StageRecipe`]): The stage to train.
        kwargs: As for [`ProgressMixin`] and `SFTTrainer`.
    """

    def __init__(self, *args, stage: StageRecipe, **kwargs):
        self.stage = stage
        super().__init__(*args, **kwargs)
        self._flops = FlopsCounter(base_detector(self.model))

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        self.progress.count(
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

    def learning_rates(self, rate: float) -> dict[str, float]:
        return {f"lr/{group.get('name', 'all')}": group["lr"] for group in self.optimizer.param_groups}

    def create_model_card(self, *args, **kwargs):
        """Write nothing: checkpoints of a run need no model card, a detector gets its own when it is published."""


class CountingTrainer(ProgressMixin, Trainer):
    """
    `Trainer` that counts clips and operations, and goes on where a batch is empty.

    Args:
        kwargs: As for [`ProgressMixin`] and `Trainer`.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._flops_per_clip: float | None = None

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        if not inputs:
            # Nothing of the batch could be read or made: a loss that changes nothing, so that every process has one.
            loss = sum(p.sum() for p in model.parameters() if p.requires_grad) * 0.0
            return (loss, {}) if return_outputs else loss
        clips = len(inputs["labels"])
        if model.training:
            if self._flops_per_clip is None:
                self._flops_per_clip = count_flops(self.model, inputs) / clips
            # The backward pass computes gradients of inputs and of weights: twice the forward pass.
            self.progress.count(clips=clips, flops=3 * self._flops_per_clip * clips)
        outputs = model(**inputs)
        return (outputs.loss, outputs) if return_outputs else outputs.loss


class DetectorTrainer(CountingTrainer):
    """
    `Trainer` for a small detector, with the overall verdict's AUC on validation.

    Args:
        patience (`int`, *optional*): Stop after this many scorings in a row without improvement.
        kwargs: As for [`ProgressMixin`] and `Trainer`.
    """

    def __init__(self, *args, patience: int | None = None, **kwargs):
        super().__init__(*args, compute_metrics=scores_to_metrics, **kwargs)
        self.preprocess_logits_for_metrics = verdict_logits
        if patience is not None:
            self.add_callback(EarlyStoppingCallback(early_stopping_patience=patience))

    def _determine_best_metric(self, metrics: dict[str, float], trial) -> bool:
        # Of weights with equal AUC `Trainer` keeps the first. The later ones had a lower rate, and know more of picture
        # and sound, even where the overall verdict does not show it.
        if metrics.get("eval_auc") == self.state.best_metric is not None:
            self.state.best_metric = float(np.nextafter(self.state.best_metric, -np.inf))
        return super()._determine_best_metric(metrics, trial)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "eval_auc" in logs:
            parts = [
                f"{name.removeprefix('auc_')} {logs[f'eval_{name}']:.4f}"
                for name in METRICS[1:]
                if f"eval_{name}" in logs
            ]
            shown = f" ({', '.join(parts)})" if parts else ""
            say(f"  step {self.state.global_step:>5}  validation AUC {logs['eval_auc']:.4f}{shown}")
        super().log(logs, start_time)


# -- metrics -------------------------------------------------------------------------------------------------------


def count_flops(model: PreTrainedModel, inputs: dict) -> int:
    """Return the floating-point operations of a forward pass."""
    measured = copy.deepcopy(model).eval()  # leaves the run's random state and running averages alone
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        measured(**inputs)
    return counter.get_total_flops()


def verdict_logits(outputs: torch.Tensor | tuple[torch.Tensor, ...], labels) -> torch.Tensor:
    """
    Return the logits `(batch_size, 3, 2)` of the verdicts: overall, picture and sound.

    A network without heads for picture and sound gives `(batch_size, 1, 2)`; `Trainer` takes its only output out of its
    tuple.
    """
    if isinstance(outputs, torch.Tensor):
        outputs = (outputs,)
    return torch.stack(outputs[: 3 if len(outputs) >= 3 else 1], dim=1)


def scores_to_metrics(prediction) -> dict[str, float]:
    """
    Return the AUC of the verdicts: `auc` overall (0 where undefined), `auc_picture` and `auc_sound` where defined.

    Clips without a label, and clips that were not judged, are left out.
    """
    found = {}
    verdicts = np.moveaxis(np.asarray(prediction.predictions, dtype=np.float64), 1, 0)
    for name, labels, logits in zip(METRICS, prediction.label_ids, verdicts, strict=False):
        scores = logits[:, 1] - logits[:, 0]
        known = (labels != IGNORE_INDEX) & np.isfinite(scores)
        if len(set(labels[known].tolist())) == 2:
            found[name] = float(roc_auc_score(labels[known], scores[known]))
    return {"auc": 0.0, **found}
