"""Synthesis on the embedded model: SCoT with short thoughts, beside static batches of exactly the same asks.

The asks are recorded while synthesis runs. Then they are put to plain transformers all at once, which a synthesizer could not do, since
most of them depend on earlier replies: texts by `generate`, sorted by limit and length; choices by one forward pass over prompt and
option, sorted by length. The best batch size counts for each.
"""

from __future__ import annotations

import pickle
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from bench.common import alone, save
from bench.static import in_batches, load_plain

METHOD = "scot(template=short)"


class Recorder:
    """A model that notes what it is asked."""

    def __init__(self, model: Any) -> None:
        self.model, self.identity, self.pinned, self.asked = model, model.identity, model.pinned, list[Any]()

    def fingerprint(self, question: Any) -> str:
        return str(self.model.fingerprint(question))

    def submit(self, ticket: int, question: Any, seed: int) -> None:
        self.asked.append(question)
        self.model.submit(ticket, question, seed)

    def step(self, block: bool = True) -> Any:
        return self.model.step(block)

    def close(self) -> None:
        self.model.close()


def ours(n: int, record: str) -> dict[str, Any]:
    from functools import partial

    from forethought.config import DataConfig
    from forethought.data import load_prompts
    from forethought.flow import Job, run_flows
    from forethought.models import load_model
    from forethought.models.cache import DiskCache
    from forethought.policy import load_policy
    from forethought.records import Example
    from forethought.registry import resolve
    from forethought.synth import SYNTHESIZERS

    recorder = Recorder(load_model("smollm2"))
    make = resolve("synthesizer", SYNTHESIZERS, METHOD, policy=load_policy("default"))
    prompts = load_prompts(DataConfig(split="train"))
    prompts = prompts[:: max(1, len(prompts) // n)][:n]
    with tempfile.TemporaryDirectory() as folder:
        cache, started = DiskCache(Path(folder) / "replies"), time.perf_counter()
        jobs = [Job(p.id, partial(make, p)) for p in prompts]
        done = list(run_flows(jobs, {"teacher": recorder, "target": recorder, "helper": recorder}, cache=cache))
        seconds = time.perf_counter() - started
        cache.close()
    model, asks = recorder.model, defaultdict[tuple[float, float], list[tuple[list[int], int]]](list)
    choices = []
    for q in recorder.asked:
        ids = model.tokenizer(model.render(q), add_special_tokens=False)["input_ids"]
        if hasattr(q, "options"):
            choices += [(ids, model.tokenizer(o, add_special_tokens=False)["input_ids"]) for o in q.options]
        else:
            asks[q.sampling.temperature, q.sampling.top_p].append((ids, q.sampling.max_tokens))
    Path(record).write_bytes(pickle.dumps((dict(asks), choices)))
    kept = sum(isinstance(made, Example) for d in done for made in d.value or ())
    texts = sum(map(len, asks.values()))
    return {
        "prompts": len(prompts), "examples": kept, "texts": texts, "choices": len(recorder.asked) - texts,
        "seconds": round(seconds, 2), "rate": round(len(prompts) / seconds, 3),
    }  # fmt: skip


def static_texts(record: str, size: int) -> dict[str, Any]:
    _, model, stops = load_plain()
    asks, _ = pickle.loads(Path(record).read_bytes())
    found = []
    for (temperature, top_p), rows in asks.items():
        rows = sorted(rows, key=lambda r: (-r[1], -len(r[0])))
        sampling = {"do_sample": True, "temperature": temperature, "top_p": top_p, "top_k": 0} if temperature else {}
        found.append(in_batches(model, stops, rows, size, **sampling))
    return {k: round(sum(f[k] for f in found), 2) for k in ("tokens", "seconds")}


def static_choices(record: str, size: int) -> dict[str, Any]:
    import torch

    _, model, stops = load_plain()
    _, choices = pickle.loads(Path(record).read_bytes())
    choices.sort(key=lambda c: -len(c[0]) - len(c[1]))
    started = time.perf_counter()
    with torch.inference_mode():
        for i in range(0, len(choices), size):
            rows = choices[i : i + size]
            width, keep = max(len(a) + len(b) for a, b in rows), max(len(b) for _, b in rows) + 1
            ids = torch.tensor([[stops[0]] * (width - len(a) - len(b)) + a + b for a, b in rows])
            mask = torch.tensor([[0] * (width - len(a) - len(b)) + [1] * (len(a) + len(b)) for a, b in rows])
            positions = (mask.cumsum(-1) - 1).clamp(min=0)
            logits = model(
                input_ids=ids, attention_mask=mask, position_ids=positions, logits_to_keep=keep, use_cache=False
            ).logits
            table = logits[:, :-1].log_softmax(-1)
            for j, (_, b) in enumerate(rows):
                table[j, -len(b) :].gather(-1, torch.tensor(b)[:, None]).sum()
    return {"options": len(choices), "seconds": round(time.perf_counter() - started, 2)}


def main(quick: bool) -> None:
    n, sizes = (6, (8, 16, 32)) if quick else (18, (16, 32))
    with tempfile.TemporaryDirectory() as folder:
        record = str(Path(folder) / "asks")
        result: dict[str, Any] = {"method": METHOD, "ours": alone(ours, n, record)}
        result["static texts"] = {str(s): alone(static_texts, record, s) for s in sizes}
        result["static choices"] = {str(s): alone(static_choices, record, s) for s in sizes}
    texts, choices = (min(r["seconds"] for r in result[k].values()) for k in ("static texts", "static choices"))
    own = result["ours"]["seconds"]
    result["static best"] = {"seconds": round(texts + choices, 2)}
    print(
        f"synth: ours {own} s, static {texts + choices:.1f} s ({texts} texts + {choices} choices): {(texts + choices) / own:.2f}x"
    )
    save("synth", result, quick)
