"""Which demonstrations to show: for each of k clusters of a prompt set, the request of the pool nearest to the cluster's center.

SCoT (arXiv 2501.19180) shows, for each style, the eight prompts nearest to the centers of a k-means with k = 8 over sentence
embeddings. Its prompts come with rewritings; ours have them for a pool, so the pool's nearest requests stand for them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from forethought.errors import ForethoughtError
from forethought.styles import SHOWN, Chosen, pool

Vectors = NDArray[np.float32]
ROUNDS = 100


def choose(
    texts: Sequence[str],
    embed: Callable[[Sequence[str]], Vectors],
    *,
    made_from: str,
    embedder: str,
    k: int = SHOWN,
    seed: int = 0,
) -> Chosen:
    """k different requests of the pool, in the order of the clusters of `texts` by size. Raises ForethoughtError for under k texts."""
    if len(texts) < k:
        raise ForethoughtError(
            f"{len(texts)} prompts cannot be put in {k} clusters. Name a larger set, or use the shipped choice."
        )
    centers = kmeans(embed(list(texts)), k, seed)
    requests = [row["request"] for row in pool()]
    near = centers @ embed(requests).T
    found: list[str] = []
    for row in near:
        order = np.argsort(-row, kind="stable")
        found.append(next(requests[i] for i in order if requests[i] not in found))
    return Chosen(made_from=made_from, embedder=embedder, requests=tuple(found))


def kmeans(points: Vectors, k: int, seed: int = 0) -> Vectors:
    """Centers (k, d) of points (n, d), the largest cluster first: k-means++ starts (Arthur and Vassilvitskii 2007), Lloyd's rounds."""
    rng = np.random.default_rng(seed)
    centers = points[[rng.integers(len(points))]]
    while len(centers) < k:
        far = _distances(points, centers).min(axis=1)
        # All points may coincide with centers: then any will do.
        weights = far / far.sum() if far.sum() > 0 else None
        centers = np.vstack([centers, points[rng.choice(len(points), p=weights)]])
    for _ in range(ROUNDS):
        nearest = _distances(points, centers).argmin(axis=1)
        moved = np.stack([points[nearest == i].mean(axis=0) if (nearest == i).any() else centers[i] for i in range(k)])
        if np.allclose(moved, centers):
            break
        centers = moved
    sizes = np.bincount(_distances(points, centers).argmin(axis=1), minlength=k)
    return np.asarray(centers[np.argsort(-sizes, kind="stable")], dtype=np.float32)


def _distances(points: Vectors, centers: Vectors) -> NDArray[np.float64]:
    """Squared distances (n, k)."""
    gaps = points[:, None, :].astype(np.float64) - centers[None, :, :]
    return np.asarray((gaps**2).sum(axis=2))
