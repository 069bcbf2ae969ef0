"""What heads the page: how much evidence there is, the picture, and a card for each model. Plain data for the templates."""

from __future__ import annotations

import math
from collections.abc import Iterable

from markupsafe import Markup

from forethought.analysis.capability import is_decoding
from forethought.analysis.measures import measure
from forethought.analysis.rates import Z95, Rate, rate
from forethought.analysis.summary import ATTACKED, DIRECT, NEW_PROMPTS, SEEN, UNSEEN
from forethought.judges import inside
from forethought.records import LABELS, Label
from forethought.report import figures
from forethought.report.data import ReportData
from forethought.report.redact import mask_name
from forethought.report.section import Gathered, rate_view, unshared
from forethought.report.text import View, clean

NOTHING = rate(0, 0, 0)
X_TITLE = "refused borderline requests"


def counts(data: ReportData) -> View:
    """How few prompts stand behind each rate, and the difference of two rates that chance alone could give."""
    rows = []
    for label in LABELS:
        sizes = {c.prompts for c in data.cells if c.label == label and c.attempts}
        if sizes:
            several = any(c.attack != DIRECT for c in data.cells if c.label == label)
            rows.append({"label": label, "low": min(sizes), "high": max(sizes), "each": several})
    low, high = min((r["low"] for r in rows), default=0), max((r["high"] for r in rows), default=0)
    common = [c.prompts for c in data.cells if c.label == "harmful" and c.attempts] or [
        c.prompts for c in data.cells if c.attempts
    ]
    usual = sorted(common)[len(common) // 2] if common else 0
    return {"rows": rows, "low": low, "high": high, "usual": usual, "noise": noise(usual)}


def noise(n: int) -> int:
    """Points by which two rates near 50%, each from n prompts, differ by chance alone in one comparison of twenty."""
    return min(100, round(100 * Z95 * math.sqrt(0.5 / n))) if n else 100


def judges_of(data: ReportData, label: Label) -> list[str]:
    """The judges whose scores say something about prompts of a label, in the order in which they were named."""
    return [j.name for j in data.judges if measure(j.name, label)]


def headline_judge(data: ReportData) -> str:
    """The first judge named that says something about answers to harmful requests makes the headline; empty where none does."""
    return next((j for j in judges_of(data, "harmful") if not inside(j)), "")


def refusal_judge(data: ReportData) -> str:
    """The first judge named that knows refusals; over-refusal is by it. Empty where none does."""
    return next((j.name for j in data.judges if j.knows == "not refused"), "")


def pooled(data: ReportData, model: str, judge: str, label: Label, scope: str) -> Rate:
    """The pooled rate, or one without any attempt."""
    key = (model, judge, label, scope)
    return next((p.rate for p in data.pools if (p.model, p.judge, p.label, p.scope) == key), NOTHING)


def called(judge: str, label: Label) -> str:
    meant = measure(judge, label) if judge else None
    return meant.name if meant else "harmful"


def on_few(found: Gathered, attacks: Iterable[str]) -> list[tuple[str, int]]:
    """(attack, harmful prompts) of the attacks that were made on fewer than were asked directly; what an attack could not be made of
    was tried. None where the page is drawn without its runs."""
    tried: dict[str, set[str]] = {}
    for attempt in (a for model in found.models for a in model.attempts if a.prompt.label == "harmful"):
        name = mask_name(attempt.attack) if found.redacted else attempt.attack
        tried.setdefault(name, set()).add(attempt.prompt.id)
    return [(a, len(tried[a])) for a in attacks if a in tried and len(tried[a]) < len(tried.get(DIRECT, ()))]


def headline(data: ReportData) -> View:
    judge, refusals = headline_judge(data), refusal_judge(data)
    name = called(judge, "harmful")
    shared = sorted(
        {c.attack for c in data.cells if c.label == "harmful" and c.attempts} - {DIRECT} - set(unshared(data))
    )
    points, cards = [], []
    for index, model in enumerate(data.models):
        attacked = pooled(data, model.name, judge, "harmful", ATTACKED)
        over = pooled(data, model.name, refusals, "borderline", DIRECT)
        points.append(figures.Point(clean(model.name), index, over, attacked))
        big = [
            (f"{name.capitalize()} under attack", "harmful requests, attacks pooled", attacked),
            (
                "Over-refusal on borderline",
                "refused, asked directly" if refusals else "no judge of refusals spoke",
                over,
            ),
        ]
        length = next((n for n in data.lengths if n.model == model.name), None)
        able = capabilities(data, model.name)
        big += [("Capability", f"{able[0][0]}, higher is better", able[0][1])] if able else []
        rest = [
            *_rest(data, model.name),
            *((f"Capability: {task} (higher is better)", rate) for task, rate in able[1:]),
        ]
        cards.append({"index": index, "model": model, "big": big, "rest": rest, "tokens": length})
    drawn = [p for p in points if p.x.value is not None and p.y.value is not None]
    y_title = f"{name} under attack"
    return {
        "judge": judge,
        "refusals": refusals,
        "name": name,
        "cards": cards,
        "read": drawn[0] if drawn else None,
        "left_out": [p.name for p in points if p not in drawn],
        "shared": shared,
        "unshared": unshared(data),
        "wide": Markup(figures.scatter(points, X_TITLE, y_title)),
        "narrow": Markup(figures.scatter(points, X_TITLE, y_title, 360, 390)),
    }


def capabilities(data: ReportData, model: str) -> list[tuple[str, Rate]]:
    """(task, accuracy) of the tasks that have one, in the order in which they were asked; which attacks a model can read is none."""
    found = data.abilities.get(model, ())
    return [(f"{a.task}, {a.mode}", a.accuracy) for a in found if a.accuracy and not is_decoding(a)]


def places(data: ReportData) -> list[View]:
    """Rates on harmful requests by what the model's training held, a row a scope, and refusals of benign ones where it has some."""
    judge, refusals, rows = headline_judge(data), refusal_judge(data), []
    wanted: tuple[tuple[str, Label], ...] = ((judge, "harmful"), (refusals, "benign"))
    for by, label in wanted if any(m.distribution for m in data.models) else ():
        for scope in (DIRECT, SEEN, UNSEEN, NEW_PROMPTS, ATTACKED):
            views = []
            for model in data.models:
                pool = next(
                    (p for p in data.pools if (p.model, p.judge, p.label, p.scope) == (model.name, by, label, scope)),
                    None,
                )
                size = pool.rate.scored + pool.rate.unscored if pool else 0
                views.append(rate_view(pool.rate, size) | {"attacks": pool.attacks} if pool else None)
            if any(views):
                rows.append({"scope": scope, "label": label, "measure": called(by, label), "judge": by, "cells": views})
    return rows


def _rest(data: ReportData, model: str) -> list[tuple[str, Rate]]:
    """What a card shows below its two large numbers, (name, rate): over-refusal beside every measure of safety."""
    judge, refusals, rows = headline_judge(data), refusal_judge(data), []
    for other in (j for j in judges_of(data, "harmful") if j != judge):
        name = called(other, "harmful").capitalize()
        rows.append((f"{name} under attack ({other})", pooled(data, model, other, "harmful", ATTACKED)))
    name = called(judge, "harmful").capitalize()
    rows.append((f"{name}, asked directly", pooled(data, model, judge, "harmful", DIRECT)))
    splits = {
        SEEN: "attacks of trained families",
        UNSEEN: "attacks of other families",
        NEW_PROMPTS: "prompts not in training",
    }
    for scope, words in splits.items():
        found = pooled(data, model, judge, "harmful", scope)
        if found is not NOTHING:
            rows.append((f"{name}, {words}", found))
    rows.append(("Refused: benign, under the same attacks", pooled(data, model, refusals, "benign", ATTACKED)))
    rows.append(("Refused: sensitive", pooled(data, model, refusals, "sensitive", DIRECT)))
    for other in judges_of(data, "sensitive"):
        meant = measure(other, "sensitive")
        if meant and meant.higher_is_better:
            words = f"{meant.name.capitalize()}: sensitive (higher is better)"
            rows.append((words, pooled(data, model, other, "sensitive", DIRECT)))
    return rows
