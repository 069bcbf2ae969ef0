"""One look: an attack against what was asked directly, at one layer and one position. What is drawn for it depends on its own name and
the seed alone, so an attack's numbers are the same whatever other attacks a run holds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np

from forethought.analysis.divergence.distance import Distance, Floor, Side, distance, floor, tidy
from forethought.analysis.divergence.probe import BENIGN, HARMFUL, Projection, Transfer, projections, transfer
from forethought.analysis.divergence.subspace import Array, Rows, Scale, joined, on_axes, principal, scale_of, scaled
from forethought.analysis.summary import DIRECT
from forethought.errors import ForethoughtError
from forethought.records import Record, digest

# Where a model is looked at: the last token before it speaks, and the one from which the first word of its answer comes.
Position = Literal["prompt", "answer"]
# Points of a label that the map keeps, on the same prompts for every attack.
SPOTS = 120


class Group(NamedTuple):
    """The hidden states of the attempts on one label under one attack, with the goal of each; `missing` have none."""

    rows: Rows
    goals: Sequence[str]
    attempts: Sequence[str]
    missing: int = 0


class Standpoint(NamedTuple):
    """What attacks at one layer and position are seen from: the `source` (harmful and benign, asked directly), its scale, and its first two
    principal axes `plane` [width, 2], which show `shown` of its variance."""

    position: Position
    depth: float
    layer: int
    source: Mapping[str, Group]
    scale: Scale
    plane: Array
    shown: float


class Spot(Record):
    """An attempt on the map: its coordinates on the first two principal axes of the source, in its standard units."""

    label: str
    attempt: str
    x: float
    y: float


class Looked(Record):
    """An attack against the source (what was asked directly, harmful and benign) at `layer`, which is entered at `depth` of all blocks.

    `rows` counts the states of each label, `goals` the requests they are of, `missing` the attempts
    without one. The map's two axes show `shown` of the source's variance;
    distances and probe work in dimensions that keep `kept` of the variance of source and attack. For the attack `direct` the rows are the
    source itself and the other labels that were asked directly, and `floors` say how far apart its halves lie.
    """

    position: Position
    depth: float
    layer: int
    attack: str
    rows: dict[str, int]
    goals: dict[str, int] = {}
    missing: dict[str, int]
    shown: float
    kept: float
    distances: tuple[Distance, ...]
    floors: tuple[Floor, ...] = ()
    transfer: Transfer | None = None
    projections: tuple[Projection, ...] = ()
    spots: tuple[Spot, ...] = ()


def stand(position: Position, depth: float, layer: int, source: Mapping[str, Group]) -> Standpoint:
    """What every attack at one layer and position is seen from. ForethoughtError where the source lacks a class."""
    for label in (HARMFUL, BENIGN):
        if label not in source or not source[label].goals:
            raise ForethoughtError(
                f"no {label} prompt that was asked directly has a hidden state, and attacks are measured against these. "
                "Attack with `direct` among the attacks and both labels among the prompts."
            )
    own = {label: source[label] for label in (HARMFUL, BENIGN)}
    asked = joined([g.rows for g in own.values()])
    scale = scale_of(asked)
    flat = principal(scaled(asked, scale))
    plane = flat.axes[:, :2]
    centre = [on_axes(scaled(g.rows, scale), plane).mean(0) for g in own.values()]
    # Harmful requests lie to the upper right of benign ones, whatever sign an axis had.
    return Standpoint(
        position, depth, layer, own, scale, plane * np.where(centre[0] < centre[1], -1.0, 1.0), flat.share(2)
    )


def look(at: Standpoint, attack: str, target: Mapping[str, Group], seed: int) -> Looked:
    """Measure `target` (groups by label, under one attack) against the source; for the attack `direct`, `target` holds the other labels."""
    rng = np.random.default_rng(int(digest(seed, at.position, at.depth, attack), 16))
    source, scale = at.source, at.scale
    shown = {**source, **target} if attack == DIRECT else dict(target)
    space = principal(scaled(joined([g.rows for g in [*source.values(), *target.values()] if g.goals]), scale))
    base = {label: _side(g, scale, space.axes) for label, g in source.items()}
    there = {label: _side(g, scale, space.axes) for label, g in target.items()}
    there = {**base, **there} if attack == DIRECT else there
    return Looked(
        position=at.position,
        depth=at.depth,
        layer=at.layer,
        attack=attack,
        rows={label: len(g.goals) for label, g in shown.items()},
        goals={label: len(set(g.goals)) for label, g in shown.items()},
        missing={label: g.missing for label, g in shown.items() if g.missing},
        shown=tidy(at.shown),
        kept=tidy(space.share()),
        distances=tuple(distance(a, b, rng) for a, b in _pairs(attack, base, there)),
        floors=tuple(floor(label, base[label], rng) for label in (HARMFUL, BENIGN)) if attack == DIRECT else (),
        transfer=transfer(base, there, rng),
        projections=tuple(
            projections(
                {label: (g.rows, g.goals) for label, g in source.items()},
                {label: (g.rows, g.goals) for label, g in shown.items() if g.goals},
                rng,
            )
        ),
        spots=tuple(_spots(at, shown)),
    )


def _side(group: Group, scale: Scale, axes: Array) -> Side:
    return Side(on_axes(scaled(group.rows, scale), axes), group.goals)


def name_of(label: str, attack: str) -> str:
    """What a distance calls a set of rows: `harmful, direct`."""
    return f"{label}, {attack}"


def _pairs(
    attack: str, base: Mapping[str, Side], there: Mapping[str, Side]
) -> list[tuple[tuple[str, Side], tuple[str, Side]]]:
    """What is set against what. Attacked requests against direct ones of both classes, and the classes against one another under the same
    wrapper, since a wrapper alone sets any two sets apart."""
    harmful, benign = ((name_of(label, DIRECT), base[label]) for label in (HARMFUL, BENIGN))
    named = {label: (name_of(label, attack), side) for label, side in there.items()}
    if attack == DIRECT:
        others = [side for label, side in named.items() if label not in base]
        return [(harmful, benign), *((side, known) for side in others for known in (harmful, benign))]
    pairs = [(side, known) for side in named.values() for known in (harmful, benign)]
    if HARMFUL in named and BENIGN in named:
        pairs.append((named[HARMFUL], named[BENIGN]))
    return pairs


def _spots(at: Standpoint, shown: Mapping[str, Group]) -> Iterator[Spot]:
    for label, group in shown.items():
        wanted = set(sorted(set(group.goals))[:SPOTS])
        places = on_axes(scaled(group.rows, at.scale), at.plane)
        for attempt, goal, (x, y) in zip(group.attempts, group.goals, places.tolist(), strict=True):
            if goal in wanted:
                yield Spot(label=label, attempt=attempt, x=tidy(x), y=tidy(y))
