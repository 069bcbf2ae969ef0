"""ROC: how well a score parts two classes, without a threshold. Pure functions over (prompt, score) pairs.

An unscored pair (None) is counted, and left out of every value but the bounds. Attempts on the same prompt are not independent, so
whatever is drawn anew is prompts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from forethought.analysis.rates import Z95, edge
from forethought.analysis.resampling import draws, middle
from forethought.records import Record

RESAMPLES = 1000
Array = np.ndarray[Any, np.dtype[np.float64]]
Side = Sequence[tuple[str, float | None]]
Bounds = tuple[float | None, float | None]


class Sides(NamedTuple):
    """(prompt, score) of the attempts that should score high, and of those that should score low."""

    positive: Side
    negative: Side


class Auroc(Record):
    """P(score of a positive > score of a negative), ties counting half, with a 95% interval.

    `positives` and `negatives` were scored, `unscored` were not; `prompts` is how many prompts they are on. `lowest` and `highest` are the
    values if all unscored had been wrong or right. Everything is None where a class is empty; `low` and `high` also where a class
    has one prompt only.
    """

    positives: int
    negatives: int
    unscored: int
    prompts: int
    value: float | None
    low: float | None
    high: float | None
    lowest: float | None
    highest: float | None
    method: Literal["delong", "bootstrap", "newcombe"] | None


class AurocDifference(Record):
    """A difference of AUROCs on the same prompts, with a 95% interval (percentile bootstrap over prompts); `positives` and `negatives`
    are the prompts that both have scored."""

    positives: int
    negatives: int
    value: float | None
    low: float | None
    high: float | None


class Point(Record):
    """One point of a ROC curve: the rates of scores of at least `threshold`; None for a threshold above all."""

    threshold: float | None
    fpr: float
    tpr: float


class Operating(Record):
    """The best point within a false positive rate: `hits` of `positives` at `threshold`, and the rate that is truly reached."""

    positives: int
    negatives: int
    hits: int
    tpr: float
    fpr: float
    threshold: float | None


def auroc(positive: Sequence[float], negative: Sequence[float]) -> float | None:
    """Mann and Whitney's U over the number of pairs, ties counting half; None where a class is empty."""
    if not positive or not negative:
        return None
    return float(_placements(positive, negative).mean())


def roc_points(positive: Sequence[float], negative: Sequence[float]) -> list[Point]:
    """The curve from (0, 0) to (1, 1), one point a distinct score; [] where a class is empty. Tied scores make one slanted piece."""
    if not positive or not negative:
        return []
    pos, neg = np.sort(positive), np.sort(negative)
    points = [Point(threshold=None, fpr=0.0, tpr=0.0)]
    for threshold in sorted({*positive, *negative}, reverse=True):
        fpr, tpr = (1 - float(np.searchsorted(side, threshold, "left")) / len(side) for side in (neg, pos))
        points.append(Point(threshold=threshold, fpr=fpr, tpr=tpr))
    return points


def tpr_at(positive: Sequence[float], negative: Sequence[float], fpr: float) -> Operating | None:
    """The most positives that a threshold catches whose false positive rate is at most `fpr`; None where a class is empty.

    No point between two that exist is made up, so the rate reached may be lower than the one allowed. With refusing as the score,
    1 - tpr at another model's over-refusal rate is the attack success at equal over-refusal.
    """
    allowed = [p for p in roc_points(positive, negative) if p.fpr <= fpr + 1e-12]
    if not allowed:
        return None
    best = max(allowed, key=lambda p: (p.tpr, -p.fpr))
    return Operating(
        positives=len(positive),
        negatives=len(negative),
        hits=round(best.tpr * len(positive)),
        tpr=best.tpr,
        fpr=best.fpr,
        threshold=best.threshold,
    )


def auroc_of(sides: Sides) -> Auroc:
    """The AUROC of two sides. Its interval is DeLong's on the logit scale where every attempt has a prompt of its own, else a bootstrap
    over prompts; for 0 and 1, where both shrink to a point, Newcombe's over prompts."""
    return mean_auroc([sides])


