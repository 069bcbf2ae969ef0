"""Figures as SVG strings: pure functions over rates and differences.

Colours are the page's CSS variables, chosen by class `m0`, `m1`, ... Every text put into a figure is escaped here; a
rate that nothing was scored for draws no mark.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Protocol

from forethought.analysis.rates import Rate
from forethought.report.text import percent

COLOURS, SHAPES = 6, 5  # Coprime, so that 30 models differ.
LETTER, LINE = 9.3, 17.0  # Generous size of a character of a label, in SVG units.
LONGEST = 26

Box = tuple[float, float, float, float]  # left, top, right, bottom


class Interval(Protocol):
    """A share with its 95% interval and the bounds that the unscored leave; each None where nothing was scored."""

    @property
    def value(self) -> float | None: ...
    @property
    def low(self) -> float | None: ...
    @property
    def high(self) -> float | None: ...
    @property
    def lowest(self) -> float | None: ...
    @property
    def highest(self) -> float | None: ...


@dataclass(frozen=True)
class Point:
    """One model in the scatter; `index` picks its colour and shape."""

    name: str
    index: int
    x: Rate
    y: Rate


@dataclass(frozen=True)
class Label:
    """Where a name stands: the left end of its line, its middle, and whether it is far enough to need a leader."""

    left: float
    middle: float
    width: float
    far: bool

    @property
    def box(self) -> Box:
        return self.left, self.middle - LINE / 2, self.left + self.width, self.middle + LINE / 2


def colour(index: int) -> str:
    """The CSS class that sets `color` for a model."""
    return f"m{index % COLOURS}"


def number(value: float) -> str:
    """A coordinate, to a tenth."""
    return f"{value:.1f}".removesuffix(".0")


def marker(index: int, x: float, y: float, r: float) -> str:
    """A filled mark of about equal area in each of the shapes: circle, square, triangle, diamond, triangle down."""
    shape = index % SHAPES
    if shape == 0:
        return f'<circle class="mark" cx="{number(x)}" cy="{number(y)}" r="{number(r)}"/>'
    if shape == 1:
        s = r * 0.9
        return f'<rect class="mark" x="{number(x - s)}" y="{number(y - s)}" width="{number(2 * s)}" height="{number(2 * s)}"/>'
    t = r * 1.2
    corners = {
        2: ((0, -t), (t, t * 0.8), (-t, t * 0.8)),
        3: ((0, -t * 1.1), (t * 1.1, 0), (0, t * 1.1), (-t * 1.1, 0)),
        4: ((0, t), (t, -t * 0.8), (-t, -t * 0.8)),
    }[shape]
    points = " ".join(f"{number(x + dx)},{number(y + dy)}" for dx, dy in corners)
    return f'<polygon class="mark" points="{points}"/>'


def badge(index: int, size: int = 14) -> str:
    """A model's mark alone, to stand beside its name."""
    mark = marker(index, size / 2, size / 2, size * 0.36)
    return f'<svg class="badge {colour(index)}" width="{size}" height="{size}" aria-hidden="true">{mark}</svg>'


def strip(rate: Interval, index: int, width: int = 96) -> str:
    """A rate on a line from 0 to 100%: pale band for the bounds, bar for the 95% interval, mark for the value."""
    return _strip(rate, index, width, 0.0)


def change(difference: Interval, index: int, width: int = 96) -> str:
    """A difference on a line from -100 to +100 points, with a stroke at 0: band, bar and mark as in `strip`."""
    return _strip(difference, index, width, -1.0)


def _strip(shown: Interval, index: int, width: int, start: float) -> str:
    height, pad = 16, 6
    middle, span = height / 2, width - 2 * pad

    def at(value: float) -> float:
        return pad + span * (value - start) / (1 - start)

    parts = [f'<line class="track" x1="{pad}" x2="{width - pad}" y1="{number(middle)}" y2="{number(middle)}"/>']
    ticks = "".join(f"M{number(at(v))} {number(middle - 3)}v6" for v in (start, 0.5 + start / 2, 1))
    zero = f"M{number(at(0))} 1v{height - 2}" if start else ""
    parts.append(f'<path class="track" d="{ticks}{zero}"/>')
    if shown.lowest is not None and shown.highest is not None and shown.highest > shown.lowest:
        left, right = at(shown.lowest), at(shown.highest)
        parts.append(
            f'<rect class="bounds" x="{number(left)}" y="1" width="{number(right - left)}" height="{height - 2}"/>'
        )
    if shown.value is not None and shown.low is not None and shown.high is not None:
        left, right = at(shown.low), at(shown.high)
        parts.append(
            f'<line class="interval" x1="{number(left)}" x2="{number(right)}" y1="{number(middle)}" y2="{number(middle)}"/>'
        )
        parts.append(marker(index, at(shown.value), middle, 4.6))
    return (
        f'<svg class="strip {colour(index)}" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'aria-hidden="true">{"".join(parts)}</svg>'
    )


def _overlap(a: Box, b: Box) -> float:
    wide = min(a[2], b[2]) - max(a[0], b[0])
    high = min(a[3], b[3]) - max(a[1], b[1])
    return wide * high if wide > 0 and high > 0 else 0.0


def _candidates(x: float, y: float, width: float) -> Iterable[Label]:
    """Places around a mark, the nearest first: on either side, then above and below."""
    for step in range(8):
        rise, aside, far = 10 + 18 * step, 13 + 3 * step, step > 1
        for left in (x + aside, x - aside - width):
            yield Label(left, y - rise, width, far)
            yield Label(left, y + rise, width, far)
        yield Label(x - width / 2, y - rise - 9, width, far)
        yield Label(x - width / 2, y + rise + 9, width, far)


