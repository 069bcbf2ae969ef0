"""Where thoughts part into decisions, read off the rows a model learnt from.

Thoughts of one template run alike up to a label (`Rule:`) and then say what is decided in one of a few ways. What stands behind that label
is a choice that can be asked for, where the thought as the model wrote it has chosen already, by a hair or not.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from forethought.records import Example
from forethought.train.rows import decision_at

# How many words behind a label are looked at.
WORDS = 3


@dataclass(frozen=True)
class Fork:
    """A line of the thought begins with `label`; one of `refusing` behind it decides to refuse, one of `others` does not."""

    label: str
    refusing: tuple[str, ...]
    others: tuple[str, ...]

    def point(self, raw: str, prefix: str) -> str | None:
        """What was written up to the label, it included; None where it is not there, or where the prefix had it written."""
        found = re.search(rf"^\W*{re.escape(self.label)}", raw, re.M)
        return raw[: found.end()] if found and found.end() > len(prefix) else None


def find_fork(examples: Iterable[Example]) -> Fork | None:
    """The first fork of all thoughts that state a decision: the first label whose next words, as few as will do and at most three, tell
    those that refuse from the others. None where there is no such label."""
    said: dict[str, dict[bool, dict[str, None]]] = {}
    shared: list[str] | None = None
    for example in examples:
        if decision_at(example) is None:
            continue
        lines = _decisive_lines(example)
        shared = [label for label in (lines if shared is None else shared) if label in lines]
        for label, text in lines.items():
            said.setdefault(label, {True: {}, False: {}})[example.decision == "refuse"][text] = None
    for label in shared or []:
        for count in range(1, WORDS + 1):
            refusing, others = (_openings(said[label][side], count) for side in (True, False))
            mixed = any(a.startswith(b) or b.startswith(a) for a in refusing for b in others)
            if refusing and others and not mixed:
                return Fork(label, refusing, others)
    return None


def _decisive_lines(example: Example) -> dict[str, str]:
    """{label: what stands behind it} of the lines in which a thought states its decision, first to last."""
    thought = (example.reasoning or "").strip()
    places = (thought.find(text) for text in example.decisive if not example.answer.startswith(text))
    starts = sorted({thought.rfind("\n", 0, at) + 1 for at in places if at >= 0})
    found = (re.match(r"\W*(\w[^:\n]*:)[ \t]*(\w.*)", thought[start:]) for start in starts)
    return {match[1]: match[2] for match in found if match}


def _openings(texts: Iterable[str], count: int) -> tuple[str, ...]:
    """The first `count` words of each, once."""
    found = (re.match(rf"\w+(?:[^\w\n]+\w+){{0,{count - 1}}}", text) for text in texts)
    return tuple(dict.fromkeys(match[0] for match in found if match))