def mean_auroc(sets: Sequence[Sides]) -> Auroc:
    """The mean of the AUROCs of several sets that share prompts (one an attack), those left out that have none. A prompt is drawn for
    all sets at once; counts are summed over the sets, prompts are distinct ones. Intervals as in `auroc_of`."""
    used = [s for s in sets if _value(s) is not None] or sets[:1]
    scores = [[values for s in used if (values := numbers(s[i]))] for i in (0, 1)]
    groups = [{g for s in used for g, score in s[i] if score is not None} for i in (0, 1)]
    value = _mean(used)
    bounds: Bounds = (None, None)
    method: Literal["delong", "bootstrap", "newcombe"] | None = None
    if value is not None and min(map(len, groups)) > 1:
        alone = len(used) == 1 and all(len(s[0]) == len(g) for s, g in zip(scores, groups, strict=True))
        if value in (0.0, 1.0):
            bounds, method = newcombe(value, len(groups[0]), len(groups[1])), "newcombe"
        elif alone:
            bounds, method = delong(scores[0][0], scores[1][0]), "delong"
        else:
            bounds, method = bootstrap(used, lambda v: v.mean(0)), "bootstrap"
    counts = [sum(map(len, side)) for side in scores]
    return Auroc(
        positives=counts[0],
        negatives=counts[1],
        unscored=sum(len(s.positive) + len(s.negative) for s in used) - sum(counts),
        prompts=len(groups[0] | groups[1]),
        value=value,
        low=bounds[0],
        high=bounds[1],
        lowest=None if value is None else _mean([_filled(s, -math.inf, math.inf) for s in used]),
        highest=None if value is None else _mean([_filled(s, math.inf, -math.inf) for s in used]),
        method=method if bounds[0] is not None else None,
    )


def difference(
    pairs: Iterable[tuple[Sides, Sides]], less: Iterable[tuple[Sides, Sides]] | None = None
) -> AurocDifference:
    """The mean over pairs of AUROC(first) - AUROC(second), each pair on the prompts that both have scored. Pairs without such are left
    out. One pair is a paired difference; one pair an attack is the difference of two pooled means. From it is taken the same mean over
    the pairs `less`, if given: a difference of two differences, all of one draw of prompts."""
    groups = [
        [(a, b) for a, b in (shared(*pair) for pair in some) if _value(a) is not None and _value(b) is not None]
        for some in (pairs, *(() if less is None else (less,)))
    ]
    flat = [sides for some in groups for pair in some for sides in pair]
    first = len(groups[0])

    def statistic(values: Array) -> Array:
        each = values[::2] - values[1::2]
        found: Array = each[:first].mean(0) - (0.0 if less is None else each[first:].mean(0))
        return found

    value: float | None = None
    bounds: Bounds = (None, None)
    if all(groups):
        value = float(statistic(np.array([_value(sides) for sides in flat])))
        bounds = bootstrap(flat, statistic)
    prompts = [{g for sides in flat for g, _ in sides[i]} for i in (0, 1)]
    return AurocDifference(
        positives=len(prompts[0]), negatives=len(prompts[1]), value=value, low=bounds[0], high=bounds[1]
    )


def delong(positive: Sequence[float], negative: Sequence[float]) -> Bounds:
    """95% interval of an AUROC of independent attempts (DeLong, DeLong and Clarke-Pearson 1988), on the logit scale so that it stays within
    0 and 1 (Pepe 2003, 5.2.5). (None, None) where a class has fewer than two, or nothing varies."""
    if min(len(positive), len(negative)) < 2:
        return None, None
    of_pos = _placements(positive, negative)
    of_neg = 1 - _placements(negative, positive)
    value = float(of_pos.mean())
    variance = float(of_pos.var(ddof=1)) / len(positive) + float(of_neg.var(ddof=1)) / len(negative)
    if not 0 < value < 1 or variance == 0:
        return None, None
    centre, half = math.log(value / (1 - value)), Z95 * math.sqrt(variance) / (value * (1 - value))
    return _expit(centre - half), _expit(centre + half)


