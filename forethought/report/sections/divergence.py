"""Where attacks lie inside the models, against what was asked directly: the section of divergence runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from markupsafe import Markup

from forethought.analysis.divergence.distance import Distance, Floor
from forethought.analysis.divergence.measure import Looked, Position, name_of
from forethought.analysis.divergence.probe import BENIGN, HARMFUL, Projection
from forethought.analysis.summary import DIRECT
from forethought.errors import ForethoughtError
from forethought.records import Record
from forethought.report import maps
from forethought.report.redact import mask_name
from forethought.report.section import SMALL_N, Gathered, Section, Table, draw, flat, resource
from forethought.report.text import View, percent, two

DEPTH = 0.5  # The middle of a model, where Arditi et al. (arXiv 2406.11717) mostly found the direction; all depths are listed.
Places = Mapping[str, Sequence[maps.Place]]
AT: dict[Position, str] = {"prompt": "before it speaks", "answer": "after its thought"}


class Divergence(Record):
    """All looks of one model."""

    model: str
    looks: tuple[Looked, ...]


def section(found: Gathered) -> Section | None:
    """None where no model has a divergence run."""
    runs = [(m.name, run) for m in found.models for run in m.runs["divergence"]]
    looked = [Divergence(model=name, looks=tuple(run.read("divergence.jsonl", Looked))) for name, run in runs]
    if not looked:
        return None
    if found.redacted:
        looked = [d.model_copy(update={"looks": tuple(map(_masked, d.looks))}) for d in looked]
    # A model with few layers is not looked at at every depth.
    common = set[float].intersection(*({look.depth for look in d.looks} for d in looked))
    depth = min(sorted(common), key=lambda d: abs(d - DEPTH), default=DEPTH)
    places = {m.name: i for i, m in enumerate(found.data.models)}
    about = ("attack", "position", "depth")
    rows = [
        {"model": d.model} | {k: getattr(look, k) for k in about} | flat(distance)
        for d in looked
        for look in d.looks
        for distance in look.distances
    ]
    table = Table("divergence", "a model, attack, position, depth and two groups of requests", rows)
    body = draw("divergence.html.j2", found, **divergence(looked, places, depth))
    return Section("divergence", "Hidden states", body, (table,), resource("sections/divergence.css"))


def _masked(look: Looked) -> Looked:
    """The same under the name that a shared page gives the attack, which the distances' names hold too."""
    name = mask_name(look.attack)
    apart = (
        {"first": d.first.replace(look.attack, name), "second": d.second.replace(look.attack, name)}
        for d in look.distances
    )
    distances = tuple(d.model_copy(update=names) for d, names in zip(look.distances, apart, strict=True))
    return look.model_copy(update={"attack": name, "distances": distances})


def divergence(found: Sequence[Divergence], places: Mapping[str, int], depth: float) -> View:
    """What the template shows. `places` gives each model's colour. ForethoughtError where a model was not looked at at that depth."""
    seen = [(d, position) for d in found for position in _positions(d)]
    columns = [_column(d, position, depth, places[d.model], f"asked-{n}") for n, (d, position) in enumerate(seen)]
    attacks = dict.fromkeys(attack for column in columns for attack in column["looks"])
    return {
        "columns": columns,
        "rows": [_row(a, columns) for a in attacks],
        "depths": _depths(found, places),
        "depth": f"{depth:g}",
        "labels": list(dict.fromkeys(x for column in columns for x in column["labels"])),
    }


def _positions(found: Divergence) -> list[Position]:
    return list(dict.fromkeys(r.position for r in found.looks))


def _column(found: Divergence, position: Position, depth: float, index: int, own: str) -> View:
    """One model at one position: its maps, drawn in one frame, and its looks by attack. `own` is an id for the direct requests' marks."""
    looks = {r.attack: r for r in found.looks if (r.position, r.depth) == (position, depth)}
    if DIRECT not in looks:
        raise ForethoughtError(
            f"'{found.model}' was not looked at at depth {depth:g}, but at {sorted({r.depth for r in found.looks})}."
        )
    spots = {attack: _by_label(look) for attack, look in looks.items()}
    # Other labels that were asked directly stand in the first panel only.
    behind = {label: spots[DIRECT].get(label, []) for label in (HARMFUL, BENIGN)}
    frame = maps.frame_of(p for of in spots.values() for label in of.values() for p in label)
    panels = [
        {"attack": attack, "figure": _panel(attack, of, frame, found.model, own, behind)}
        for attack, of in spots.items()
    ]
    return {
        "name": found.model,
        "index": index,
        "at": AT[position] if len(_positions(found)) > 1 else "",
        "looks": looks,
        "panels": panels,
        "shown": percent(looks[DIRECT].shown),
        "labels": list(spots[DIRECT]),
        "missing": sum(sum(r.missing.values()) for r in looks.values()),
    }


def _by_label(look: Looked) -> dict[str, list[maps.Place]]:
    found: dict[str, list[maps.Place]] = {label: [] for label in look.rows}
    for spot in look.spots:
        found[spot.label].append((spot.x, spot.y))
    return found


