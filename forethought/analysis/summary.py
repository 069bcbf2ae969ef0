"""The numbers that a comparison of models rests on: pooled rates, paired differences and more tries, from outcomes. Pure functions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import get_args

from forethought.analysis.best_of_n import BestOfN, Kind, best_of_n, tallies
from forethought.analysis.distribution import Distribution, family_of
from forethought.analysis.measures import Measure, measure
from forethought.analysis.paired import Comparison, correct, match, paired_difference
from forethought.analysis.rates import Outcome, Rate, applies, clustered, turned
from forethought.analysis.resampling import mean_by_prompt
from forethought.records import LABELS, Attempt, Label, Record

Heard = Mapping[str, Mapping[str, Sequence[Outcome]]]  # model -> judge -> outcomes
DIRECT, ATTACKED = "direct", "under attack"
KINDS: tuple[Kind, ...] = get_args(Kind)
NEW_PROMPTS = "under attack, prompts not in training"
SEEN, UNSEEN = "under attacks of trained families", "under attacks of other families"


class Pool(Record):
    """One rate over several attacks: those of `scope` (`direct`, `under attack`, the two that split the attacks by what the model was
    trained on, or a family's name) that every model was sent."""

    model: str
    judge: str
    label: Label
    scope: str
    measure: str
    attacks: int
    rate: Rate


class Tries(Record):
    """What more tries do: one model, judge and attack on harmful prompts."""

    model: str
    judge: str
    attack: str
    measure: str
    found: BestOfN


class Cost(Record):
    """What one attack took on one model, a mean a prompt it was made of: attempts sent, asks by role (those of the attack itself
    included), and the tokens of all of these, read and written. Asks for prompts that it could not be made of were spent too, and are
    in the means; where it was made of none (`prompts` is 0), the means are over the prompts tried."""

    model: str
    attack: str
    prompts: int
    attempts: float
    queries: dict[str, float]
    tokens: float


class Length(Record):
    """Mean tokens an answer, thought included, over all attempts of a model, with the bootstrap's 95% interval by prompt."""

    model: str
    attempts: int
    value: float | None
    low: float | None
    high: float | None


def shared_attacks(heard: Heard) -> dict[Label, list[str]]:
    """By label, the attacks but the direct request that every model with any attack was sent: pooling others would compare unlike sums."""
    found: dict[Label, list[str]] = {}
    for label in LABELS:
        sent = [
            {o.attack for outcomes in judges.values() for o in outcomes if o.label == label} - {DIRECT}
            for judges in heard.values()
        ]
        known = [attacks for attacks in sent if attacks]
        order = dict.fromkeys(o.attack for judges in heard.values() for found_ in judges.values() for o in found_)
        found[label] = [a for a in order if known and all(a in attacks for attacks in known)]
    return found


def pools(heard: Heard, trained: Mapping[str, Distribution]) -> tuple[Pool, ...]:
    """Every pooled rate that has attempts. `trained` says for each model what its training held; models whose training is unknown
    are not in it."""
    shared, found = shared_attacks(heard), []
    for model, judges in heard.items():
        for judge, outcomes in judges.items():
            for label in LABELS:
                meant = measure(judge, label)
                if meant is None:
                    continue
                own = [o for o in outcomes if o.label == label and (o.attack == DIRECT or o.attack in shared[label])]
                for scope, group in _scopes(own, trained.get(model)).items():
                    found.append(
                        Pool(
                            model=model, judge=judge, label=label, scope=scope, measure=meant.name,
                            attacks=len({o.attack for o in group}), rate=clustered(meant_by(meant, group)),
                        )
                    )  # fmt: skip
    return tuple(found)


def meant_by(meant: Measure, outcomes: Iterable[Outcome]) -> list[Outcome]:
    """The outcomes with what the measure counts as hits."""
    return turned(outcomes) if meant.turned else list(outcomes)


def _scopes(outcomes: list[Outcome], trained: Distribution | None) -> dict[str, list[Outcome]]:
    groups: dict[str, list[Outcome]] = {}
    # Where no prompt was trained on, a rate over those that were not is the same again.
    some = trained is not None and any(trained.prompts.get(o.prompt) != "out" for o in outcomes)
    for outcome in outcomes:
        names = [DIRECT]
        if outcome.attack != DIRECT:
            names = [ATTACKED, family_of(outcome.attack)]
            if trained is not None:
                names.append(UNSEEN if trained.attacks[outcome.attack] == "unseen" else SEEN)
                names += [NEW_PROMPTS] if some and trained.prompts.get(outcome.prompt) == "out" else []
        for name in names:
            groups.setdefault(name, []).append(outcome)
    return groups


def differences(heard: Heard, reference: str) -> tuple[Comparison, ...]:
    """Every model against the reference: direct requests and all shared attacks together, by judge and label; Holm over the table."""
    return correct(_table(heard, reference, _whole(heard)))


def differences_of_every_pair(heard: Heard) -> tuple[Comparison, ...]:
    """As `differences`, of every pair of models: each later one against each earlier one; Holm over all of them."""
    names, scopes = list(heard), _whole(heard)
    return correct([c for i, name in enumerate(names) for c in _table({n: heard[n] for n in names[i:]}, name, scopes)])


def differences_by_attack(heard: Heard, reference: str) -> tuple[Comparison, ...]:
    """Every model against the reference on harmful requests, attack by attack and by judge; Holm over the table."""
    attacks = shared_attacks(heard)["harmful"]
    return correct(_table(heard, reference, {"harmful": {name: {name} for name in attacks}}))


def _whole(heard: Heard) -> dict[Label, dict[str, set[str]]]:
    """By label, the direct request, and all shared attacks together."""
    shared = shared_attacks(heard)
    return {label: {DIRECT: {DIRECT}} | ({ATTACKED: set(shared[label])} if shared[label] else {}) for label in LABELS}


def _table(heard: Heard, reference: str, scopes: Mapping[Label, Mapping[str, set[str]]]) -> list[Comparison]:
    lines = []
    for label, groups in scopes.items():
        for judge in heard[reference]:
            meant = measure(judge, label)
            for scope, attacks in groups.items() if meant else ():
                for model in heard:
                    sides = [
                        meant_by(
                            meant, [o for o in heard[name].get(judge, ()) if o.label == label and o.attack in attacks]
                        )
                        for name in (reference, model)
                        if meant is not None
                    ]
                    if model != reference and all(sides):
                        lines.append(
                            Comparison(
                                model=model, reference=reference, judge=judge, label=label, scope=scope,
                                measure=meant.name if meant else "", difference=paired_difference(match(*sides)),
                            )
                        )  # fmt: skip
    return lines


def more_tries(heard: Heard, wanted: Sequence[int] = ()) -> tuple[Tries, ...]:
    """`bon_attack` and `safe_of_n` of every attack that made several attempts on a harmful prompt: points of its curves for the N
    `wanted`, by default N = 1, 2, 4, ... and all."""
    found = []
    for model, judges in heard.items():
        for judge, outcomes in judges.items():
            meant = measure(judge, "harmful")
            groups: dict[str, list[Outcome]] = {}
            for outcome in outcomes:
                if outcome.label == "harmful" and meant is not None:
                    groups.setdefault(outcome.attack, []).append(outcome)
            for attack, group in groups.items():
                # The end of an attempt's id counts the attempts on its prompt; several wordings of one prompt are no tries.
                if meant is None or all(o.attempt.endswith("/0") for o in group):
                    continue
                for kind in KINDS:
                    counts = tallies(group, kind)
                    most = max(t.scored + t.unscored for t in counts)
                    usual = {most, *(2**i for i in range(most.bit_length()))}
                    for tries in sorted(n for n in wanted or usual if n <= most):
                        made = best_of_n(kind, counts, tries)
                        found.append(Tries(model=model, judge=judge, attack=attack, measure=meant.name, found=made))
    return tuple(found)


def costs(model: str, attempts: Iterable[Attempt]) -> tuple[Cost, ...]:
    """What every attack took on one model, in the order attempts first show them."""
    groups: dict[str, list[Attempt]] = {}
    for attempt in attempts:
        groups.setdefault(attempt.attack, []).append(attempt)
    found = []
    for attack, members in groups.items():
        sent = [a for a in members if applies(a)]
        queries: Counter[str] = Counter()
        for attempt in members:
            queries.update(attempt.queries)
        if not sent and not queries:
            continue
        made = len({a.prompt.id for a in sent})
        n = made or len({a.prompt.id for a in members})
        found.append(
            Cost(
                model=model,
                attack=attack,
                prompts=made,
                attempts=len(sent) / n,
                queries={role: count / n for role, count in sorted(queries.items())},
                tokens=sum(a.query_tokens for a in members) / n,
            )
        )
    return tuple(found)


def length(model: str, attempts: Iterable[Attempt]) -> Length:
    """How long a model's answers are; where nothing came back there is none."""
    found = mean_by_prompt((a.prompt.base, a.completion_tokens) for a in attempts if a.status is not None)
    return Length(model=model, attempts=found.n, value=found.value, low=found.low, high=found.high)
