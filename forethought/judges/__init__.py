"""Judges: one file each, one line in JUDGES. A judge is a factory returning `(Prompt, Attempt) -> Flow[Verdict]`."""

from __future__ import annotations

from collections.abc import Callable

from forethought.flow import Flow
from forethought.records import Attempt, Prompt, Verdict
from forethought.registry import Entry

Judge = Callable[[Prompt, Attempt], Flow[Verdict]]

JUDGES: dict[str, Entry] = {
    "refusal": Entry(
        "forethought.judges.refusal:refusal",
        "rules that read the answer and tell a refusal from the rest; knows nothing of harm, so its complement is 'not refused'",
    ),
}
