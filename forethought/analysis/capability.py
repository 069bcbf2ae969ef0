"""What a model can do: accuracy with its interval against chance, and log-likelihood per token. Pure functions over Graded rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Literal

import numpy as np

from forethought.analysis.rates import Rate, rate
from forethought.analysis.resampling import draws, middle
from forethought.records import UNREADABLE, Graded, Record

Standing = Literal["above chance", "at chance", "below chance"]
RESAMPLES = 1000


class Ability(Record):
    """One task asked in one way. `accuracy` counts an answer that cannot be read as wrong, as published numbers and the differences of
    `equivalence.py` do; what failed for a reason that is not the model's is unscored, and inside the bounds. `readable` is the share of
    right answers among the `readable_n` that could be read. `chance` is what guessing gets; `reasons` counts why answers could not be
    read or scored.

    For perplexity `accuracy` is None; `nll` is nats per token over `tokens` tokens of the `measured` of `n` answers (of the others the
    thought did not end, or they failed), with a 95% bootstrap interval.
    """

    task: str
    mode: str
    n: int
    accuracy: Rate | None = None
    chance: float | None = None
    standing: Standing | None = None
    readable: float | None = None
    readable_n: int = 0
    reasons: dict[str, int] = {}
    nll: float | None = None
    nll_low: float | None = None
    nll_high: float | None = None
    tokens: int = 0
    measured: int = 0
    reply_tokens: float = 0.0


def abilities(rows: Iterable[Graded]) -> list[Ability]:
    """Every (task, mode), in the order in which rows first show them."""
    groups: dict[tuple[str, str], list[Graded]] = {}
    for row in rows:
        groups.setdefault((row.task, row.mode), []).append(row)
    rng = np.random.default_rng(0)
    return [_ability(task, mode, members, rng) for (task, mode), members in groups.items()]


def standing(accuracy: Rate, chance: float | None) -> Standing | None:
    """Where an accuracy stands to chance: `at chance` where its interval includes it; None where either is not known."""
    if chance is None or accuracy.low is None or accuracy.high is None:
        return None
    if accuracy.low <= chance + 1e-9:
        return "at chance" if accuracy.high >= chance else "below chance"
    return "above chance"


def is_decoding(ability: Ability) -> bool:
    """Whether it is of the task `decode`, whose modes are attacks: it says which of them a model can read, not what it is able to do."""
    return ability.task.partition("(")[0] == "decode"


def decoded(found: Iterable[Ability]) -> list[str] | None:
    """The attacks that a model reads better than chance in one of the ways of a `decode` task, for `attack --attacks`; None where no such
    task was asked."""
    asked = list(filter(is_decoding, found))
    read = [a.mode.rpartition(" ")[0] for a in asked if a.standing == "above chance"]
    return list(dict.fromkeys(read)) if asked else None


def is_likelihood(rows: Iterable[Graded]) -> bool:
    """Whether rows hold log-likelihoods of given answers (of perplexity even where all failed), and nothing that is right or wrong."""
    rows = list(rows)
    given = any(r.logprobs for r in rows) or all(r.mode.startswith("nll") for r in rows)
    return given and all(r.correct is None and r.chance is None for r in rows)


def right_or_wrong(row: Graded) -> bool:
    """Whether an answer is right or wrong. What cannot be read is the model's own failure, and not right."""
    return row.correct is not None or (row.error or "").startswith(UNREADABLE)


def _ability(task: str, mode: str, rows: list[Graded], rng: np.random.Generator) -> Ability:
    reasons = Counter((row.error or "").partition(":")[0] for row in rows if row.error)
    spent = sum(row.completion_tokens for row in rows) / len(rows)
    base = {"task": task, "mode": mode, "n": len(rows), "reasons": dict(reasons), "reply_tokens": spent}
    chances = [row.chance for row in rows if row.chance is not None]
    scored = [row.correct for row in rows if row.correct is not None]
    measured = [row for row in rows if row.logprobs and row.tokens]
    if is_likelihood(rows):
        if not measured:
            return Ability.model_validate(base)
        sums = np.array([[-sum(r.logprobs or ()), sum(r.tokens or ())] for r in measured])
        total, n = sums.sum(0), len(sums)
        drawn = draws(n, RESAMPLES, rng) @ sums
        low, high = middle(drawn[:, 0] / drawn[:, 1]) or (None, None)
        return Ability.model_validate(
            {
                **base,
                "nll": float(total[0] / total[1]),
                "nll_low": low,
                "nll_high": high,
                "tokens": int(total[1]),
                "measured": n,
            }
        )
    judged = sum(map(right_or_wrong, rows))
    accuracy = rate(sum(scored), judged, len(rows) - judged)
    readable = {"readable": sum(scored) / len(scored) if scored else None, "readable_n": len(scored)}
    chance = sum(chances) / len(chances) if chances else None
    place = standing(accuracy, chance)
    return Ability.model_validate({**base, **readable, "accuracy": accuracy, "chance": chance, "standing": place})
