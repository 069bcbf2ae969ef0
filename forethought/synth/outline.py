"""Guidelines for safety reasoning, as an editable file, and thoughts written along them.

A strong teacher is shown what each clause asks for and writes freely. A weak one is led through the clauses line by line: it restates
the request, and where a clause lists several lines for the decision at hand it chooses the likeliest. Ours; the papers use large
teachers and need no such help.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from pydantic import Field

from forethought.config import read_yaml, validated
from forethought.errors import ForethoughtError
from forethought.flow import Flow, RoleName
from forethought.policy import Category
from forethought.prompts import SLOT, fill, fill_messages, read_prompt
from forethought.records import Decision, Record
from forethought.synth.common import PACKAGE, lower_first
from forethought.synth.teacher import NEUTRAL, draw, rank

LISTS = ("hurts", "not_allowed", "allowed")


class Clause(Record):
    """One thing to think about. `ask` is the guideline as a strong teacher reads it; `refuse`, `support` and `answer` are the lines a
    weak one may write when that is the decision, none of them leaving the clause out; a line that `decides` weighs more in training.

    Lines may hold {{intent}}, {{category}} (its name), {{decision}}, and one of {{hurts}}, {{not_allowed}}, {{allowed}}: such a line stands
    for as many as the category lists.
    """

    title: str
    ask: str
    refuse: tuple[str, ...] = ()
    support: tuple[str, ...] = ()
    answer: tuple[str, ...] = ()
    decides: bool = False


class Guidelines(Record):
    """A named list of clauses, in the order in which they are thought."""

    name: str
    clauses: tuple[Clause, ...] = Field(min_length=1)


@dataclass(frozen=True)
class Outline:
    """A thought along guidelines, and the texts in it that state the decision."""

    thought: str
    decisive: tuple[str, ...]


def load_guidelines(name: str) -> Guidelines:
    """Shipped guidelines by name, or a YAML file by path. Raises ForethoughtError that names the field at fault."""
    shipped = resources.files(PACKAGE).joinpath("guidelines", f"{name}.yaml")
    if "/" not in name and shipped.is_file():
        text = shipped.read_bytes()
    elif Path(name).is_file():
        text = Path(name).read_bytes()
    else:
        raise ForethoughtError(f"no guidelines '{name}': neither shipped ones nor a file. Copy the shipped srg.yaml.")
    found = validated(Guidelines, read_yaml(name, text), f"guidelines '{name}'")
    known = {"intent", "category", "decision", *LISTS}
    for clause in found.clauses:
        for line in (*clause.refuse, *clause.support, *clause.answer):
            if unknown := set(SLOT.findall(line)) - known:
                raise ForethoughtError(f"guidelines '{name}', clause '{clause.title}': unknown slot '{min(unknown)}'.")
    return found


def as_instructions(guidelines: Guidelines) -> str:
    """The guidelines as a numbered list for a teacher that writes freely."""
    return "\n".join(f"{i}. {c.title}: {c.ask}" for i, c in enumerate(guidelines.clauses, 1))


def follow(
    guidelines: Guidelines,
    intent: str,
    request: str,
    category: Category | None,
    decision: Decision,
    sample: int,
    rng: random.Random,
    role: RoleName = "teacher",
) -> Flow[Outline]:
    """The thought that a teacher which is led writes along the guidelines."""
    lines: list[str] = []
    decisive: list[str] = []
    for clause in guidelines.clauses:
        options = expand(getattr(clause, decision), intent, category, decision)
        if not options:
            continue
        said = options[0]
        if len(options) > 1:
            messages, neutral = (
                fill_messages(read_prompt(PACKAGE, "clause"), request=text, ask=clause.ask)
                for text in (request, NEUTRAL)
            )
            scores = yield from rank(role, messages, tuple(f" {o}" for o in options), f"{clause.title}:", neutral)
            said = draw(options, scores, sample, rng)
        lines.append(f"{clause.title}: {said[:1].upper()}{said[1:]}.")
        if clause.decides:
            decisive.append(lines[-1])
    return Outline("\n".join(lines), tuple(decisive))


def expand(templates: tuple[str, ...], intent: str, category: Category | None, decision: Decision) -> tuple[str, ...]:
    """All lines that templates stand for; those that need a category, or a list of one which is empty, are left out."""
    found = []
    for template in templates:
        slots = set(SLOT.findall(template))
        if category is None and slots & {"category", *LISTS}:
            continue
        listed = next((name for name in LISTS if name in slots), None)
        items = getattr(category, listed) if listed else ("",)
        for item in items:
            values = {"intent": intent, "category": category.name if category else "", "decision": decision}
            line = fill(template, **values, **{name: lower_first(item) for name in LISTS})
            found.append(re.sub(r"\.+$", "", line))
    return tuple(dict.fromkeys(found))
