"""Whether two models do the same on the same questions: the paired difference, and a verdict against a margin. Pure functions.

The verdict is that of two one-sided tests (Schuirmann 1987) at 2.5% each: `equivalent` where the whole 95% interval lies within the margin.
"No significant difference" is not that: with few questions it is `undecided`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import numpy as np

from forethought.analysis.capability import is_likelihood, right_or_wrong, standing
from forethought.analysis.rates import rate, score_interval
from forethought.analysis.resampling import draws, middle
from forethought.errors import ForethoughtError
from forethought.records import UNREADABLE, Graded, Record

Verdict = Literal["equivalent", "better", "worse", "undecided", "at chance", "not comparable"]
RESAMPLES = 2000
FEWEST = 10  # Below that, a bootstrap says nothing about the spread.


class Paired(Record):
    """One task and mode, two models: the second's measure less the first's.

    `unit` is `accuracy` (share of all questions answered rightly and readably; more is better) or `nats per token` (less is better). `n`
    questions are in both runs; `missing` failed in one for a reason that is not the model's (too long, a server's refusal). `readable` is
    the same difference over the `readable_n` questions that both answered readably: where it differs much, the form of the answers
    explains the change, not their content. `low` and `high` are the 95% interval of `difference`.
    """

    task: str
    mode: str
    unit: Literal["accuracy", "nats per token"]
    n: int
    missing: int
    first: float | None
    second: float | None
    difference: float | None
    low: float | None
    high: float | None
    readable: float | None
    readable_n: int
    margin: float
    verdict: Verdict
    note: str = ""


def equivalences(
    first: Iterable[Graded], second: Iterable[Graded], *, margin: float = 0.03, margin_nll: float = 0.05
) -> list[Paired]:
    """Every (task, mode) that both runs hold, the second model against the first (the untuned one).

    `margin` is a share of the questions (0.03 is three points), `margin_nll` nats per token. Raises ForethoughtError where the runs share
    nothing, or were asked different questions.
    """
    if not 0 < margin < 1 or margin_nll <= 0:
        raise ForethoughtError(f"a margin is above 0, and below 1 for accuracy (got {margin} and {margin_nll}).")
    one, two = _groups(first), _groups(second)
    shared = [key for key in one if key in two]
    if not shared:
        raise ForethoughtError("the two runs have no task and mode in common.")
    for key in shared:
        if one[key].keys() != two[key].keys():
            raise ForethoughtError(
                f"{' '.join(key)}: the two runs were not asked the same questions. Give both the same data, --take and --seed."
            )
    rng = np.random.default_rng(0)
    found = []
    for key in shared:
        pairs = [(one[key][id], two[key][id]) for id in one[key]]
        make = _nll if is_likelihood(row for pair in pairs for row in pair) else _accuracy
        found.append(make(key, pairs, margin_nll if make is _nll else margin, rng))
    return found


def verdict_of(low: float, high: float, margin: float, less_is_better: bool = False) -> Verdict:
    """`equivalent`: the interval lies within the margin. Else `better` or `worse` where it leaves out zero, else `undecided`."""
    if -margin < low and high < margin:
        return "equivalent"
    if low > 0 or high < 0:
        return "better" if (low > 0) != less_is_better else "worse"
    return "undecided"


def _accuracy(
    key: tuple[str, str],
    pairs: Sequence[tuple[Graded, Graded]],
    margin: float,
    rng: np.random.Generator,
) -> Paired:
    kept = [(a, b) for a, b in pairs if right_or_wrong(a) and right_or_wrong(b)]
    right = np.array([[a.correct is True, b.correct is True] for a, b in kept], dtype=float).reshape(-1, 2)
    both = [(a.correct, b.correct) for a, b in kept if a.correct is not None and b.correct is not None]
    base = {
        "task": key[0], "mode": key[1], "unit": "accuracy", "n": len(kept), "missing": len(pairs) - len(kept), "margin": margin,
        "readable": sum(bool(b) - bool(a) for a, b in both) / len(both) if both else None, "readable_n": len(both),
    }  # fmt: skip
    if not kept:
        return _empty(base)
    change = right[:, 1] - right[:, 0]
    drawn = middle((draws(len(kept), RESAMPLES, rng) @ change[:, None] / len(kept))[:, 0])
    score = score_interval(int((change > 0).sum()), int((change < 0).sum()), len(change))
    assert drawn is not None
    low, high = min(drawn[0], score[0]), max(drawn[1], score[1])
    hits = int(right[:, 0].sum())
    chances = [a.chance for a, _ in kept if a.chance is not None]
    place = standing(rate(hits, len(kept), 0), sum(chances) / len(chances) if chances else None)
    verdict, note = verdict_of(low, high, margin), ""
    if place in ("at chance", "below chance"):
        verdict, note = "at chance", f"the first model is {place}: there is no capability to lose"
    return Paired(
        **base, first=hits / len(kept), second=float(right[:, 1].mean()), difference=float(change.mean()), low=low, high=high,
        verdict=verdict, note=note,
    )  # fmt: skip


def _nll(
    key: tuple[str, str],
    pairs: Sequence[tuple[Graded, Graded]],
    margin: float,
    rng: np.random.Generator,
) -> Paired:
    kept = [(a, b) for a, b in pairs if a.logprobs and b.logprobs and a.tokens and b.tokens]
    base = {
        "task": key[0], "mode": key[1], "unit": "nats per token", "n": len(kept), "missing": len(pairs) - len(kept),
        "margin": margin, "readable": None, "readable_n": len(kept),
    }  # fmt: skip
    if not kept:
        return _empty(base)
    sums = np.array([[_nats(a), _tokens(a), _nats(b), _tokens(b)] for a, b in kept])
    if (sums[:, 1] != sums[:, 3]).any():
        return _empty(base | {"note": "the models cut the answers into different tokens"}, "not comparable")
    total = sums.sum(0)
    drawn = draws(len(kept), RESAMPLES, rng) @ sums / len(kept)
    bounds = middle(drawn[:, 2] / drawn[:, 3] - drawn[:, 0] / drawn[:, 1])
    assert bounds is not None
    low, high = bounds
    first, second = total[0] / total[1], total[2] / total[3]
    few = len(kept) < FEWEST
    lost = sum(_unanswered(b) - _unanswered(a) for a, b in pairs)
    notes = [f"fewer than {FEWEST} answers"] if few else []
    notes += [f"of {lost} more questions the second model's thought did not end"] if lost > 0 else []
    verdict = "undecided" if few else verdict_of(low, high, margin, less_is_better=True)
    if lost > 0 and verdict in ("equivalent", "better"):
        verdict = "undecided"
    return Paired(
        **base, first=float(first), second=float(second), difference=float(second - first), low=low, high=high, verdict=verdict,
        note="; ".join(notes),
    )  # fmt: skip


def _groups(rows: Iterable[Graded]) -> dict[tuple[str, str], dict[str, Graded]]:
    groups: dict[tuple[str, str], dict[str, Graded]] = {}
    for row in rows:
        groups.setdefault((row.task, row.mode), {})[row.id] = row
    return groups


def _unanswered(row: Graded) -> bool:
    return (row.error or "").startswith(UNREADABLE)


def _nats(row: Graded) -> float:
    return -sum(row.logprobs or ())


def _tokens(row: Graded) -> int:
    return sum(row.tokens or ())


def _empty(base: Mapping[str, object], verdict: Verdict = "undecided") -> Paired:
    nothing = dict.fromkeys(("first", "second", "difference", "low", "high"))
    return Paired.model_validate({**base, **nothing, "verdict": verdict})
