"""Decoding under one long system prompt (the policy that method `prompt` puts before every request), float32: ours with and without it, and
`generate` in static batches, which reads it for every row."""

from __future__ import annotations

from typing import Any

from bench.common import alone, save
from bench.load import Item, answer, encode
from bench.static import in_batches, load_plain

LIMITS = (16, 32, 64)


def _items(n: int) -> list[Item]:
    from forethought.config import DataConfig
    from forethought.data import load_prompts
    from forethought.records import user

    texts = [p.text for p in load_prompts(DataConfig(split="train"))][:n]
    return [Item(user(text), LIMITS[i % len(LIMITS)]) for i, text in enumerate(texts)]


def _system() -> str:
    from forethought.policy import load_policy
    from forethought.train.prompt import system_prompt

    return system_prompt(load_policy("default"))


def ours(n: int, system: bool) -> dict[str, Any]:
    from forethought.models import load_model

    return answer(load_model("smollm2", system=_system() if system else None), _items(n))


def static(n: int, size: int) -> dict[str, Any]:
    """Sorted by limit, then length."""
    from forethought.chat import with_system

    tokenizer, model, stops = load_plain()
    items = [Item(with_system(item.messages, _system()), item.max_tokens) for item in _items(n)]
    rows = list(zip(encode(tokenizer, items), (i.max_tokens for i in items), strict=True))
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
