"""What a report may hold besides rates: ROC curves and AUROC from score runs, capability from capability runs, what refusals
and thoughts say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypedDict, get_args

from forethought.analysis.capability import Ability, abilities
from forethought.analysis.causal import Followed, effects
from forethought.analysis.cited import Refused, neighbours, refusals
from forethought.analysis.equivalence import Paired, equivalences
from forethought.analysis.reasoning import Longer, Reasoned, longer, reasoned
from forethought.analysis.roc import Sides, numbers, roc_points
from forethought.analysis.separation import Against, Compared, Separation, Table, comparisons, separations, tabulate
from forethought.analysis.summary import ATTACKED, DIRECT, Heard
from forethought.judges import meaning
from forethought.policy import Policy, load_policy, shipped
from forethought.records import Attempt
from forethought.report.data import Beside, Curve
from forethought.report.sources import ModelRuns
from forethought.report.transcripts import reference

Named = tuple[str, str]  # A policy's name, and its hash where it is known.
# Refused requests of a category and a model that neighbours are sought for, and harmless ones among which they are.
ASKED, AMONG = 40, 2000
# Points of a curve closer than this (a share of the axis) are not told apart by eye.
FINE = 0.004


class Scored(TypedDict):
    """The part of a report that comes from score runs."""

    decided: tuple[str, ...]
    curves: tuple[Curve, ...]
    separations: tuple[Separation, ...]
    auroc_changes: tuple[Compared, ...]


class Refusing(TypedDict):
    """The part of a report that reads what refusals say."""

    refusals: tuple[Refused, ...]
    categories: dict[str, str]
    policy_note: str
    neighbours: tuple[Beside, ...]


class Thinking(TypedDict):
    """The part of a report on thoughts: what they state, what they cost, and what they do (from causal runs)."""

    reasoned: tuple[Reasoned, ...]
    longer: tuple[Longer, ...]
    followed: tuple[Followed, ...]


class Able(TypedDict):
    """The part of a report that comes from capability runs."""

    abilities: dict[str, tuple[Ability, ...]]
    ability_changes: dict[str, tuple[Paired, ...]]


def scored(models: Sequence[ModelRuns], reference: str) -> Scored:
    """AUROC and ROC of the models that have a score run, and their differences from the reference (the model less the reference)."""
    tables = {m.name: tabulate(m.attempts, m.scores) for m in models if m.scores}
    return Scored(
        decided=tuple(m.name for m in models if any(run.info["config"].get("fork") for run in m.runs["score"])),
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
        own = {attack: sides for (a, attack), (sides,) in table.items() if a == against}
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


def thinking(models: Sequence[ModelRuns], reference: str, given: str | None, used: Named | None) -> Thinking:
    """Of the models that think; empty where none does. Rules are read by the policy of `refused`; where there is none, no rule is read."""
    if not any(a.reasoning for m in models for a in m.attempts):
        return Thinking(reasoned=(), longer=(), followed=())
    policy, _ = _policy(given, used)
    found = [
        r
        for m in models
        if any(a.reasoning for a in m.attempts)
        for r in reasoned(m.name, m.attempts, m.verdicts, policy or load_policy("default"))
    ]
    return Thinking(
        reasoned=tuple(r for r in found if policy is not None or not r.measure.startswith("right rule")),
        longer=longer({m.name: m.attempts for m in models}, reference),
        followed=tuple(f for m in models if m.trials for f in effects(m.name, m.trials, m.tried)),
    )


def refused(models: Sequence[ModelRuns], heard: Heard, given: str | None, used: Named | None) -> Refusing:
    """What refusals say, by the policy `given`, else by the one that was `used` in training where it ships with the package, else (for
    untuned models) by the default one. `policy_note` says which, or why none."""
    policy, note = _policy(given, used)
    if policy is None:
        return Refusing(refusals=(), categories={}, policy_note=note, neighbours=())
    rows, beside = [], []
    for model in models:
        judge = next((j for j in heard[model.name] if meaning(j) == "not refused"), None)
        if judge is not None:
            outcomes = heard[model.name][judge]
            rows += refusals(model.name, model.attempts, outcomes, policy)
            beside += _beside(model, {o.attempt: o.hit for o in outcomes}, policy)
    names = {c.id: c.name for c in policy.categories}
    return Refusing(refusals=tuple(rows), categories=names, policy_note=note, neighbours=tuple(beside))


def _policy(given: str | None, used: Named | None) -> tuple[Policy | None, str]:
    if given is not None:
        policy = load_policy(given)
        return policy, f"read by the policy '{policy.name}'"
    name, hash = used or ("default", "")
    if name not in shipped() and not Path(name).is_file():
        return None, f"The policy '{name}' of the training does not ship with Forethought: name its file with --policy."
    policy = load_policy(name)
    if hash and policy.hash != hash:
        return None, f"The policy '{name}' has changed since the training: name the file it used with --policy."
    return policy, f"read by the policy '{policy.name}'" + ("" if used else ", which no model here was trained on")


def _beside(model: ModelRuns, hits: Mapping[str, bool | None], policy: Policy) -> list[Beside]:
    """The nearest answered harmless request of each refused one, both asked directly."""
    direct = {a.prompt.id: a for a in reversed(model.attempts) if a.attack == DIRECT}
    harmless = [a for a in direct.values() if a.prompt.label in ("benign", "borderline") and hits.get(a.id)][:AMONG]
    asked: dict[str, list[Attempt]] = {}
    for attempt in direct.values():
        found = policy.find(attempt.prompt) if attempt.prompt.label == "harmful" else None
        if found is not None and hits.get(attempt.id) is False:
            asked.setdefault(found.id, []).append(attempt)
    return [
        Beside(
            model=model.name, category=category, refused=reference(a), harmless=reference(b), text=b.prompt.request,
            similarity=round(similarity, 6),
        )
        for category in (c.id for c in policy.categories if c.id in asked)
        for a, b, similarity in neighbours(asked[category][:ASKED], harmless)
    ]  # fmt: skip
