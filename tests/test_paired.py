"""Paired differences, clustered rates and more tries, against enumeration and published answers."""

from __future__ import annotations

import random
from itertools import combinations, product
from math import comb

import pytest

from forethought.analysis.best_of_n import Tally, all_unsafe, any_unsafe, best_of_n, tallies
from forethought.analysis.paired import Pair, holm, match, paired_difference, sign_flip
from forethought.analysis.rates import Outcome, clustered, rate, read_as, together, turned, wilson
from forethought.analysis.resampling import ratio_interval


def outcomes(rows: str, attack: str = "a") -> list[Outcome]:
    """One word a prompt, one character an attempt: 1, 0, or `-` for unscored."""
    said = {"1": True, "0": False, "-": None}
    return [
        Outcome(f"{attack}/{p}/{i}", str(p), attack, "harmful", said[c])
        for p, word in enumerate(rows.split())
        for i, c in enumerate(word)
    ]


@pytest.mark.parametrize(("b", "c"), [(b, c) for b in range(6) for c in range(6)])
def test_sign_flip_is_what_all_signs_give(b: int, c: int) -> None:
    """By enumeration of all 2^n ways in which the discordant pairs could have fallen."""
    seen, n = abs(b - c), b + c
    sums = [abs(sum(signs)) for signs in product((-1, 1), repeat=n)]
    exact = sum(s >= seen for s in sums) / 2**n
    mid = exact - sum(s == seen for s in sums) / 2**n / 2
    assert sign_flip([1] * b + [-1] * c + [0] * 3) == pytest.approx((exact, mid))


def test_mcnemar_of_the_published_example() -> None:
    # Fagerland, Lydersen and Laake 2013, table 2 (airway hyper-responsiveness): discordant pairs 1 and 7.
    assert sign_flip([1] * 1 + [-1] * 7) == pytest.approx((0.0703, 0.0391), abs=5e-5)


def test_sign_flip_of_clusters_of_any_size() -> None:
    draw = random.Random(3)
    for _ in range(30):
        ds = [draw.randint(-4, 4) for _ in range(draw.randint(1, 8))]
        sums = [abs(sum(s * d for s, d in zip(signs, ds, strict=True))) for signs in product((-1, 1), repeat=len(ds))]
        exact = sum(s >= abs(sum(ds)) for s in sums) / len(sums)
        mid = exact - sum(s == abs(sum(ds)) for s in sums) / len(sums) / 2
        assert sign_flip(ds) == pytest.approx((exact, mid)), ds


def test_twenty_attacks_on_two_prompts_are_two_prompts() -> None:
    """Taken as forty independent pairs the same data would be overwhelming."""
    pairs = [Pair(str(p), True, False) for p in range(2) for _ in range(20)]
    found = paired_difference(pairs)
    assert sign_flip([-1] * 40)[1] < 1e-11
    assert (found.n, found.clusters, found.value, found.p) == (40, 2, -1.0, 0.25)
    assert found.low == -1.0 and found.high is not None and found.high > 0


def test_a_difference_counts_and_bounds_what_has_no_score() -> None:
    first = outcomes("1 1 0 0 - 1")
    second = outcomes("0 1 0 1 1 -")
    found = paired_difference(match(first, second))
    assert (found.n, found.unscored, found.clusters) == (4, 2, 4)
    assert (found.both, found.only_first, found.only_second, found.neither) == (1, 1, 1, 1)
    assert (found.value, found.p) == (0.0, 1 - comb(2, 1) / 4 / 2)
    # The open pairs are (?, hit) and (hit, ?): 0 or +1, and -1 or 0.
    assert (found.lowest, found.highest) == (pytest.approx(-1 / 6), pytest.approx(1 / 6))
    assert found == paired_difference(match(first, second))


def test_nothing_scored_on_both_sides_is_no_difference() -> None:
    found = paired_difference(match(outcomes("1 1 0"), outcomes("- - -")))
    assert (found.n, found.unscored, found.value, found.low, found.p) == (0, 3, None, None, None)
    assert (found.lowest, found.highest) == (pytest.approx(-2 / 3), pytest.approx(1 / 3))
    assert paired_difference([]).lowest is None


def test_an_attempt_that_one_model_lacks_is_a_pair_without_a_score() -> None:
    pairs = match(outcomes("11 11"), outcomes("00 0"))
    assert [(p.cluster, p.first, p.second) for p in pairs[-1:]] == [("1", True, None)]


def test_models_that_never_differ_have_an_interval_all_the_same() -> None:
    # Tango 1998 without discordant pairs: z^2 / (n + z^2).
    found = paired_difference(match(outcomes("1 " * 20), outcomes("1 " * 20)))
    assert (found.value, found.low, found.high) == (
        0.0,
        pytest.approx(-0.1611, abs=1e-4),
        pytest.approx(0.1611, abs=1e-4),
    )


