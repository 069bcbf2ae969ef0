"""Where attacks lie inside the models: the section of divergence runs."""

from __future__ import annotations

from forethought.report.divergence import DEPTH, read_divergence
from forethought.report.divergence import section as drawn
from forethought.report.redact import mask_name
from forethought.report.section import Gathered, Section, Table, flat, resource


def section(found: Gathered) -> Section | None:
    """None where no model has a divergence run."""
    looked = [read_divergence(m.name, run) for m in found.models for run in m.runs["divergence"]]
    if not looked:
        return None
    if found.redacted:
        looked = [
            d.model_copy(update={"looks": tuple(x.model_copy(update={"attack": mask_name(x.attack)}) for x in d.looks)})
            for d in looked
        ]
    # A model with few layers is not looked at at every depth.
    common = set[float].intersection(*({look.depth for look in d.looks} for d in looked))
    depth = min(sorted(common), key=lambda d: abs(d - DEPTH), default=DEPTH)
    places = {m.name: i for i, m in enumerate(found.data.models)}
    about = ("attack", "position", "depth")
    rows = [
        {"model": d.model} | {k: getattr(look, k) for k in about} | flat(distance)
        for d in looked
        for look in d.looks
        for distance in look.distances
    ]
    table = Table("divergence", "a model, attack, position, depth and two groups of requests", rows)
    return Section("divergence", "Hidden states", drawn(looked, places, depth), (table,), resource("divergence.css"))
