"""EleutherAI's lm-evaluation-harness, through its Python interface (0.4.13), as an optional extra."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterable
from typing import Any

from forethought.chat import CLOSE
from forethought.config import ModelConfig
from forethought.errors import ForethoughtError, pip
from forethought.models import locate_weights
from forethought.records import Graded

# What it calls a measure that is right or wrong for each question.
RIGHT_OR_WRONG = ("acc", "acc_norm", "exact_match", "mcc_acc", "em")


def evaluate(target: ModelConfig, tasks: list[str], take: int | None, max_tokens: int, seed: int) -> dict[str, Any]:
    """What `lm_eval.simple_evaluate` returns for a model under its chat template, its thoughts cut off before the answer is read.

    Raises ForethoughtError where the extra is not installed, a task is unknown, or its data is out of reach.
    """
    try:
        lm_eval = importlib.import_module("lm_eval")
    except ImportError as error:
        raise ForethoughtError(
            f"lm-evaluation-harness is not installed ({error}). Run: {pip(repr('lm-eval[hf,api]'))}"
        ) from error
    kind, arguments = model_args(target)
    try:
        found = lm_eval.simple_evaluate(
            model=kind,
            model_args=arguments,
            tasks=tasks,
            limit=take,
            device=None if kind != "hf" else _device(),
            apply_chat_template=True,
            fewshot_as_multiturn=True,
            system_instruction=target.system,
            gen_kwargs={"max_gen_toks": max_tokens},
            log_samples=True,
            bootstrap_iters=0,
            random_seed=seed,
            numpy_random_seed=seed,
            torch_random_seed=seed,
            fewshot_random_seed=seed,
        )
    except (OSError, ValueError, KeyError, NotImplementedError, ImportError) as error:
        said = " ".join(str(error).split())[:300] or type(error).__name__
        raise ForethoughtError(
            f"lm-evaluation-harness stopped: {said} (tasks: {', '.join(tasks)}). `lm-eval ls tasks` lists its tasks; their data comes from "
            "the hub."
        ) from error
    return dict(found)


def model_args(target: ModelConfig) -> tuple[str, dict[str, Any]]:
    """(the harness's name for the kind of model, its arguments). `think_end_token` makes it read only what follows the thought of
    a local model; a server has to part the two itself (its reasoning parser)."""
    if target.think:
        raise ForethoughtError(
            "lm-evaluation-harness uses the template as it is. Merge the run with its thought opened, and name that: forethought merge RUN "
            "--think"
        )
    kind, _, rest = target.name.partition(":")
    if kind == "openai":
        name, _, url = rest.rpartition("@")
        return "local-chat-completions", {
            "model": name,
            "base_url": f"{url.rstrip('/')}/chat/completions",
            "num_concurrent": target.concurrency,
            "think_end_token": CLOSE,
        }
    if kind == "scripted":
        raise ForethoughtError(
            "lm-evaluation-harness cannot ask a scripted model. Use smollm2, hf:, openai: or a training run."
        )
    source, adapter = locate_weights(target.name)
    name, _, revision = (source, "", "") if os.path.isdir(source) else source.partition("@")
    arguments = {"pretrained": name, "dtype": target.dtype, "think_end_token": CLOSE}
    if revision:
        arguments["revision"] = revision
    if adapter is not None:
        arguments["peft"] = str(adapter)
        if (adapter / "tokenizer_config.json").exists():
            arguments["tokenizer"] = str(adapter)
    return "hf", arguments


def graded(found: dict[str, Any]) -> list[Graded]:
    """One row for each question and each of its measures that is right or wrong. The mode is `MEASURE,FILTER`, as in its tables."""
    return [row for task, samples in found.get("samples", {}).items() for s in samples for row in _rows(task, s)]


def without_measure(found: dict[str, Any]) -> list[str]:
    """Tasks whose questions came back with no measure that `graded` can read."""
    samples = found.get("samples", {})
    return [task for task, mine in samples.items() if not any(True for s in mine for _ in _rows(task, s))]


def _rows(task: str, sample: dict[str, Any]) -> Iterable[Graded]:
    options = len(sample["arguments"])
    replies = sample["filtered_resps"]
    for measure in sample["metrics"]:
        value = sample[measure]
        if measure not in RIGHT_OR_WRONG or value not in (0, 1):
            continue
        listed = measure in ("acc", "acc_norm") and options > 1
        yield Graded(
            task=f"harness:{task}",
            mode=f"{measure},{sample['filter']}",
            # Some sets hold a question twice: its place tells the two apart.
            id=f"{sample['doc_id']}-{sample['doc_hash']}",
            question=str(sample["doc"].get("question") or sample["doc"].get("query") or ""),
            gold=str(sample["target"]),
            given=None if listed else str(replies[0]),
            correct=bool(value),
            chance=1 / options if listed else None,
            logprobs=tuple(float(r[0]) for r in replies) if listed else None,
        )


def _device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
