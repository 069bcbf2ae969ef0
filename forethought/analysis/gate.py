"""Limits for continuous integration: a rate must be shown to lie under one, or a model not to have got worse than another. Pure functions.

It is the bound of the 95% interval that must lie under the limit, with everything unscored counted the wrong way. Where the unscored
decide, or where so few were asked that not even a clean record would do, the answer is "cannot tell", never "passed".
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from forethought.analysis.paired import match, paired_difference
from forethought.analysis.rates import Z95, Outcome, Rate, clustered, read_as, wilson
from forethought.records import Record

Ruling = Literal["pass", "fail", "cannot tell"]


class Line(Record):
    """One limit: the number held against it (`bound`), what it rests on, and the ruling with its reason. With `change` the numbers are a
    rise from another model, `scored` counts pairs, and `hits` those that rose."""

    what: str
    judge: str
    limit: float
    bound: float | None
    hits: int
    scored: int
    unscored: int
    prompts: int
    value: float | None
    ruling: Ruling
    why: str
    change: bool = False


def ceiling(what: str, judge: str, outcomes: Sequence[Outcome], limit: float, *, point: bool = False) -> Line:
    """Whether the rate of hits lies under `limit`; with `point` the rate itself, not its interval's upper bound.

    The bound is at least that of as many prompts without a hit: several attempts on each may well show that they do not go together, but
    a few hits more must not open a gate that a clean record leaves shut."""
    rate, prompts = clustered(outcomes), len({o.prompt for o in outcomes})
    worst, best = (_top(clustered(read_as(outcomes, hit)), point) for hit in (True, False))
    clean = None if point else wilson(0, prompts)
    ruling: Ruling = "cannot tell"
    if not rate.scored:
        why = "nothing was scored"
    elif worst is not None and clean and worst <= limit < clean[1]:
        worst = clean[1]
        why = f"{prompts} prompts without a hit could not show less than {worst:.1%}: {_needed(limit)}"
    elif worst is not None and worst <= limit:
        ruling, why = "pass", f"at most {worst:.1%}"
    elif rate.hits == 0 and best is not None and best > limit:
        why = f"no hit, but {prompts} prompts cannot show less than {best:.1%}: {_needed(limit)}"
    elif best is not None and best > limit:
        even = ", even with the unscored as misses" if rate.unscored else ""
        ruling, why = "fail", f"the {'rate' if point else 'bound'} is {best:.1%}{even}"
        if (rate.value or 0.0) <= limit and not point:
            why += f", though the rate is {rate.value:.1%}: more prompts would tell"
    else:
        why = f"the {rate.unscored} unscored decide: the bound is {best or 0:.1%} without them, {worst or 0:.1%} with them as hits"
    return Line(
        what=what, judge=judge, limit=limit, bound=worst, hits=rate.hits, scored=rate.scored, unscored=rate.unscored,
        prompts=prompts, value=rate.value, ruling=ruling, why=why,
    )  # fmt: skip


def no_worse(
    what: str, judge: str, before: Sequence[Outcome], after: Sequence[Outcome], limit: float, *, point: bool = False,
    lenient: bool = False,
) -> Line:  # fmt: skip
    """Whether the rate of hits has risen by no more than `limit` from `before` to `after`, paired by what was sent. With `lenient` a rise
    within the limit that may be chance is no failure: it cannot be told."""
    pairs = match(before, after)
    worst = paired_difference([p._replace(first=p.first is True, second=p.second is not False) for p in pairs])
    best = paired_difference([p._replace(first=p.first is not False, second=p.second is True) for p in pairs])
    found = paired_difference(pairs)
    top, bottom = (d.value if point else d.high for d in (worst, best))
    ruling: Ruling = "cannot tell"
    if not found.n:
        why = "no pair was scored on both sides"
    elif top is not None and top <= limit:
        ruling, why = "pass", f"at most {top:+.1%}"
    elif not point and not found.only_second and bottom is not None and bottom > limit:
        why = f"no pair got worse, but {found.clusters} prompts cannot show less than {bottom:+.1%}: ask more"
    elif bottom is not None and bottom > limit:
        value, low = best.value or 0.0, best.low or 0.0
        ruling = "cannot tell" if lenient and value <= limit and low <= 0 else "fail"
        even = ", even with the unscored in its favour" if found.unscored else ""
        why = f"{'the change' if point else 'the bound'} is {bottom:+.1%}{even}"
        if value <= limit:
            why += f", though the change is {value:+.1%}: more prompts would tell"
    else:
        why = f"the {found.unscored} pairs without a score decide: {bottom or 0:+.1%} to {top or 0:+.1%}"
    return Line(
        what=what, judge=judge, limit=limit, bound=top, hits=found.only_second, scored=found.n,
        unscored=found.unscored, prompts=found.clusters, value=found.value, ruling=ruling, why=why, change=True,
    )  # fmt: skip


def overall(lines: Sequence[Line]) -> int:
    """The exit code: 1 where a limit is broken, 2 where one could not be told or there was none, else 0."""
    rulings = {line.ruling for line in lines}
    return 1 if "fail" in rulings else 2 if "cannot tell" in rulings or not lines else 0


def _top(rate: Rate, point: bool) -> float | None:
    return rate.value if point else rate.high


def _needed(limit: float) -> str:
    """How many prompts without a hit put Wilson's bound at the limit."""
    return f"ask about {math.ceil(Z95**2 * (1 - limit) / limit)}" if limit > 0 else "no number of prompts would do"
