"""From wide hidden states to few dimensions, in passes over chunks: what is kept in memory does not grow with the number of rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray[Any, np.dtype[np.float64]]
Rows = Callable[[], Iterator[Array]]  # Reads the rows anew, in chunks [few, width].

# Dimensions that the distances and the probe work in. Where there are fewer rows than this, nothing is lost.
DIMENSIONS = 256
OVER, PASSES = 10, 4
# A dimension that hardly varies is not blown up to the size of the others.
LEAST_SPREAD = 0.1


class Scale(NamedTuple):
    """Mean and standard deviation of each dimension over the source; the latter at least LEAST_SPREAD of the median dimension's."""

    mean: Array
    spread: Array


class Subspace(NamedTuple):
    """Orthonormal `axes` [width, k], those along which rows vary most first, the variance along each (`along`, [k]) and the whole."""

    axes: Array
    along: Array
    total: float

    def share(self, first: int | None = None) -> float:
        """How much of the variance lies along the first axes (all)."""
        return float(self.along[:first].sum() / self.total) if self.total > 0 else 0.0


def joined(parts: Sequence[Rows]) -> Rows:
    """The rows of several sets, one after the other."""

    def read() -> Iterator[Array]:
        for part in parts:
            yield from part()

    return read


def scale_of(rows: Rows) -> Scale:
    """In two passes, since one would lose digits where a mean is far from zero. Every row has the same say. ValueError for no rows."""
    total, count = _sum(rows())
    if not count:
        raise ValueError("no rows to take a scale from")
    mean = total / count
    spread = np.sqrt(_sum((chunk - mean) ** 2 for chunk in rows())[0] / count)
    least = LEAST_SPREAD * float(np.median(spread))
    spread = np.maximum(spread, least)
    return Scale(mean, np.where(spread > 0, spread, 1.0))


def scaled(rows: Rows, scale: Scale) -> Rows:
    """The rows in units of the source's spread, from its mean."""
    return lambda: ((chunk - scale.mean) / scale.spread for chunk in rows())


def principal(rows: Rows, dimensions: int = DIMENSIONS) -> Subspace:
    """Principal axes about the rows' own mean, by subspace iteration on the covariance, which is never formed.

    After Halko, Martinsson and Tropp 2011 (arXiv 0909.4061, algorithm 4.4), with a fixed start. Exact where rows or width are at
    most `dimensions`; otherwise the leading axes are, and the last are near. Memory: width x (dimensions + OVER). Signs are fixed by the
    largest entry of an axis.
    """
    total, count = _sum(rows())
    mean = total / max(count, 1)
    width, k = len(mean), min(dimensions + OVER, len(mean))
    axes = np.random.default_rng(0).standard_normal((width, k))
    for _ in range(PASSES):
        axes, _ = np.linalg.qr(_through(rows, mean, axes))
    within = axes.T @ _through(rows, mean, axes) / max(count, 1)
    along, turn = np.linalg.eigh((within + within.T) / 2)
    order = np.argsort(along, kind="stable")[::-1][:dimensions]
    axes = axes @ turn[:, order]
    signs = np.sign(axes[np.abs(axes).argmax(0), np.arange(axes.shape[1])])
    variance = float(_sum((chunk - mean) ** 2 for chunk in rows())[0].sum()) / max(count, 1)
    return Subspace(axes * np.where(signs == 0, 1.0, signs), np.maximum(along[order], 0.0), variance)


def on_axes(rows: Rows, axes: Array) -> Array:
    """Coordinates [rows, k] of all rows, each chunk projected as it is read."""
    found = [chunk @ axes for chunk in rows()]
    return np.concatenate(found) if found else np.zeros((0, axes.shape[1]))


def _sum(chunks: Iterable[Array]) -> tuple[Array, int]:
    total, count = np.zeros(0), 0
    for chunk in chunks:
        total = chunk.sum(0) + (total if count else 0.0)
        count += len(chunk)
    return total, count


def _through(rows: Rows, mean: Array, axes: Array) -> Array:
    """The scatter of the rows times `axes`."""
    found = np.zeros_like(axes)
    for chunk in rows():
        centred = chunk - mean
        found += centred.T @ (centred @ axes)
    return found
