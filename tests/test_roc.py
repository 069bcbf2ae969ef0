"""AUROC and its intervals against analytic, brute-force and published answers."""

from __future__ import annotations

import itertools
import math
import random
from statistics import NormalDist

import pytest

from forethought.analysis.roc import (
    Sides,
    auroc,
    auroc_of,
    bootstrap,
    delong,
    difference,
    mean_auroc,
    newcombe,
    roc_points,
    tpr_at,
)


def drawn(mean: float, n: int, seed: int) -> list[float]:
    rng = random.Random(seed)
    return [rng.gauss(mean, 1) for _ in range(n)]


def sides(positive: list[float], negative: list[float], per_prompt: int = 1) -> Sides:
    return Sides(
        [(f"p{i // per_prompt}", s) for i, s in enumerate(positive)],
        [(f"n{i // per_prompt}", s) for i, s in enumerate(negative)],
    )


@pytest.mark.parametrize("distance", [0.0, 0.5, 1.5])
def test_two_gaussians(distance: float) -> None:
    found = auroc(drawn(distance, 20_000, 1), drawn(0, 20_000, 2))
    assert found == pytest.approx(NormalDist().cdf(distance / math.sqrt(2)), abs=0.01)


def test_ties_count_half_as_in_brute_force() -> None:
    rng = random.Random(0)
    for n, m in ((1, 1), (3, 5), (17, 40)):
        pos, neg = [rng.randrange(6) for _ in range(n)], [rng.randrange(5) for _ in range(m)]
        pairs = [1.0 if p > q else 0.5 if p == q else 0.0 for p in pos for q in neg]
        assert auroc(pos, neg) == pytest.approx(sum(pairs) / len(pairs))
        points = roc_points(pos, neg)
        area = sum((b.fpr - a.fpr) * (a.tpr + b.tpr) / 2 for a, b in itertools.pairwise(points))
        assert area == pytest.approx(auroc(pos, neg))
        assert (points[0].fpr, points[0].tpr, points[-1].fpr, points[-1].tpr) == (0, 0, 1, 1)


@pytest.mark.parametrize(("pos", "neg"), [([], []), ([], [1.0]), ([1.0], [])])
def test_an_empty_class_has_no_value(pos: list[float], neg: list[float]) -> None:
    assert auroc(pos, neg) is None and roc_points(pos, neg) == [] and tpr_at(pos, neg, 0.5) is None
    found = auroc_of(sides(pos, neg))
    assert (found.positives, found.negatives) == (len(pos), len(neg))
    assert {found.value, found.low, found.high, found.lowest, found.highest, found.method} == {None}
    assert difference([(sides(pos, neg), sides(pos, neg))]).value is None
    assert bootstrap([], lambda v: v[0]) == (None, None)


def test_one_prompt_a_class_has_a_value_and_no_interval() -> None:
    found = auroc_of(sides([1.0, 2.0], [0.0, 3.0], per_prompt=2))
    assert (found.value, found.low, found.prompts) == (0.5, None, 2)


def test_delong_by_hand() -> None:
    # Placements: positives 1, 1/2, 1 and negatives 1, 2/3; both variances are 1/12 and 1/18.
    value, se = 5 / 6, math.sqrt((1 / 12) / 3 + (1 / 18) / 2)
    half = 1.959963984540054 * se / (value * (1 - value))
    low, high = delong([3.0, 1.0, 4.0], [0.0, 2.0])
    logit = math.log(value / (1 - value))
    assert low == pytest.approx(1 / (1 + math.exp(half - logit))) and high == pytest.approx(
        1 / (1 + math.exp(-half - logit))
    )


def test_intervals_hold_what_they_promise() -> None:
    """DeLong and the bootstrap cover the analytic value about 95 times in 100, and agree on their width."""
    truth, hits, widths = NormalDist().cdf(1 / math.sqrt(2)), [0, 0], [0.0, 0.0]
    for seed in range(150):
        both = sides(drawn(1, 40, 2 * seed), drawn(0, 40, 2 * seed + 1))
        exact = auroc_of(both)
        assert exact.method == "delong"
        for i, (low, high) in enumerate(
            ((exact.low, exact.high), bootstrap([both], lambda v: v[0], resamples=300, seed=seed))
        ):
            assert low is not None and high is not None
            hits[i] += low <= truth <= high
            widths[i] += high - low
    assert all(135 <= n <= 149 for n in hits)
    assert widths[0] == pytest.approx(widths[1], rel=0.1)


