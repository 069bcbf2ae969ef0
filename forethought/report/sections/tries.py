"""More tries: attack success and safest-of-N against the number of attempts, as curves and as a table."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from forethought.report import curves as draw_curves
from forethought.report.data import ReportData
from forethought.report.headline import headline_judge
from forethought.report.section import SMALL_N, Gathered, Section, Table, draw, flat, model_views
from forethought.report.text import View

KINDS = {"bon_attack": "at least one of N succeeds", "safe_of_n": "all N succeed"}


def section(found: Gathered) -> Section | None:
    """None where no attack made several attempts."""
    data = found.data
    tries = more_tries(data)
    if not any(tries):
        return None
    body = draw("tries.html.j2", found, tries=tries, curves=curves(data), models=model_views(data))
    rows = [flat(t) for t in data.tries]
    return Section("tries", "More tries", body, (Table("more-tries", "a model, attack, judge, kind and N", rows),))


def curves(data: ReportData) -> list[View]:
    """By the judge of the headline: a figure for each attack and kind, with a line for each model."""
    places, first = {m.name: i for i, m in enumerate(data.models)}, headline_judge(data)
    found: dict[tuple[str, str], dict[int, list[draw_curves.Step]]] = {}
    sizes: dict[tuple[str, str], int] = {}
    for t in data.tries:
        if t.judge == first and t.found.value is not None:
            step = draw_curves.Step(t.found.tries, t.found.value, t.found.low, t.found.high)
            key = (t.attack, t.found.kind)
            sizes[key] = min(sizes.get(key, t.found.prompts), t.found.prompts)
            found.setdefault(key, {}).setdefault(places[t.model], []).append(step)
    return [
        {
            "attack": attack,
            "kind": KINDS[kind],
            "small": sizes[attack, kind] < SMALL_N,
            "figure": Markup(draw_curves.curve(sorted(lines.items()))),
        }
        for (attack, kind), lines in sorted(found.items())
        if any(len(steps) > 1 for steps in lines.values())
    ]


def more_tries(data: ReportData) -> tuple[list[View], list[View]]:
    """Rows of (attack, judge, kind, N) with one estimate a model: by the judge of the headline, and by the others."""
    rows: dict[tuple[Any, ...], View] = {}
    for t in data.tries:
        key = (t.attack, t.judge, t.found.kind, t.found.tries)
        row = {"attack": t.attack, "judge": t.judge, "measure": t.measure, "kind": t.found.kind, "n": t.found.tries}
        if t.found.tries > 1 or t.found.kind == "bon_attack":  # With one try the two are one.
            rows.setdefault(key, row | {"cells": {}})["cells"][t.model] = t.found
    found = sorted(rows.values(), key=lambda r: (r["attack"], r["judge"], r["kind"], r["n"]))
    first = headline_judge(data)
    return [r for r in found if r["judge"] == first], [r for r in found if r["judge"] != first]
