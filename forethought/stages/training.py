"""Training: the examples of a synthesis run in, a model out."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from forethought.config import ModelConfig, TrainConfig
from forethought.records import (
    Example,
)
from forethought.registry import resolve
from forethought.run import Run, open_run, read_run, run_hash
from forethought.stages.shared import unload, weights_of


def train(out: Path, model: str, config: TrainConfig, *, seed: int = 0, overwrite: bool = False) -> Run:
    """Fine-tune `model` on the examples of a synthesis run; the run's `model/` then loads in plain peft and transformers.

    `config.data` and `config.match` are paths of synthesis runs here.
    """
    source, others = read_run(config.data, "synth"), [read_run(path, "synth") for path in config.match]
    settings = {**config.model_dump(mode="json"), "model": model}
    hashes = {"data": run_hash(source), **{f"match {i}": run_hash(other) for i, other in enumerate(others)}}
    run = open_run(
        out,
        "train",
        settings,
        {**hashes, **weights_of(ModelConfig(name=model))},
        seed=seed,
        overwrite=overwrite,
    )
    if run.finished:
        return run
    from forethought.train import METHODS

    learn = resolve("training method", METHODS, config.method)
    examples = source.read("examples.jsonl", Example)
    for other in others:
        shared = {e.prompt.base for e in other.read("examples.jsonl", Example)}
        examples = [e for e in examples if e.prompt.base in shared]
    unload()
    metrics = learn(examples, model, config, run, seed)
    labels = Counter(str(e.prompt.label) for e in examples)
    rows = int(metrics["rows"]) + int(metrics["held_out"])
    counts: dict[str, int] = {"planned": len(examples), "ok": rows, "failed": len(examples) - rows, **labels}
    outputs = [str(p.relative_to(run.path)) for p in sorted((run.path / "model").iterdir()) if p.is_file()]
    run.finish(counts, [*outputs, "losses.jsonl"], metrics=metrics)
    return run
