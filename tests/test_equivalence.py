"""Equivalence of two models: known answers, chance, unreadable answers, and what cannot be compared."""

from __future__ import annotations

import math
import random

import pytest

from forethought.analysis.capability import abilities, standing
from forethought.analysis.equivalence import Paired, equivalences, verdict_of
from forethought.analysis.rates import rate, score_interval
from forethought.errors import ForethoughtError
from forethought.records import Graded


def rows(right: list[bool | None], *, chance: float | None = 0.25, error: str = "unparseable: x") -> list[Graded]:
    return [
        Graded(task="t", mode="m", id=f"q{i}", question="?", gold="A", correct=c, chance=chance, error=None if c is not None else error)
        for i, c in enumerate(right)
    ]  # fmt: skip


def nll(values: list[float], tokens: int = 10) -> list[Graded]:
    return [
        Graded(task="p", mode="nll", id=f"q{i}", question="?", gold="a", logprobs=(-v * tokens,), tokens=(tokens,))
        for i, v in enumerate(values)
    ]


def one(first: list[Graded], second: list[Graded], **more: float) -> Paired:
    (found,) = equivalences(first, second, **more)
    return found


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (-0.02, 0.02, "equivalent"),
        (-0.029, -0.001, "equivalent"),
        (-0.03, 0.02, "undecided"),
        (-0.09, 0.01, "undecided"),
        (-0.09, -0.01, "worse"),
        (0.01, 0.09, "better"),
    ],
)
def test_verdicts(low: float, high: float, verdict: str) -> None:
    assert verdict_of(low, high, 0.03) == verdict
    swapped = {"worse": "better", "better": "worse"}
    assert verdict_of(low, high, 0.03, less_is_better=True) == swapped.get(verdict, verdict)


def test_score_interval_known_answers() -> None:
    # With no change at all Tango's interval is plus and minus z²/(n + z²).
    low, high = score_interval(0, 0, 12)
    assert low == pytest.approx(-3.8415 / 15.8415, abs=1e-3) and high == pytest.approx(3.8415 / 15.8415, abs=1e-3)
    # At its edges the statistic, with the variance of the likeliest shares that differ by just so much, is 1.96.
    up, down, n = 3, 1, 44
    low, high = score_interval(up, down, n)
    assert -1 < low < 2 / 44 < high < 1
    for edge in (low, high):
        shares = [q / 20000 for q in range(1, 20000) if q / 20000 + edge > 0 and 2 * q / 20000 + edge < 1]
        q = max(
            shares,
            key=lambda q: up * math.log(q + edge) + down * math.log(q) + (n - up - down) * math.log(1 - 2 * q - edge),
        )
        statistic = (up - down - n * edge) / math.sqrt(n * (2 * q + edge - edge * edge))
        assert abs(statistic) == pytest.approx(1.96, abs=0.01)
    mirrored = score_interval(1, 3, 44)
    assert mirrored[0] == pytest.approx(-high) and mirrored[1] == pytest.approx(-low)
    assert score_interval(5, 0, 5)[1] == pytest.approx(1.0)


def test_score_interval_covers() -> None:
    rng = random.Random(0)
    inside = 0
    for _ in range(300):
        drawn = [rng.choices((1, -1, 0), (0.12, 0.07, 0.81))[0] for _ in range(80)]
        low, high = score_interval(drawn.count(1), drawn.count(-1), 80)
        inside += low <= 0.05 <= high
    assert 0.91 <= inside / 300 <= 0.99


def test_the_same_answers_are_equivalent_only_with_enough_questions() -> None:
    few, many = [True, True, False] * 4, [True, True, False] * 100
    assert one(rows(few), rows(few)).verdict == "undecided"
    found = one(rows(many), rows(many))
    assert (found.verdict, found.difference, found.n) == ("equivalent", 0.0, 300)


def test_pairing_sees_what_two_intervals_would_not() -> None:
    first = [True] * 180 + [False] * 120
    second = [True] * 150 + [False] * 150
    found = one(rows(first), rows(second))
    assert (
        found.difference == pytest.approx(-0.1)
        and found.verdict == "worse"
        and found.low is not None
        and found.low < -0.1
    )
    assert one(rows(second), rows(first)).verdict == "better"
    assert one(rows(first), rows(second), margin=0.2).verdict == "equivalent"


def test_at_chance_there_is_no_verdict() -> None:
    guess = [i % 4 == 0 for i in range(200)]
    found = one(rows(guess), rows([False] * 200))
    assert found.verdict == "at chance" and "no capability to lose" in found.note and found.difference == -0.25
    assert one(rows([False] * 200), rows(guess)).note.startswith("the first model is below chance")
    assert one(rows(guess, chance=0.0), rows([False] * 200, chance=0.0)).verdict == "worse"
    assert one(rows([False] * 40, chance=0.0), rows([False] * 40, chance=0.0)).verdict == "at chance"
    assert one(rows(guess, chance=None), rows([False] * 200, chance=None)).verdict == "worse"


