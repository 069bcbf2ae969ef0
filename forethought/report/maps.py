"""Figures of hidden states as SVG strings: a small map for each attack, and numbers on a line.

Pure functions; colours are CSS classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape

import numpy as np

from forethought.report.figures import colour

Place = tuple[float, float]
Frame = tuple[float, float, float, float]  # Least x and y, greatest x and y.
SIZE, PAD = 200, 9
# The outermost points of each side may lie outside the frame, and are then drawn on its edge.
OUTSIDE = 0.01
CLASSES = ("harmful", "benign")


def frame_of(places: Iterable[Place]) -> Frame:
    """A square that holds all but the outermost of the places, so that panels drawn in it can be compared."""
    points = np.array(list(places) or [(0.0, 0.0)])
    low, high = np.quantile(points, [OUTSIDE, 1 - OUTSIDE], axis=0)
    half, middle = max(float((high - low).max()) * 0.55, 1e-6), (low + high) / 2
    left, bottom = (float(v) for v in middle - half)
    return left, bottom, left + 2 * half, bottom + 2 * half


def panel(
    groups: Mapping[str, Sequence[Place]], frame: Frame, spoken: str, own: str, behind: Mapping[str, Sequence[Place]] | None = None
) -> str:  # fmt: skip
    """One attack: its requests by label over those asked directly (`behind`, pale), with an arrow between the means of the harmful ones.
    Without `behind` it is the panel of the direct requests, which keeps its marks under the id `own` for the others to repeat.

    Harmful requests are dots, benign ones crosses, others small triangles; all of one label are one path, so that thousands stay light.
    """
    x, y = _at((0.0, 0.0), frame)
    drawn = {label: _marks(label, places, frame) for label, places in groups.items()}
    parts = [f'<rect class="sheet" x="0.5" y="0.5" width="{SIZE - 1}" height="{SIZE - 1}" rx="5"/>']
    parts.append(f'<path class="grid" d="M{x} 1V{SIZE - 1}M1 {y}H{SIZE - 1}"/>')
    if behind is None:
        parts.append(f'<g id="{own}">{"".join(drawn.pop(label, "") for label in CLASSES)}</g>')
    else:
        parts.append(f'<use class="pale" href="#{own}"/>')
    parts += drawn.values()
    if behind is not None and groups.get("harmful") and behind.get("harmful"):
        parts.append(_arrow(_at(_mean(behind["harmful"]), frame), _at(_mean(groups["harmful"]), frame)))
    return (
        f'<svg class="map" viewBox="0 0 {SIZE} {SIZE}" role="img" aria-label="{escape(spoken)}">{"".join(parts)}</svg>'
    )


def mark(label: str) -> str:
    """The mark of a label alone, for a key."""
    frame = (-1.0, -1.0, 1.0, 1.0)
    middle = SIZE / 2
    return (
        f'<svg class="map sign" viewBox="{middle - 7:g} {middle - 7:g} 14 14" width="14" height="14" aria-hidden="true">'
        f"{_marks(label, [(0.0, 0.0)], frame)}</svg>"
    )


def gauge(
    value: float | None,
    low: float | None,
    high: float | None,
    index: int,
    *,
    start: float,
    end: float,
    band: tuple[float, float] | None = None,
    ticks: Sequence[float] = (),
    second: float | None = None,
    width: int = 84,
) -> str:
    """A number on a line from `start` to `end`: mark, bar for its interval, a pale band for what chance gives, and a cross for a second
    number. What lies outside is drawn at the end."""
    height, pad = 16, 6

    def at(v: float) -> float:
        return round(pad + (width - 2 * pad) * min(max((v - start) / (end - start), 0.0), 1.0), 1)

    parts = [f'<path class="track" d="M{pad} 8H{width - pad}{"".join(f"M{at(t)} 5v6" for t in ticks)}"/>']
    if band is not None:
        left, wide = at(band[0]), max(at(band[1]) - at(band[0]), 1.5)
        parts.append(f'<rect class="chance" x="{left}" y="1" width="{wide:.1f}" height="14"/>')
    if low is not None and high is not None:
        parts.append(f'<path class="interval" d="M{at(low)} 8H{at(high)}"/>')
    if second is not None:
        parts.append(f'<path class="interval" d="M{at(second) - 3:.1f} 5l6 6m0-6l-6 6"/>')
    if value is not None:
        parts.append(f'<circle class="mark" cx="{at(value)}" cy="8" r="4.4"/>')
    size = f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    return f'<svg class="gauge {colour(index)}" {size} aria-hidden="true">{"".join(parts)}</svg>'


def _at(place: Place, frame: Frame) -> Place:
    """Inside the panel, y upwards."""
    shares = (
        min(max((v - low) / (high - low), 0.0), 1.0) for v, low, high in zip(place, frame[:2], frame[2:], strict=True)
    )
    x, y = (PAD + (SIZE - 2 * PAD) * share for share in shares)
    return round(x, 1), round(SIZE - y, 1)


def _marks(label: str, places: Sequence[Place], frame: Frame) -> str:
    shapes = {"harmful": "h0", "benign": "m-2.2-2.2l4.4 4.4m0-4.4l-4.4 4.4"}
    shape = shapes.get(label, "m0-2.6l2.6 4.6h-5.2z")
    kind = label if label in shapes else "other"
    drawn = "".join(f"M{x:g} {y:g}{shape}" for x, y in (_at(p, frame) for p in places))
    return f'<path class="at-{kind}" d="{drawn}"/>'


def _mean(places: Sequence[Place]) -> Place:
    return sum(x for x, _ in places) / len(places), sum(y for _, y in places) / len(places)


def _arrow(start: Place, end: Place) -> str:
    """From the mean of harmful requests asked directly to that of the attacked ones; a ring where the arrow would have no length."""
    (x, y), (u, v) = start, end
    long = float(np.hypot(u - x, v - y))
    if long < 9:
        return f'<circle class="arrow" cx="{u}" cy="{v}" r="5"/>'
    dx, dy = (u - x) / long, (v - y) / long
    tips = [(u - 8 * dx + side * 4 * dy, v - 8 * dy - side * 4 * dx) for side in (1, -1)]
    head = "".join(f"M{p:.1f} {q:.1f}L{u} {v}" for p, q in tips)
    return f'<path class="arrow under" d="M{x} {y}L{u} {v}{head}"/><path class="arrow" d="M{x} {y}L{u} {v}{head}"/>'
