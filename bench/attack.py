"""The study's attacks on the embedded model, float32: ours, ours without reading once what requests begin with alike, and `generate` in
static batches."""

from __future__ import annotations

import time
from typing import Any

from bench.common import alone, save
from bench.load import Item, encode
from bench.static import in_batches, load_plain

LIMIT = 64


def _attempts(n: int, model: Any) -> list[Any]:
    """The attempts that the attacks of `study.yaml` make with n prompts, without those that put words into the model's mouth."""
    from forethought.attacks import load_attack
    from forethought.config import DataConfig, find_experiment, load_experiment
    from forethought.data import load_prompts
    from forethought.flow import Job, run_flows
    from forethought.records import Sampling
    from forethought.stages.attacking import attempt_flow

    attacks = [
        load_attack(s) for s in load_experiment(find_experiment("study"), []).attack.attacks if s != "answer_prefill"
    ]
    prompts, sampling = load_prompts(DataConfig(split="train"))[:n], Sampling(max_tokens=LIMIT)
    jobs = [
        Job(f"{name}/{p.id}", lambda name=name, make=make, p=p: attempt_flow(name, make, p, sampling))
        for name, make in attacks
        for p in prompts
    ]
    found = [attempt for done in run_flows(jobs, {"target": model}) for attempt in done.value or ()]
    assert len(found) == len(jobs) and not any(a.error or a.prefix for a in found)
    return found


def ours(n: int, alike: bool) -> dict[str, Any]:
    """With `alike` False a request is read whole, but for the system prompt and demonstrations."""
    from forethought.models import load_model
    from forethought.models.decode import Row
    from forethought.records import digest

    if not alike:
        shares = Row.shares
        Row.shares = lambda self, other: min(shares(self, other), self.head)  # type: ignore[method-assign]
    model = load_model("smollm2")
    started = time.perf_counter()
    found = _attempts(n, model)
    seconds = time.perf_counter() - started
    tokens = sum(a.completion_tokens for a in found)
    return {
        "tokens": tokens, "prompt_tokens": sum(a.prompt_tokens for a in found), "seconds": round(seconds, 2),
        "rate": round(tokens / seconds, 1), "replies": digest(sorted((a.id, a.raw) for a in found)),
    }  # fmt: skip


def static(n: int, size: int) -> dict[str, Any]:
    """Sorted by length."""
    from forethought.models import load_model

    tokenizer, model, stops = load_plain()
    items = [Item(a.messages, LIMIT) for a in _attempts(n, load_model("scripted:comply"))]
    rows = list(zip(encode(tokenizer, items), (i.max_tokens for i in items), strict=True))
    return in_batches(model, stops, sorted(rows, key=lambda r: -len(r[0])), size)


def main(quick: bool) -> None:
    n, size = (2, 8) if quick else (16, 32)
    result: dict[str, Any] = {"prompts": n, "ours": alone(ours, n, True), "whole": alone(ours, n, False)}
    if result["ours"]["replies"] != result["whole"]["replies"]:
        raise SystemExit("bench: the replies are not the same.")
    result["static"] = {str(size): alone(static, n // 2, size)}
    own = result["ours"]
    for name, found in (("read whole", result["whole"]), *result["static"].items()):
        print(f"attack: ours {own['rate']} tokens/s, {name} {found['rate']} ({own['rate'] / found['rate']:.2f}x)")
    save("attack", result, quick)
