"""What a direct request teaches about harm, carried over to attacks: a probe, and the direction from harmless to harmful."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from forethought.analysis.divergence.classify import FOLDS, Ints, folds, held_out, numbered
from forethought.analysis.divergence.distance import LEAST, Side, relabelled, tidy
from forethought.analysis.divergence.subspace import Array, Rows
from forethought.analysis.rates import Outcome, Rate, clustered
from forethought.analysis.resampling import ratio_interval
from forethought.analysis.roc import Auroc, Sides, auroc, auroc_of
from forethought.records import Record

HARMFUL, BENIGN = "harmful", "benign"
SHUFFLES = 20


class Transfer(Record):
    """A probe that parts harmful from benign direct requests, read on others, never on a goal that it was fitted on.

    `auroc` is against benign requests under the same attack, `against_direct` against those asked directly; None where a side is empty.
    `called_harmful` is the share of each label on the harmful side of the probe's own threshold, `shuffled` the mean, 5th and 95th
    percentile of `auroc` for probes fitted on shuffled labels.
    """

    auroc: Auroc | None = None
    against_direct: Auroc | None = None
    called_harmful: dict[str, Rate] = {}
    shuffled: tuple[float, float, float] | None = None


class Projection(Record):
    """Where requests of a label lie between harmless and harmful: 0 is the mean benign direct request, 1 the mean harmful one, along the
    line through both, from which a request's own goal is left out. Mean with a 95% bootstrap interval over goals."""

    label: str
    n: int
    mean: float | None
    low: float | None = None
    high: float | None = None


def transfer(source: Mapping[str, Side], target: Mapping[str, Side], rng: np.random.Generator) -> Transfer | None:
    """The probe of `source` (harmful and benign), read on `target`, which may be the source itself. None where a class of the source
    has fewer than LEAST goals."""
    if min(len(set(source[label].goals)) for label in (HARMFUL, BENIGN)) < LEAST:
        return None
    own = [source[HARMFUL], source[BENIGN]]
    sides = [*own, *(side for side in target.values() if not any(side is s for s in own))]
    goals = numbered([goal for side in sides for goal in side.goals])
    group = np.repeat(np.arange(len(sides)), [len(side.goals) for side in sides])
    fitted = group < len(own)
    labels = np.zeros((len(goals), 1 + SHUFFLES), dtype=bool)
    labels[:, 0] = group == 0
    labels[fitted, 1:] = relabelled(labels[fitted, 0], goals[fitted], SHUFFLES, rng)
    rows, fold = np.concatenate([side.rows for side in sides]), folds(goals, group.tolist(), rng)
    margins = held_out(rows, labels, fold, fitted).round(9)

    def of(side: Side) -> Array:
        mine: Array = margins[group == next(i for i, s in enumerate(sides) if s is side)]
        return mine

    found = {label: of(side) for label, side in target.items()}
    harmful, benign = (_scored(target.get(label), found.get(label)) for label in (HARMFUL, BENIGN))
    direct = _scored(source[BENIGN], of(source[BENIGN]))
    called = {label: _called(target[label], m[:, 0]) for label, m in found.items() if len(m)}
    return Transfer(
        auroc=auroc_of(Sides(harmful, benign)) if harmful and benign else None,
        against_direct=auroc_of(Sides(harmful, direct)) if harmful else None,
        called_harmful=called,
        shuffled=_spread(found[HARMFUL][:, 1:], found[BENIGN][:, 1:]) if harmful and benign else None,
    )


def _called(side: Side, margins: Array) -> Rate:
    """The share of rows on the probe's harmful side, its interval by goal."""
    return clustered(Outcome(str(i), goal, "", "harmful", bool(margins[i] > 0)) for i, goal in enumerate(side.goals))


def _scored(side: Side | None, margins: Array | None) -> list[tuple[str, float | None]]:
    return [] if side is None or margins is None else list(zip(side.goals, margins[:, 0].tolist(), strict=True))


def _spread(harmful: Array, benign: Array) -> tuple[float, float, float]:
    values = [auroc(harmful[:, i].tolist(), benign[:, i].tolist()) or 0.0 for i in range(harmful.shape[1])]
    low, high = np.quantile(values, [0.05, 0.95])
    return tidy(sum(values) / len(values)), tidy(low), tidy(high)


def projections(
    source: Mapping[str, tuple[Rows, Sequence[str]]],
    target: Mapping[str, tuple[Rows, Sequence[str]]],
    rng: np.random.Generator,
) -> list[Projection]:
    """The projection of each label of `target` on the difference of the source's class means (after Arditi et al. 2024, arXiv 2406.11717,
    who take it in the model's own units, as is done here). One pass over each set."""
    names = [(HARMFUL, *source[HARMFUL]), (BENIGN, *source[BENIGN])]
    names += [(label, *rows) for label, rows in target.items()]
    goals = numbered([goal for _, _, of in names for goal in of])
    group = np.repeat(np.arange(len(names)), [len(of) for _, _, of in names])
    fold = folds(goals, group.tolist(), rng)
    if not all((group == i).any() for i in (0, 1)):
        return [Projection(label=label, n=len(of), mean=None) for label, (_, of) in target.items()]
    harm, none = (_means(names[i][1], fold[group == i]) for i in (0, 1))
    line = harm - none
    return [
        _projected(label, rows, none, line, fold[group == i], goals[group == i])
        for i, (label, rows, _) in enumerate(names[2:], 2)
    ]


def _projected(label: str, rows: Rows, none: Array, line: Array, fold: Ints, goals: Ints) -> Projection:
    """`none` and `line` [folds, width]: where the line of a fold's rows begins, and where it leads."""
    length = (line**2).sum(1)
    length = np.where(length > 0, length, 1.0)
    along, at = np.zeros(len(goals)), 0
    for chunk in rows():
        of = fold[at : at + len(chunk)]
        along[at : at + len(chunk)] = ((chunk - none[of]) * line[of]).sum(1) / length[of]
        at += len(chunk)
    bounds = ratio_interval(np.bincount(goals, along).tolist(), np.bincount(goals).tolist())
    low, high = (tidy(bounds[0]), tidy(bounds[1])) if bounds else (None, None)
    return Projection(label=label, n=len(goals), mean=tidy(along.mean()) if len(goals) else None, low=low, high=high)


def _means(rows: Rows, fold: Ints) -> Array:
    """[folds, width] mean of the rows that are not in each fold; of all rows where none are left."""
    sums, counts, at = np.zeros((0, 0)), np.bincount(fold, minlength=FOLDS), 0
    for chunk in rows():
        sums = sums if sums.size else np.zeros((FOLDS, chunk.shape[1]))
        np.add.at(sums, fold[at : at + len(chunk)], chunk)
        at += len(chunk)
    left = counts.sum() - counts
    others = (sums.sum(0) - sums) / np.maximum(left, 1)[:, None]
    means: Array = np.where((left > 0)[:, None], others, sums.sum(0) / max(len(fold), 1))
    return means
