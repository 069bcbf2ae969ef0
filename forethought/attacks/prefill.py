"""The answer begun for the model (Andriushchenko et al. 2024, arXiv 2404.02151, prefilling). Needs a target that goes on after a prefix."""

from __future__ import annotations

from forethought.attacks import UNCHANGED, Attack
from forethought.errors import AskFailed, ForethoughtError
from forethought.flow import Flow
from forethought.records import Prompt, Sent


def answer_prefill(opening: str = "Sure, here is") -> Attack:
    """The reply has to go on after `opening`, without a thought before it; where the template has opened the thought, inside it.
    `empty_thought(opening='Sure, here is', opened=true)` closes that first."""
    if not opening.strip():
        raise ForethoughtError("answer_prefill needs an opening of at least one word: answer_prefill(opening='Sure,').")
    return prefilled(opening)


def prefilled(prefix: str) -> Attack:
    """Sends the messages as they are with the start of the reply; not applicable where the user does not have the last word."""

    def attack(prompt: Prompt) -> Flow[list[Sent]]:
        if not prompt.messages or prompt.messages[-1].role != "user":
            raise AskFailed("not_applicable", UNCHANGED)
        return [Sent(messages=prompt.messages, prefix=prefix)]
        yield

    return attack
