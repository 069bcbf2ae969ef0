"""A regularised linear classifier, always read on prompts that it was not fitted on, for many labellings at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from forethought.analysis.divergence.subspace import Array

Bools = np.ndarray[Any, np.dtype[np.bool_]]
Ints = np.ndarray[Any, np.dtype[np.int64]]
FOLDS = 10


def numbered(goals: Sequence[str]) -> Ints:
    """A number for each row, the same for rows on the same goal."""
    places = {goal: i for i, goal in enumerate(dict.fromkeys(goals))}
    return np.array([places[g] for g in goals], dtype=np.int64)


def folds(goals: Ints, kinds: Sequence[object], rng: np.random.Generator, count: int = FOLDS) -> Ints:
    """The fold of each row: all rows on one goal are in one fold, and each fold has its share of every kind of goal, a kind being the set
    of its rows' `kinds` (the sides that they stand on)."""
    members: dict[int, set[str]] = {}
    for goal, kind in zip(goals.tolist(), kinds, strict=True):
        members.setdefault(goal, set()).add(str(kind))
    sorts: dict[tuple[str, ...], list[int]] = {}
    for goal, found in members.items():
        sorts.setdefault(tuple(sorted(found)), []).append(goal)
    placed: dict[int, int] = {}
    for sort in sorted(sorts):
        order = [sorts[sort][i] for i in rng.permutation(len(sorts[sort]))]
        placed |= {goal: (len(placed) + i) % count for i, goal in enumerate(order)}
    return np.array([placed[g] for g in goals.tolist()], dtype=np.int64)


def held_out(rows: Array, yes: Bools, fold: Ints, fitted: Bools | None = None) -> Array:
    """Margins [rows, labellings]: for each row, by a classifier fitted on the rows of the other folds. `yes` [rows, labellings].

    Ridge regression on +1 and -1 with an intercept: Fisher's discriminant with a shrunk covariance. The penalty is the mean eigenvalue
    of the training rows' scatter, so it fades as rows are added; the threshold is midway between the classes' mean margins, so that a
    large class does not draw it. Only rows in `fitted` are learned from, if given. 0 where a class is empty or nothing varies.
    """
    fitted = np.ones(len(rows), dtype=bool) if fitted is None else fitted
    margins = np.zeros(yes.shape)
    for at in np.unique(fold):
        train, test = fitted & (fold != at), fold == at
        if train.any():
            margins[test] = _fit(rows[train], yes[train], rows[test])
    return margins


def _fit(rows: Array, yes: Bools, others: Array) -> Array:
    """Margins of `others`."""
    mean = rows.mean(0)
    centred = rows - mean
    scatter = centred.T @ centred
    penalty = float(np.trace(scatter)) / len(rows)
    if penalty <= 0:
        return np.zeros((len(others), yes.shape[1]))
    target = np.where(yes, 1.0, -1.0)
    weights = np.linalg.solve(scatter + penalty * np.eye(len(scatter)), centred.T @ (target - target.mean(0)))
    own = centred @ weights
    number = np.stack([yes.sum(0), (~yes).sum(0)]).astype(float)
    middle = ((own * yes).sum(0) / np.maximum(number[0], 1) + (own * ~yes).sum(0) / np.maximum(number[1], 1)) / 2
    found: Array = np.where(number.min(0) > 0, (others - mean) @ weights - middle, 0.0)
    return found


def wrong(margins: Array, yes: Bools) -> Array:
    """1 for a row on the wrong side of the threshold, 0.5 on it."""
    sign = np.sign(margins)
    return np.where(sign == 0, 0.5, np.where((sign > 0) == yes, 0.0, 1.0))
