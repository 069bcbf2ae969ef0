"""Decoding under one long system prompt (the policy that method `prompt` puts before every request), float32: ours with and without it, and
`generate` in static batches, which reads it for every row."""

from __future__ import annotations

import time
from typing import Any

from bench.common import alone, save
from bench.static import in_batches, load_plain

LIMITS = (16, 32, 64)


def _texts(n: int) -> list[str]:
    from forethought.config import DataConfig
    from forethought.data import load_prompts

    return [p.text for p in load_prompts(DataConfig(split="train"))][:n]


def _system() -> str:
    from forethought.policy import load_policy
    from forethought.train.prompt import system_prompt

    return system_prompt(load_policy("default"))


def ours(n: int, system: bool) -> dict[str, Any]:
    from forethought.flow import Ask, Flow, Job, run_flows
    from forethought.models import load_model
    from forethought.records import Reply, Sampling, user

    model, texts = load_model("smollm2", system=_system() if system else None), _texts(n)

    def flow(i: int) -> Flow[Reply]:
        reply = yield Ask("target", user(texts[i]), sampling=Sampling(max_tokens=LIMITS[i % len(LIMITS)]))
        assert isinstance(reply, Reply)
        return reply

    started = time.perf_counter()
    done = [d.value for d in run_flows([Job(str(i), lambda i=i: flow(i)) for i in range(n)], {"target": model})]
    seconds = time.perf_counter() - started
    assert all(done)
    tokens = sum(r.completion_tokens for r in done if r)
    return {"tokens": tokens, "seconds": round(seconds, 2), "rate": round(tokens / seconds, 1)}


def static(n: int, size: int) -> dict[str, Any]:
    """Sorted by limit, then length."""
    from forethought.chat import encode_prompt, render_prompt, with_system
    from forethought.records import user

    tokenizer, model, stops = load_plain()
    rendered = [render_prompt(tokenizer, with_system(user(text), _system())) for text in _texts(n)]
    rows = [(encode_prompt(tokenizer, text), LIMITS[i % len(LIMITS)]) for i, text in enumerate(rendered)]
    return in_batches(model, stops, sorted(rows, key=lambda r: (-r[1], -len(r[0]))), size)


def main(quick: bool) -> None:
    n, sizes = (12, (4,)) if quick else (96, (4, 8))
    result: dict[str, Any] = {"asks": n, "words": len(_system().split()), "ours": alone(ours, n, True)}
    result["without"] = alone(ours, n, False)
    result["static"] = {str(size): alone(static, n // 4, size) for size in sizes}
    own, best = result["ours"], max(result["static"].values(), key=lambda r: r["rate"])
    print(
        f"system: ours {own['rate']} tokens/s, without a system prompt {result['without']['rate']}, "
        f"static {best['rate']} ({own['rate'] / best['rate']:.2f}x)"
    )
    save("system", result, quick)
