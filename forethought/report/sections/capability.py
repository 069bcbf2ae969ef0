"""Capability: what the models can do, and whether training changed it."""

from __future__ import annotations

from forethought.report.data import ReportData
from forethought.report.section import Gathered, Section, Table, draw, flat, model_views, rate_view
from forethought.report.text import View


def section(found: Gathered) -> Section | None:
    """None where no model has a capability run."""
    data = found.data
    rows = capability(data)
    if not rows:
        return None
    body = draw("capability.html.j2", found, capability=rows, models=model_views(data))
    able = [{"model": name} | flat(a) for name, found_ in data.abilities.items() for a in found_]
    for row in able:
        row.pop("accuracy", None)  # Of a likelihood; that of others stands under `value`.
    changes = [{"model": name} | flat(c) for name, found_ in data.ability_changes.items() for c in found_]
    tables = [Table("capability", "a model and task", able)]
    if changes:
        tables.append(Table("capability-differences", "a model less the reference, paired by question", changes))
    return Section("capability", "Capability", body, tuple(tables))


def capability(data: ReportData) -> list[View]:
    """Rows of (task, mode) with one cell a model: what it can do, and how that stands to the reference."""
    rows: dict[tuple[str, str], View] = {}
    for model, found in data.abilities.items():
        for a in found:
            row = rows.setdefault((a.task, a.mode), {"task": a.task, "mode": a.mode, "chance": a.chance, "cells": {}})
            row["cells"][model] = {
                "ability": a,
                "view": rate_view(a.accuracy, a.n) if a.accuracy else None,
                "change": None,
            }
    for model, changes in data.ability_changes.items():
        for change in changes:
            if (change.task, change.mode) in rows:
                rows[change.task, change.mode]["cells"][model]["change"] = change
    return list(rows.values())
