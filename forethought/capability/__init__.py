"""Capability tasks: one file each, one line in TASKS. A factory returns a Task; its signature is its configuration.

A task is written like a data source: `arc` (from the hub), `arc:PATH` (from a copy), `arc(shots=0)`, `arc:PATH(shots=0)`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from forethought.flow import Flow
from forethought.records import Graded, Record, Sampling, digest
from forethought.registry import Entry, resolve

By = Literal["both", "generation", "likelihood"]
SPEC = re.compile(r"(?P<name>[\w-]+):(?P<path>.+?)(?P<options>\([^()]*=[^()]*\))?", re.DOTALL)
TASKS: dict[str, Entry] = {
    "arc": Entry(
        "forethought.capability.arc:arc", "science questions for schools, multiple choice", "arXiv 1803.05457"
    ),
    "mmlu": Entry("forethought.capability.mmlu:mmlu", "57 subjects, multiple choice", "arXiv 2009.03300"),
    "gsm8k": Entry("forethought.capability.gsm8k:gsm8k", "grade-school mathematics", "arXiv 2110.14168"),
    "perplexity": Entry(
        "forethought.capability.perplexity:perplexity",
        "log-likelihood of given answers to harmless questions; ours ship with the package",
    ),
    "decode": Entry(
        "forethought.capability.decode:decode",
        "which static attacks it can read: harmless sentences, disguised; ours ship with the package",
    ),
}


class Item(Record):
    """A question and its right answer: a letter (of `options`), a number, or a reference answer."""

    id: str
    question: str
    options: tuple[str, ...] = ()
    gold: str


@dataclass(frozen=True)
class Way:
    """One way to put a task to a model; `likelihood` where it needs log-probabilities, which servers do not give."""

    ask: Callable[[Item, Sampling], Flow[Graded]]
    likelihood: bool


@dataclass(frozen=True)
class Task:
    """`read` gives all questions; `ways` maps a mode (the word that stands in each row) to how it is asked."""

    read: Callable[[], list[Item]]
    ways: Mapping[str, Way]


def load_task(spec: str) -> tuple[str, Task]:
    """(name without the path, task) of a spec. ForethoughtError for an unknown task or option."""
    match = SPEC.fullmatch(spec.strip())
    if not match or match["name"] not in TASKS:
        return spec.strip(), resolve("task", TASKS, spec)
    name = match["name"] + (match["options"] or "")
    return name, resolve("task", TASKS, name, path=match["path"])


def draw(items: list[Item], take: int | None, seed: int) -> list[Item]:
    """`take` questions by hash of seed and id, so the same for every model, and a larger draw holds a smaller one."""
    unique = {item.id: item for item in items}
    return sorted(unique.values(), key=lambda item: digest(seed, item.id))[:take]
