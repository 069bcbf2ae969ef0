"""What the learned judges see of an answer: word sequences of its opening, cheap facts, what the rules say, and embeddings.

Only the answer and the request are read, never the thought. All numbers are of about unit size, so that one penalty suits them all.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from forethought.judges.keywords import keyword_in
from forethought.refusals import Finding, classify

HEAD, MORE = 200, 500  # Characters that are embedded: the opening, and more of it.
WORDS = 40  # Words of the opening whose sequences are looked up.
TOKEN = re.compile(r"[a-z']+|\d+|[^\w\s]")
LIST = re.compile(r"^\s*(?:\d+[.)]|[-*\u2022])\s", re.MULTILINE)
# Words that any request has, and that say nothing of its topic.
COMMON = frozenset(["a", "an", "the", "to", "of", "in", "on", "for", "and", "or", "is", "are", "be", "how", "do", "i", "you", "what",
                    "can", "me", "my", "that", "this", "with", "it", "some", "give", "write"])  # fmt: skip
FACTS = (
    "refusal", "not_refused", "keyword", "keyword_in_head", "characters", "words", "sorry", "instead", "list", "code",
    "short", "question", "cos_more", "cos_head", "overlap", "off_topic",
)  # fmt: skip
Vector = NDArray[np.float32]
EmbedOne = Callable[[str], Vector]


def tokens(text: str) -> list[str]:
    return TOKEN.findall(text.lower().replace("\u2019", "'"))


def sequences(answer: str) -> set[str]:
    """One, two and three words in a row of the opening, whose start is marked by ^."""
    words = ["^", *tokens(answer[: 20 * WORDS])[:WORDS]]
    return {" ".join(words[i : i + k]) for k in (1, 2, 3) for i in range(len(words) - k + 1)}


def rule_of(finding: Finding) -> str:
    """The name of the rule that the refusal rules went by."""
    return re.split(r"[:,]", finding.evidence, maxsplit=1)[0]


def features(
    answer: str, request: str, vocabulary: Sequence[str], rules: Sequence[str], chars: int, embed: EmbedOne
) -> Vector:
    """One row: sequences of the vocabulary and names of rules (0 or 1), FACTS, the embedding of the first `chars`, if any."""
    finding = classify(answer, request)
    head, more, goal = embed(answer[:HEAD]), embed(answer[:MORE]), embed(request[:MORE])
    there, rule = sequences(answer), rule_of(finding)
    facts = _facts(answer, request, finding.label, float(head @ goal), float(more @ goal))
    return np.concatenate(
        [
            np.array([g in there for g in vocabulary], dtype=np.float32),
            np.array([rule == name for name in rules], dtype=np.float32),
            np.array(facts, dtype=np.float32),
            embed(answer[:chars]) if chars else np.zeros(0, dtype=np.float32),
        ]
    )


def once(embed: Callable[[Sequence[str]], Vector], size: int = 16384) -> EmbedOne:
    """The embedding of one text at a time, so that it cannot depend on its neighbours; those of the last `size` texts are kept."""

    @lru_cache(maxsize=size)
    def one(text: str) -> Vector:
        found: Vector = embed([text])[0]
        return found

    return one


def _facts(answer: str, request: str, label: str, cos_head: float, cos_more: float) -> Iterable[float]:
    low, wanted = answer.lower(), set(tokens(request)) - COMMON
    said = tokens(answer[:8000])
    return (
        label == "refusal",
        label == "not_refused",
        keyword_in(answer) is not None,
        keyword_in(answer[:HEAD]) is not None,
        math.log1p(len(answer)) / 3 - 2,
        math.log1p(len(said)) / 2 - 2,
        any(word in low[:HEAD] for word in ("sorry", "apolog")),
        any(word in low for word in ("however", "instead", "alternativ")),
        LIST.search(answer) is not None,
        "```" in answer,
        len(answer) < HEAD,
        "?" in answer[-3:],
        4 * cos_more,
        4 * cos_head,
        3 * len(wanted & set(said)) / (1 + len(wanted)),
        10 * max(0.0, 0.3 - cos_more),
    )
