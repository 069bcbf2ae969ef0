"""Distances between two sets of hidden states: the proxy A-distance and the maximum mean discrepancy, with p values by relabelling.

Rows of two sets may be on the same goals (a request, and the same under an attack). Such rows depend on one another, so goals are what
is folded, relabelled and drawn anew, and no two rows on one goal are compared.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from forethought.analysis.divergence.classify import Bools, Ints, folds, held_out, numbered, wrong
from forethought.analysis.divergence.subspace import Array
from forethought.analysis.rates import wilson
from forethought.analysis.resampling import ratio_interval
from forethought.records import Record

# Fewer goals than this on a side give no number.
LEAST = 8
# Relabellings behind a p value; rows a side of the kernel, which is a square of them; and random halves behind a floor.
SHUFFLES, RELABELLED, KERNEL_ROWS, SPLITS = 199, 999, 1000, 20
DIGITS = 6


class Side(NamedTuple):
    """Rows [n, k] and the goal of each."""

    rows: Array
    goals: Sequence[str]


class Distance(Record):
    """How far two sets of rows lie apart. `goals` are on one side or both, `shared` on both.

    `pad`: proxy A-distance 2(1 - 2e), e the mean of the two sides' held-out error rates, with a 95% interval over goals; 0 is
    the same, 2 wholly apart, and below 0 worse than chance. `shuffled` and `shuffled_high` are its mean and 95th percentile when goals
    change sides at random, `pad_p` the p value that this gives. `mmd`: squared maximum mean discrepancy, unbiased, so it may be below 0,
    over `kernel_rows` rows; `mmd_p` by relabelling. All None where a side has fewer than LEAST goals.
    """

    first: str
    second: str
    n_first: int
    n_second: int
    goals: int
    shared: int
    pad: float | None = None
    pad_low: float | None = None
    pad_high: float | None = None
    shuffled: float | None = None
    shuffled_high: float | None = None
    pad_p: float | None = None
    mmd: float | None = None
    mmd_p: float | None = None
    kernel_rows: int = 0


class Floor(Record):
    """What the distances are between two halves of one set, its goals dealt at random `splits` times: mean and 95th percentile.
    A distance that does not exceed it is no evidence. The halves are smaller than what is compared elsewhere."""

    of: str
    n: int
    splits: int
    pad: float | None = None
    pad_high: float | None = None
    mmd: float | None = None
    mmd_high: float | None = None


def distance(first: tuple[str, Side], second: tuple[str, Side], rng: np.random.Generator) -> Distance:
    """Everything about two named sides. The same generator state gives the same bits."""
    (a, left), (b, right) = first, second
    goals, on = numbered([*left.goals, *right.goals]), _sides(left, right)
    both = set(left.goals) & set(right.goals)
    found = Distance(
        first=a, second=b, n_first=len(left.goals), n_second=len(right.goals), goals=len(set(goals.tolist())), shared=len(both)
    )  # fmt: skip
    if min(len(set(left.goals)), len(set(right.goals))) < LEAST:
        return found
    rows = np.concatenate([left.rows, right.rows])
    labels = np.column_stack([on, relabelled(on, goals, SHUFFLES, rng)])
    fold = folds(goals, on.tolist(), rng)
    errors = wrong(held_out(rows, labels, fold), labels)
    pads = _pad(errors, labels)
    low, high = _interval(errors[:, 0], on, goals)
    kept = kernel_sample(on, goals, rng)
    kernel = _kernel(rows[kept], goals[kept])
    mmds = _mmd(kernel, goals[kept], np.column_stack([on[kept], relabelled(on[kept], goals[kept], RELABELLED, rng)]))
    return found.model_copy(
        update={
            "pad": tidy(pads[0]),
            "pad_low": low,
            "pad_high": high,
            "shuffled": tidy(pads[1:].mean()),
            "shuffled_high": tidy(np.quantile(pads[1:], 0.95)),
            "pad_p": _p(pads),
            "mmd": tidy(mmds[0]),
            "mmd_p": _p(mmds),
            "kernel_rows": int(kept.sum()),
        }
    )


def floor(of: str, side: Side, rng: np.random.Generator) -> Floor:
    """The distances between halves of one side."""
    goals = numbered(side.goals)
    number = int(goals.max(initial=-1)) + 1
    found = Floor(of=of, n=len(side.goals), splits=SPLITS)
    if number < 2 * LEAST:
        return found
    pads, mmds = [], []
    for _ in range(SPLITS):
        half = np.zeros(number, dtype=bool)
        half[rng.permutation(number)[: number // 2]] = True
        on = half[goals][:, None]
        errors = wrong(held_out(side.rows, on, folds(goals, on[:, 0].tolist(), rng)), on)
        kept = kernel_sample(on[:, 0], goals, rng)
        pads.append(_pad(errors, on)[0])
        mmds.append(_mmd(_kernel(side.rows[kept], goals[kept]), goals[kept], on[kept])[0])
    means = {"pad": tidy(np.mean(pads)), "mmd": tidy(np.mean(mmds))}
    highs = {"pad_high": tidy(np.quantile(pads, 0.95)), "mmd_high": tidy(np.quantile(mmds, 0.95))}
    return found.model_copy(update=means | highs)


def relabelled(on: Bools, goals: Ints, times: int, rng: np.random.Generator) -> Bools:
    """[rows, times] sides as they might as well have been: a goal on both sides swaps them or not; goals on one side are dealt anew."""
    number = int(goals.max()) + 1
    left, right = (np.bincount(goals[on == side], minlength=number) > 0 for side in (True, False))
    swap = rng.random((number, times)) < 0.5
    alone = np.flatnonzero(left ^ right)
    dealt = np.zeros((number, times), dtype=bool)
    for i in range(times):
        dealt[alone, i] = left[alone][rng.permutation(len(alone))]
    paired = (left & right)[goals][:, None]
    return np.where(paired, on[:, None] ^ swap[goals], dealt[goals])


def kernel_sample(on: Bools, goals: Ints, rng: np.random.Generator) -> Bools:
    """Whole goals, until a side would have more than KERNEL_ROWS rows; all rows where that is never so."""
    number = int(goals.max()) + 1
    order = rng.permutation(number)
    counts = np.stack([np.bincount(goals[on == side], minlength=number)[order] for side in (True, False)]).cumsum(1)
    kept = np.zeros(number, dtype=bool)
    kept[order[counts.max(0) <= KERNEL_ROWS]] = True
    return kept[goals]


def tidy(value: float) -> float:
    """Six significant digits: more would depend on the order in which a machine adds up."""
    return float(f"{float(value):.{DIGITS}g}")


def _sides(left: Side, right: Side) -> Bools:
    return np.array([True] * len(left.goals) + [False] * len(right.goals))


def _pad(errors: Array, on: Bools) -> Array:
    """2(1 - 2e) of each labelling (Ben-David et al. 2010, Machine Learning 79:151, section 4)."""
    mean = [(errors * side).sum(0) / np.maximum(side.sum(0), 1) for side in (on, ~on)]
    found: Array = 2 * (1 - (mean[0] + mean[1]))
    return found


def _interval(errors: Array, on: Bools, goals: Ints) -> tuple[float, float]:
    """95% of the proxy A-distance, each side weighing half: on each side the wider of the bootstrap's over goals and of Wilson's for as
    many trials as there are goals, since the bootstrap has no width where there are no errors. The classifiers are taken as they are."""
    weight = np.where(on, 0.5 / on.sum(), 0.5 / (~on).sum())
    sums, number = np.bincount(goals, weight * errors), len(np.unique(goals))
    drawn = ratio_interval(sums.tolist(), np.bincount(goals, weight).tolist())
    counted = wilson(float(sums.sum()) * number, number)
    found = [bounds for bounds in (drawn, counted) if bounds is not None]
    return tidy(2 - 4 * max(high for _, high in found)), tidy(2 - 4 * min(low for low, _ in found))


def _kernel(rows: Array, goals: Ints) -> Array:
    """Gaussian kernel, 0 between rows on one goal. Its width is the median distance of the others (Gretton et al. 2012, JMLR 13:723,
    section 8)."""
    squares = (rows**2).sum(1)
    apart = np.maximum(squares[:, None] + squares[None] - 2 * rows @ rows.T, 0.0)
    counted = goals[:, None] != goals[None]
    width = float(np.median(apart[counted])) if counted.any() else 0.0
    return np.where(counted, np.exp(-apart / (2 * width)) if width > 0 else 1.0, 0.0)


def _mmd(kernel: Array, goals: Ints, on: Bools) -> Array:
    """The unbiased squared discrepancy of each labelling (Gretton et al. 2012, equation 3), over pairs on different goals only, so that
    it is unbiased for paired sides too."""
    left, right = on.astype(float), (~on).astype(float)
    order = goals.argsort(kind="stable")
    first = np.flatnonzero(np.diff(goals[order], prepend=-1))
    of_left, of_right = (np.add.reduceat(side[order], first) for side in (left, right))
    from_left = kernel @ left
    from_right = kernel.sum(1)[:, None] - from_left

    def mean(side: Array, near: Array, a: Array, b: Array) -> Array:
        pairs = a.sum(0) * b.sum(0) - (a * b).sum(0)
        found: Array = (side * near).sum(0) / np.maximum(pairs, 1)
        return found

    within = mean(left, from_left, of_left, of_left) + mean(right, from_right, of_right, of_right)
    return within - 2 * mean(right, from_left, of_left, of_right)


def _p(values: Array) -> float:
    """The share of labellings, the true one included, that are at least as far apart as the true one."""
    least = values[0] - 1e-9 * max(1.0, math.fabs(values[0]))
    return tidy(float((values >= least).sum()) / len(values))
