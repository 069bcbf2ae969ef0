"""How far the judges agree on harmful requests."""

from __future__ import annotations

from typing import Any

from forethought.analysis.agreement import Agreed
from forethought.report.data import ReportData
from forethought.report.section import Gathered, Section, Table, draw, flat
from forethought.report.text import View


def section(found: Gathered) -> Section | None:
    """None where fewer than two judges spoke."""
    view = agreement(found.data)
    if not view["rows"]:
        return None
    rows = [
        {"models": name or "all", "judges": " / ".join(a.judges)} | flat(a)
        for name, agreed in found.data.agreement.items()
        for a in agreed
    ]
    body = draw("agreement.html.j2", found, agreement=view)
    return Section(
        "agreement", "Judges", body, (Table("judge-agreement", "two or more judges on one or all models", rows),)
    )


def agreement(data: ReportData) -> View:
    """Rows of judges, columns all models together and each of them."""
    rows: dict[tuple[Any, ...], View] = {}
    for column, found in data.agreement.items():
        for agreed in found:
            key = (agreed.judges, agreed.statistic)
            rows.setdefault(key, {"judges": agreed.judges, "statistic": agreed.statistic, "cells": {}})
            rows[key]["cells"][column] = agreed
    places = {m.name: i for i, m in enumerate(data.models)}
    return {
        "columns": [(name, places.get(name)) for name in data.agreement],
        "rows": list(rows.values()),
        "words": _landis,
    }


def _landis(agreed: Agreed) -> str:
    """The usual word for a kappa (Landis and Koch 1977); for the value only, which an interval may not bear out."""
    if agreed.value is None:
        return ""
    for least, word in (
        (0.8, "almost perfect"),
        (0.6, "substantial"),
        (0.4, "moderate"),
        (0.2, "fair"),
        (0.0, "slight"),
    ):
        if agreed.value > least:
            return word
    return "none"
