"""How far judges agree with each other: Cohen's kappa for pairs, Krippendorff's alpha for all. Pure functions over verdicts.

What a judge left unscored is no opinion, and is left out of the pairs that it would be in; how much that was is stated.
"""

from __future__ import annotations

import math
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import combinations

from forethought.analysis.calibration import cohen_kappa
from forethought.records import Attempt, Record, Verdict

Units = Sequence[Sequence[str | None]]  # One row an attempt, one column a judge; None where a judge gave no score.
Statistic = Callable[[Units], float | None]
RESAMPLES = 1000


class Agreed(Record):
    """Agreement of some judges. `n` attempts were scored by all of two judges, or, for alpha, by at least two of several; `missing`
    were not. `low` and `high` bound the value (percentile bootstrap over prompts, 95%); None where it is not defined."""

    judges: tuple[str, ...]
    statistic: str
    n: int
    missing: int
    observed: float | None
    value: float | None
    low: float | None
    high: float | None


def judge_agreement(
    verdicts: Iterable[Verdict], attempts: Iterable[Attempt] = (), *, resamples: int = RESAMPLES, seed: int = 0
) -> list[Agreed]:
    """Kappa of every pair of judges that spoke on the same attempts, in order of name; then alpha of all, if there are three or more.

    A score of 0.5 or more is one opinion, less is the other. With `attempts` the bootstrap draws prompts (an attack's many attempts on one
    prompt are not independent); without, attempts.
    """
    said: dict[str, dict[str, str | None]] = defaultdict(dict)
    for verdict in verdicts:
        said[verdict.attempt][verdict.judge] = None if verdict.score is None else str(verdict.score >= 0.5)
    prompt_of = {a.id: a.prompt.base for a in attempts}
    groups = [prompt_of.get(attempt, attempt) for attempt in said]
    judges = sorted({judge for words in said.values() for judge in words})
    found = []
    for pair in combinations(judges, 2):
        units = _table(said, pair)
        found.append(_agreed(pair, "kappa", units, groups, _kappa, resamples, seed))
    if len(judges) > 2:
        units = _table(said, tuple(judges))
        found.append(_agreed(tuple(judges), "alpha", units, groups, nominal_alpha, resamples, seed))
    return found


def nominal_alpha(units: Units) -> float | None:
    """Krippendorff's alpha for nominal data (2011, "Computing Krippendorff's Alpha-Reliability"): 1 - observed / expected disagreement.

    Units with fewer than two opinions are left out. None where nothing can be compared, or there is only one opinion in all.
    """
    rows = [Counter(v for v in unit if v is not None) for unit in units]
    rows = [row for row in rows if row.total() > 1]
    totals: Counter[str] = sum(rows, Counter())
    n = totals.total()
    expected = n * n - sum(count * count for count in totals.values())
    if not expected:
        return None
    observed = sum((row.total() ** 2 - sum(c * c for c in row.values())) / (row.total() - 1) for row in rows)
    return 1 - (n - 1) * observed / expected


def bootstrap(
    units: Units, groups: Sequence[str], statistic: Statistic, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float, float] | None:
    """95% percentile interval of a statistic, whole groups drawn with replacement; None where over one resample in ten has no value."""
    members: Mapping[str, list[Sequence[str | None]]] = defaultdict(list)
    for group, unit in zip(groups, units, strict=True):
        members[group].append(unit)
    pools, rng, values = list(members.values()), random.Random(seed), []
    if len(pools) < 2:
        return None
    for _ in range(resamples):
        value = statistic([unit for pool in rng.choices(pools, k=len(pools)) for unit in pool])
        if value is not None:
            values.append(value)
    if not values or len(values) < 0.9 * resamples:
        return None
    values.sort()
    return values[math.floor(0.025 * (len(values) - 1))], values[math.ceil(0.975 * (len(values) - 1))]


def _agreed(
    judges: tuple[str, ...],
    name: str,
    units: Units,
    groups: Sequence[str],
    statistic: Statistic,
    resamples: int,
    seed: int,
) -> Agreed:
    kept = [(u, g) for u, g in zip(units, groups, strict=True) if sum(v is not None for v in u) > 1]
    both, of = [u for u, _ in kept], [g for _, g in kept]
    pairs = [a == b for unit in both for a, b in combinations([v for v in unit if v is not None], 2)]
    bounds = bootstrap(both, of, statistic, resamples, seed) or (None, None)
    return Agreed(
        judges=judges,
        statistic=name,
        n=len(both),
        missing=len(units) - len(both),
        observed=sum(pairs) / len(pairs) if pairs else None,
        value=statistic(both),
        low=bounds[0],
        high=bounds[1],
    )


def _kappa(units: Units) -> float | None:
    return cohen_kappa([(a, b) for a, b in units if a is not None and b is not None])


def _table(said: Mapping[str, Mapping[str, str | None]], judges: tuple[str, ...]) -> list[tuple[str | None, ...]]:
    return [tuple(words.get(judge) for judge in judges) for words in said.values()]
