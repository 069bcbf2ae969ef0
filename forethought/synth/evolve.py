"""Question evolution (SCoT, arXiv 2501.19180): an example again with its request put in other styles, thought and answer unchanged.

The paper trains on every question and one variant of it, in a style drawn at random. Here that holds for prompts of every label, so that a
style alone is no sign of harm [ours].
"""

from __future__ import annotations

import random
from typing import Literal

from forethought.errors import AskFailed, ForethoughtError
from forethought.flow import Flow, Rng
from forethought.records import Example, Message, Messages, Prompt, Rejected
from forethought.styles import EVOLUTION, style
from forethought.styles.rewrite import frame, rewrite
from forethought.synth import Made
from forethought.synth.teacher import can_choose

Rewrite = Literal["auto", "model", "frame"]


def evolve(example: Example, n: int, how: Rewrite, demonstrations: str | None = None) -> Flow[Made]:
    """The example, and for each of `n` styles of EVOLUTION its variant, or why there is none.

    `model`: the helper rewrites; `frame`: a frame is put around the request; `auto`: frames where the helper is led (a local model).
    """
    made: Made = [example]
    if not n:
        return made
    # Whatever a method has drawn before, all draw the same styles for the same prompt.
    rng = yield Rng(stream="style")
    assert isinstance(rng, random.Random)
    framed = how == "frame" or (how == "auto" and (yield from can_choose("helper")))
    if framed and demonstrations:
        raise ForethoughtError(
            "frames are put around the request by rule and read no demonstrations: add rewrite=model."
        )
    for name in rng.sample(EVOLUTION, min(n, len(EVOLUTION))):
        try:
            if framed:
                text = frame(example.prompt.text, style(name), rng)
            else:
                text = yield from rewrite(example.prompt.text, style(name), demonstrations=demonstrations)
        except AskFailed as error:
            variant = variant_of(example.prompt, example.prompt.text, name)
            made.append(Rejected(prompt=variant, method=example.method, reason="variant failed", detail=str(error)))
            continue
        made.append(example.model_copy(update={"prompt": variant_of(example.prompt, text, name)}))
    return made


def variant_of(prompt: Prompt, text: str, name: str) -> Prompt:
    """The prompt with its last user turn replaced; its id carries the style behind a `~`, its goal stays what is really asked for."""
    last = max(i for i, m in enumerate(prompt.messages) if m.role == "user")
    messages: Messages = (
        *prompt.messages[:last],
        Message(role="user", content=text),
        *prompt.messages[last + 1 :],
    )
    return prompt.model_copy(
        update={"id": f"{prompt.id}~{name}", "messages": messages, "goal": prompt.request, "style": name}
    )
