"""ARC, the AI2 Reasoning Challenge (Clark et al. 2018, arXiv 1803.05457)."""

from __future__ import annotations

from typing import Literal

from forethought.capability import By, Item, Task
from forethought.capability.choice import Options, choice_task, item
from forethought.capability.reading import read_items
from forethought.data.files import Row
from forethought.records import digest

HUB = "allenai/ai2_arc"


def arc(
    path: str = "",
    subset: Literal["challenge", "easy"] = "challenge",
    shots: int = 3,
    options: Options = "text",
    by: By = "both",
) -> Task:
    """The test questions, from the hub or from a copy (the hub's rows, or AI2's own). Most have four options, some three or five."""
    hub = (HUB, f"ARC-{subset.title()}", "test")
    return choice_task(lambda: read_items("arc", path, hub, _item), shots, options, by)


def _item(row: Row) -> Item:
    question, choices = row["question"], row.get("choices")
    if isinstance(question, dict):  # AI2's own files
        question, choices = question["stem"], question["choices"]
    if isinstance(choices, list):
        choices = {"text": [c["text"] for c in choices], "label": [c["label"] for c in choices]}
    if not isinstance(choices, dict):
        raise ValueError("no choices")
    gold = [str(c) for c in choices["label"]].index(str(row["answerKey"]))
    return item(str(row.get("id") or digest(question)), question, list(choices["text"]), gold)
