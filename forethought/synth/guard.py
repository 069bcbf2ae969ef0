"""A guard's word on an answer, which fails closed."""

from __future__ import annotations

from typing import Literal

from forethought.flow import Ask, Flow
from forethought.prompts import fill_messages, read_prompt
from forethought.records import Prompt, Sampling
from forethought.replies import reply_of
from forethought.synth.common import PACKAGE, Reject, shown

Guard = Literal["plain", "llama_guard"]


def guard_check(prompt: Prompt, answer: str, form: Guard) -> Flow[None]:
    """Raises Reject unless the guard calls the answer safe; a guard that says neither has not said safe."""
    if form == "llama_guard":
        # Its own template makes the instructions from the conversation.
        earlier = (m for m in prompt.messages[:-1] if m.role != "system")
        turns = (*earlier, *fill_messages(read_prompt(PACKAGE, "guarded"), request=prompt.request, answer=answer))
    else:
        turns = fill_messages(read_prompt(PACKAGE, "guard"), request=shown(prompt), answer=answer)
    reply = yield from reply_of(Ask("guard", turns, sampling=Sampling(max_tokens=512)))
    first = (reply.text.strip().splitlines() or [""])[0].strip("\"'*. ").lower()
    if first not in ("safe", "unsafe"):
        raise Reject("guard gives no verdict", reply.text[:200])
    if first == "unsafe":
        raise Reject("guard calls the answer unsafe", answer[:200])
