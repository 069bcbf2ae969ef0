"""Looks as flat rows, for tables and CSV."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from forethought.analysis.divergence.measure import Looked

Row = dict[str, Any]


def measured_rows(model: str, looked: Looked) -> Iterator[Row]:
    """Every number of one look: a row a distance, a floor, a probe and a projection, told apart by `row`."""
    about = ("position", "depth", "layer", "attack")
    where = {"model": model} | {name: getattr(looked, name) for name in about}
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
