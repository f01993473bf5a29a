"""Evaluation results in the Hub's own form: files in `.eval_results/`, which the Hub shows on the pages of model and dataset.

Format: https://huggingface.co/docs/hub/eval-results. The older `model-index` of the card holds all numbers.
"""

from pathlib import Path

import yaml
from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml

from .card import HUB_DATASETS

FOLDER = ".eval_results"


def eval_result_entries(reports: list[dict]) -> list[EvalResultEntry]:
    """
    Return an entry for the AUC of each report on a dataset of the Hub.

    An entry names its dataset by the Hub's id. Reports on other corpora, and on the synthetic benchmark in the layout of
    one, have none, and so have reports without an AUC.
    """
    entries = []
    for report in reports:
        dataset = HUB_DATASETS.get(report["dataset"])
        overall = report["overall"] or {}
        if dataset is None or report.get("synthetic") or overall.get("auc") is None:
            continue
        clips = f"{overall['n']} clips, {overall['n_fake']} of them fake"
        unreadable = len(report["unreadable"])
        left_out = f"; {unreadable} unreadable, in no number" if unreadable else ""
        entries.append(
            EvalResultEntry(
                dataset_id=dataset,
                task_id=report["protocol"],
                value=round(overall["auc"], 6),
                date=report["date"],
                notes=f"AUC of the overall score, fake against real; split {report['split']}; {clips}{left_out}",
            )
        )
    return entries


def write_eval_results(folder: Path, reports: list[dict]) -> None:
    """Write `.eval_results/DATASET.yaml` for each dataset of the Hub that the reports are about."""
    entries = eval_result_entries(reports)
    for dataset in dict.fromkeys(entry.dataset_id for entry in entries):
        path = folder / FOLDER / f"{dataset.rpartition('/')[2].lower()}.yaml"
        path.parent.mkdir(exist_ok=True)
        of_dataset = [entry for entry in entries if entry.dataset_id == dataset]
        text = yaml.safe_dump(eval_result_entries_to_yaml(of_dataset), sort_keys=False, allow_unicode=True)
        path.write_text(text, encoding="utf-8")