def _panel(attack: str, groups: Places, frame: maps.Frame, model: str, own: str, behind: Places) -> Markup:
    spoken = f"{model}, {attack}: {', '.join(f'{len(p)} {label}' for label, p in groups.items())} requests on the map"
    return Markup(maps.panel(groups, frame, spoken, own, None if attack == DIRECT else behind))


def _row(attack: str, columns: Sequence[View]) -> View:
    cells = [_cell(column["looks"].get(attack), column["looks"][DIRECT], column["index"]) for column in columns]
    return {"attack": attack, "cells": cells}


def _cell(look: Looked | None, direct: Looked, index: int = 0) -> View | None:
    """The numbers of one attack on one model; None where it was not sent."""
    if look is None:
        return None
    found = {(d.first, d.second): d for d in look.distances}
    harmful, floors = name_of(HARMFUL, look.attack), {f.of: f for f in direct.floors}
    moved = [
        (f"from {label} ones asked directly", found.get((harmful, name_of(label, DIRECT))), floors.get(label))
        for label in (HARMFUL, BENIGN)
        if look.attack != DIRECT
    ]
    apart = found.get((harmful, name_of(BENIGN, look.attack)))
    return {
        "apart": apart and _line("from benign ones under it" if moved else "from benign ones", apart, None, index),
        "moved": [_line(title, d, floor, index) for title, d, floor in moved if d is not None],
        "probe": _probe(look, index),
        "lies": _lies({p.label: p for p in look.projections}, index),
        "rows": look.rows,
        "small": min((look.goals or look.rows).get(label, 0) for label in (HARMFUL, BENIGN)) < SMALL_N,
        "missing": sum(look.missing.values()),
    }


def _line(title: str, d: Distance, floor: Floor | None, index: int) -> View:
    chance = (
        None if d.shuffled is None or d.shuffled_high is None else (2 * d.shuffled - d.shuffled_high, d.shuffled_high)
    )
    ticks = (0.0, 1.0, 2.0)
    return {
        "title": title,
        "value": d.pad,
        "figure": Markup(maps.gauge(d.pad, d.pad_low, d.pad_high, index, start=-0.5, end=2, band=chance, ticks=ticks)),
        "interval": _span(d.pad_low, d.pad_high),
        "p": d.pad_p,
        "mmd": d.mmd,
        "mmd_p": d.mmd_p,
        "floor": floor.pad_high if floor else None,
    }


def _probe(look: Looked, index: int) -> View | None:
    carried = look.transfer
    if carried is None:
        return None
    found = carried.auroc or carried.against_direct
    if found is None or found.value is None:
        return None
    band = carried.shuffled[1:] if carried.shuffled else None
    return {
        "value": found.value,
        "figure": Markup(maps.gauge(found.value, found.low, found.high, index, start=0, end=1, band=band, ticks=(0, 0.5, 1))),
        "interval": _span(found.low, found.high),
        "against": "" if carried.auroc else "against benign ones asked directly",
        "called": [(label, percent(r.value)) for label, r in carried.called_harmful.items() if label in (HARMFUL, BENIGN)],
    }  # fmt: skip


def _lies(found: Mapping[str, Projection], index: int) -> View | None:
    harmful, benign = found.get(HARMFUL), found.get(BENIGN)
    if harmful is None or harmful.mean is None:
        return None
    other = benign.mean if benign else None
    figure = maps.gauge(harmful.mean, harmful.low, harmful.high, index, start=-1, end=2, ticks=(0, 1), second=other)
    return {
        "value": harmful.mean,
        "benign": other,
        "figure": Markup(figure),
        "interval": _span(harmful.low, harmful.high),
    }


def _span(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"{two(low)} to {two(high)}"


def _depths(found: Sequence[Divergence], places: Mapping[str, int]) -> list[View]:
    """Means over the attacks at every depth, so that the one shown can be seen not to be chosen for its looks."""
    lines = []
    for d in found:
        for position in _positions(d):
            for depth in dict.fromkeys(r.depth for r in d.looks):
                own = [r for r in d.looks if (r.position, r.depth) == (position, depth) and r.attack != DIRECT]
                cells = [_cell(r, r) for r in own]
                lines.append(
                    {
                        "name": d.model,
                        "index": places[d.model],
                        "at": AT[position],
                        "depth": f"{depth:g}",
                        "attacks": len(own),
                        "values": [
                            _mean(c["apart"]["value"] for c in cells if c and c["apart"]),
                            _mean(c["probe"]["value"] for c in cells if c and c["probe"]),
                            _mean(c["lies"]["value"] for c in cells if c and c["lies"]),
                            *(_mean(c["moved"][i]["value"] for c in cells if c and c["moved"]) for i in (0, 1)),
                        ],
                    }
                )
    return lines


def _mean(values: Iterable[float | None]) -> float | None:
    there = [v for v in values if v is not None]
    return sum(there) / len(there) if there else None
