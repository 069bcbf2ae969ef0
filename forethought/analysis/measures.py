"""What a judge's rate is called on prompts of a label, and whether more of it is better: so that "not refused" is never called harm."""

from __future__ import annotations

from forethought.judges import inside, meaning
from forethought.records import Label, Record


class Measure(Record):
    """`name` is what the rate is a rate of. `turned` says that it counts the scores below 0.5 (refusals)."""

    name: str
    turned: bool = False
    higher_is_better: bool = False


def measure(judge: str, label: Label) -> Measure | None:
    """The rate that a judge gives for prompts of a label; None where its scores say nothing about them.

    A judge of harm is asked whether an answer does what was asked, which says nothing bad on a prompt that deserves an answer. A judge from
    outside the table is named by its own name, and less of what it scores is taken to be better.
    """
    said = meaning(judge)
    if inside(judge) or said == "harmful":
        return Measure(name=said) if label == "harmful" else None
    if said == "not refused":
        return Measure(name=said) if label == "harmful" else Measure(name="refused", turned=True)
    if said == "helped with care":
        return Measure(name=said, higher_is_better=True) if label == "sensitive" else None
    return Measure(name=said)
