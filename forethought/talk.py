"""`forethought chat`: a conversation in the terminal that shows the reasoning apart from the answer."""

from __future__ import annotations

import sys

from forethought.chat import raw_reply, split
from forethought.config import ModelConfig
from forethought.flow import Ask, Done, Flow, Job, run_flows
from forethought.models import load_model
from forethought.records import Message, Messages, Reply, Sampling
from forethought.report.text import clean

DIM, BOLD, PLAIN = "\033[2m", "\033[1m", "\033[0m"


def talk(model: ModelConfig, max_tokens: int) -> None:
    """Read turns from standard input until an empty line or its end."""
    target = load_model(model.name, system=model.system, dtype=model.dtype)
    history: Messages = ()
    styled = sys.stdout.isatty()
    print(f"Talking to {model.name}. An empty line ends.")
    try:
        while text := _read():
            history = (*history, Message(role="user", content=text))

            def flow(messages: Messages = history) -> Flow[Reply]:
                reply = yield Ask("target", messages, sampling=Sampling(max_tokens=max_tokens))
                assert isinstance(reply, Reply)
                return reply

            done: Done[Reply] = next(iter(run_flows([Job("chat", flow)], {"target": target})))
            if done.value is None:
                print(f"no reply: {clean(str(done.error))}")
                history = history[:-1]
                continue
            parts = split(raw_reply("", done.value))
            if parts.reasoning:
                thought = f"[thinks] {clean(parts.reasoning)}"
                print(f"{DIM}{thought}{PLAIN}" if styled else thought)
            answer = clean(parts.answer) or "(the thought never ended: no answer)"
            print(f"{BOLD}{answer}{PLAIN}" if styled else answer)
            # The thought is not part of the conversation, as in serving.
            history = (*history, Message(role="assistant", content=parts.answer))
    finally:
        target.close()


def _read() -> str:
    try:
        return input("> ").strip()
    except EOFError:
        return ""
