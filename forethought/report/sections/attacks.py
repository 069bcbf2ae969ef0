"""Attack by attack: rates on harmful and benign requests by family, and on borderline and sensitive ones."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from forethought.analysis.measures import measure
from forethought.analysis.rates import Cell, Rate
from forethought.analysis.summary import DIRECT, Cost
from forethought.records import LABELS, Label
from forethought.report.data import ReportData
from forethought.report.headline import called, headline_judge, pooled, refusal_judge
from forethought.report.section import Gathered, Section, Table, draw, flat, rate_view
from forethought.report.text import View, tidy

# With more attacks than this the families are closed until asked for.
OPEN_UP_TO = 10
MET = {"seen": "in training", "family": "a relative in training", "unseen": "not in training"}
Cells = Mapping[tuple[str, Label, str, str], Cell]  # (judge, label, attack, model)


def section(found: Gathered) -> Section | None:
    """Every cell, with what the training of each model held of the attack."""
    data = found.data
    trained = any(m.distribution for m in data.models)
    body = draw("attacks.html.j2", found, families=families(data), others=others(data), trained=trained)
    met = {m.name: m.distribution.attacks for m in data.models if m.distribution}
    rows = [{"in training": MET.get(met.get(c.model, {}).get(c.attack, ""), "")} | cell_row(c) for c in data.cells]
    return Section(
        "tables", "Attack by attack", body, (Table("attack-by-attack", "a model, attack, label and judge", rows),)
    )


def cell_row(cell: Cell) -> View:
    """A cell as a row: scores of 0.5 or more are hits; what the judge calls them, and the rate of the rest, follow from its kind."""
    meant = measure(cell.judge, cell.label)
    rate = cell.negative if meant and meant.turned else cell.positive
    plain = {"model": cell.model, "attack": cell.attack, "label": cell.label, "judge": cell.judge}
    counts = {"attempts": cell.attempts, "not applicable": cell.inapplicable}
    return plain | {"measure": meant.name if meant else ""} | counts | flat(rate) | {"tokens": cell.tokens}


def index_cells(data: ReportData) -> Cells:
    return {(c.judge, c.label, c.attack, c.model): c for c in data.cells}


def families(data: ReportData) -> list[View]:
    """Attacks on harmful and benign requests by family, the direct request first. Under each attack one line a judge and label, so that
    over-refusal stands below every rate of safety."""
    cells, groups = index_cells(data), _by_family(data)
    few = sum(len(attacks) for attacks in groups.values()) <= OPEN_UP_TO
    found = []
    for family, attacks in groups.items():
        rows = [_attack(data, cells, attack, ("harmful", "benign")) for attack in attacks]
        rows = [row for row in rows if row["lines"]]
        if rows:
            summary = _family_rates(data, family) if family != DIRECT else []
            found.append({"name": family, "attacks": rows, "open": few or family == DIRECT, "summary": summary})
    return found


def others(data: ReportData) -> list[View]:
    """Borderline and sensitive requests, a row each attack they were sent under (mostly none)."""
    cells, labels, found = index_cells(data), [x for x in LABELS if x not in ("harmful", "benign")], []
    for label in labels:
        for card in data.attacks:
            row = _attack(data, cells, card.name, (label,))
            if row["lines"]:
                found.append(row | {"label": label})
    return found


def _by_family(data: ReportData) -> dict[str, list[str]]:
    cards = {a.name: a for a in data.attacks}
    groups: dict[str, list[str]] = {DIRECT: [DIRECT]} if any(c.attack == DIRECT for c in data.cells) else {}
    for attack in dict.fromkeys([*cards, *(c.attack for c in data.cells)]):
        if attack != DIRECT:
            groups.setdefault(cards[attack].family if attack in cards else "custom", []).append(attack)
    return groups


def _attack(data: ReportData, cells: Cells, attack: str, labels: Iterable[Label]) -> View:
    about = next((a for a in data.attacks if a.name == attack), None)
    lines = []
    for label in labels:
        for judge in data.judges:
            meant = measure(judge.name, label)
            found = [cells.get((judge.name, label, attack, m.name)) for m in data.models]
            if meant and any(found):
                views = [
                    cell_view(c, meant.turned) if c else _absent(cells, attack, label, m.name)
                    for c, m in zip(found, data.models, strict=True)
                ]
                better = "higher" if meant.higher_is_better else "lower"
                lines.append(
                    {"label": label, "judge": judge.name, "measure": meant.name, "better": better, "cells": views}
                )
    met = [m.distribution.attacks.get(attack) if m.distribution else None for m in data.models]
    costs = [_cost(next((c for c in data.costs if (c.model, c.attack) == (m.name, attack)), None)) for m in data.models]
    return {
        "attack": attack,
        "label": next(iter(lines))["label"] if lines else "",
        "about": about,
        "lines": lines,
        "met": [MET[m] if m else "" for m in met],
        "kind": [m or "" for m in met],
        "costs": costs if any(costs) else [],
    }


def _cost(cost: Cost | None) -> str:
    """What an attack took a prompt, where that was more than one attempt and one ask."""
    if cost is None or max(cost.attempts, sum(cost.queries.values())) <= 1:
        return ""
    asked = ", ".join(f"{tidy(count)} {role}" for role, count in cost.queries.items())
    spent = f" · asks: {asked} · {tidy(round(cost.tokens))} tokens" if asked else ""
    return f"a prompt: {tidy(cost.attempts)} attempt{'s' if cost.attempts != 1 else ''}{spent}"


def _absent(cells: Cells, attack: str, label: Label, model: str) -> str:
    """Why a judge has no cell of a model: what it was sent may have been judged by others alone."""
    sent = any((a, x, m) == (attack, label, model) for _, x, a, m in cells)
    return "not judged" if sent else "not sent"


def cell_view(cell: Cell, turned: bool) -> View:
    rate: Rate = cell.negative if turned else cell.positive
    return rate_view(rate, cell.attempts, cell.prompts) | {
        "unhelped": cell.unhelped if turned and cell.unhelped.hits != rate.hits else None,
        "inapplicable": cell.inapplicable,
        "labels": sorted(cell.labels.items(), key=lambda item: (-item[1], item[0])),
    }


def _family_rates(data: ReportData, family: str) -> list[View]:
    """What the closed line of a family says: one rate of safety and one of over-refusal."""
    lines = []
    for judge, label in ((headline_judge(data), "harmful"), (refusal_judge(data), "benign")):
        rates = [pooled(data, m.name, judge, label, family) for m in data.models]  # type: ignore[arg-type]
        if judge and any(r.scored + r.unscored for r in rates):
            lines.append({"measure": called(judge, label), "label": label, "rates": rates})  # type: ignore[arg-type]
    return lines
