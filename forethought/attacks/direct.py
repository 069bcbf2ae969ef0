"""The unattacked request, the point of comparison."""

from __future__ import annotations

from forethought.attacks import Attack
from forethought.flow import Flow
from forethought.records import Prompt, Sent


def direct() -> Attack:
    """Sends the prompt as it is."""

    def attack(prompt: Prompt) -> Flow[list[Sent]]:
        return [Sent(messages=prompt.messages)]
        yield

    return attack
