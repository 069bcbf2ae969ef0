"""Training: the examples of a synthesis run in, a model out; and an adapter merged into its base."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

from forethought.chat import opens_thought, render_prompt
from forethought.config import ModelConfig, TrainConfig
from forethought.errors import ForethoughtError
from forethought.models import locate_weights
from forethought.policy import load_policy
from forethought.records import Example, user
from forethought.registry import parse_spec, resolve
from forethought.run import Run, open_run, read_info, read_run, readable, run_hash, write_text
from forethought.stages.shared import files_of, unload, weights_of
from forethought.train import METHODS
from forethought.train.card import CARD, card
from forethought.train.launch import is_first, wait
from forethought.train.rows import no_training


def train(
    out: Path, model: str, config: TrainConfig, *, policy: str = "default", seed: int = 0, overwrite: bool = False
) -> Run:
    """Make a safer model of `model`, on the examples of a synthesis run; the run's `model/` then loads in plain peft and transformers.

    `config.data`, `config.match` and `config.init` are paths of runs here. `policy` is for methods that need one. Under `accelerate launch`
    every process calls this, and the first alone writes.
    """
    seed = seed if config.seed is None else config.seed
    needs = METHODS[name].needs if (name := parse_spec(config.method)[0]) in METHODS else ""
    given = {"policy": load_policy(policy)} if needs == "policy" else {}
    learn = resolve("training method", METHODS, config.method, **given)
    hashes = {key: value.hash for key, value in given.items()}
    settings: dict[str, Any] = {"model": model, "method": config.method, "data": None, "policy": policy}
    examples: list[Example] = []
    if not given:
        if config.init is not None and locate_weights(config.init)[1] is None:
            # Whole weights are a model like any other; an adapter is gone on with.
            model = config.init
        examples, of_data = read_examples(config)
        hashes |= of_data
        settings = {**config.model_dump(mode="json"), "model": model}
        if config.init == model:
            settings["init"] = None
    used = [ModelConfig(name=n) for n in (model, config.init) if n]
    run = _open(out, settings, {**hashes, **weights_of(*used), **files_of(config.method)}, seed, overwrite)
    if run.finished:
        return run
    unload()
    # A method of one's own may say less.
    metrics = {**no_training(), "used": len(examples), **learn(examples, model, config, run, seed)}
    labels = Counter(str(e.prompt.label) for e in examples)
    ok, spare = int(metrics["used"]) + int(metrics["held_out"]), int(metrics["spare"])
    counts: dict[str, int] = {"planned": len(examples), "ok": ok, "failed": len(examples) - ok - spare}
    return _finish(run, counts | ({"without use to the method": spare} if spare else {}) | labels, metrics)


def merge(out: Path, source: str, *, dtype: str = "float32", think: bool = False, overwrite: bool = False) -> Run:
    """Whole weights of an adapter's run, for plain transformers and for servers, as a run of its own: an adapter can be trained on it. With
    `think` its chat template opens the thought."""
    base, adapter = locate_weights(source)
    if adapter is None:
        raise ForethoughtError(f"'{source}' holds whole weights already: there is no adapter to merge.")
    # An adapter named by its folder stands in its run.
    home = next((p for p in (Path(source), Path(source).parent) if (p / "run.json").exists()), None)
    trained = read_run(home, "train").info if home else None
    settings = {"model": base, "method": "merge", "data": None, "init": source, "dtype": dtype, "think": think}
    run = _open(out, settings, weights_of(ModelConfig(name=source)), 0, overwrite)
    if run.finished:
        return run
    from forethought.train.merge import merge_adapter

    unload()
    metrics = merge_adapter(base, adapter, dtype, run, think)
    return _finish(run, {"planned": 0, "ok": 0, "failed": 0}, metrics, trained)


def read_examples(config: TrainConfig) -> tuple[list[Example], dict[str, str]]:
    """(examples to train on, content hashes of the runs they are from)."""
    if config.data is None:
        raise ForethoughtError(f"method '{config.method}' trains on data: name a synthesis run.")
    source, others = read_run(config.data, "synth"), [read_run(path, "synth") for path in config.match]
    examples = source.read("examples.jsonl", Example)
    for other in others:
        shared = {e.prompt.base for e in other.read("examples.jsonl", Example)}
        examples = [e for e in examples if e.prompt.base in shared]
    return examples, {"data": run_hash(source), **{f"match {i}": run_hash(other) for i, other in enumerate(others)}}


def _open(out: Path, settings: dict[str, Any], inputs: dict[str, str], seed: int, overwrite: bool) -> Run:
    """The run, opened by the first process and read by the others."""
    run = open_run(out, "train", settings, inputs, seed=seed, overwrite=overwrite) if is_first() else None
    wait()
    return run or Run(out, read_info(out))


def _finish(run: Run, counts: dict[str, int], metrics: dict[str, Any], trained: dict[str, Any] | None = None) -> Run:
    """Ends a run with its outputs and card; `trained` is what is known of the training, where it was another run."""
    if is_first():
        if not (run.path / "model").is_dir():
            raise ForethoughtError(f"the method left no model: it must write one to {run.path / 'model'}.")
        from forethought.models.hf import own_tokenizer

        model, made = run.path / "model", {**run.info, "metrics": metrics}
        if any((model / name).exists() for name in ("adapter_config.json", "config.json")):
            merge = made if made["config"]["method"] == "merge" else None
            tokenizer = own_tokenizer(model)
            # A base model's adapter, merged, has no template.
            templated = tokenizer is not None and tokenizer.chat_template is not None
            opened = templated and opens_thought(render_prompt(tokenizer, user("x")))
            write_text(model / CARD, card(trained or made, model, merge, opened=opened))
        readable(model)
        # The card is there to be edited.
        files = [p for p in sorted(model.iterdir()) if p.is_file() and p.name != CARD]
        outputs = [str(p.relative_to(run.path)) for p in files]
        outputs += [name for name in ("losses.jsonl", "elicited.jsonl") if (run.path / name).exists()]
        run.finish(counts, outputs, metrics=metrics)
        # Not before: a kill while outputs are hashed would leave nothing to go on from.
        shutil.rmtree(run.path / "checkpoints", ignore_errors=True)
    wait()
    return run if is_first() else read_run(run.path, "train")
