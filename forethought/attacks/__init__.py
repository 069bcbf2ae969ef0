"""Attacks: one file a family, one line each in ATTACKS. A factory's signature is its configuration.

Most attacks are a Transform, a function of `messages`, which `as_attack` lifts. Others are a flow, a function of `prompt`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from forethought.errors import AskFailed, ForethoughtError
from forethought.flow import Flow
from forethought.records import Message, Messages, Prompt, Sent
from forethought.registry import Entry, resolve

Attack = Callable[[Prompt], Flow[list[Sent]]]
Transform = Callable[[Messages], Messages]

ATTACKS: dict[str, Entry] = {
    "direct": Entry("forethought.attacks.direct:direct", "the request as it is"),
    "prefix_injection": Entry(
        "forethought.attacks.instructions:prefix_injection",
        "asks for an answer that begins with agreement",
        "arXiv 2307.02483",
    ),
    "refusal_suppression": Entry(
        "forethought.attacks.instructions:refusal_suppression",
        "forbids the words that refusals are made of",
        "arXiv 2307.02483",
    ),
    "style_json": Entry(
        "forethought.attacks.instructions:style_json", "asks for the answer as a JSON object", "arXiv 2307.02483"
    ),
    "persona": Entry(
        "forethought.attacks.persona:persona", "puts the request to an assistant without limits", "arXiv 2308.03825"
    ),
    "past_tense": Entry(
        "forethought.attacks.tense:past_tense", "asks how people used to do it, by template", "arXiv 2407.11969"
    ),
}


def load_attack(spec: str) -> tuple[str, Attack]:
    """The attack a spec names, with its name for records. Raises ForethoughtError for an unknown one."""
    return spec, as_attack(resolve("attack", ATTACKS, spec))


def as_attack(made: Callable[..., Any]) -> Attack:
    """A function of `prompt` as it is; a Transform, a function of `messages`, lifted to an attack that sends its result once.

    A transform that leaves the messages unchanged did not attack: its row fails as `not_applicable` and is never counted as safe.
    """
    takes = [*inspect.signature(made).parameters][:1] if callable(made) else []
    if not takes:
        raise ForethoughtError(f"an attack factory must return a function of `prompt` or of `messages`, not {made!r}.")
    if takes != ["messages"]:
        return made

    def attack(prompt: Prompt) -> Flow[list[Sent]]:
        messages = made(prompt.messages)
        if messages == prompt.messages:
            raise AskFailed("not_applicable", "the attack left the prompt unchanged")
        return [Sent(messages=messages)]
        yield

    return attack


def rewrite_last(messages: Messages, rewrite: Callable[[str], str]) -> Messages:
    """`messages` with the text of the last user turn rewritten."""
    last = max((i for i, m in enumerate(messages) if m.role == "user"), default=None)
    if last is None:
        return messages
    turn = Message(role="user", content=rewrite(messages[last].content))
    return (*messages[:last], turn, *messages[last + 1 :])
