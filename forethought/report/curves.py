"""Curves as SVG strings: ROC, more tries, training loss. Colours, marks and numbers are those of `figures`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from forethought.report.figures import SHAPES, colour, marker, number


class Step(NamedTuple):
    """One point of a curve over the number of tries, with its interval."""

    n: int
    value: float
    low: float | None
    high: float | None


def roc(curves: Sequence[tuple[int, Sequence[tuple[float, float]]]], size: int = 300) -> str:
    """ROC curves of (model index, points) on one square from 0 to 100%, with the diagonal of chance."""
    left, top, right, bottom = 40.0, 12.0, size - 10.0, size - 38.0
    wide, high = right - left, bottom - top
    parts = []
    for value in (0, 50, 100):
        x, y = left + wide * value / 100, bottom - high * value / 100
        kind = "axis" if value == 0 else "grid"
        parts.append(
            f'<path class="{kind}" d="M{number(x)} {number(top)}V{number(bottom)}M{number(left)} {number(y)}H{number(right)}"/>'
        )
        anchor = "end" if value == 100 else "middle"
        parts.append(
            f'<text class="tick" x="{number(x)}" y="{number(bottom + 16)}" text-anchor="{anchor}">{value}%</text>'
        )
        parts.append(f'<text class="tick" x="{number(left - 6)}" y="{number(y + 4)}" text-anchor="end">{value}%</text>')
    parts.append(f'<path class="chance" d="M{number(left)} {number(bottom)}L{number(right)} {number(top)}"/>')
    parts.append(
        f'<text class="tick" x="{number(right)}" y="{number(bottom + 32)}" text-anchor="end">harmless refused →</text>'
    )
    for index, points in curves:
        at = " ".join(f"{number(left + wide * x)},{number(bottom - high * y)}" for x, y in points)
        parts.append(f'<polyline class="curve {colour(index)} d{index % SHAPES}" points="{at}"/>')
        # Colours repeat, and are not seen by all.
        x, y = points[len(points) // 2]
        parts.append(f'<g class="{colour(index)}">{marker(index, left + wide * x, bottom - high * y, 4.5)}</g>')
    return f'<svg class="roc" viewBox="0 0 {size} {size}" role="img" aria-label="ROC curves">{"".join(parts)}</svg>'


def curve(lines: Sequence[tuple[int, Sequence[Step]]], size: int = 300) -> str:
    """Shares from 0 to 100% over N on a scale that doubles: for each (model index, steps) a line, marks and the band of its intervals."""
    left, top, right, bottom = 40.0, 12.0, size - 14.0, size - 92.0
    most = max((step.n for _, steps in lines for step in steps), default=1)

    def at(n: int, share: float) -> str:
        x = left + (right - left) * (math.log2(n) / math.log2(most) if most > 1 else 0.5)
        return f"{number(x)},{number(bottom - (bottom - top) * share)}"

    def spot(point: str) -> tuple[float, float]:
        x, y = point.split(",")
        return float(x), float(y)

    parts = []
    for value in (0, 50, 100):
        y = bottom - (bottom - top) * value / 100
        parts.append(f'<path class="{"grid" if value else "axis"}" d="M{number(left)} {number(y)}H{number(right)}"/>')
        parts.append(f'<text class="tick" x="{number(left - 6)}" y="{number(y + 4)}" text-anchor="end">{value}%</text>')
    for n in sorted({*(2**i for i in range(most.bit_length())), most}):
        x = at(n, 0).split(",")[0]
        if n == most or 2 * n <= most * 0.8 or n == 1:
            parts.append(f'<text class="tick" x="{x}" y="{number(bottom + 16)}" text-anchor="middle">{n}</text>')
    parts.append(
        f'<text class="tick" x="{number(right)}" y="{number(bottom + 32)}" text-anchor="end">tries (N) →</text>'
    )
    for index, steps in lines:
        ordered = sorted(steps)
        edge = [at(s.n, s.high) for s in ordered if s.high is not None]
        edge += [at(s.n, s.low) for s in reversed(ordered) if s.low is not None]
        parts.append(f'<polygon class="band {colour(index)}" points="{" ".join(edge)}"/>')
    for index, steps in lines:
        points = [at(s.n, s.value) for s in sorted(steps)]
        marks = "".join(marker(index, *spot(p), 4.0) for p in points)
        dash = f"d{index % SHAPES}"
        parts.append(f'<polyline class="curve {colour(index)} {dash}" points="{" ".join(points)}"/>')
        parts.append(f'<g class="{colour(index)}">{marks}</g>')
    height = number(bottom + 38)
    return f'<svg class="roc tries" viewBox="0 0 {size} {height}" role="img" aria-label="Curves over N">{"".join(parts)}</svg>'


def loss(index: int, losses: Sequence[tuple[int, float]], width: int = 300, height: int = 110) -> str:
    """Training loss over steps: what was logged, pale, and its running mean over a tenth of it. The scale begins at 0."""
    left, top, right, bottom = 34.0, 8.0, width - 8.0, height - 22.0
    last, most = losses[-1][0], max(value for _, value in losses)

    def line(points: Sequence[tuple[int, float]], kind: str) -> str:
        at = " ".join(
            f"{number(left + (right - left) * step / last)},{number(bottom - (bottom - top) * value / most)}"
            for step, value in points
        )
        return f'<polyline class="{kind}" points="{at}"/>'

    window = max(1, len(losses) // 10)
    means = []
    for i, (step, _) in enumerate(losses):
        recent = [value for _, value in losses[max(0, i - window + 1) : i + 1]]
        means.append((step, sum(recent) / len(recent)))
    ticks = [
        f'<text class="tick" x="{number(left - 6)}" y="{number(top + 8)}" text-anchor="end">{most:.1f}</text>',
        f'<text class="tick" x="{number(left - 6)}" y="{number(bottom)}" text-anchor="end">0</text>',
        f'<text class="tick" x="{number(right)}" y="{number(bottom + 16)}" text-anchor="end">{last:,} steps</text>',
    ]
    axis = f'<path class="axis" d="M{number(left)} {number(top)}V{number(bottom)}H{number(right)}"/>'
    drawn = "".join([axis, *ticks, line(losses, "curve faint"), line(means, f"curve {colour(index)}")])
    return f'<svg class="roc" viewBox="0 0 {width} {height}" role="img" aria-label="Training loss">{drawn}</svg>'
