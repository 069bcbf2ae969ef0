"""Composition: `leetspeak+persona` applies leetspeak first and puts persona around the result.

Wei et al. 2023 (arXiv 2307.02483, section 4) found combinations stronger than their parts.
"""

from __future__ import annotations

import inspect
import random
from collections.abc import Callable, Sequence
from typing import Any

from forethought.errors import AskFailed, ForethoughtError
from forethought.flow import Flow, Rng
from forethought.records import Messages, Prompt, Sent

UNCHANGED = "the attack left the prompt unchanged"


def split_spec(spec: str) -> list[str]:
    """The parts of `a(x=1)+b`, split at each plus that is outside brackets and quotes. Raises ForethoughtError for an empty part."""
    parts, depth, quote = [""], 0, ""
    for char in spec:
        if quote:
            quote = "" if char == quote else quote
        elif depth and char in "\"'":
            quote = char
        depth += 0 if quote else (char == "(") - (char == ")")
        if char == "+" and depth == 0 and not quote:
            parts.append("")
        else:
            parts[-1] += char
    parts = [part.strip() for part in parts]
    if len(parts) > 1 and not all(parts):
        raise ForethoughtError(f"cannot read '{spec}': a plus stands between two attacks. Write one+other.")
    return parts


def chain(parts: Sequence[tuple[str, Callable[..., Any]]]) -> Callable[..., Any]:
    """One attack of several: transforms in this order, then one more transform or a flow that is given their result.

    A part that leaves the messages unchanged makes the whole not applicable: otherwise another attack than the named one would be
    measured. Raises ForethoughtError where a flow is not the last.
    """
    *first, (_, last) = parts
    for name, made in first:
        if not is_transform(made):
            raise ForethoughtError(
                f"'{name}' cannot be followed by '+': it sends its own messages. Put it last, after the transforms."
            )
    transforms = [made for _, made in (parts if is_transform(last) else first)]

    def transformed(messages: Messages, rng: random.Random) -> Messages:
        now = messages
        for made in transforms:
            after: Messages = made(now, rng) if len(inspect.signature(made).parameters) > 1 else made(now)
            if after == now:
                return messages
            now = after
        return now

    def flow(prompt: Prompt) -> Flow[list[Sent]]:
        rng = yield Rng()
        assert isinstance(rng, random.Random)
        messages = transformed(prompt.messages, rng)
        if messages == prompt.messages:
            raise AskFailed("not_applicable", UNCHANGED)
        sent: list[Sent] = yield from last(prompt.model_copy(update={"messages": messages, "goal": prompt.request}))
        return sent

    return transformed if is_transform(last) else flow


def is_transform(made: Callable[..., Any]) -> bool:
    """Whether an attack is a function of `messages`, and not a flow."""
    return callable(made) and [*inspect.signature(made).parameters][:1] == ["messages"]