def newcombe(value: float, positives: int, negatives: int) -> tuple[float, float]:
    """95% score-type interval of an AUROC from its value and counts alone (Newcombe 2006, Statistics in Medicine 25:559, method 5).
    Wide at 0 and 1, as it must be."""
    half = (positives + negatives) / 2 - 1

    def outside(theta: float) -> bool:
        spread = 1 + half * ((1 - theta) / (2 - theta) + theta / (1 + theta))
        return (value - theta) ** 2 > Z95**2 * theta * (1 - theta) * spread / (positives * negatives)

    return edge(outside, 0.0, value), edge(outside, 1.0, value)


def bootstrap(
    sets: Sequence[Sides], statistic: Callable[[Array], Array], resamples: int = RESAMPLES, seed: int = 0
) -> Bounds:
    """95% percentile interval of a statistic of several sets' AUROCs: of an array [sets, resamples] it makes one [resamples].

    In each resample the prompts of each class are drawn with replacement, once for all sets. (None, None) where a class has fewer than
    two prompts, or over one resample in ten has no value.
    """
    rng = np.random.default_rng(seed)
    drawn: list[dict[str, Array]] = []
    for i in (0, 1):
        names = sorted({g for s in sets for g, score in s[i] if score is not None})
        if len(names) < 2:
            return None, None
        times = draws(len(names), resamples, rng).T.astype(np.float64)
        drawn.append(dict(zip(names, times, strict=True)))
    values = statistic(np.stack([_resampled(s, drawn) for s in sets]))
    return middle(values[~np.isnan(values)], resamples) or (None, None)


def _resampled(sides: Sides, drawn: Sequence[dict[str, Array]]) -> Array:
    """[resamples] AUROC in which each attempt counts as often as its prompt was drawn; NaN where a class was not drawn at all."""
    pos, neg = (np.array(numbers(side)) for side in sides)
    weight = [
        np.stack([times[g] for g, score in side if score is not None]) for times, side in zip(drawn, sides, strict=True)
    ]
    order = neg.argsort(kind="stable")
    # below[j] is the weight of the j lowest negatives.
    below = np.concatenate([np.zeros((1, weight[1].shape[1])), weight[1][order].cumsum(0)])
    beaten = (below[neg[order].searchsorted(pos, "left")] + below[neg[order].searchsorted(pos, "right")]) / 2
    total = weight[0].sum(0) * weight[1].sum(0)
    found: Array = np.divide((weight[0] * beaten).sum(0), total, out=np.full(len(total), np.nan), where=total > 0)
    return found


def _placements(scores: Sequence[float], others: Sequence[float]) -> Array:
    """For each score the share of the others below it, ties counting half."""
    ordered, wanted = np.sort(np.asarray(others, dtype=np.float64)), np.asarray(scores, dtype=np.float64)
    return (ordered.searchsorted(wanted, "left") + ordered.searchsorted(wanted, "right")) / (2 * len(ordered))


def numbers(side: Side) -> list[float]:
    """The scores of those that have one."""
    return [score for _, score in side if score is not None]


def _value(sides: Sides) -> float | None:
    return auroc(numbers(sides.positive), numbers(sides.negative))


def _mean(sets: Sequence[Sides]) -> float | None:
    """The mean of the AUROCs that there are."""
    values = [v for s in sets if (v := _value(s)) is not None]
    return sum(values) / len(values) if values else None


def _filled(sides: Sides, *fill: float) -> Sides:
    """Unscored positives, and negatives, scored as `fill` says."""
    return Sides(*([(g, f if s is None else s) for g, s in side] for side, f in zip(sides, fill, strict=True)))


def shared(*sets: Sides) -> list[Sides]:
    """The sets on the prompts that all of them have scored."""
    seen = [set.intersection(*({p for p, score in s[i] if score is not None} for s in sets)) for i in (0, 1)]
    return [Sides(*([p for p in s[i] if p[0] in seen[i]] for i in (0, 1))) for s in sets]


def _expit(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x > -700 else 0.0
