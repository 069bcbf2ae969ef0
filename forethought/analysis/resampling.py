"""The bootstrap that rates, differences and best-of-N share: whole clusters (prompts) are drawn with replacement. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

RESAMPLES, BLOCK = 2000, 200


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