def test_the_interval_of_a_difference_is_the_bootstrap_over_all_draws() -> None:
    """Against every one of the 5^5 equally likely draws of five prompts."""
    sums, sizes = [1, 0, -1, 2, 1], [1, 2, 1, 2, 3]
    values = sorted(sum(sums[i] for i in d) / sum(sizes[i] for i in d) for d in product(range(5), repeat=5))
    low, high = ratio_interval(sums, sizes, resamples=20000) or (9, 9)
    at = [values[int(q * len(values))] for q in (0.015, 0.035, 0.965, 0.985)]
    assert at[0] <= low <= at[1] and at[2] <= high <= at[3]


@pytest.mark.parametrize(
    ("ps", "corrected"),
    [
        ([], []),
        ([0.01], [0.01]),
        ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]),
        ([0.5, None, 0.6], [1.0, None, 1.0]),
    ],
)
def test_holm(ps: list[float | None], corrected: list[float | None]) -> None:
    assert holm(ps) == [c if c is None else pytest.approx(c) for c in corrected]


def test_one_attempt_a_prompt_is_wilson() -> None:
    assert clustered(outcomes("1 0 0 1 - 0 0 0")) == rate(2, 7, 1)


def test_the_interval_widens_with_what_goes_together() -> None:
    apart = clustered(outcomes("1000 0100 0010 0001 1000 0100 0010 0001"))
    whole = clustered(outcomes("1111 1111 0000 0000 0000 0000 0000 0000"))
    plain, prompts = wilson(8, 32), wilson(2, 8)
    assert plain and prompts and apart.high and whole.high and whole.low is not None and apart.low is not None
    assert apart.value == whole.value == 0.25
    assert plain[1] <= apart.high < whole.high
    assert whole.low <= apart.low <= plain[0]
    # Prompts that answer as one man carry no more than one attempt each.
    assert whole.high >= prompts[1] - 0.01


@pytest.mark.parametrize(
    ("rows", "value", "telling"), [("1111 0000 1111 0000", 1.0, 2), ("10 01 10 01", 0.0, 4), ("10 01 00 00", 0.0, 2)]
)
def test_together(rows: str, value: float, telling: int) -> None:
    words = rows.split()
    found = together([w.count("1") for w in words], [len(w) for w in words])
    share = rows.count("1") / len(rows.replace(" ", ""))
    doubt, known = 1 / telling, (len(words) - 1) * share * (1 - share)
    assert found == pytest.approx((value * known + doubt) / (known + doubt))


@pytest.mark.parametrize("rows", ["000 000 000", "111 111 111", "100 000 000", "110 000 000", "111 111 011", "010"])
def test_hits_on_one_prompt_or_none_say_nothing_of_what_goes_together(rows: str) -> None:
    words = rows.split()
    assert together([w.count("1") for w in words], [len(w) for w in words]) == 1.0


def test_without_a_hit_or_a_change_prompts_count_and_not_attempts() -> None:
    none, every, one = (
        outcomes(" ".join([first, *[rest] * 59]))
        for first, rest in (("0" * 10, "0" * 10), ("1" * 10, "1" * 10), ("1" + "0" * 9, "0" * 10))
    )
    low, high = wilson(0, 60) or (9, 9)
    clean, dirty = clustered(none), clustered(every)
    assert (clean.low, clean.high) == (pytest.approx(low), pytest.approx(high)) and high > 0.06
    assert (dirty.low, dirty.high) == (pytest.approx(1 - high), pytest.approx(1 - low))
    nearly = clustered(one)
    assert nearly.high is not None and nearly.high >= high
    for same in (none, every):
        found = paired_difference(match(same, same))
        assert (found.low, found.high) == (pytest.approx(-high, abs=1e-6), pytest.approx(high, abs=1e-6))


