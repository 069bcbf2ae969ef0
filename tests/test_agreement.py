"""Agreement between judges, against published and hand-computed answers."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from forethought.analysis.agreement import bootstrap, judge_agreement, nominal_alpha
from forethought.analysis.resampling import draws, middle
from forethought.records import Verdict


def test_alpha_of_the_published_example() -> None:
    # Krippendorff 2011, section C: nominal, four observers, twelve units, missing values; alpha = 0.743.
    observers = [
        "1 2 3 3 2 1 4 1 2 . . .",
        "1 2 3 3 2 2 4 1 2 5 . 3",
        ". 3 3 3 2 3 4 2 2 5 1 .",
        "1 2 3 3 2 4 4 1 2 5 1 .",
    ]
    columns = [row.split() for row in observers]
    units = [tuple(None if v == "." else v for v in unit) for unit in zip(*columns, strict=True)]
    assert nominal_alpha(Counter(units)) == pytest.approx(0.743, abs=5e-4)


def test_alpha_of_two_complete_observers() -> None:
    # Krippendorff 2011, section A: binary, two observers, ten units; alpha = 0.095.
    first, second = "0100000000", "1110010010"
    assert nominal_alpha(Counter(zip(first, second, strict=True))) == pytest.approx(0.095, abs=5e-4)


@pytest.mark.parametrize(
    ("units", "value"),
    [
        ([], None),
        ([("a", None), (None, "b")], None),
        ([("a", "a"), ("a", "a")], None),
        ([("a", "a"), ("b", "b")], 1.0),
    ],
)
def test_alpha_at_the_edges(units: list[tuple[str | None, str | None]], value: float | None) -> None:
    assert nominal_alpha(Counter(units)) == value


def verdicts(judge: str, scores: str) -> list[Verdict]:
    """One character an attempt: 1, 0, or `-` for unscored."""
    return [
        Verdict(attempt=str(i), judge=judge, score=None if s == "-" else float(s), label="x")
        for i, s in enumerate(scores)
    ]


def test_pairs_and_all() -> None:
    said = verdicts("a", "1110001110") + verdicts("b", "111000000-") + verdicts("c", "-" * 10)
    ab, ac, bc, every = judge_agreement(said, resamples=200)
    assert (ab.judges, ab.statistic, ab.n, ab.missing) == (("a", "b"), "kappa", 9, 1)
    assert ab.observed == pytest.approx(6 / 9)
    # Chance: 6/9 * 3/9 + 3/9 * 6/9 = 4/9.
    assert ab.value == pytest.approx((6 / 9 - 4 / 9) / (5 / 9))
    assert ab.low is not None and ab.high is not None and ab.low <= ab.value <= ab.high
    for silent in (ac, bc):
        assert (silent.n, silent.missing, silent.value, silent.low) == (0, 10, None, None)
    assert (every.statistic, every.n, every.missing) == ("alpha", 9, 1)
    assert every.value == pytest.approx(nominal_alpha(Counter(zip("111000111", "111000000", strict=True))))
    assert judge_agreement(said, resamples=200) == [ab, ac, bc, every]


def test_judges_of_different_attempts_do_not_agree() -> None:
    other = [v.model_copy(update={"attempt": f"x{v.attempt}"}) for v in verdicts("b", "111")]
    (pair,) = judge_agreement(verdicts("a", "111") + other)
    assert (pair.n, pair.missing, pair.value) == (0, 6, None)


def test_one_prompt_has_no_interval() -> None:
    units = [("a", "a"), ("b", "b"), ("a", "b")]
    assert bootstrap(units, ["p", "p", "p"], nominal_alpha) is None
    assert bootstrap(units * 20, [str(i // 2) for i in range(60)], nominal_alpha, 200) is not None


def test_every_bootstrap_draws_the_same_resamples() -> None:
    """One generator, one stream: blocks of draws and all at once are the same numbers, so that intervals do not depend on who asks."""
    counts = draws(5, 400, np.random.default_rng(3))
    rng = np.random.default_rng(3)
    assert (counts == np.concatenate([draws(5, 100, rng) for _ in range(4)])).all() and (counts.sum(1) == 5).all()
    assert middle([0.0] * 89, 100) is None and middle([], 0) is None
    assert middle(list(range(101)), 101) == (2.5, 97.5)


def test_full_agreement_has_no_interval_of_no_width() -> None:
    said = verdicts("a", "1100") + verdicts("b", "1100")
    (pair,) = judge_agreement(said, resamples=200)
    assert (pair.value, pair.low, pair.high) == (1.0, None, None)
