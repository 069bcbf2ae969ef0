"""Refusals, category by category: what was refused, by which rule and with which words, and the closest harmless requests answered.

After SCoT (arXiv 2501.19180, section 3), whose refusals name the rule; the questions are ours.
"""

from __future__ import annotations

from forethought.analysis.cited import NONE, SEVERAL, Refused
from forethought.report.data import ReportData
from forethought.report.section import SMALL_N, Gathered, Section, Table, draw, flat, model_views, rate_view
from forethought.report.text import Row, View

WORDS, CLOSEST = 4, 2  # Shown of each category and model.
LEAST = 0.2  # Two requests less similar than this share little but common words.
SHADES = 4


def section(found: Gathered) -> Section | None:
    """None where no harmful prompt falls under a category, or no judge of refusals spoke."""
    data = found.data
    if not data.refusals and not data.policy_note.startswith("The policy"):
        return None
    body = draw(
        "refusals.html.j2",
        found,
        categories=categories(data),
        matrices=[m for m in (matrix(data, i) for i in range(len(data.models))) if m],
        silent=[v for v in model_views(data) if _refuses_silently(data, v["card"].name)],
        models=model_views(data),
        shown={"words": WORDS, "closest": CLOSEST, "least": LEAST},
    )
    rows: list[Row] = [flat(r) for r in data.refusals]
    for row, refused in zip(rows, data.refusals, strict=True):
        row |= {f"right {k}": v for k, v in flat(refused.right).items()}
    said: list[Row] = [
        {"model": r.model, "true category": r.category, "cited category": name, "refusals": n}
        for r in data.refusals
        for name, n in r.cited.items()
    ]
    words: list[Row] = [
        {"model": r.model, "category": r.category, "words": text, "refusals": n}
        for r in data.refusals
        for text, n in r.words.items()
    ]
    beside: list[Row] = [
        {
            "model": b.model,
            "category": b.category,
            "refused": b.refused,
            "harmless": b.harmless,
            "similarity": b.similarity,
        }
        for b in data.neighbours
    ]
    tables = (
        Table(
            "refusals",
            "a model and category: the share refused, and of those naming one rule the share naming the right one",
            rows,
        ),
        Table("cited-categories", "a model, true and cited category", said),
        Table("refusal-words", "a phrase of refusing, by model and category", words),
        Table("closest-harmless", "a refused request and the closest answered one, by their links", beside),
    )
    return Section("refusals", "Refusals", body, tuple(t for t in tables if t.rows))


def categories(data: ReportData) -> list[View]:
    """A view for each category that was asked about, with one column a model (None where it was not asked)."""
    by = {(r.category, r.model): r for r in data.refusals}
    found = []
    for id, name in data.categories.items():
        columns = [_column(data, by.get((id, m.name))) for m in data.models]
        if any(columns):
            found.append({"id": id, "name": name, "columns": columns})
    return found


def _column(data: ReportData, refused: Refused | None) -> View | None:
    if refused is None:
        return None
    beside = [b for b in data.neighbours if (b.model, b.category) == (refused.model, refused.category)]
    named = {data.categories.get(name, name): n for name, n in refused.cited.items()}
    return {
        "rate": rate_view(refused.rate, refused.rate.scored + refused.rate.unscored),
        "right": rate_view(refused.right, refused.right.scored) if refused.right.scored else None,
        "cited": list(named.items()),
        "words": list(refused.words.items()),
        "beside": sorted((b for b in beside if b.similarity >= LEAST), key=lambda b: -b.similarity),
    }


def matrix(data: ReportData, index: int) -> View | None:
    """Of one model's refusals, the category cited (columns) against the true one (rows); None where it never names one.

    A cell is (count, shade from 0 to SHADES by its share of the row, whether it is the right one)."""
    name = data.models[index].name
    if not _names_any(data, name):
        return None
    rows = {r.category: r.cited for r in data.refusals if r.model == name and r.cited}
    known = [c for c in data.categories if c in rows or any(c in cited for cited in rows.values())]
    columns = [*known, *(x for x in (SEVERAL, NONE) if any(x in cited for cited in rows.values()))]
    lines = []
    for category in (c for c in known if c in rows):
        all_of = list(rows[category].values())
        total = sum(all_of)
        counts = [rows[category].get(c, 0) for c in columns]
        cells = [(n, -(-SHADES * n // total), c == category) for c, n in zip(columns, counts, strict=True)]
        lines.append(
            {
                "id": category,
                "name": data.categories[category],
                "total": total,
                "small": total < SMALL_N,
                "cells": cells,
            }
        )
    right = sum(r.right.hits for r in data.refusals if r.model == name)
    named = sum(r.right.scored for r in data.refusals if r.model == name)
    total = sum(sum(cited.values()) for cited in rows.values())
    return {"index": index, "columns": columns, "lines": lines, "right": right, "named": named, "total": total}


def _refuses_silently(data: ReportData, model: str) -> bool:
    """Whether a model has refused something and never named a rule."""
    return any(r.cited for r in data.refusals if r.model == model) and not _names_any(data, model)


def _names_any(data: ReportData, model: str) -> bool:
    return any(set(r.cited) - {NONE} for r in data.refusals if r.model == model)