def test_copies_of_a_prompt_add_no_certainty() -> None:
    """Ten attempts a prompt that all score alike: the interval is that of the prompts, not a third of it."""
    pos, neg = drawn(1, 30, 1), drawn(0, 30, 2)
    alone = auroc_of(sides(pos, neg))
    copied = auroc_of(sides([s for s in pos for _ in range(10)], [s for s in neg for _ in range(10)], per_prompt=10))
    assert copied.value == pytest.approx(alone.value) and copied.method == "bootstrap" and copied.prompts == 60
    assert alone.high is not None and alone.low is not None and copied.high is not None and copied.low is not None
    assert copied.high - copied.low == pytest.approx(alone.high - alone.low, rel=0.15)


def test_perfect_separation_of_few_is_not_certain() -> None:
    found = auroc_of(sides([5.0] * 8, [1.0] * 8))
    assert (found.value, found.high, found.method) == (1.0, 1.0, "newcombe")
    assert found.low is not None and 0.6 < found.low < 0.85
    low, high = newcombe(0.0, 8, 8)
    assert low == 0.0 and high == pytest.approx(1 - found.low)
    assert newcombe(1.0, 200, 200)[0] > 0.97


def test_unscored_is_counted_and_bounds_the_value() -> None:
    found = auroc_of(Sides([("a", 2.0), ("b", None)], [("c", 1.0), ("d", 3.0), ("e", None)]))
    assert (found.positives, found.negatives, found.unscored, found.value) == (1, 2, 2, 0.5)
    # Of six pairs one is won for certain; at worst no other, at best all but the one that is lost.
    assert (found.lowest, found.highest) == (pytest.approx(1 / 6), pytest.approx(5 / 6))


def test_paired_difference_is_sharper_than_two_intervals() -> None:
    base_pos, base_neg = drawn(1, 60, 1), drawn(0, 60, 2)
    first, second = sides([s + 0.3 for s in base_pos], base_neg), sides(base_pos, base_neg)
    found = difference([(first, second)])
    assert found.value == pytest.approx(
        (auroc([s + 0.3 for s in base_pos], base_neg) or 0) - (auroc(base_pos, base_neg) or 0)
    )
    assert found.low is not None and found.low > 0
    one, two = auroc_of(first), auroc_of(second)
    assert one.low is not None and two.high is not None and one.low < two.high
    same = difference([(first, first)])
    assert (same.value, same.low, same.high) == (0, 0, 0)


def test_a_difference_of_differences_is_of_one_draw_of_prompts() -> None:
    pos, neg = drawn(1, 40, 1), drawn(0, 40, 2)
    strong, weak = sides([s + 0.5 for s in pos], neg), sides(pos, neg)
    found = difference([(strong, weak)], [(strong, weak)])
    assert (found.value, found.low, found.high) == (0, 0, 0)
    gain = difference([(strong, weak)])
    found = difference([(strong, weak), (weak, weak)], [(weak, strong)])
    assert gain.value is not None and found.value == pytest.approx(gain.value / 2 + gain.value)
    assert found.low is not None and gain.low is not None and found.low == pytest.approx(1.5 * gain.low)
    assert difference([(strong, weak)], [(strong, sides([], []))]).value is None


def test_paired_difference_uses_shared_prompts_only() -> None:
    first = Sides([("a", 1.0), ("b", 0.0), ("x", -9.0)], [("c", 0.5), ("d", 0.5)])
    second = Sides([("a", 0.0), ("b", 1.0), ("y", 9.0), ("x", None)], [("c", 0.5), ("d", 0.5), ("z", 99.0)])
    found = difference([(first, second)])
    assert (found.positives, found.negatives, found.value) == (2, 2, 0.0)


def test_the_mean_over_attacks() -> None:
    good, bad = sides([2.0, 3.0], [0.0, 1.0]), sides([0.0, 1.0], [2.0, 3.0])
    nothing = Sides([("p0", 1.0)], [])
    found = mean_auroc([good, bad, nothing])
    assert (found.value, found.positives, found.negatives, found.prompts) == (0.5, 4, 4, 4)
    loss = difference([(good, good), (good, bad)])
    assert loss.value == 0.5 and (loss.low, loss.high) == (0.5, 0.5)


def test_tpr_at_an_fpr() -> None:
    pos, neg = [4.0, 3.0, 2.0, 0.0], [3.0, 1.0, 1.0, -1.0, -2.0]
    strict, loose, all_of = (tpr_at(pos, neg, f) for f in (0.0, 0.39, 1.0))
    assert strict is not None and (strict.hits, strict.fpr, strict.threshold) == (1, 0.0, 4.0)
    assert loose is not None and (loose.hits, loose.tpr, loose.fpr, loose.threshold) == (
        3,
        0.75,
        pytest.approx(0.2),
        2.0,
    )
    assert all_of is not None and all_of.tpr == 1.0 and all_of.fpr == pytest.approx(0.6)
    none = tpr_at([1.0], [1.0, 2.0], 0.2)
    assert none is not None and (none.hits, none.fpr, none.threshold) == (0, 0.0, None)
