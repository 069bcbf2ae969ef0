"""Looks as flat rows, for tables and CSV."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from forethought.analysis.divergence.measure import Looked

Row = dict[str, Any]


def measured_rows(model: str, looked: Looked) -> Iterator[Row]:
    """Every number of one look: a row a distance, a floor, a probe and a projection, told apart by `row`."""
    where = _where(model, looked)
    for distance in looked.distances:
        yield {"row": "distance", **where, **distance.model_dump()}
    for floor in looked.floors:
        yield {"row": "floor", **where, **floor.model_dump()}
    carried = looked.transfer
    for against, found in (("wrapped", carried and carried.auroc), ("direct", carried and carried.against_direct)):
        if found:
            yield {"row": "probe", **where, "against": against, **found.model_dump()}
    if carried and carried.shuffled:
        value, low, high = carried.shuffled
        yield {"row": "probe", **where, "against": "wrapped, shuffled labels", "value": value, "low": low, "high": high}
    for label, called in (carried.called_harmful if carried else {}).items():
        yield {"row": "called harmful", **where, "label": label, **called.model_dump()}
    for projection in looked.projections:
        yield {"row": "projection", **where, **projection.model_dump()}


def map_rows(model: str, looked: Looked) -> Iterator[Row]:
    """Every point of one look's map."""
    for spot in looked.spots:
        yield {**_where(model, looked), **spot.model_dump(), "shown": looked.shown}


def _where(model: str, looked: Looked) -> Row:
    return {
        "model": model,
        "position": looked.position,
        "depth": looked.depth,
        "layer": looked.layer,
        "attack": looked.attack,
    }
