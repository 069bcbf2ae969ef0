"""Synthesis over a chat server: `stages.synth` beside a bare httpx client that sends the same requests, and memory as prompts go by.

Two servers: one that takes 100 ms an answer, 32 at once, as a busy vLLM would; and one that answers at once, where only the client's
own work counts.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.common import alone, now_mib, save

CONCURRENCY = 32
MARKS = (1000, 5000, 10_000)


@contextlib.contextmanager
def standin(latency: float) -> Iterator[str]:
    """The URL of a running stand-in server."""
    command = [sys.executable, "-m", "bench.standin", str(latency), str(CONCURRENCY)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{int(process.stdout.readline())}/v1"
    finally:
        process.kill()
        process.wait()


def texts(n: int) -> list[str]:
    """n different harmless requests of ten words of the starter set's vocabulary, so that pieces of words recur as in real prompts; none
    nearly like another."""
    from forethought.config import DataConfig
    from forethought.data import load_prompts

    prompts = load_prompts(DataConfig(split="train", take={"benign": 1000}))
    words = sorted({word.strip('.,?!:;"()') for p in prompts for word in p.text.lower().split()} - {""})
    rng = random.Random(0)
    return [f"How do I {' '.join(rng.choices(words, k=10))} at home?" for _ in range(n)]


def bare(url: str, n: int) -> dict[str, Any]:
    """Requests a second of workers that post, read the reply and keep its text."""
    import httpx

    async def run() -> float:
        asked, kept = iter(texts(n)), []
        limits = httpx.Limits(max_connections=CONCURRENCY, max_keepalive_connections=CONCURRENCY)
        async with httpx.AsyncClient(limits=limits, timeout=60) as client:

            async def work() -> None:
                for text in asked:
                    messages = [{"role": "user", "content": text}]
                    body = {"model": "m", "messages": messages, "temperature": 0.0, "max_tokens": 96, "seed": 0}
                    reply = await client.post(f"{url}/chat/completions", json=body)
                    kept.append(reply.json()["choices"][0]["message"]["content"])

            started = time.perf_counter()
            await asyncio.gather(*(work() for _ in range(CONCURRENCY)))
            assert len(kept) == n
            return n / (time.perf_counter() - started)

    return {"rate": round(asyncio.run(run()), 1)}


def ours(url: str, n: int) -> dict[str, Any]:
    """Prompts a second of `stages.synth` from its first line to its card, one ask each, and memory after so many."""
    from forethought import stages
    from forethought.config import ModelConfig
    from forethought.policy import load_policy
    from forethought.records import make_prompt
    from forethought.stages import shared

    memory: dict[str, float] = {}
    at: dict[str, float] = {}
    Progress = shared.progress

    @contextlib.contextmanager
    def watched(*args: Any) -> Iterator[Any]:
        at["first ask"] = time.perf_counter() - started
        with Progress(*args) as bar:
            advance = bar.advance

            def counted(*a: Any, **k: Any) -> None:
                advance(*a, **k)
                if bar.done in MARKS:
                    memory[str(bar.done)] = now_mib()

            bar.advance = counted
            yield bar
        at["last reply"] = time.perf_counter() - started

    shared.progress = watched  # type: ignore[assignment]
    prompts = [make_prompt(text, "benign", "bench") for text in texts(n)]
    model = ModelConfig(name=f"openai:m@{url}", concurrency=CONCURRENCY)
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
        started = time.perf_counter()
        run = stages.synth(
            Path(folder) / "runs" / "r", "refusal(max_tokens=96)", prompts, load_policy("default"), model
        )
        seconds = time.perf_counter() - started
        stages.unload()
    if run.info["counts"]["ok"] != n:
        raise SystemExit(f"bench: {run.info['counts']}")
    asking = n / (at["last reply"] - at["first ask"])
    before, after = at["first ask"], seconds - at["last reply"]
    return {
        "rate": round(n / seconds, 1), "asking": round(asking, 1), "before": round(before, 2), "after": round(after, 2),
        "memory": memory,
    }  # fmt: skip


def main(quick: bool) -> None:
    result: dict[str, Any] = {"concurrency": CONCURRENCY}
    for name, latency, n in (("100 ms", 0.1, 1000 if quick else 10_000), ("at once", 0.0, 1000 if quick else 10_000)):
        with standin(latency) as url:
            one, two = alone(bare, url, n), alone(ours, url, n)
        result[name] = {"prompts": n, "latency": latency, "bare": one, "ours": two}
        print(
            f"server {name}: bare httpx {one['rate']}/s, synth {two['rate']}/s ({two['rate'] / one['rate']:.2f}x); {two}"
        )
    save("server", result, quick)
