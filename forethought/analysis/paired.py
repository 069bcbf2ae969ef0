"""Differences between two models on the same prompts: paired, by cluster, corrected for how many were looked at. Pure functions.

A pair is one attempt of each model on the same thing sent. All pairs of one prompt are one cluster: several samples or attacks of a prompt
are not independent evidence. Only pairs that the judge scored on both sides enter the difference; the others bound it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from forethought.analysis.rates import Outcome, score_interval, together
from forethought.analysis.resampling import ratio_interval
from forethought.records import Label, Record

# So many changed prompts are gone through one by one.
LOOPED = 2000


class Pair(NamedTuple):
    """The same thing sent to two models, and what a judge said of each answer."""

    cluster: str
    first: bool | None
    second: bool | None


class Difference(Record):
    """Share of hits of the second model minus that of the first, over the `n` pairs scored on both sides, of `clusters` prompts.

    `only_first` and `only_second` are the discordant pairs. `low` and `high` are a 95% interval by prompt (`_interval`). `unscored`
    pairs lack a score on a side; `lowest` and `highest` are the difference over all pairs if those had gone one way or the other. `p` is
    two-sided and mid-p; None where no pair is left. `corrected` is p after Holm's correction over its table.
    """

    n: int
    clusters: int
    both: int
    only_first: int
    only_second: int
    neither: int
    unscored: int
    value: float | None
    low: float | None
    high: float | None
    lowest: float | None
    highest: float | None
    p: float | None
    corrected: float | None = None


class Comparison(Record):
    """One line of a table of differences: a model against the reference, by a judge, on prompts of a label, under `scope` (an
    attack's name, or `under attack` for all that both were sent but the direct request)."""

    model: str
    reference: str
    judge: str
    label: Label
    scope: str
    measure: str
    difference: Difference


def match(first: Iterable[Outcome], second: Iterable[Outcome]) -> list[Pair]:
    """Pairs by attempt id, which names attack, prompt and place. An attempt that only one model has (its attack stopped earlier, or failed
    as a whole) is a pair without a score on the other side."""
    left, right = {o.attempt: o for o in first}, {o.attempt: o for o in second}
    pairs = []
    for key in dict.fromkeys([*left, *right]):
        a, b = left.get(key), right.get(key)
        pairs.append(Pair((a or b or right[key]).prompt, a.hit if a else None, b.hit if b else None))
    return pairs


def paired_difference(pairs: Sequence[Pair]) -> Difference:
    """The paired difference. With one pair a prompt, p is McNemar's mid-p; with several, its generalisation `sign_flip`."""
    scored = [(p.cluster, p.first, p.second) for p in pairs if p.first is not None and p.second is not None]
    ups: Counter[str] = Counter()
    downs: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    table: Counter[tuple[bool, bool]] = Counter()
    for cluster, first, second in scored:
        ups[cluster] += second > first
        downs[cluster] += second < first
        sizes[cluster] += 1
        table[first, second] += 1
    sums = [ups[c] - downs[c] for c in sizes]
    n, change = len(scored), sum(sums)
    counts = [ups[c] for c in sizes], [downs[c] for c in sizes], list(sizes.values())
    low, high = _interval(*counts) or (None, None)
    open_ = [(p.first, p.second) for p in pairs if p.first is None or p.second is None]
    down = sum((0 if b is None else b) - (1 if a is None else a) for a, b in open_)
    up = sum((1 if b is None else b) - (0 if a is None else a) for a, b in open_)
    return Difference(
        n=n,
        clusters=len(sizes),
        both=table[True, True],
        only_first=table[True, False],
        only_second=table[False, True],
        neither=table[False, False],
        unscored=len(open_),
        value=change / n if n else None,
        low=low,
        high=high,
        lowest=(change + down) / len(pairs) if pairs else None,
        highest=(change + up) / len(pairs) if pairs else None,
        p=sign_flip(sums)[1] if n else None,
    )


def _interval(ups: Sequence[int], downs: Sequence[int], sizes: Sequence[int]) -> tuple[float, float] | None:
    """The wider, on each side, of the bootstrap's over prompts and of Tango's score interval (1998), which does not shrink to nothing
    where few answers changed, or none. With several pairs a prompt Tango's is taken with the effective sample size that `together` leaves
    for the commoner change (as in `rates.clustered`): where nothing changed, that is no more than the prompts."""
    if not sizes:
        return None
    n, up, down = sum(sizes), sum(ups), sum(downs)
    alike = max(together(side, sizes) for side, count in ((ups, up), (downs, down)) if count == max(up, down))
    effective = n / (1 + (sum(m * m for m in sizes) / n - 1) * alike)
    found = score_interval(up * effective / n, down * effective / n, effective)
    drawn = ratio_interval([a - b for a, b in zip(ups, downs, strict=True)], sizes) or found
    return min(found[0], drawn[0]), max(found[1], drawn[1])


def sign_flip(differences: Sequence[int]) -> tuple[float, float]:
    """Exact and mid-p two-sided p that the sum of whole-numbered differences, one a cluster, is this far from 0, if each had been as
    likely to have the other sign (Fisher's randomisation test). With differences of -1, 0 and 1 it is McNemar's (1947; Fagerland,
    Lydersen and Laake 2013)."""
    sizes = [abs(d) for d in differences if d]
    reach, seen = sum(sizes), abs(sum(differences))
    if len(sizes) > LOOPED:
        # Of as many the chances come from the sum's characteristic function, a product of cosines, in a moment.
        count = 2 * reach + 1
        turns = 2 * np.pi * np.arange(count // 2 + 1) / count
        waves = np.prod([np.cos(size * turns) ** n for size, n in Counter(sizes).items()], axis=0)
        chances = np.roll(np.fft.irfft(waves, count).clip(0), reach)
    else:
        chances = np.zeros(2 * reach + 1)
        chances[reach] = 1.0
        for size in sizes:
            moved = np.zeros_like(chances)
            moved[size:] += chances[:-size] / 2
            moved[:-size] += chances[size:] / 2
            chances = moved
    far = np.abs(np.arange(-reach, reach + 1))
    exact, here = float(chances[far >= seen].sum()), float(chances[far == seen].sum())
    return min(1.0, exact), min(1.0, exact - here / 2)


def holm(ps: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down correction (1979) over the p values that there are, in the order given."""
    order = sorted((p, i) for i, p in enumerate(ps) if p is not None)
    found: list[float | None] = [None] * len(ps)
    worst = 0.0
    for rank, (p, i) in enumerate(order):
        worst = max(worst, min(1.0, (len(order) - rank) * p))
        found[i] = worst
    return found


def correct(table: Sequence[Comparison]) -> tuple[Comparison, ...]:
    """The comparisons of one table with Holm's correction over all of them."""
    corrected = holm([c.difference.p for c in table])
    return tuple(
        c.model_copy(update={"difference": c.difference.model_copy(update={"corrected": p})})
        for c, p in zip(table, corrected, strict=True)
    )
