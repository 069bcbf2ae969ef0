"""The overview: attack success against over-refusal with capability beside them, and both in and out of distribution."""

from __future__ import annotations

from forethought.report.data import ReportData
from forethought.report.headline import X_TITLE, capabilities, headline, on_few, places
from forethought.report.section import Gathered, Section, Table, draw, flat
from forethought.report.sources import left_to_server, sampled_unlike
from forethought.report.text import Row, View


def section(found: Gathered) -> Section | None:
    """Always there."""
    data = found.data
    view, split = headline(data), places(data)
    body = draw(
        "overview.html.j2",
        found,
        headline=view,
        places=split,
        capable=any(data.abilities.values()),
        few=on_few(found, view["shared"]),
        left=[(m.name, role, fields) for m in found.models for role, fields in left_to_server(m).items()],
        unlike_sampling=sampled_unlike(found.models),
    )
    tables = [Table("headline", "a model and measure, with its 95% interval and bounds", _headline_rows(data, view))]
    if data.pools:
        tables.append(Table("pooled-rates", "a model, judge, label and scope", [flat(p) for p in data.pools]))
    return Section("overview", "Overview", body, tuple(tables))


def _headline_rows(data: ReportData, view: View) -> list[Row]:
    rows: list[Row] = []
    for card in view["cards"]:
        name = card["model"].name
        measures = [(f"{view['name']} under attack", card["big"][0][1:]), (X_TITLE, card["big"][1][1:])]
        rows += [{"model": name, "measure": title, "about": hint} | flat(rate) for title, (hint, rate) in measures]
        able = [(f"capability: {task}", rate) for task, rate in capabilities(data, name)[:1]]
        rows += [{"model": name, "measure": title} | flat(rate) for title, rate in (*able, *card["rest"])]
    return rows
