"""Multi-turn decomposition: the request in smaller questions, one a turn, put together in the last (Zhou et al. 2024, arXiv 2402.17262)."""

from __future__ import annotations

import re

from forethought.attacks import Attack, last_user
from forethought.attacks.attacker import Useless, ask_target, from_attacker, loses, text_of
from forethought.errors import ForethoughtError
from forethought.flow import Flow
from forethought.prompts import fill_messages, read_prompt
from forethought.records import Message, Prompt, Sent
from forethought.refusals import classify

ITEM = re.compile(r"\s*(?:\d{1,2}[.)]|[-*])\s+(\S.*)")


def decomposition(parts: int = 3, tries: int = 3) -> Attack:
    """Up to `parts` smaller questions of the attacker's, each answered by the target in its turn; the last turn is ours, and asks for the
    request itself, from the answers so far."""
    if not 2 <= parts <= 12:
        raise ForethoughtError(f"decomposition needs 2 to 12 parts, not {parts}.")
    template, last = (read_prompt(__package__, name) for name in ("decompose", "put_together"))

    def attack(prompt: Prompt) -> Flow[list[Sent]]:
        text = text_of(prompt)
        asked = fill_messages(template, request=text, parts=str(parts))
        questions = yield from from_attacker(asked, lambda said: read_parts(said, text, parts), tries)
        messages = prompt.messages[: last_user(prompt.messages)]
        for question in questions:
            messages = (*messages, Message(role="user", content=question))
            _, answer = yield from ask_target(messages)
            messages = (*messages, Message(role="assistant", content=answer))
        return [Sent(messages=(*messages, *fill_messages(last, request=text)))]

    return attack


def read_parts(said: str, request: str, parts: int) -> list[str]:
    """The questions of a list, the first `parts` of them. Raises Useless for a refusal, for under two, and where none holds a word of
    the request that carries meaning."""
    if not said:
        raise Useless("is empty")
    found = [match[1].strip() for line in said.splitlines() if (match := ITEM.fullmatch(line))]
    found = [one for one in dict.fromkeys(found) if one.lower().rstrip("?. ") != request.strip().lower().rstrip("?. ")]
    if len(found) < 2:
        refused = classify(said).label == "refusal"
        raise Useless("is a refusal" if refused else "is no list of at least two smaller questions")
    if loses(" ".join(found[:parts]), request):
        raise Useless("lost what the request asks for")
    return found[:parts]