def place(marks: Sequence[tuple[float, float, float]], lines: Sequence[Box], frame: Box) -> list[Label]:
    """A label for each mark (x, y, label width), off the other labels and marks, off the whiskers where it can be.

    Greedy in the order given, so deterministic: the first candidate around a mark with the least overlap wins.
    """
    spots = [(x - 9, y - 9, x + 9, y + 9) for x, y, _ in marks]
    placed: list[Label] = []

    def cost(label: Label) -> float:
        outside = label.width * LINE - _overlap(label.box, frame)
        clash = sum(_overlap(label.box, b) for b in [*spots, *(p.box for p in placed)])
        return 20 * outside + 30 * clash + sum(_overlap(label.box, b) for b in lines) + 40 * label.far

    for mark in marks:
        placed.append(min(_candidates(*mark), key=cost))
    return placed


def _axes(frame: Box, x_title: str, y_title: str) -> list[str]:
    left, top, right, bottom = frame
    fade = f"fade-{number(right)}"
    stops = '<stop class="near" offset="0"/><stop class="away" offset="1"/>'
    parts = [
        f'<radialGradient id="{fade}" cx="0" cy="1" r="0.75">{stops}</radialGradient>',
        f'<rect fill="url(#{fade})" x="{number(left)}" y="{number(top)}" '
        f'width="{number(right - left)}" height="{number(bottom - top)}"/>',
    ]
    for value in (0, 25, 50, 75, 100):
        x, y = left + (right - left) * value / 100, bottom - (bottom - top) * value / 100
        kind = "axis" if value == 0 else "grid"
        parts.append(
            f'<path class="{kind}" d="M{number(x)} {number(top)}V{number(bottom)}M{number(left)} {number(y)}H{number(right)}"/>'
        )
        parts.append(
            f'<text class="tick" x="{number(x)}" y="{number(bottom + 18)}" text-anchor="middle">{value}%</text>'
        )
        parts.append(f'<text class="tick" x="{number(left - 8)}" y="{number(y + 4)}" text-anchor="end">{value}%</text>')
    parts.append(f'<text class="title" x="6" y="16">↑ {escape(y_title)}</text>')
    low = bottom + (40 if right - left > 400 else 60)
    parts.append(
        f'<text class="title" x="{number(right)}" y="{number(bottom + 40)}" text-anchor="end">{escape(x_title)} →</text>'
    )
    parts.append(f'<text class="corner" x="{number(left)}" y="{number(low)}">↙ better: lower left</text>')
    return parts


def _whiskers(point: Point, x: float, y: float, box: Box) -> tuple[Box, Box]:
    left, top, right, bottom = box
    wide, high = right - left, bottom - top
    flat = (left + wide * (point.x.low or 0), y - 1, left + wide * (point.x.high or 0), y + 1)
    tall = (x - 1, bottom - high * (point.y.high or 0), x + 1, bottom - high * (point.y.low or 0))
    return flat, tall


def _shorten(name: str) -> str:
    return name if len(name) <= LONGEST else name[: LONGEST - 1] + "…"


def _named(point: Point, x: float, y: float, label: Label, name: str) -> str:
    """A mark, its name, and a line between them where the name stands far off."""
    left, right = label.left, label.left + label.width
    anchor, at = ("start", left) if left >= x else ("end", right) if right <= x else ("middle", (left + right) / 2)
    end = min(max(x, left), right)
    lead = (
        f'<path class="lead" d="M{number(x)} {number(y)}L{number(end)} {number(label.middle)}"/>' if label.far else ""
    )
    mark = f'<g class="{colour(point.index)}">{marker(point.index, x, y, 7)}</g>'
    text = f'<text class="name" x="{number(at)}" y="{number(label.middle + 4.5)}" text-anchor="{anchor}">{escape(name)}</text>'
    return lead + mark + text


def scatter(points: Sequence[Point], x_title: str, y_title: str, width: int = 720, height: int = 460) -> str:
    """One mark a model with 95% whiskers both ways, both axes 0 to 100%. A point without a score is not drawn."""
    frame: Box = (48.0, 32.0, width - 18.0, height - (52.0 if width > 470 else 70.0))
    left, top, right, bottom = frame
    drawn = [p for p in points if p.x.value is not None and p.y.value is not None]
    at = [(left + (right - left) * (p.x.value or 0), bottom - (bottom - top) * (p.y.value or 0)) for p in drawn]
    lines = [_whiskers(p, x, y, frame) for p, (x, y) in zip(drawn, at, strict=True)]
    names = [_shorten(p.name) for p in drawn]
    marks = [(x, y, LETTER * len(name)) for (x, y), name in zip(at, names, strict=True)]
    labels = place(marks, [b for pair in lines for b in pair], (left + 3, top + 2, right, bottom - 3))
    parts = _axes(frame, x_title, y_title)
    for point, (x, y), (flat, tall) in zip(drawn, at, lines, strict=True):
        bars = f"M{number(flat[0])} {number(y)}H{number(flat[2])}M{number(x)} {number(tall[1])}V{number(tall[3])}"
        parts.append(f'<path class="whisker {colour(point.index)}" d="{bars}"/>')
    for point, (x, y), label, name in zip(drawn, at, labels, names, strict=True):
        parts.append(_named(point, x, y, label, name))
    spoken = escape(
        "; ".join(f"{p.name}: {percent(p.y.value)} {y_title}, {percent(p.x.value)} {x_title}" for p in drawn)
    )
    return (
        f'<svg class="scatter" viewBox="0 0 {width} {height}" role="img" aria-label="{spoken}">{"".join(parts)}</svg>'
    )
