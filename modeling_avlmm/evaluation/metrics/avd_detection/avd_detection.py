"""Metrics of audio-visual deepfake detection, for `evaluate.load`."""

import datasets
import evaluate

from .bootstrap import cluster_bootstrap
from .detection import SureScores, detection_metrics

# `evaluate` copies the modules that this script imports into its cache, but nothing that those import in turn: so
# `bootstrap` is imported here. It reads import lines as text, and takes a comment behind one for the module's address.
__all__ = ["AVDetection", "cluster_bootstrap"]

_DESCRIPTION = """
Metrics of a detector of audio-visual deepfakes: ranking (AUC, average precision of either class, EER, false alarms at
a given recall), verdicts at a threshold (accuracy, balanced accuracy, recalls, beside the accuracy of always giving
the commoner class), calibration (Brier score, ECE), and bootstrap intervals over clusters of clips. Fake is the
positive class. A metric that the clips do not define is None, with the reason, never NaN.
"""

_KWARGS_DESCRIPTION = """
Args:
    predictions (`list[float]`): P(fake) of each clip, in [0, 1].
    references (`list[int]`): 0 real, 1 fake.
    log_odds (`list[float]`): Log-odds of each prediction, by which equal predictions are ranked: from 37 on they are all 1.
    threshold (`float`): Score from which a clip is called fake. Defaults to 0.5.
    groups (`list`): Cluster of each clip, say its identity, in the order of the predictions; None: one of its own.
    n_resamples (`int`): Bootstrap resamples for intervals. Defaults to 0, no intervals.
    confidence (`float`): Confidence of the intervals. Defaults to 0.95.
    seed (`int`): Seed of the resampling. Defaults to 0.
    max_fpr (`float`): Adds `partial_auc`, the standardized area up to this false positive rate.

Returns:
    `dict`: auc, ap_fake, ap_real, map_macro, eer, accuracy, accuracy_argmax, balanced_accuracy, recall_fake,
    recall_real, fpr_at_90_tpr, fpr_at_95_tpr, fpr_at_99_tpr, tpr_at_1_fpr, brier, ece, prior_accuracy, n, n_real,
    n_fake, threshold; undefined, partial_auc and ci where they apply.

Examples:
    >>> metric = evaluate.load("path/to/avd_detection")
    >>> results = metric.compute(references=[0, 0, 1, 1], predictions=[0.1, 0.6, 0.4, 0.9])
    >>> results["auc"], results["balanced_accuracy"]
    (0.75, 0.5)
"""

_CITATION = """
@article{scikit-learn,
  title   = {Scikit-learn: Machine Learning in {P}ython},
  author  = {Pedregosa, F. and Varoquaux, G. and Gramfort, A. and Michel, V. and Thirion, B. and Grisel, O. and
             Blondel, M. and Prettenhofer, P. and Weiss, R. and Dubourg, V. and Vanderplas, J. and Passos, A. and
             Cournapeau, D. and Brucher, M. and Perrot, M. and Duchesnay, E.},
  journal = {Journal of Machine Learning Research},
  volume  = {12},
  pages   = {2825--2830},
  year    = {2011}
}
"""


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS_DESCRIPTION)
class AVDetection(evaluate.Metric):
    def _info(self):
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            # float32 would turn different scores near 0 and 1 into ties.
            features=datasets.Features(
                {"predictions": datasets.Value("float64"), "references": datasets.Value("int32")}
            ),
            reference_urls=["https://scikit-learn.org/stable/modules/model_evaluation.html"],
        )

    def _compute(self, predictions, references, log_odds=None, **options):
        scores = predictions if log_odds is None else SureScores(predictions, log_odds)
        return detection_metrics(references, scores, **options)
