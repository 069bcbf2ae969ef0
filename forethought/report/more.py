"""What a report may hold besides judges: ROC curves and AUROC from score runs, capability from capability runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict, get_args

from forethought.analysis.capability import Ability, abilities
from forethought.analysis.equivalence import Paired, equivalences
from forethought.analysis.roc import Sides, numbers, roc_points
from forethought.analysis.separation import (
    DIRECT,
    Against,
    Compared,
    Separation,
    Table,
    comparisons,
    separations,
    tabulate,
)
from forethought.analysis.summary import ATTACKED
from forethought.report.data import Curve
from forethought.report.sources import ModelRuns

# Points of a curve closer than this (a share of the axis) are not told apart by eye.
FINE = 0.004


class Scored(TypedDict):
    """The part of a report that comes from score runs."""

    curves: tuple[Curve, ...]
    separations: tuple[Separation, ...]
    auroc_changes: tuple[Compared, ...]


class Able(TypedDict):
    """The part of a report that comes from capability runs."""

    abilities: dict[str, tuple[Ability, ...]]
    ability_changes: dict[str, tuple[Paired, ...]]


def scored(models: Sequence[ModelRuns], reference: str) -> Scored:
    """AUROC and ROC of the models that have a score run, and their differences from the reference (the model less the reference)."""
    tables = {m.name: tabulate(m.attempts, m.scores) for m in models if m.scores}
    return Scored(
        curves=tuple(curve for name, table in tables.items() for curve in curves(name, table)),
        separations=tuple(s for name, table in tables.items() for s in separations(name, table)),
        auroc_changes=tuple(
            change
            for name, table in tables.items()
            if name != reference and reference in tables
            for change in comparisons({name: table, reference: tables[reference]})
        ),
    )


def curves(model: str, table: Table) -> list[Curve]:
    """The ROC curves of one model: asked directly and under all attacks, against benign and against borderline requests."""
    found = []
    for against in get_args(Against):
        own = {attack: sides for (a, attack), sides in table.items() if a == against}
        for scope in (DIRECT, ATTACKED):
            used = [sides for attack, sides in own.items() if (attack == DIRECT) == (scope == DIRECT)]
            # Borderline requests are asked directly only, so that every attack has the same ones: they count once.
            others = used if against == "benign" else used[:1]
            sides = Sides([p for s in used for p in s.positive], [p for s in others for p in s.negative])
            points = roc_points(numbers(sides.positive), numbers(sides.negative))
            if points:
                kept = thin([(p.fpr, p.tpr) for p in points])
                found.append(Curve(model=model, scope=scope, against=against, points=kept))
    return found


def thin(points: list[tuple[float, float]]) -> tuple[tuple[float, float], ...]:
    """A curve without the points that cannot be seen; its ends stay."""
    kept = points[:1]
    for x, y in points[1:-1]:
        if abs(x - kept[-1][0]) + abs(y - kept[-1][1]) >= FINE:
            kept.append((x, y))
    return (*kept, points[-1])


def able(models: Sequence[ModelRuns], reference: str) -> Able:
    """What the models that have a capability run can do, and against the reference. ForethoughtError where two were asked differently."""
    rows = {m.name: m.graded for m in models if m.graded}
    base = rows.get(reference, [])
    known = {(r.task, r.mode) for r in base}
    return Able(
        abilities={name: tuple(abilities(graded)) for name, graded in rows.items()},
        ability_changes={
            name: tuple(equivalences(base, graded))
            for name, graded in rows.items()
            if name != reference and known & {(r.task, r.mode) for r in graded}
        },
    )