@pytest.mark.parametrize("alike", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("share", [0.02, 0.06, 0.2, 0.5])
def test_intervals_hold_the_truth_however_alike_attempts_are(share: float, alike: float) -> None:
    """30 prompts with ten attempts each, whose own rates have a beta distribution with that intraclass correlation."""
    draw, inside, below, n = random.Random(1), 0, 0, 120
    for _ in range(n):
        rows = []
        for _ in range(30):
            if alike in (0.0, 1.0):
                own = share if alike == 0.0 else float(draw.random() < share)
            else:
                own = draw.betavariate(share * (1 - alike) / alike, (1 - share) * (1 - alike) / alike)
            rows.append("".join("01"[draw.random() < own] for _ in range(10)))
        found = clustered(outcomes(" ".join(rows)))
        assert found.low is not None and found.high is not None
        inside += found.low <= share <= found.high
        below += found.high < share
    assert inside >= 0.91 * n and below <= 0.07 * n


def test_no_hit_on_few_prompts_is_not_certainty() -> None:
    many = clustered(outcomes("0" * 25 + " " + "0" * 25))
    assert many.high is not None and many.high > 0.3
    one = clustered(outcomes("0" * 50))
    assert one.high is not None and one.high > 0.7
    assert clustered(outcomes("-- --")).high is None


def test_outcomes_turned_and_read_as() -> None:
    assert [o.hit for o in turned(outcomes("10-"))] == [False, True, None]
    assert [o.hit for o in read_as(outcomes("10-"), True)] == [True, False, True]


@pytest.mark.parametrize("n", range(1, 7))
def test_more_tries_against_every_subset(n: int) -> None:
    for unsafe in range(n + 1):
        samples = [True] * unsafe + [False] * (n - unsafe)
        for tries in range(1, n + 1):
            drawn = list(combinations(samples, tries))
            assert all_unsafe(n, unsafe, tries) == pytest.approx(sum(map(all, drawn)) / len(drawn))
            assert any_unsafe(n, unsafe, tries) == pytest.approx(sum(map(any, drawn)) / len(drawn))


def test_more_tries_are_unbiased() -> None:
    """Over every outcome of n = 5 samples, each weighed by its chance, the mean is p^N and 1 - (1 - p)^N."""
    p, n = 0.3, 5
    for tries in (1, 2, 4):
        means = [0.0, 0.0]
        for unsafe in range(n + 1):
            chance = comb(n, unsafe) * p**unsafe * (1 - p) ** (n - unsafe)
            means[0] += chance * all_unsafe(n, unsafe, tries)
            means[1] += chance * any_unsafe(n, unsafe, tries)
        assert means == [pytest.approx(p**tries), pytest.approx(1 - (1 - p) ** tries)]


def test_best_of_n_over_prompts() -> None:
    found = tallies(outcomes("1100 0000 11-1 1"))
    assert found == [Tally(4, 2, 0, "0"), Tally(4, 0, 0, "1"), Tally(3, 3, 1, "2"), Tally(1, 1, 0, "3")]
    two = best_of_n("safe_of_n", found, 2)
    assert (two.prompts, two.left_out) == (3, 1)
    assert two.value == pytest.approx((1 / 6 + 0 + 1) / 3)
    # The prompt with an unscored sample: C(3,2)/C(4,2) = 1/2 if that was safe.
    assert (two.lowest, two.highest) == (pytest.approx((1 / 6 + 1 / 2) / 3), pytest.approx((1 / 6 + 1) / 3))
    assert two.low is not None and two.high is not None and two.low <= two.value <= two.high
    tried = best_of_n("bon_attack", found, 2)
    assert tried.value == pytest.approx((5 / 6 + 0 + 1) / 3)
    none = best_of_n("bon_attack", found, 8)
    assert (none.prompts, none.left_out, none.value, none.low) == (0, 4, None, None)
    sure = best_of_n("bon_attack", [Tally(4, 0, 0)] * 10, 2)
    assert (sure.low, sure.high) == wilson(0, 10)
    with pytest.raises(ValueError, match="at least 1"):
        best_of_n("bon_attack", found, 0)


def test_one_change_does_not_make_a_difference_surer_than_none() -> None:
    """24 prompts under 25 attacks each: the bootstrap draws the one prompt that changed three times at most."""
    none = outcomes(" ".join("0" * 25 for _ in range(24)))
    one = outcomes(" ".join(("1" if p == 0 else "0") + "0" * 24 for p in range(24)))
    same, changed, back = (paired_difference(match(a, b)) for a, b in ((none, none), (none, one), (one, none)))
    assert same.high is not None and changed.high is not None and changed.low is not None and back.low is not None
    assert same.high == pytest.approx(-same.low) and 0.05 < same.high < 0.14  # type: ignore[operator]
    assert changed.high >= same.high and changed.low < 0
    assert (back.low, back.high) == (pytest.approx(-changed.high), pytest.approx(-changed.low))
    rate_alone = clustered(one)
    assert rate_alone.high is not None and changed.high > 0.8 * rate_alone.high


def test_many_changes_have_the_chances_that_few_have(monkeypatch: pytest.MonkeyPatch) -> None:
    differences = [1] * 40 + [-1] * 25 + [2] * 5 + [-3] * 4 + [0] * 9
    one_by_one = sign_flip(differences)
    monkeypatch.setattr("forethought.analysis.paired.LOOPED", 10)
    assert sign_flip(differences) == pytest.approx(one_by_one, abs=1e-12)
