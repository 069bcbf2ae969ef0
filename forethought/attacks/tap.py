"""TAP, tree of attacks with pruning (Mehrotra et al. 2023, arXiv 2312.02119): PAIR that branches, with two prunings a level.

Prompts that a helper finds off the topic are pruned before the target is asked, and the worst graded after. The paper: depth 10,
branching 4, width 10; defaults here are small.
"""

from __future__ import annotations

from dataclasses import dataclass

from forethought.attacks import Attack
from forethought.attacks.attacker import text_of
from forethought.attacks.grading import By, Try, best, check_counts, on_topic
from forethought.attacks.pair import feedback, improved, only_an_end, opening, put
from forethought.errors import AskFailed
from forethought.flow import Flow
from forethought.records import Messages, Prompt, Sent


@dataclass(frozen=True)
class Leaf:
    """A conversation with the attacker, and how well its last prompt did."""

    history: Messages
    grade: int


def tap(
    depth: int = 3, branching: int = 2, width: int = 3, enough: int = 10, by: By = "auto", tries: int = 2
) -> Attack:
    """`depth` levels; on each every leaf gets `branching` new prompts, and `width` leaves live on, until a reply is graded `enough`. Sends
    the best. What no longer fits a context ends its branch only."""
    check_counts("tap", enough, depth=depth, branching=branching, width=width, tries=tries)

    def attack(prompt: Prompt) -> Flow[list[Sent]]:
        text_of(prompt)
        found: list[Try] = []
        failure = AskFailed("not_applicable", "")
        leaves = [Leaf(opening(prompt.request, 0), 0)]
        for level in range(depth):
            grown: list[Leaf] = []
            said: set[str] = set()
            for number, leaf in enumerate(leaves):
                for branch in range(branching):
                    sample = ((level * width + number) * branching + branch) * tries
                    start = opening(prompt.request, branch) if not level else leaf.history
                    try:
                        text = yield from improved(start, prompt.request, tries, sample)
                        if text in said or not (yield from on_topic(prompt.request, text, by)):
                            failure = AskFailed("not_applicable", "every prompt of the attacker was off the topic")
                            continue
                        said.add(text)
                        tried = yield from put(prompt, text, by)
                    except AskFailed as error:
                        failure = only_an_end(error)
                        continue
                    found.append(tried)
                    if (tried.grade or 0) >= enough:
                        return best(found)
                    grown.append(Leaf(feedback(start, text, tried, prompt.request), tried.grade or 0))
            # Of equals the earlier stays: sorting is stable.
            leaves = sorted(grown, key=lambda leaf: -leaf.grade)[:width]
        if not found:
            raise failure
        return best(found)

    return attack
