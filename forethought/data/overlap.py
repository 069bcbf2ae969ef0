"""Near-duplicates within a set, and evaluation prompts that leak into training data: exact, near, or contained in a longer text.

Near means a Jaccard similarity of character 5-grams of at least NEAR, found by an exact prefix-filter join (Chaudhuri et al. 2006;
Xiao et al. 2008), so that no pair is missed and ten thousand against ten thousand take seconds.
"""

from __future__ import annotations

import math
import re
import sys
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Literal, NamedTuple

from forethought.records import Prompt

NEAR = 0.6
# Within training data only what says the same is too much; prompts that differ in one word may differ in all that matters.
DUPLICATE = 0.8
GRAM = 5
MARKED = 1024
# Thai, Lao, Khmer, kana and Han: written without spaces, so that each character stands for a word.
UNSPACED = re.compile("[\u0e00-\u0eff\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff]")
# A shorter text stands inside others by chance.
LEAST_WORDS, LEAST_CHARS = 4, 20
SHOWN = 10  # Leaks that the error names.


@dataclass(frozen=True)
class Leak:
    """A training prompt that matches a prompt of an evaluation set; `similarity` is 1 unless the match is near."""

    kind: Literal["exact", "near", "contained"]
    training: Prompt
    evaluation: Prompt
    set: str
    similarity: float


def normalise(text: str) -> str:
    """Lower case, without punctuation and accents, single spaces."""
    plain = text.lower()
    if not plain.isascii():
        plain = "".join(c for c in unicodedata.normalize("NFKD", plain) if not unicodedata.combining(c))
    return " ".join(re.findall(r"\w+", plain))


class Grams(NamedTuple):
    """A text's grams, each by its rank in rarity; the `rarest` ones, of which a text similar enough shares at least one; and a mark with
    a bit for each gram, `lost` of which share theirs with another."""

    ranks: frozenset[int]
    rarest: list[int]
    mark: int
    lost: int


def similar_pairs(left: Sequence[str], right: Sequence[str], near: float = NEAR) -> list[tuple[int, int, float]]:
    """(i, j, similarity) of all normalised texts left[i], right[j] whose similarity is at least `near`; within one list, i < j."""
    alone = right is left
    found = [_grams(t) for t in left]
    others = found if alone else [_grams(t) for t in right]
    often = Counter(chain.from_iterable(found if alone else found + others))
    rank = {g: i for i, g in enumerate(sorted(often, key=lambda g: (often[g], g)))}
    ours = _all_ranked(found, rank, near)
    theirs = ours if alone else _all_ranked(others, rank, near)
    index: dict[int, list[int]] = defaultdict(list)
    for j, other in enumerate(theirs if not alone else ()):
        for gram in other.rarest:
            index[gram].append(j)
    # Within one list the later text looks for earlier ones, so that no pair is looked at twice.
    pairs = []
    for i, own in enumerate(ours):
        for j in set().union(*(index.get(gram, ()) for gram in own.rarest)):
            similarity = _similarity(own, theirs[j], near)
            if similarity >= near:
                pairs.append((j, i, similarity) if alone else (i, j, similarity))
        for gram in own.rarest if alone else ():
            index[gram].append(i)
    return sorted(pairs)


def _all_ranked(found: list[frozenset[str]], rank: Mapping[str, int], near: float) -> list[Grams]:
    """Of each text, whose grams then leave memory: of a large set both would not fit."""
    found.reverse()
    return [_ranked(found.pop(), rank, near) for _ in range(len(found))]


def _similarity(a: Grams, b: Grams, near: float) -> float:
    """Jaccard similarity; 0 where sizes or marks show that it is below `near`, without a look at the grams."""
    sizes = len(a.ranks), len(b.ranks)
    most = min(*sizes, (a.mark & b.mark).bit_count() + min(a.lost, b.lost))
    total = sum(sizes)
    if most < near * (total - most):
        return 0.0
    shared = len(a.ranks & b.ranks)
    return shared / (total - shared)


def _ranked(grams: frozenset[str], rank: Mapping[str, int], near: float) -> Grams:
    ranks = sorted(rank[g] for g in grams)
    mark = 0
    for n in ranks:
        mark |= 1 << n % MARKED
    # Two sets that similar share an element of all but near * n of their n rarest.
    rarest = ranks[: len(ranks) - math.ceil(near * len(ranks)) + 1]
    return Grams(frozenset(ranks), rarest, mark, len(ranks) - mark.bit_count())


def near_duplicates(prompts: Sequence[Prompt]) -> list[tuple[Prompt, Prompt, float]]:
    """Pairs of prompts that say nearly the same, the earlier one first. Wordings of one prompt, and the sides of a contrast pair, are
    meant to be alike and do not count."""
    # All that was said: conversations may end alike.
    texts = [normalise(" ".join(m.content for m in p.messages)) for p in prompts]
    pairs = ((prompts[i], prompts[j], s) for i, j, s in similar_pairs(texts, texts, DUPLICATE))
    return [
        (a, b, s)
        for a, b, s in pairs
        if a.base != b.base and (a.pair is None or a.pair != b.pair or a.label == b.label)
    ]


