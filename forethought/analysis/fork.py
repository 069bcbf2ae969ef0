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
    """The fork of all thoughts that state a decision; None where they have no label in common, or a word behind it leaves open what is
    decided."""
    before: list[str] = []
    words: dict[bool, dict[str, None]] = {True: {}, False: {}}
    for example in examples:
        if (at := decision_at(example)) is None:
            continue
        thought = (example.reasoning or "").strip()
        first = re.match(r"\w+", thought[at:])
        if first is None:
            return None
        before.append(thought[:at])
        words[example.decision == "refuse"][first[0]] = None
    label = _shared_end(before).rstrip().rsplit("\n", 1)[-1].lstrip()
    refusing, others = tuple(words[True]), tuple(words[False])
    if not re.search(r"\w", label) or not refusing or not others or set(refusing) & set(others):
        return None
    return Fork(label, refusing, others)


def _shared_end(texts: list[str]) -> str:
    if not texts:
        return ""
    shortest = min(texts, key=len)
    same = next((n for n in range(len(shortest)) if any(t[-1 - n] != shortest[-1 - n] for t in texts)), len(shortest))
    return shortest[len(shortest) - same :]
