"""Training on pairs, a genuine sample beside a fake of it: the loss, the average of weights, and the trainer."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from itertools import islice

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.metrics import roc_auc_score
from torch import nn
from transformers import TrainerCallback
from transformers.modeling_outputs import SequenceClassifierOutput

from ..modeling_facevoice import FaceVoiceForDeepfakeDetection
from .genuine_recipe import PairsRecipe
from .progress import say
from .trainers import CountingTrainer

LogOdds = Callable[[FaceVoiceForDeepfakeDetection, dict], torch.Tensor]


class PairTraining(nn.Module):
    """
    A detector of which one network trains, and the average of its weights.

    Training computes with the weights themselves, scoring with their average: an exponential one (Polyak and Juditsky, SIAM
    J. Control Optim. 1992, in the form of Tarvainen and Valpola, NeurIPS 2017), running statistics of norms included.

    Args:
        detector ([`FaceVoiceForDeepfakeDetection`]): The detector; what does not train has no gradients.
        log_odds (`Callable`): Gives the log-odds of fake of a detector for a batch, shape `(N,)`.
        settings ([`PairsRecipe`]): Losses and decay.
    """

    def __init__(self, detector: FaceVoiceForDeepfakeDetection, log_odds: LogOdds, settings: PairsRecipe):
        super().__init__()
        self.detector = detector
        self.averaged = copy.deepcopy(detector).requires_grad_(False) if settings.average else None
        self.log_odds, self.settings = log_odds, settings
        trained = {name for name, weight in detector.named_parameters() if weight.requires_grad}
        self.moving = sorted({name.split(".")[0] for name in trained})

    @property
    def best(self) -> FaceVoiceForDeepfakeDetection:
        """The detector that is scored and kept."""
        return self.detector if self.averaged is None else self.averaged

    def train(self, mode: bool = True) -> PairTraining:
        super().train(mode)
        if self.averaged is not None:
            self.averaged.eval()
        for name, part in self.detector.named_children():
            if name not in self.moving:
                part.eval()  # its norms keep their statistics
        if self.settings.freeze_norms:
            for module in self.detector.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        return self

    def forward(
        self, labels: torch.Tensor, groups: torch.Tensor | None = None, **inputs
    ) -> SequenceClassifierOutput:
        """
        Return the loss and the log-odds of a batch.

        Args:
            labels (`torch.Tensor` of shape `(N,)`): 0 and 1, those of a pair one after the other.
            groups (`torch.Tensor` of shape `(N,)`, *optional*): Numbers of the samples, for metrics.
            inputs: Inputs of `log_odds`.
        """
        log_odds = self.log_odds(self.detector if self.training else self.best, inputs)
        smoothing = self.settings.label_smoothing
        targets = labels.to(log_odds.dtype) * (1 - smoothing) + smoothing / 2
        loss = F.binary_cross_entropy_with_logits(log_odds, targets)
        if self.settings.rank_weight:
            genuine, fake = log_odds[0::2], log_odds[1::2]
            if self.settings.rank_over == "batch":
                genuine = genuine[:, None]
            loss = loss + self.settings.rank_weight * F.softplus(genuine - fake).mean()
        return SequenceClassifierOutput(loss=loss, logits=log_odds)

    @torch.no_grad()
    def update_average(self, step: int) -> None:
        """Move the average towards the weights after step number `step`; early steps count for more."""
        if self.averaged is None:
            return
        decay = min(self.settings.average, (1 + step) / (12 + step))
        for name in self.moving:
            pairs = zip(
                self.averaged.get_submodule(name).state_dict().values(),
                self.detector.get_submodule(name).state_dict().values(),
                strict=True,
            )
            for kept, now in pairs:
                if kept.is_floating_point():
                    kept.lerp_(now, 1 - decay)
                else:
                    kept.copy_(now)


NORM_BATCHES = 16
"""Batches that statistics of norms are measured on; our own choice."""


@torch.no_grad()
def measure_norms(training: PairTraining, batches: Iterable[dict]) -> None:
    """
    Set the statistics of the batch norms that train to those of the first batches, in the network and in its average.

    Args:
        training ([`PairTraining`]): The detector.
        batches (`Iterable[dict]`): Batches of the collator.
    """
    norms = [
        module
        for name in training.moving
        for module in training.detector.get_submodule(name).modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm)
    ]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean over the batches
        norm.train()
    for batch in islice((batch for batch in batches if batch), NORM_BATCHES):
        inputs = {name: values for name, values in batch.items() if name not in ("labels", "groups")}
        training.log_odds(training.detector, inputs)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        norm.eval()
    if training.averaged is not None:
        training.averaged.load_state_dict(training.detector.state_dict())


class Averaging(TrainerCallback):
    """Moves the average of weights after every step."""

    def on_step_end(self, args, state, control, model: PairTraining | None = None, **kwargs):
        model.update_average(state.global_step)


class PairTrainer(CountingTrainer):
    """
    `Trainer` for [`PairTraining`], with the AUC on made fakes of held-out people.

    Args:
        kwargs: As for [`ProgressMixin`] and `Trainer`.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, compute_metrics=pair_metrics, **kwargs)
        self.add_callback(Averaging())

    def create_optimizer(self, model=None):
        if self.optimizer is None:
            model = self.model if model is None else model
            optimizer_class, options = self.get_optimizer_cls_and_kwargs(self.args, model)
            trained = [weight for weight in model.parameters() if weight.requires_grad]
            # Biases and norms are not decayed.
            groups = [
                {"params": [w for w in trained if w.ndim > 1], "weight_decay": self.args.weight_decay},
                {"params": [w for w in trained if w.ndim <= 1], "weight_decay": 0.0},
            ]
            self.optimizer = optimizer_class(groups, **options)
        return self.optimizer

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "eval_auc" in logs:
            say(
                f"  step {self.state.global_step:>5}  made fakes of held-out people: AUC {logs['eval_auc']:.4f}, "
                f"{logs['eval_pairs']:.1%} of pairs in order"
            )
        super().log(logs, start_time)


def pair_metrics(prediction) -> dict[str, float]:
    """
    Return `auc` over all samples, and `pairs`: the share of samples of which fakes score higher, on average, than the genuine.
    """
    labels, groups = (np.asarray(values) for values in prediction.label_ids)
    scores = np.asarray(prediction.predictions, dtype=np.float64)
    ahead = [
        scores[(groups == group) & (labels == 1)].mean() > scores[(groups == group) & (labels == 0)].mean()
        for group in np.unique(groups)
    ]
    return {"auc": float(roc_auc_score(labels, scores)), "pairs": float(np.mean(ahead))}