def drop_near_duplicates(prompts: Sequence[Prompt]) -> list[Prompt]:
    """Prompts without those that nearly repeat an earlier one that is kept."""
    repeats: dict[str, list[str]] = defaultdict(list)
    for a, b, _ in near_duplicates(prompts):
        repeats[b.id].append(a.id)
    kept: dict[str, Prompt] = {}
    for prompt in prompts:
        if not any(other in kept for other in repeats[prompt.id]):
            kept[prompt.id] = prompt
    return list(kept.values())


def find_leaks(training: Sequence[Prompt], evaluation: Mapping[str, Sequence[Prompt]]) -> list[Leak]:
    """Every training prompt that matches an evaluation prompt, the strongest kind of match for each pair. Prompts are looked at as
    they are worded, as what they really ask for, and turn by turn."""
    if not evaluation:
        return []
    texts = [(p, t) for p in training for t in texts_of(p)]
    leaks: dict[tuple[str, str, str], Leak] = {}
    for name, prompts in evaluation.items():
        named = [(p, t) for p in prompts for t in texts_of(p)]
        for leak in _matches(texts, named, name):
            key = (leak.training.id, name, leak.evaluation.id)
            if key not in leaks or _strength(leak) > _strength(leaks[key]):
                leaks[key] = leak
    return list(leaks.values())


def texts_of(prompt: Prompt) -> list[str]:
    """The normalised texts by which a prompt is compared; of earlier turns those that are long enough to mean something by themselves."""
    said = [normalise(m.content) for m in prompt.messages if m.role == "user"]
    turns = [t for t in said if len(spaced(t).split()) >= LEAST_WORDS and len(t) >= LEAST_CHARS]
    return list(filter(None, dict.fromkeys((normalise(prompt.text), normalise(prompt.request), *turns))))


def spaced(text: str) -> str:
    """`text` with each character of a script without spaces as a word of its own."""
    return " ".join(UNSPACED.sub(r" \g<0> ", text).split())


def _matches(texts: list[tuple[Prompt, str]], named: list[tuple[Prompt, str]], name: str) -> Iterator[Leak]:
    by_text: dict[str, list[Prompt]] = defaultdict(list)
    for prompt, text in named:
        by_text[text].append(prompt)
    for prompt, text in texts:
        for other in by_text.get(text, ()):
            yield Leak("exact", prompt, other, name, 1.0)
    for i, j, s in similar_pairs([t for _, t in texts], [t for _, t in named]):
        yield Leak("near", texts[i][0], named[j][0], name, s)
    for outer, inner, turned in ((texts, named, False), (named, texts, True)):
        for i, j in _contained([t for _, t in outer], [t for _, t in inner]):
            a, b = outer[i][0], inner[j][0]
            yield Leak("contained", b if turned else a, a if turned else b, name, 1.0)


def _contained(outer: Sequence[str], inner: Sequence[str]) -> Iterator[tuple[int, int]]:
    """(i, j) where inner[j], unless it is short, stands in outer[i] word for word and outer[i] is longer."""
    outer, inner = list(map(spaced, outer)), list(map(spaced, inner))
    often = Counter(w for t in inner for w in set(t.split()))
    index: dict[str, list[int]] = defaultdict(list)
    for j, text in enumerate(inner):
        words = text.split()
        if len(words) >= LEAST_WORDS and len(text) >= LEAST_CHARS:
            index[min(set(words), key=lambda w: (often[w], w))].append(j)
    for i, text in enumerate(outer):
        padded = f" {text} "
        for word in set(text.split()) & index.keys():
            for j in index[word]:
                if len(inner[j]) < len(text) and f" {inner[j]} " in padded:
                    yield i, j


def _strength(leak: Leak) -> tuple[bool, bool, float]:
    return leak.kind == "exact", leak.kind == "contained", leak.similarity


def _grams(text: str) -> frozenset[str]:
    padded = f" {text} "
    # The same gram of many texts is one string.
    return frozenset([sys.intern(padded[i : i + GRAM]) for i in range(max(1, len(padded) - GRAM + 1))])


def leak_error(leaks: Sequence[Leak]) -> str:
    """One paragraph that names what leaks and says what to do."""
    kinds = Counter(leak.kind for leak in leaks)
    rows = "; ".join(
        f"{k.training.id} ~ {k.set} {k.evaluation.id} ({k.kind}): {k.evaluation.text[:60]!r}" for k in leaks[:SHOWN]
    )
    more = f"; and {len(leaks) - SHOWN} more" if len(leaks) > SHOWN else ""
    counts = ", ".join(f"{n} {kind}" for kind, n in kinds.items())
    return (
        f"{len({k.training.id for k in leaks})} training rows match evaluation prompts ({counts}): {rows}{more}. "
        "Drop them (--drop-leaks, or leaks: drop in an experiment), or do not evaluate on that set."
    )
