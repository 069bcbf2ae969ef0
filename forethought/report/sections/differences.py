"""Paired differences: every model less the reference; and, for a comparison, every pair of models."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from forethought.analysis.paired import Comparison
from forethought.analysis.summary import ATTACKED, DIRECT
from forethought.records import LABELS
from forethought.report.data import ReportData
from forethought.report.headline import headline
from forethought.report.section import SMALL_N, Gathered, Section, Table, draw, flat
from forethought.report.text import View


def section(found: Gathered) -> Section | None:
    """None where there is nothing to compare."""
    data = found.data
    if not data.differences:
        return None
    body = draw("differences.html.j2", found, differences=differences(data), headline=headline(data))
    tables = [Table("differences", "a model less the reference, by judge, label and scope", _rows(data.differences))]
    if data.by_attack:
        tables.append(Table("differences-by-attack", "the same, attack by attack", _rows(data.by_attack)))
    if data.every_pair:
        tables.append(Table("differences-every-pair", "any model less any other", _rows(data.every_pair)))
    return Section("differences", "Differences", body, tuple(tables))


def _rows(table: Iterable[Comparison]) -> list[View]:
    return [flat(c) for c in table]


def differences(data: ReportData) -> View:
    """Two tables of differences from the reference, and how many comparisons each made."""
    return {
        "others": [i for i, m in enumerate(data.models) if m.name != data.reference],
        "made": len([c for c in data.differences if c.difference.p is not None]),
        "made_by_attack": len([c for c in data.by_attack if c.difference.p is not None]),
        "sure": [sum(map(_is_clear, t)) for t in (data.differences, data.by_attack, data.every_pair)],
        "pairs": len(data.every_pair),
        "groups": _groups(data.every_pair),
        "places": {m.name: i for i, m in enumerate(data.models)},
        "rows": _lines(data, data.differences),
        "by_attack": _lines(data, data.by_attack),
    }


def _is_clear(c: Comparison) -> bool:
    return c.difference.corrected is not None and c.difference.corrected < 0.05


def _groups(table: Iterable[Comparison]) -> list[View]:
    """Comparisons of every pair of models by what was asked and who judged, in the order of the labels."""
    found: dict[tuple[Any, ...], list[Comparison]] = {}
    for c in sorted(table, key=lambda c: (LABELS.index(c.label), c.judge, c.scope)):
        found.setdefault((c.label, c.scope, c.measure, c.judge), []).append(c)
    return [
        {
            "title": f"{label}, {'asked directly' if scope == DIRECT else scope}",
            "measure": f"{measure} · {judge}",
            "below": sum(map(_is_clear, rows)),
            "rows": rows,
        }
        for (label, scope, measure, judge), rows in found.items()
    ]


def _lines(data: ReportData, table: Iterable[Comparison]) -> list[View]:
    rows: dict[tuple[Any, ...], View] = {}
    for c in table:
        key = (c.scope, c.label, c.judge)
        shown = "asked directly" if c.scope == DIRECT else c.scope if c.scope == ATTACKED else ""
        title = f"{c.label}, {shown}" if shown else c.scope
        row = {"title": title, "measure": c.measure, "judge": c.judge, "cells": {}}
        small = {"found": c.difference, "small": c.difference.clusters < SMALL_N}
        rows.setdefault(key, row)["cells"][c.model] = small
    return list(rows.values())
