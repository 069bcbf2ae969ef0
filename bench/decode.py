"""Decoding 256 asks of mixed lengths, float32: ours, `generate` one by one and in static batches, CTranslate2, and the ceiling."""

from __future__ import annotations

import tempfile
import time
from typing import Any

from bench.common import alone, best_matmul_rate, save
from bench.load import answer, encode, mixed
from bench.static import in_batches, load_plain


def ours(n: int, dtype: str = "float32") -> dict[str, Any]:
    from forethought.models import load_model

    return answer(load_model("smollm2", dtype=dtype), mixed(n))


def static(n: int, size: int, sort: bool) -> dict[str, Any]:
    """With `sort` by limit, then length: the least waste that can be planned, since nobody knows where replies end."""
    tokenizer, model, stops = load_plain()
    items = mixed(n)
    rows = list(zip(encode(tokenizer, items), (i.max_tokens for i in items), strict=True))
    if sort:
        rows.sort(key=lambda r: (-r[1], -len(r[0])))
    return in_batches(model, stops, rows, size)


def one_by_one(n: int, every: int) -> dict[str, Any]:
    """A share of the asks, evenly drawn from them sorted by limit and length; its rate stands for all."""
    tokenizer, model, stops = load_plain()
    items = mixed(n)
    rows = sorted(
        zip(encode(tokenizer, items), (i.max_tokens for i in items), strict=True), key=lambda r: (r[1], len(r[0]))
    )
    return in_batches(model, stops, rows[every // 2 :: every], 1) | {"share": f"1/{every}"}


def ctranslate2(n: int) -> dict[str, Any]:
    """Batches by limit; the engine sorts and re-batches inside, with up to 64 rows at once."""
    try:
        import ctranslate2 as engine
        from ctranslate2.converters import TransformersConverter
    except ImportError as error:
        return {"skipped": str(error)}
    import torch

    from forethought.models.embedded import embedded_path

    tokenizer, _, stops = load_plain()
    items = mixed(n)
    rows = [tokenizer.convert_ids_to_tokens(ids) for ids in encode(tokenizer, items)]
    with tempfile.TemporaryDirectory() as folder:
        try:
            TransformersConverter(str(embedded_path())).convert(folder, force=True)
        except Exception as error:
            return {"skipped": f"its converter fails: {type(error).__name__}: {error}"[:200]}
        model = engine.Generator(
            folder, device="cpu", compute_type="float32", inter_threads=1, intra_threads=torch.get_num_threads()
        )
        tokens, started = 0, time.perf_counter()
        for limit in sorted({i.max_tokens for i in items}):
            batch = [r for r, i in zip(rows, items, strict=True) if i.max_tokens == limit]
            found = model.generate_batch(
                batch, max_length=limit, max_batch_size=64, sampling_topk=1, include_prompt_in_result=False,
                end_token=stops,
            )  # fmt: skip
            tokens += sum(len(f.sequences_ids[0]) for f in found)
        seconds = time.perf_counter() - started
    return {"tokens": tokens, "seconds": round(seconds, 2), "rate": round(tokens / seconds, 1)}


def ceiling(prompt_tokens: int, tokens: int) -> dict[str, Any]:
    """Tokens a second if nothing but the weights' products took time, at the best rate this machine reaches in any of them.
    A prompt's tokens need no logits."""
    _, model, _ = load_plain()
    head = model.get_output_embeddings().weight.numel()
    every = sum(p.numel() for p in model.parameters())
    rate = best_matmul_rate()
    operations = 2.0 * (prompt_tokens * (every - head) + tokens * every)
    return {"gflops": round(rate / 1e9, 1), "rate": round(tokens * rate / operations, 1)}


def main(quick: bool) -> None:
    n, sizes = (48, (32,)) if quick else (256, (64,))
    result: dict[str, Any] = {"asks": n, "ours": alone(ours, n)}
    result["ours, bfloat16"] = alone(ours, n, "bfloat16")
    result["static, as they come"] = {str(s): alone(static, n // 4, s, False) for s in sizes}
    result["static, sorted"] = {str(s): alone(static, n, s, True) for s in sizes}
    result["one by one"] = alone(one_by_one, n, 16)
    result["ctranslate2"] = alone(ctranslate2, n)
    own = result["ours"]
    result["ceiling"] = alone(ceiling, own["prompt_tokens"], own["tokens"])
    for name in ("static, as they come", "static, sorted"):
        best = max(result[name].values(), key=lambda r: r["rate"])
        print(f"decode: ours {own['rate']} tokens/s, {name} {best['rate']} ({own['rate'] / best['rate']:.2f}x)")
    for name in ("ours, bfloat16", "one by one", "ctranslate2", "ceiling"):
        if "rate" in result[name]:
            print(f"decode: {name} {result[name]['rate']} tokens/s ({own['rate'] / result[name]['rate']:.2f}x)")
        else:
            print(f"decode: {name} {result[name]}")
    save("decode", result, quick)
