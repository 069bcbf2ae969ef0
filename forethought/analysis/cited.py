"""What a refusal says: the rule it names, the words it uses, and the harmless requests next to it. Pure functions over texts.

A rule is named where the name of one of the policy's categories stands in the text, word for word; a paraphrase is not seen. SCoT
(arXiv 2501.19180) and RATIONAL-style reasons are written to name one, so that a refusal can be checked against what was asked.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import cache

from forethought.analysis.rates import Outcome, Rate, clustered, turned
from forethought.data.overlap import normalise
from forethought.policy import Policy
from forethought.records import Attempt, Record
from forethought.refusals import DECLINE, classify
from forethought.thoughts import is_set

NONE, SEVERAL = "none named", "several named"


class Refused(Record):
    """The refusals of one model for harmful prompts of one true category, over all attacks. `cited` counts the category named, `words`
    the phrases of refusing (each once a refusal), both most frequent first; `right` is the share that name the true category, of those
    that name exactly one. `rate` is the share refused of what was scored, by prompt."""

    model: str
    category: str
    rate: Rate
    cited: dict[str, int]
    words: dict[str, int]
    right: Rate


def names(text: str, categories: Mapping[str, str]) -> list[str]:
    """The ids of the categories whose name stands in a text, given names by id."""
    padded = f" {normalise(text)} "
    return [id for id, name in categories.items() if f" {normalise(name)} " in padded]


def cited(attempt: Attempt, categories: Mapping[str, str]) -> str:
    """The one category that the answer names or, where it names none, the thought, unless the attack wrote it; else NONE or SEVERAL."""
    own = "" if is_set(attempt) else attempt.reasoning or ""
    for text in (attempt.answer, own):
        found = names(text, categories)
        if found:
            return found[0] if len(found) == 1 else SEVERAL
    return NONE


def refusals(model: str, attempts: Iterable[Attempt], outcomes: Iterable[Outcome], policy: Policy) -> list[Refused]:
    """A row for each true category of the policy that was asked about; prompts of no category of it are left out.

    `outcomes` are those of a judge of refusals: a hit was not refused.
    """
    categories = {c.id: c.name for c in policy.categories}
    sent = {a.id: a for a in attempts if a.prompt.label == "harmful"}
    groups: dict[str, list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        found = policy.find(sent[outcome.attempt].prompt) if outcome.attempt in sent else None
        if found is not None:
            groups[found.id].append(outcome)
    return [_row(model, c, groups[c], sent, categories) for c in categories if c in groups]


def _row(
    model: str, category: str, outcomes: Sequence[Outcome], sent: Mapping[str, Attempt], categories: Mapping[str, str]
) -> Refused:
    said: Counter[str] = Counter()
    words: Counter[str] = Counter()
    right = []
    for outcome in outcomes:
        if outcome.hit is False:
            attempt = sent[outcome.attempt]
            one = cited(attempt, categories)
            said[one] += 1
            words[phrase(attempt)] += 1
            if one not in (NONE, SEVERAL):
                right.append(Outcome(outcome.attempt, outcome.prompt, outcome.attack, outcome.label, one == category))
    return Refused(
        model=model, category=category, rate=clustered(turned(outcomes)), right=clustered(right),
        cited=dict(said.most_common()), words=dict(words.most_common()),
    )  # fmt: skip


def phrase(attempt: Attempt) -> str:
    """The first six words by which an answer declines, in lower case: of what a rule of refusal found those that the rule itself names, so
    that none is the request's or the answer's own; else the rule's name."""
    found = classify(attempt.answer, attempt.prompt.request)
    rule, _, text = found.evidence.partition(": ")
    named = text.lower().split() if found.label == "refusal" and rule in DECLINE else ()
    return " ".join([w for w in named if w.strip(".,!?:;") in _own_words(rule)][:6]) or rule.replace("_", " ")


@cache
def _own_words(rule: str) -> frozenset[str]:
    pattern = re.sub(r"\\.", " ", DECLINE[rule].pattern.lower())
    own = frozenset(re.findall(r"[a-z']+", pattern))
    return own | {f"i{word}" for word in own if word.startswith("'")}


def neighbours(refused: Sequence[Attempt], harmless: Sequence[Attempt]) -> list[tuple[Attempt, Attempt, float]]:
    """For each refused request the most similar of the harmless ones that share a word with it (of ties the first), and how similar it is,
    from 0 to 1: the cosine of words weighed by how rare they are (tf-idf), of what is really asked."""
    texts = [Counter(normalise(a.prompt.request).split()) for a in (*refused, *harmless)]
    often = Counter(w for words in texts for w in words)
    vectors = []
    for words in texts:
        weighed = {w: n * math.log((1 + len(texts)) / often[w]) for w, n in sorted(words.items())}
        length = math.sqrt(sum(x * x for x in weighed.values())) or 1.0
        vectors.append({w: x / length for w, x in weighed.items()})
    asked, others = vectors[: len(refused)], vectors[len(refused) :]
    index: dict[str, list[int]] = defaultdict(list)
    for j, vector in enumerate(others):
        for word in vector:
            index[word].append(j)
    found = []
    for attempt, vector in zip(refused, asked, strict=True):
        sums: dict[int, float] = defaultdict(float)
        for word, weight in vector.items():
            for j in index.get(word, ()):
                sums[j] += weight * others[j][word]
        if sums:
            best, similarity = min(sums.items(), key=lambda item: (-item[1], item[0]))
            found.append((attempt, harmless[best], similarity))
    return found
