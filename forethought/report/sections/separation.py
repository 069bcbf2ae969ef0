"""Without a threshold: ROC curves and AUROC of the log-odds of refusing."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from forethought.analysis.separation import Compared, Separation
from forethought.analysis.summary import DIRECT
from forethought.report import curves
from forethought.report.data import ReportData
from forethought.report.headline import on_few
from forethought.report.section import SMALL_N, Gathered, Section, Table, draw, flat, model_views
from forethought.report.text import View

LOSS = (("", "value"), (" low", "low"), (" high", "high"))


def section(found: Gathered) -> Section | None:
    """None where no model has a score run."""
    data = found.data
    view, drawn = separation(data), rocs(data)
    if not drawn and not view["short"]:
        return None
    decided = [i for i, m in enumerate(data.models) if m.name in data.decided]
    few = on_few(found, dict.fromkeys(s.attack for s in data.separations))
    body = draw(
        "separation.html.j2", found, separation=view, rocs=drawn, models=model_views(data), decided=decided, few=few
    )
    points = [
        {"model": c.model, "scope": c.scope, "against": c.against, "false positive rate": x, "true positive rate": y}
        for c in data.curves
        for x, y in c.points
    ]
    tables = [
        Table(
            "auroc",
            "a model and attack against others",
            [flat(s, leave=("loss", "operating")) | _loss(s) for s in data.separations],
        )
    ]
    if data.auroc_changes:
        tables.append(
            Table(
                "auroc-differences",
                "a model less the reference",
                [flat(c, leave=("loss",)) | _loss(c) for c in data.auroc_changes],
            )
        )
    return Section("roc", "Without a threshold", body, (*tables, Table("roc", "a point of a curve", points)))


def rocs(data: ReportData) -> list[View]:
    """One small figure for each comparison that has a curve."""
    places = {m.name: i for i, m in enumerate(data.models)}
    found: dict[tuple[str, str], list[tuple[int, tuple[tuple[float, float], ...]]]] = {}
    for curve in data.curves:
        found.setdefault((curve.scope, curve.against), []).append((places[curve.model], curve.points))
    order = sorted(found, key=lambda key: (key[1] != "benign", key[0] != "direct"))
    return [
        {
            "scope": scope,
            "against": against,
            "small": _small(data, scope, against),
            "figure": Markup(curves.roc(found[scope, against])),
        }
        for scope, against in order
    ]


def _small(data: ReportData, scope: str, against: str) -> bool:
    """Whether a curve of the figure rests on fewer than SMALL_N prompts of either side together."""
    mine = [s for s in data.separations if s.against == against and (s.attack == DIRECT) == (scope == DIRECT)]
    # Of one attack there is no mean.
    rows = [s for s in mine if s.attack in (DIRECT, "mean")] or mine
    return min((s.auroc.prompts for s in rows), default=0) < SMALL_N


def separation(data: ReportData) -> View:
    """AUROC by what harmful requests are set against: direct and mean first, then attack by attack."""
    rows: dict[tuple[Any, ...], View] = {}
    for s in data.separations:
        row = rows.setdefault(
            (s.against, s.attack), {"attack": s.attack, "against": s.against, "cells": {}, "changes": {}, "losses": {}}
        )
        row["cells"][s.model] = s
    for c in data.auroc_changes:
        if (c.against, c.attack) in rows:
            rows[c.against, c.attack]["changes"][c.first] = c.difference
            rows[c.against, c.attack]["losses"][c.first] = c.loss
    short = [row for row in rows.values() if row["attack"] in (DIRECT, "mean")]
    return {"short": short, "long": [row for row in rows.values() if row["attack"] not in (DIRECT, "mean")]}


def _loss(found: Separation | Compared) -> View:
    """The loss as columns of its own: `flat` would leave out what has the names of the AUROC's."""
    loss = found.loss
    return {f"loss{end}": getattr(loss, name) if loss else None for end, name in LOSS}
