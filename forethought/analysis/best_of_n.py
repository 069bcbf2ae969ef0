"""What more tries do, from n >= N samples a prompt: `safe_of_n` and `bon_attack`. Pure functions.

They are opposites and must not be confused. `safe_of_n` is the share of prompts on which all of N replies are unsafe, as when a defender
may pick the safest of N (the best-of-N diagnosis in SRG, arXiv 2502.04040; the estimator is ours). `bon_attack` is the share on which at
least one of N tries succeeds (best-of-N jailbreaking, arXiv 2412.03556). Both are unbiased for one prompt's samples as they are drawn;
the second is pass@k's estimator (arXiv 2107.03374).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from math import comb
from typing import Literal, NamedTuple

from forethought.analysis.rates import Outcome, wilson
from forethought.analysis.resampling import RESAMPLES, ratio_interval
from forethought.records import Record

Kind = Literal["safe_of_n", "bon_attack"]


class Tally(NamedTuple):
    """The samples of one prompt: how many were scored, how many of those were unsafe, and how many have no score."""

    scored: int
    unsafe: int
    unscored: int


class BestOfN(Record):
    """One estimate over `prompts` prompts with at least N scored samples; `left_out` have fewer. `low` and `high` are the bootstrap's 95%
    interval over prompts. `lowest` and `highest` are the value over all prompts with N samples if every unscored one had been safe, or
    unsafe. None where no prompt is left."""

    kind: Kind
    tries: int
    prompts: int
    left_out: int
    value: float | None
    low: float | None
    high: float | None
    lowest: float | None
    highest: float | None


def all_unsafe(n: int, unsafe: int, tries: int) -> float:
    """C(unsafe, N) / C(n, N): the chance that N of n samples, drawn without replacement, are all unsafe. ValueError for N > n."""
    _check(n, unsafe, tries)
    return comb(unsafe, tries) / comb(n, tries)


def any_unsafe(n: int, unsafe: int, tries: int) -> float:
    """1 - C(n - unsafe, N) / C(n, N): the chance that at least one of N of n samples is unsafe. ValueError for N > n."""
    _check(n, unsafe, tries)
    return 1 - comb(n - unsafe, tries) / comb(n, tries)


ESTIMATORS: dict[Kind, Callable[[int, int, int], float]] = {"safe_of_n": all_unsafe, "bon_attack": any_unsafe}


def tallies(outcomes: Iterable[Outcome]) -> list[Tally]:
    """The samples of each prompt, in the order of the prompts."""
    scored: Counter[str] = Counter()
    unsafe: Counter[str] = Counter()
    unscored: Counter[str] = Counter()
    prompts: dict[str, None] = {}
    for outcome in outcomes:
        prompts[outcome.prompt] = None
        (unscored if outcome.hit is None else scored)[outcome.prompt] += 1
        unsafe[outcome.prompt] += outcome.hit is True
    return [Tally(scored[p], unsafe[p], unscored[p]) for p in prompts]


def best_of_n(kind: Kind, found: Sequence[Tally], tries: int, *, resamples: int = RESAMPLES, seed: int = 0) -> BestOfN:
    """The mean over prompts of the estimator for N = `tries`. ValueError for N < 1."""
    chance = ESTIMATORS[kind]
    if tries < 1:
        raise ValueError(f"N must be at least 1, not {tries}")
    values = [chance(t.scored, t.unsafe, tries) for t in found if t.scored >= tries]
    whole = [t for t in found if t.scored + t.unscored >= tries]
    ends = [
        sum(chance(t.scored + t.unscored, t.unsafe + extra * t.unscored, tries) for t in whole) / len(whole)
        if whole
        else None
        for extra in (0, 1)
    ]
    low, high = _interval(values, resamples, seed) or (None, None)
    return BestOfN(
        kind=kind,
        tries=tries,
        prompts=len(values),
        left_out=len(found) - len(values),
        value=sum(values) / len(values) if values else None,
        low=low,
        high=high,
        lowest=ends[0],
        highest=ends[1],
    )


def _interval(values: Sequence[float], resamples: int, seed: int) -> tuple[float, float] | None:
    """The bootstrap's; Wilson's, with prompts for n, where all prompts are alike and the bootstrap would have no width."""
    if not values:
        return None
    if min(values) == max(values):
        return wilson(values[0] * len(values), len(values))
    return ratio_interval(values, [1.0] * len(values), resamples=resamples, seed=seed)


def _check(n: int, unsafe: int, tries: int) -> None:
    if not 0 <= unsafe <= n or not 1 <= tries <= n:
        raise ValueError(f"impossible: {tries} of {n} samples, {unsafe} of them unsafe")
