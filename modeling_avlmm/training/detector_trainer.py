"""The trainer of the small detectors: `transformers.Trainer` that scores its validation clips and tells its progress."""

import copy

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from torch.utils.flop_counter import FlopCounterMode
from transformers import EarlyStoppingCallback, PreTrainedModel, PrinterCallback, Trainer

from ..configuration_detector import IGNORE_INDEX
from .collator import DropList
from .progress import Progress
from .run_folder import say

METRICS = ("auc", "auc_picture", "auc_sound")


class DetectorTrainer(Trainer):
    """
    `Trainer` with the overall verdict's AUC on validation, and the progress lines of all runs.

    Args:
        drops ([`DropList`]): Where the collator lists unreadable clips.
        max_drops (`int`): Different unreadable clips after which training stops.
        patience (`int`, *optional*): Scorings without improvement after which it ends.
        kwargs: As for `Trainer`.
    """

    def __init__(self, *args, drops: DropList, max_drops: int, patience: int | None = None, **kwargs):
        super().__init__(*args, compute_metrics=scores_to_metrics, **kwargs)
        self.preprocess_logits_for_metrics = verdict_logits
        self.remove_callback(PrinterCallback)
        self._progress = Progress(self.args.device, drops, max_drops)
        self.add_callback(self._progress)
        if patience is not None:
            self.add_callback(EarlyStoppingCallback(early_stopping_patience=patience))
        self._flops_per_clip: float | None = None

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        if not inputs:
            # Nothing of the batch could be read: a loss that changes nothing, for every process to have one.
            loss = sum(p.sum() for p in model.parameters() if p.requires_grad) * 0.0
            return (loss, {}) if return_outputs else loss
        clips = len(inputs["labels"])
        if model.training:
            if self._flops_per_clip is None:
                self._flops_per_clip = count_flops(self.model, inputs) / clips
            # The backward pass computes gradients of inputs and of weights: twice the forward pass.
            self._progress.count(clips=clips, flops=3 * self._flops_per_clip * clips)
        outputs = model(**inputs)
        return (outputs.loss, outputs) if return_outputs else outputs.loss

    def _determine_best_metric(self, metrics: dict[str, float], trial) -> bool:
        # Of weights with equal AUC `Trainer` keeps the first. The later ones had a lower rate and know more of picture and
        # sound, which the overall verdict need not show.
        if metrics.get("eval_auc") == self.state.best_metric is not None:
            self.state.best_metric = float(np.nextafter(self.state.best_metric, -np.inf))
        return super()._determine_best_metric(metrics, trial)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs:
            logs["lr/all"] = logs.pop("learning_rate", self.args.learning_rate)
            logs.update(self._progress.rates(self.state, self.accelerator.num_processes))
        if "eval_auc" in logs:
            parts = [
                f"{name.removeprefix('auc_')} {logs[f'eval_{name}']:.4f}"
                for name in METRICS[1:]
                if f"eval_{name}" in logs
            ]
            shown = f" ({', '.join(parts)})" if parts else ""
            say(f"  step {self.state.global_step:>5}  validation AUC {logs['eval_auc']:.4f}{shown}")
        super().log(logs, start_time)


def count_flops(model: PreTrainedModel, inputs: dict) -> int:
    """Floating-point operations of a forward pass."""
    measured = copy.deepcopy(model).eval()  # the run's own random state and running averages stay as they are
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        measured(**inputs)
    return counter.get_total_flops()


def verdict_logits(outputs: torch.Tensor | tuple[torch.Tensor, ...], labels) -> torch.Tensor:
    """
    Logits `(batch_size, 3, 2)` of the overall verdict, the picture's and the sound's; `(batch_size, 1, 2)` of a network
    without heads for those, whose only output `Trainer` takes out of its tuple.
    """
    if isinstance(outputs, torch.Tensor):
        outputs = (outputs,)
    return torch.stack(outputs[: 3 if len(outputs) >= 3 else 1], dim=1)


def scores_to_metrics(prediction) -> dict[str, float]:
    """
    AUC of the verdicts: `auc` overall (0 where it cannot be told), and `auc_picture` and `auc_sound` where they can.

    What has no label, and what was not judged, is left out.
    """
    found = {}
    verdicts = np.moveaxis(np.asarray(prediction.predictions, dtype=np.float64), 1, 0)
    for name, labels, logits in zip(METRICS, prediction.label_ids, verdicts, strict=False):
        scores = logits[:, 1] - logits[:, 0]
        known = (labels != IGNORE_INDEX) & np.isfinite(scores)
        if len(set(labels[known].tolist())) == 2:
            found[name] = float(roc_auc_score(labels[known], scores[known]))
    return {"auc": 0.0, **found}
