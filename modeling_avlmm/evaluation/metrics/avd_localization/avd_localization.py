"""Metrics of the temporal localization of deepfakes, for `evaluate.load`."""

import datasets
import evaluate

from .localization import localization_metrics

_DESCRIPTION = """
Average precision at temporal IoU thresholds (AP@IoU) and average recall of the N most confident proposals (AR@N) of
fake segments in audio-visual files, as in the tables of LAV-DF and AV-Deepfake1M and in the 1M-Deepfakes Detection
Challenge.
"""

_KWARGS_DESCRIPTION = """
Args:
    predictions (`list[list[list[float]]]`): For each file its proposals, `[confidence, start, end]`, in seconds.
    references (`list[list[list[float]]]`): For each file its fake segments, `[start, end]`; empty if genuine.
    benchmark (`str`): `"av_deepfake1m"` (default) or `"lav_df"`: thresholds and numbers of the tables.
    ap_iou_thresholds (`list[float]`): Instead of the benchmark's.
    ar_n_proposals (`list[int]`): Instead of the benchmark's.
    sdk_compatible (`bool`): Count as the authors' published code does. Defaults to True.
    groups (`list`): Cluster of each file, say its identity, for intervals; None: one of its own.
    n_resamples (`int`): Bootstrap resamples for intervals. Defaults to 0, no intervals.
    confidence (`float`): Confidence of the intervals. Defaults to 0.95.
    seed (`int`): Seed of the resampling. Defaults to 0.

Returns:
    `dict`: `ap@<IoU>`, `ar@<N>`, score (of the challenge), n_files, n_segments, n_proposals,
    n_files_without_proposals, benchmark, sdk_compatible; undefined and ci where they apply.

Examples:
    >>> metric = evaluate.load("path/to/avd_localization")
    >>> results = metric.compute(
    ...     references=[[[1.0, 2.0]], [[4.0, 4.5]], []],
    ...     predictions=[[[0.9, 1.0, 2.0]], [[0.8, 4.0, 5.0]], [[0.1, 0.0, 1.0]]],
    ...     benchmark="lav_df",
    ...     sdk_compatible=False,
    ... )
    >>> results["ap@0.5"], results["ar@10"]
    (0.5, 0.5)
"""

_CITATION = """
@article{cai2023avdeepfake1m,
  title   = {AV-Deepfake1M: A Large-Scale LLM-Driven Audio-Visual Deepfake Dataset},
  author  = {Cai, Zhixi and Ghosh, Shreya and Adatia, Aman Pankaj and Hayat, Munawar and Dhall, Abhinav and Gedeon, Tom
             and Stefanov, Kalin},
  journal = {arXiv preprint arXiv:2311.15308},
  year    = {2023}
}
@inproceedings{cai2022you,
  title     = {Do You Really Mean That? Content Driven Audio-Visual Deepfake Dataset and Multimodal Method for Temporal
               Forgery Localization},
  author    = {Cai, Zhixi and Stefanov, Kalin and Dhall, Abhinav and Hayat, Munawar},
  booktitle = {International Conference on Digital Image Computing: Techniques and Applications (DICTA)},
  year      = {2022}
}
"""


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS_DESCRIPTION)
class AVLocalization(evaluate.Metric):
    def _info(self):
        rows = datasets.Sequence(datasets.Sequence(datasets.Value("float64")))
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            features=datasets.Features({"predictions": rows, "references": rows}),
            reference_urls=[
                "https://github.com/ControlNet/AV-Deepfake1M",
                "https://github.com/ControlNet/LAV-DF",
            ],
        )

    def _compute(self, predictions, references, **options):
        return localization_metrics(references, predictions, **options)
