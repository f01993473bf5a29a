"""Scores of clips from fits that have not seen their group: folds by group, and the classifiers of file properties."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from sklearn.base import ClassifierMixin
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

FOLDS = 5
FEWEST_CLIPS = 10
"""Clips of each class, below which nothing is measured."""
MODELS = ("logistic regression", "boosted trees")
"""Classifiers of all properties together."""

Folds = list[tuple[np.ndarray, np.ndarray]]
HeldOutScore = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Takes places to fit on and places to score, and returns P(fake) of the latter."""


def why_not_held_out(labels: np.ndarray, groups: np.ndarray) -> str | None:
    """Return the reason why held-out scores of these clips are impossible, or None."""
    for label, name in enumerate(("real", "fake")):
        held = labels == label
        if held.sum() < FEWEST_CLIPS:
            return f"{held.sum()} {name} clips; at least {FEWEST_CLIPS} are needed"
        if len(set(groups[held].tolist())) < 2:
            return f"the {name} clips are all of one identity or source"
    return None


def group_folds(labels: np.ndarray, groups: np.ndarray, seed: int = 0) -> Folds:
    """Return places to fit on and to score: groups are kept whole, and every fit has both classes."""
    fewest = min(len(set(groups[labels == label].tolist())) for label in (0, 1))
    dealer = StratifiedGroupKFold(min(FOLDS, fewest), shuffle=True, random_state=seed)
    folds = dealer.split(np.zeros(len(labels)), labels, groups)
    return [(fit, held) for fit, held in folds if len(set(labels[fit].tolist())) == 2]


def held_out_scores(number: int, folds: Folds, score: HeldOutScore) -> np.ndarray:
    """Return a score of each clip from a fit without its group; 0.5 if no fit without it was possible."""
    scores = np.full(number, 0.5)
    for fit, held in folds:
        scores[held] = score(fit, held)
    return scores


def model_scores(
    model: str, matrix: np.ndarray, labels: np.ndarray, fit: np.ndarray, held: np.ndarray
) -> np.ndarray:
    """
    Return P(fake) of some clips from a classifier fitted on others, with both classes counted as equally frequent.

    Args:
        model (`str`): One of [`MODELS`].
        matrix (`np.ndarray` of shape `(n, d)`): Properties of all clips; NaN: unknown.
        labels (`np.ndarray` of shape `(n,)`): 0 real, 1 fake.
        fit, held (`np.ndarray`): Places to fit on and to score.
    """
    estimator = _classifier(model, labels[fit]).fit(matrix[fit], labels[fit])
    return estimator.predict_proba(matrix[held])[:, 1]


def _classifier(model: str, labels: np.ndarray) -> ClassifierMixin:
    if model == "logistic regression":
        return make_pipeline(
            SimpleImputer(strategy="median", add_indicator=True, keep_empty_features=True),
            StandardScaler(),
            LogisticRegression(C=0.1, class_weight="balanced", max_iter=2000),
        )
    leaf = int(np.clip(np.bincount(labels, minlength=2).min() // 5, 2, 20))
    return HistGradientBoostingClassifier(
        max_iter=100,
        max_leaf_nodes=8,
        min_samples_leaf=leaf,
        class_weight="balanced",
        early_stopping=False,
        random_state=0,
    )
