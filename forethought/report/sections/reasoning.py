"""Is the reasoning real? What thoughts state against the answers and the truth, what they cost, and what answers do without them."""

from __future__ import annotations

from collections.abc import Iterable

from markupsafe import Markup

from forethought.analysis.causal import ABOUT, ALL, KINDS, POOLED, Followed, numbers_of
from forethought.analysis.paired import Difference
from forethought.analysis.rates import Rate
from forethought.analysis.reasoning import Reasoned
from forethought.analysis.resampling import Mean
from forethought.analysis.summary import ATTACKED, DIRECT
from forethought.report import figures
from forethought.report.data import ReportData
from forethought.report.section import SMALL_N, Gathered, Section, Table, draw, flat, model_views, rate_view, resource
from forethought.report.text import Row, View

SCOPES = {DIRECT: "asked directly", ATTACKED: "under attack"}
NAMES = {
    "own": "its own",
    "empty": "empty",
    "swap_same": "another prompt's, same label",
    "swap_opposite": "another prompt's, opposite label",
    "intent": "another intent",
    "decision": "opposite decision",
}


def section(found: Gathered) -> Section | None:
    """None where no model thinks."""
    data = found.data
    if not thinking(data):
        return None
    view = {
        "stated": stated(data),
        "costs": costs(data),
        "effects": effect_lines(data),
        "done": done(data),
        "tested": tested(data),
        "names": NAMES,
        "about": ABOUT,
    }
    body = draw("reasoning.html.j2", found, models=model_views(data), **view)
    tables = [
        Table("reasoning", "a model, measure, label, judge and attack", [flat(r) for r in data.reasoned]),
        Table("thought-length", "a model and attack, in tokens", [_length(data, i) for i in range(len(data.longer))]),
        Table("causal", "a model, thought given, judge, attack, label and number", list(_tested(data.followed))),
    ]
    return Section(
        "reasoning", "Reasoning", body, tuple(t for t in tables if t.rows), resource("sections/reasoning.css")
    )


def thinking(data: ReportData) -> set[str]:
    """Models that were taught to think, or do. One that answers after a thought which an attack put there is neither."""
    taught = {m.name for m in data.models if m.format_ok is not None}
    return taught | {r.model for r in data.reasoned if r.measure == "well-formed" and r.rate.hits}


def stated(data: ReportData) -> View:
    """Rows of measures with a cell for each column: a model that thinks, asked directly or under all attacks (None where it has
    no such attempt)."""
    who = thinking(data)
    shown = (r for r in data.reasoned if r.attack in SCOPES and r.model in who)
    by = {(r.measure, r.label, r.judge, r.attack, r.model): r for r in shown}
    there = {(r.model, r.attack) for r in by.values()}
    columns = [(i, m.name, s) for i, m in enumerate(data.models) for s in SCOPES if (m.name, s) in there]
    rows = {
        (r.measure, r.label, r.judge): {"measure": r.measure, "about": r.about, "label": r.label, "judge": r.judge}
        for r in by.values()
    }
    return {
        "columns": [{"index": i, "scope": SCOPES[scope]} for i, _, scope in columns],
        "rows": [
            row | {"cells": [_stated(by.get((*key, scope, name))) for _, name, scope in columns]}
            for key, row in rows.items()
        ],
        "silent": [i for i, m in enumerate(data.models) if m.name not in {model for model, _ in there}],
    }


def _stated(r: Reasoned | None) -> View | None:
    return None if r is None else _rate(r.rate) | {"left_out": r.left_out}


def _rate(rate: Rate) -> View:
    return rate_view(rate, rate.scored + rate.unscored)


def costs(data: ReportData) -> list[View]:
    """What is written an attempt, asked directly and under all attacks, with one cell a model."""
    by = {(x.attack, x.model): x for x in data.longer}
    return [
        {"scope": title, "cells": [by.get((scope, m.name)) for m in data.models]}
        for scope, title in SCOPES.items()
        if any((scope, m.name) in by for m in data.models)
    ]


def _length(data: ReportData, place: int) -> Row:
    x = data.longer[place]
    row: Row = {
        "model": x.model,
        "reference": x.reference,
        "attack": x.attack,
        "share before the answer": x.before_answer,
    }
    parts: tuple[tuple[str, Mean], ...] = (("tokens", x.tokens), ("more than the reference", x.more))
    return row | {f"{name}: {k}": v for name, mean in parts for k, v in flat(mean).items()}


def effect_lines(data: ReportData) -> list[View]:
    """The figure: for every thought that decides otherwise, the effect of the decision on each model, by each judge of refusals."""
    found = []
    for kind in KINDS:
        for m, judge, f in _each(data, kind):
            if f.effect is not None and f.effect.value is not None:
                strip = Markup(figures.change(f.effect, m, 300))
                small = f.effect.n < SMALL_N
                found.append(
                    {"kind": kind, "index": m, "judge": judge, "effect": f.effect, "figure": strip, "small": small}
                )
    return found


def _each(data: ReportData, kind: str) -> Iterable[tuple[int, str, Followed]]:
    """(model's place, judge, what an intervention did over all attacks and labels)."""
    for index, model in enumerate(data.models):
        for f in data.followed:
            if (f.model, f.kind, f.attack, f.label) == (model.name, kind, ALL, ALL):
                yield index, f.judge, f


def tested(data: ReportData) -> list[int]:
    """The places of the models that a causal run is there of."""
    return [i for i, m in enumerate(data.models) if any(f.model == m.name for f in data.followed)]


def done(data: ReportData) -> list[View]:
    """A block for each thought given: rows of (number, label, judge) over all attacks, with one cell a tested model (None where it has
    none)."""
    found = []
    for kind in KINDS:
        rows: dict[tuple[str, str, str], View] = {}
        for f in data.followed:
            for name, number in numbers_of(f).items() if (f.kind, f.attack) == (kind, ALL) else ():
                if (f.label == ALL) == (name in POOLED):
                    row = rows.setdefault(
                        (name, f.label, f.judge), {"number": name, "label": f.label, "judge": f.judge, "cells": {}}
                    )
                    row["cells"][f.model] = _cell(number)
        if rows:
            names = [data.models[i].name for i in tested(data)]
            lines = [r | {"cells": [r["cells"].get(name) for name in names]} for r in rows.values()]
            found.append({"kind": kind, "lines": lines})
    return found


def _cell(number: Rate | Difference) -> View:
    if isinstance(number, Difference):
        return {"difference": {"found": number, "small": number.n < SMALL_N}, "rate": None}
    return {"difference": None, "rate": _rate(number)}


def _tested(followed: Iterable[Followed]) -> Iterable[Row]:
    for f in followed:
        place = {"model": f.model, "thought": f.kind, "judge": f.judge, "attack": f.attack, "label": f.label}
        for name, number in numbers_of(f).items():
            yield place | {"number": name} | flat(number)
