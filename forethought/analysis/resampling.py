"""The one bootstrap: whole clusters (prompts, or questions) are drawn with replacement, and 95% of what that gives is the interval. Pure
functions."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from forethought.records import Record

RESAMPLES, BLOCK = 2000, 200
# Draws of up to so many clusters (and of no more than fit 16 bits) are kept, for four numbers of them: 80 MB each at most.
KEPT = 20_000
# The share of resamples in which a statistic must have a value.
DEFINED = 0.9


def draws(clusters: int, resamples: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """How often each cluster is drawn [resamples, clusters]."""
    return rng.multinomial(clusters, np.full(clusters, 1 / clusters), size=resamples)


def middle(values: Sequence[float] | NDArray[np.float64], resamples: int = 0) -> tuple[float, float] | None:
    """The percentiles between which 95% of the values lie; None where there is none, or fewer than DEFINED of the `resamples`."""
    if not len(values) or len(values) < DEFINED * resamples:
        return None
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)


class Mean(Record):
    """A mean over `n` values on `prompts` prompts, with the bootstrap's 95% interval by prompt; None where there is nothing to go by."""

    n: int
    prompts: int
    value: float | None
    low: float | None
    high: float | None


def mean_by_prompt(values: Iterable[tuple[str, float]]) -> Mean:
    """The mean of (prompt, value) pairs; those of one prompt depend on each other."""
    sums: dict[str, float] = defaultdict(float)
    sizes: Counter[str] = Counter()
    for prompt, value in values:
        sums[prompt] += value
        sizes[prompt] += 1
    n = sizes.total()
    low, high = ratio_interval([sums[p] for p in sizes], list(sizes.values())) or (None, None)
    return Mean(n=n, prompts=len(sizes), value=sum(sums.values()) / n if n else None, low=low, high=high)


def ratio_interval(
    sums: Sequence[float], sizes: Sequence[float], *, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float, float] | None:
    """95% percentile interval of sum(sums) / sum(sizes), where entry i of both belongs to cluster i. (Field and Welsh 2007: the cluster
    bootstrap.) None for fewer than two clusters. Where all clusters are alike it has no width; the caller must see to that."""
    keep = np.asarray(sizes, dtype=float) > 0
    top, below = np.asarray(sums, dtype=float)[keep], np.asarray(sizes, dtype=float)[keep]
    count = len(below)
    if count < 2:
        return None
    drawn = _blocks(count, resamples, seed)
    return middle(np.concatenate([(d @ top) / (d @ below) for d in drawn])[:resamples])


def _blocks(count: int, resamples: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """How often each of `count` clusters is drawn, some resamples at a time: a page has hundreds of intervals over the same number of
    prompts, and drawing takes longer than all the rest."""
    if count > KEPT:
        rng = np.random.default_rng(seed)
        yield from (draws(count, BLOCK, rng) for _ in range(-(-resamples // BLOCK)))
    else:
        yield from (block.astype(np.int64) for block in _kept(count, resamples, seed))


@lru_cache(maxsize=4)
def _kept(count: int, resamples: int, seed: int) -> tuple[NDArray[np.uint16], ...]:
    rng = np.random.default_rng(seed)
    return tuple(draws(count, BLOCK, rng).astype(np.uint16) for _ in range(-(-resamples // BLOCK)))
