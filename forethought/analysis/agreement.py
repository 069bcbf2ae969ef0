"""How far judges agree with each other: Cohen's kappa for pairs, Krippendorff's alpha for all. Pure functions over verdicts.

What a judge left unscored is no opinion, and is left out of the pairs that it would be in; how much that was is stated.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import combinations
from typing import Literal

import numpy as np

from forethought.analysis.resampling import draws, middle
from forethought.records import Attempt, Record, Verdict

Unit = tuple[str | None, ...]  # The opinions on one attempt, one a judge; None where a judge gave no score.
Counts = Mapping[Unit, int]  # How often each combination of opinions was met: all that a statistic needs.
Statistic = Callable[[Counts], float | None]
RESAMPLES = 1000


class Agreed(Record):
    """Agreement of some judges. `n` attempts were scored by all of two judges, or, for alpha, by at least two of several; `missing`
    were not. `low` and `high` bound the value (percentile bootstrap over prompts, 95%); None where it is not
    defined, or the judges never differ."""

    judges: tuple[str, ...]
    statistic: Literal["kappa", "alpha"]
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
        found.append(_agreed(pair, units, groups, kappa, resamples, seed))
    if len(judges) > 2:
        units = _table(said, tuple(judges))
        found.append(_agreed(tuple(judges), units, groups, nominal_alpha, resamples, seed))
    return found


def kappa(counts: Counts) -> float | None:
    """Cohen's kappa (1960) of two judges over what both scored; None where chance alone agrees fully, or nothing is left."""
    pairs = {unit: n for unit, n in counts.items() if None not in unit}
    first: Counter[str | None] = Counter()
    second: Counter[str | None] = Counter()
    for (a, b), n in pairs.items():
        first[a] += n
        second[b] += n
    total = first.total()
    chance = sum(first[v] * second[v] for v in first)
    if chance == total * total:
        return None
    same = sum(n for (a, b), n in pairs.items() if a == b)
    return (total * same - chance) / (total * total - chance)


def nominal_alpha(counts: Counts) -> float | None:
    """Krippendorff's alpha for nominal data (2011, "Computing Krippendorff's Alpha-Reliability"): 1 - observed / expected disagreement.

    Units with fewer than two opinions are left out. None where nothing can be compared, or there is only one opinion in all.
    """
    totals: Counter[str] = Counter()
    observed = 0.0
    for unit, times in counts.items():
        row = Counter(v for v in unit if v is not None)
        size = row.total()
        if size < 2:
            continue
        observed += times * (size**2 - sum(c * c for c in row.values())) / (size - 1)
        for value, count in row.items():
            totals[value] += times * count
    n = totals.total()
    expected = n * n - sum(count * count for count in totals.values())
    return 1 - (n - 1) * observed / expected if expected else None


def bootstrap(
    units: Sequence[Unit], groups: Sequence[str], statistic: Statistic, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float, float] | None:
    """95% percentile interval of a statistic, whole groups drawn with replacement; None where over one resample in ten has no value, and
    where all have the same: then it has no width, and says nothing of what was not seen."""
    kinds, names = sorted(set(units), key=repr), sorted(set(groups))
    if len(names) < 2:
        return None
    held = np.zeros((len(names), len(kinds)), dtype=np.int64)
    at, row = {k: i for i, k in enumerate(kinds)}, {g: i for i, g in enumerate(names)}
    for unit, group in zip(units, groups, strict=True):
        held[row[group], at[unit]] += 1
    drawn = (draws(len(names), resamples, np.random.default_rng(seed)) @ held).tolist()
    values = [statistic({kind: n for kind, n in zip(kinds, row, strict=True) if n}) for row in drawn]
    found = middle([v for v in values if v is not None], resamples)
    return found if found and found[0] < found[1] else None


def _agreed(
    judges: tuple[str, ...],
    units: Sequence[Unit],
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
        statistic="kappa" if statistic is kappa else "alpha",
        n=len(both),
        missing=len(units) - len(both),
        observed=sum(pairs) / len(pairs) if pairs else None,
        value=statistic(Counter(both)),
        low=bounds[0],
        high=bounds[1],
    )


def _table(said: Mapping[str, Mapping[str, str | None]], judges: tuple[str, ...]) -> list[Unit]:
    return [tuple(words.get(judge) for judge in judges) for words in said.values()]
