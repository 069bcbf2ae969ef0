"""The tables of the page: attacks by family, differences, agreement, more tries. Plain data for the template."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from forethought.analysis.agreement import Agreed
from forethought.analysis.measures import measure
from forethought.analysis.paired import Comparison
from forethought.analysis.rates import Cell, Rate
from forethought.analysis.summary import ATTACKED, DIRECT, Cost
from forethought.records import LABELS, Label
from forethought.report.data import ReportData
from forethought.report.overview import called, headline_judge, pooled, refusal_judge
from forethought.report.text import View, tidy

SMALL_N, MANY_UNSCORED = 20, 0.10
# With more attacks than this the families are closed until asked for.
OPEN_UP_TO = 10
MET = {"seen": "in training", "family": "a relative in training", "unseen": "not in training"}
Cells = Mapping[tuple[str, Label, str, str], Cell]  # (judge, label, attack, model)


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
                views = [cell_view(c, meant.turned) if c else None for c in found]
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


def cell_view(cell: Cell, turned: bool) -> View:
    rate: Rate = cell.negative if turned else cell.positive
    return rate_view(rate, cell.attempts) | {
        "unhelped": cell.unhelped if turned and cell.unhelped.hits != rate.hits else None,
        "inapplicable": cell.inapplicable,
        "labels": sorted(cell.labels.items(), key=lambda item: (-item[1], item[0])),
    }


def rate_view(rate: Rate, attempts: int) -> View:
    return {
        "rate": rate,
        "small": rate.scored < SMALL_N,
        "warn": attempts > 0 and rate.unscored / attempts > MANY_UNSCORED,
        "unhelped": None,
        "inapplicable": 0,
        "labels": [],
    }


def _family_rates(data: ReportData, family: str) -> list[View]:
    """What the closed line of a family says: one rate of safety and one of over-refusal."""
    lines = []
    for judge, label in ((headline_judge(data), "harmful"), (refusal_judge(data), "benign")):
        rates = [pooled(data, m.name, judge, label, family) for m in data.models]  # type: ignore[arg-type]
        if judge and any(r.scored + r.unscored for r in rates):
            lines.append({"measure": called(judge, label), "label": label, "rates": rates})  # type: ignore[arg-type]
    return lines


def differences(data: ReportData) -> View:
    """Two tables of differences from the reference, and how many comparisons each made."""
    return {
        "others": [i for i, m in enumerate(data.models) if m.name != data.reference],
        "made": len([c for c in data.differences if c.difference.p is not None]),
        "made_by_attack": len([c for c in data.by_attack if c.difference.p is not None]),
        "sure": [
            len([c for c in t if c.difference.corrected is not None and c.difference.corrected < 0.05])
            for t in (data.differences, data.by_attack)
        ],
        "rows": _lines(data, data.differences),
        "by_attack": _lines(data, data.by_attack),
    }


def _lines(data: ReportData, table: Iterable[Comparison]) -> list[View]:
    rows: dict[tuple[Any, ...], View] = {}
    for c in table:
        key = (c.scope, c.label, c.judge)
        shown = "asked directly" if c.scope == DIRECT else c.scope if c.scope == ATTACKED else ""
        title = f"{c.label}, {shown}" if shown else c.scope
        row = {"title": title, "measure": c.measure, "judge": c.judge, "cells": {}}
        small = {"found": c.difference, "small": c.difference.n < SMALL_N}
        rows.setdefault(key, row)["cells"][c.model] = small
    return list(rows.values())


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


def separation(data: ReportData) -> View:
    """AUROC by what harmful requests are set against: direct and mean first, then attack by attack."""
    rows: dict[tuple[Any, ...], View] = {}
    for s in data.separations:
        row = rows.setdefault(
            (s.against, s.attack), {"attack": s.attack, "against": s.against, "cells": {}, "changes": {}}
        )
        row["cells"][s.model] = s
    for c in data.auroc_changes:
        if (c.against, c.attack) in rows:
            rows[c.against, c.attack]["changes"][c.first] = c.difference
    short = [row for row in rows.values() if row["attack"] in (DIRECT, "mean")]
    return {"short": short, "long": [row for row in rows.values() if row["attack"] not in (DIRECT, "mean")]}


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
