"""Static batches of plain `generate`, left-padded: what one writes without an engine. The best of several sizes is what we compare with."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any


def load_plain() -> tuple[Any, Any, list[int]]:
    """(tokenizer, model, ids that end a reply) as one loads them without us: `load_weights` also sets how memory is kept."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from forethought.chat import stop_ids
    from forethought.models.embedded import embedded_path

    path = str(embedded_path())
    tokenizer = AutoTokenizer.from_pretrained(path)
    model = AutoModelForCausalLM.from_pretrained(path, dtype="float32").eval()
    eos = model.generation_config.eos_token_id if model.generation_config else None
    return tokenizer, model, sorted(stop_ids(tokenizer, eos))


def generate(model: Any, stops: list[int], rows: Sequence[tuple[list[int], int]], **sampling: Any) -> int:
    """Continue a batch of (ids, limit) rows; returns how many tokens were asked for: up to each row's own end or limit."""
    import torch

    width, limit = max(len(ids) for ids, _ in rows), max(m for _, m in rows)
    ids = torch.tensor([[stops[0]] * (width - len(i)) + i for i, _ in rows])
    mask = torch.tensor([[0] * (width - len(i)) + [1] * len(i) for i, _ in rows])
    with torch.inference_mode():
        out = model.generate(
            ids, attention_mask=mask, max_new_tokens=limit, eos_token_id=stops, pad_token_id=stops[0],
            **(sampling or {"do_sample": False}),
        )  # fmt: skip
    useful = 0
    for row, (_, most) in zip(out[:, width:].tolist(), rows, strict=True):
        useful += next((n for n, token in enumerate(row[:most]) if token in stops), min(most, len(row)))
    return useful


def in_batches(
    model: Any, stops: list[int], rows: Sequence[tuple[list[int], int]], size: int, **sampling: Any
) -> dict[str, float]:
    """{tokens, seconds, rate} of all rows in batches of `size`, in the order given."""
    started, tokens = time.perf_counter(), 0
    for i in range(0, len(rows), size):
        tokens += generate(model, stops, rows[i : i + size], **sampling)
    seconds = time.perf_counter() - started
    return {"tokens": tokens, "seconds": round(seconds, 2), "rate": round(tokens / seconds, 1)}
