"""The mixed load: requests of many lengths whose replies may be short or long, as synthesis and attacks make them."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from typing import Any

from forethought.config import DataConfig
from forethought.data import load_prompts
from forethought.records import Messages, Sampling, user

LIMITS = (8, 16, 32, 64, 128, 256)


@dataclass(frozen=True)
class Item:
    messages: Messages
    max_tokens: int

    @property
    def sampling(self) -> Sampling:
        return Sampling(max_tokens=self.max_tokens)


def mixed(n: int) -> list[Item]:
    """n asks: starter prompts, every third behind a longer text to read, each with one of six limits on its reply."""
    rng = random.Random(0)
    texts = [p.text for p in load_prompts(DataConfig(split="train"))]
    items = []
    for i in range(n):
        text = texts[i % len(texts)]
        if i % 3 == 0:
            notes = " ".join(rng.choices(texts, k=rng.randint(3, 20)))
            text = f"Here are some notes of mine: {notes}\n\nNow to my question, number {i}. {text}"
        items.append(Item(user(text), rng.choice(LIMITS)))
    return items


def answer(model: Any, items: list[Item]) -> dict[str, Any]:
    """Ours: every item asked of a loaded model, at once; tokens, seconds and the rate."""
    from forethought.flow import Ask, Flow, Job, run_flows
    from forethought.records import Reply

    def flow(i: int) -> Flow[Reply]:
        reply = yield Ask("target", items[i].messages, sampling=items[i].sampling)
        assert isinstance(reply, Reply)
        return reply

    jobs = [Job(str(i), lambda i=i: flow(i)) for i in range(len(items))]
    started = time.perf_counter()
    done = [d.value for d in run_flows(jobs, {"target": model})]
    seconds = time.perf_counter() - started
    assert all(done)
    tokens = sum(r.completion_tokens for r in done if r)
    return {
        "tokens": tokens, "prompt_tokens": sum(r.prompt_tokens for r in done if r), "seconds": round(seconds, 2),
        "rate": round(tokens / seconds, 1),
    }  # fmt: skip


def encode(tokenizer: Any, items: list[Item]) -> list[list[int]]:
    from forethought.chat import encode_prompt, render_prompt

    return [encode_prompt(tokenizer, render_prompt(tokenizer, item.messages)) for item in items]
