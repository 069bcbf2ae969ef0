"""MMLU, Massive Multitask Language Understanding (Hendrycks et al. 2021, arXiv 2009.03300)."""

from __future__ import annotations

from forethought.capability import By, Item, Task
from forethought.capability.choice import LETTERS, Options, choice_task, item
from forethought.capability.reading import read_items
from forethought.data.files import Row
from forethought.records import digest

HUB = ("cais/mmlu", "all", "test")


def mmlu(path: str = "", shots: int = 3, options: Options = "text", by: By = "both") -> Task:
    """The test questions of all subjects, from the hub or from a copy (`choices`, or `choice0` to `choice3`).

    The demonstrations are ours and the same for all subjects, so numbers differ from the usual ones, which take five of each subject.
    """
    return choice_task(lambda: read_items("mmlu", path, HUB, _item), shots, options, by)


def _item(row: Row) -> Item:
    options = row["choices"] if "choices" in row else [row[f"choice{i}"] for i in range(4)]
    answer = str(row["answer"]).strip()
    gold = LETTERS.index(answer) if answer in LETTERS else int(answer)
    options = [str(o) for o in options]
    return item(digest(row["question"], options), str(row["question"]), options, gold)