def test_what_cannot_be_read_is_wrong_and_what_failed_is_left_out() -> None:
    first = rows([True] * 100 + [False] * 100)
    found = one(first, rows([True] * 60 + [None] * 40 + [False] * 100))
    assert found.second == 0.3 and found.verdict == "worse" and (found.readable, found.readable_n) == (0.0, 160)
    failed = one(first, rows([True] * 60 + [None] * 40 + [False] * 100, error="too_long: x"))
    assert (failed.n, failed.missing, failed.difference) == (160, 40, 0.0)
    nothing = one(rows([None] * 3, error="too_long: x"), rows([True] * 3))
    assert nothing.n == 0 and nothing.difference is None and nothing.verdict == "undecided"


def test_perplexity() -> None:
    rng = random.Random(1)
    base = [rng.uniform(1, 3) for _ in range(60)]
    near, far = [v + rng.uniform(-0.02, 0.02) for v in base], [v + 0.3 + rng.uniform(-0.02, 0.02) for v in base]
    same = one(nll(base), nll(near))
    assert same.verdict == "equivalent" and same.unit == "nats per token" and same.margin == 0.05
    worse = one(nll(base), nll(far))
    assert (
        worse.verdict == "worse"
        and worse.difference == pytest.approx(0.3, abs=0.02)
        and one(nll(far), nll(base)).verdict == "better"
    )
    assert one(nll(base[:5]), nll(base[:5])).verdict == "undecided"
    assert one(nll(base), nll(base, tokens=11)).verdict == "not comparable"
    (ability,) = abilities(nll(base))
    assert ability.nll == pytest.approx(sum(base) / 60) and ability.nll_low is not None and ability.nll_high is not None
    assert ability.nll_low < ability.nll < ability.nll_high and ability.accuracy is None and ability.tokens == 600  # type: ignore[operator]


def test_what_cannot_be_compared() -> None:
    with pytest.raises(ForethoughtError, match="not asked the same questions"):
        equivalences(rows([True] * 3), rows([True] * 4))
    with pytest.raises(ForethoughtError, match="no task and mode in common"):
        equivalences(rows([True]), nll([1.0]))
    with pytest.raises(ForethoughtError, match="a margin is above 0"):
        equivalences(rows([True]), rows([True]), margin=0)


def test_what_cannot_be_read_is_wrong_in_accuracy_and_in_its_difference() -> None:
    first, second = rows([True] * 12 + [False] * 4 + [None] * 4), rows([True] * 6 + [False] * 4 + [None] * 10)
    before, after = (found for graded in (first, second) for found in abilities(graded))
    change = one(first, second)
    assert before.accuracy == rate(12, 20, 0) and after.accuracy == rate(6, 20, 0)
    assert (change.first, change.second) == (before.accuracy.value, after.accuracy.value)
    assert (after.readable, after.readable_n, after.reasons) == (0.6, 10, {"unparseable": 10})
    broken = rows([True] * 6 + [None] * 4, error="too_long: x")
    (found,) = abilities(broken)
    assert found.accuracy == rate(6, 6, 4) and one(broken, rows([True] * 10)).first == found.accuracy.value


def test_thoughts_that_did_not_end_are_named_whatever_the_verdict() -> None:
    lost = [
        Graded(task="p", mode="nll", id=f"q{i}", question="?", gold="a", error="no_answer: x") for i in range(30, 40)
    ]
    rng = random.Random(2)
    base = [rng.uniform(1, 3) for _ in range(40)]
    for shift, verdict in ((0.3, "worse"), (-0.3, "undecided"), (0.0, "undecided")):
        for noise in (0.0, 0.4):
            found = one(nll(base), [*nll([v + shift + rng.uniform(-noise, noise) for v in base[:30]]), *lost])
            assert "of 10 more questions" in found.note and found.missing == 10
            assert found.verdict == verdict
    few = one(
        nll(base[:12]), [*nll(base[:5]), *(row.model_copy(update={"id": f"q{i}"}) for i, row in enumerate(lost[:7], 5))]
    )
    assert few.note.startswith("fewer than 10 answers; of 7 more")


def test_abilities_state_chance_and_bounds() -> None:
    assert standing(rate(3, 12, 0), 0.25) == "at chance" and standing(rate(0, 12, 0), 0.0) == "at chance"
    assert standing(rate(1, 12, 0), 0.0) == "above chance" and standing(rate(0, 90, 0), 0.25) == "below chance"
    assert standing(rate(0, 0, 3), 0.25) is None and standing(rate(3, 3, 0), None) is None
