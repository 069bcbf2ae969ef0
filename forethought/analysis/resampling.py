"""The bootstrap that rates, differences and best-of-N share: whole clusters (prompts) are drawn with replacement. Pure functions."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

import numpy as np

from forethought.records import Record

RESAMPLES, BLOCK = 2000, 200


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
    rng, share = np.random.default_rng(seed), np.full(count, 1 / count)
    drawn = [rng.multinomial(count, share, size=BLOCK) for _ in range(-(-resamples // BLOCK))]
    values = np.concatenate([(d @ top) / (d @ below) for d in drawn])[:resamples]
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)
