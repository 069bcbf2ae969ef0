"""Rewriting a request in a style, its meaning kept: by a model that is shown demonstrations, or by putting a frame around it."""

from __future__ import annotations

import random
import re
from typing import Literal

from forethought.errors import AskFailed
from forethought.flow import Ask, Flow, RoleName
from forethought.prompts import fill, fill_messages, read_prompt
from forethought.records import Message, Messages, Sampling
from forethought.refusals import classify
from forethought.replies import reply_of
from forethought.styles import Style, chosen, pool

By = Literal["model", "frame"]
REFUSES = re.compile(
    r"\W*(?:I\b|we\b|no\b|sorry\b|unfortunately\b|(?:my )?apologies\b|as an?\b|(?:this|that|it)(?:'s| is| would| request)\b)",
    re.IGNORECASE,
)


def rewrite(
    text: str, style: Style, role: RoleName = "helper", tries: int = 3, demonstrations: str | None = None
) -> Flow[str]:
    """`text` in the style, as the role's model writes it. AskFailed of kind `bad_rewrite` with the last fault after `tries` samples."""
    messages = instructions(text, style, demonstrations)
    shown = [m.content for m in messages if m.role == "assistant"]
    fault = "no try"
    for sample in range(tries):
        sampling = Sampling(temperature=0.7, top_p=0.95, max_tokens=400)
        reply = yield from reply_of(Ask(role, messages, sample=sample, sampling=sampling))
        said = reply.text.strip()
        fault = "is cut off" if reply.stop == "length" else fault_of(said, text, shown)
        if not fault:
            return said
    raise AskFailed("bad_rewrite", f"{style.id}: the rewritten request {fault}")


def instructions(text: str, style: Style, demonstrations: str | None = None) -> Messages:
    """What a model that rewrites is shown: the style, demonstrations as earlier turns, the request."""
    system = fill_messages(read_prompt("forethought.styles", "rewrite"), ask=style.ask)
    rows = {row["request"]: row for row in pool()}
    turns: list[Message] = []
    for request in chosen(demonstrations).requests:
        if style.id in rows[request]:
            turns += [
                Message(role="user", content=request),
                Message(role="assistant", content=rows[request][style.id]),
            ]
    return (*system, *turns, Message(role="user", content=text))


def fault_of(said: str, text: str, shown: list[str], room: int = 80) -> str:
    """What is wrong with a rewriting, '' if nothing. By words only: a wrong meaning in the right words passes. It may have `room` words
    more than four times those of the request."""
    if not said:
        return "is empty"
    if _plain(said) == _plain(text):
        return "is unchanged"
    if said in shown:
        return "repeats a demonstration"
    # One that refuses begins with it; a rewriting may quote a refusal.
    if REFUSES.match(said) and classify(said).label == "refusal":
        return "is a refusal"
    if "<think>" in said or "</think>" in said:
        return "holds think tags"
    if len(said.split()) > 4 * len(text.split()) + room:
        return "is too long"
    stems = {w[:4] for w in _plain(text).split() if len(w) > 2}
    if stems and not stems & {w[:4] for w in _plain(said).split()}:
        return "shares no word with the request"
    return ""


def frame(text: str, style: Style, rng: random.Random) -> str:
    """`text` in the style without any model: words replaced, one of the style's frames around it."""
    for word, other in style.words.items():
        text = re.sub(rf"\b{word}\b", lambda m: _as_written(other, m[0]), text, flags=re.IGNORECASE)
    return fill(rng.choice(style.frames), request=text)


def _as_written(word: str, model: str) -> str:
    return word.capitalize() if model[:1].isupper() else word


def _plain(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.lower()))
