"""What a training run will take, before it is run: rows, steps, memory, and the command that starts it. Loads no weights."""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from forethought.chat import encode_example
from forethought.config import TrainConfig
from forethought.errors import ForethoughtError, first_line
from forethought.models import deployment, locate_weights
from forethought.models.hub import is_out_of_reach
from forethought.records import Example
from forethought.registry import parse_spec, resolve
from forethought.train import METHODS
from forethought.train.rows import COMPARES, count_steps, per_forward

GIB = 2**30
# Rows a method reads side by side.
WIDTH = {"circuit_breaker": 2, "dpo": 2, "lat": 3, "r2d2": 3}
SIZE = re.compile(r"(?<![\w.])(\d+(?:\.\d+)?)\s*([bBmM])(?![a-zA-Z])")


@dataclass(frozen=True)
class Shape:
    """Sizes of a model, and how they are known. `adapted` is inputs plus outputs of all linear layers that LoRA goes on."""

    parameters: int
    layers: int
    width: int
    vocabulary: int
    adapted: int
    known: str


@cache  # A hub that cannot be reached is waited for once, not for every training of an experiment.
def shape_of(model: str) -> Shape:
    """Read from the model's configuration; where that cannot be reached, from the size in its name. ForethoughtError where neither
    says it."""
    source, adapter = locate_weights(model)
    place = source if adapter is None or Path(source).is_dir() else str(adapter)
    try:
        return _from_config(place)
    except (OSError, ValueError) as error:
        found = SIZE.search(Path(model).name.replace("-", " ").replace("_", " "))
        if found is None:
            raise ForethoughtError(
                f"the configuration of '{model}' cannot be reached ({first_line(error)[:120]}), and its name "
                "says no size such as 8B."
            ) from error
        count = float(found[1]) * (1e9 if found[2] in "bB" else 1e6)
        return _from_size(int(count), f"guessed from '{found[0]}' in the name: its configuration cannot be reached")


def _from_config(source: str) -> Shape:
    import torch
    from huggingface_hub import hf_hub_download
    from transformers import AutoConfig, AutoModelForCausalLM

    folder = source
    if not os.path.isdir(source):
        name, _, revision = source.partition("@")
        found = hf_hub_download(
            name, "config.json", revision=revision or None, etag_timeout=5, local_files_only=is_out_of_reach()
        )
        folder = os.path.dirname(found)
    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
    text = config.get_text_config()
    head = model.get_output_embeddings()
    linear = [m for m in model.modules() if isinstance(m, torch.nn.Linear) and m is not head]
    return Shape(
        parameters=sum(p.numel() for p in model.parameters()),
        layers=text.num_hidden_layers,
        width=text.hidden_size,
        vocabulary=text.vocab_size,
        adapted=sum(m.in_features + m.out_features for m in linear),
        known="read from its configuration",
    )


def _from_size(parameters: int, known: str) -> Shape:
    """A model of about 12 d^2 parameters a layer and a layer for each 128 of its width d, as LLaMA's are."""
    width = round((parameters * 128 / 12) ** (1 / 3))
    layers = max(1, round(width / 128))
    return Shape(parameters, layers, width, 128_000, layers * 17 * width, known)


def longest_row(model: str, examples: Sequence[Example], config: TrainConfig) -> int | None:
    """Tokens of the longest row that is trained on; None where there is none, or the tokenizer cannot be reached."""
    from forethought.models.hf import load_tokenizer

    try:
        tokenizer = load_tokenizer(locate_weights(model)[0])
    except ForethoughtError:
        return None
    sizes = (len(encode_example(tokenizer, e.prompt.messages, e.reasoning, e.answer).ids) for e in examples)
    return max((size for size in sizes if size <= config.max_length), default=None)


def memory(shape: Shape, config: TrainConfig, processes: int = 1, longest: int | None = None) -> dict[str, float]:
    """GiB of one process: weights, what the optimizer keeps, activations and logits of one forward and its backward, on rows of `longest`
    tokens (default: `max_length`).

    Adam in float32 takes 16 bytes a trained weight. Activations are about 17 values a token, layer and unit of width (Korthikanti
    et al. 2022, arXiv 2205.05198, without attention maps), one value where they are recomputed. An estimate, good to about a third,
    without the half GiB of a process that has torch loaded. SmolLM2-135M on CPU, LoRA, eight rows of 104 tokens a forward: 2.0 GiB by this,
    2.7 GiB measured (resident memory at its peak, without that half).
    """
    size = 2 if config.dtype == "bfloat16" else 4
    whole = config.lora_rank == 0
    trained = shape.parameters if whole else config.lora_rank * shape.adapted
    method = parse_spec(config.method)[0]
    width = WIDTH.get(method, 2 if config.pairing else 1)
    tokens = per_forward(config, width, processes) * width * (longest or config.max_length)
    each = 1 if config.gradient_checkpointing else 17
    extra = 17 * tokens * shape.width * size if config.gradient_checkpointing else 0
    return {
        "weights": shape.parameters * (4 if whole else size) / GIB,
        "optimizer": trained * (12 if whole else 16) / GIB,
        "activations": (tokens * shape.layers * shape.width * size * each + extra) / GIB,
        "logits": 0.0 if method == "circuit_breaker" else tokens * shape.vocabulary * (8 + size) / GIB,
    }


def check_can(config: TrainConfig, processes: int = 1) -> None:
    """ForethoughtError for what a method refuses once it runs."""
    method = parse_spec(config.method)[0]
    if method == "r2d2" and processes > 1:
        raise ForethoughtError("r2d2 keeps its pool of suffixes in one process. Start it without a launcher.")
    if method in ("dpo", "circuit_breaker") and config.lora_rank == 0 and not config.init:
        raise ForethoughtError(f"{method} {COMPARES}")


def describe(
    model: str, config: TrainConfig, rows: int, processes: int = 1, examples: Sequence[Example] = ()
) -> list[str]:
    """The plan in lines. `rows` are those of the data, or at most; with the `examples` memory is that of the longest of them."""
    from forethought.models.precision import computed_in

    method = parse_spec(config.method)[0]
    if method == "prompt":
        return ["no training: the base model is deployed with a system prompt"]
    resolve("training method", METHODS, config.method)  # for its errors: a plan of what cannot run is no plan
    check_can(config, processes)
    width = WIDTH.get(method, 2 if config.pairing else 1)
    forward = per_forward(config, width, processes)
    shared = config.batch_size // processes // forward
    unit = "rows" if width == 1 else f"elements of {width} rows"
    lines = [
        f"rows: {rows} ({config.validation:.0%} of them held out)",
        f"steps: {count_steps(round(rows * (1 - config.validation)), config)}"
        + ("" if width == 1 or config.steps else " at most: rows are paired, and the larger side counts"),
        f"effective batch: {config.batch_size} {unit} = {processes} processes x {shared} forwards x {forward}",
    ]
    base = deployment(model)[0]
    if base.partition(":")[0] in ("openai", "scripted"):
        raise ForethoughtError(f"'{base}' has no weights here, so it cannot be trained. Name smollm2 or hf:ID.")
    shape = shape_of(base)
    longest = longest_row(base, examples, config) if examples else None
    parts = memory(shape, config, processes, longest)
    told = ", ".join(f"{name} {_amount(gib)}" for name, gib in parts.items())
    lines += [
        f"model: {_count(shape.parameters)} parameters ({shape.known})",
        f"memory: {'about' if longest else 'at most about'} {_amount(sum(parts.values()))} a process ({told})",
        f"  for rows of {longest} tokens, the longest of the data"
        if longest
        else f"  if rows were as long as max_length, {config.max_length} tokens: how long they are is not known yet",
    ]
    if (dtype := computed_in(config.dtype)) != config.dtype:
        here = memory(shape, config.model_copy(update={"dtype": dtype}), processes, longest)
        lines.append(f"  on this machine, in {dtype}: {_amount(sum(here.values()))}")
    if processes > 1:
        fixed = (parts["weights"] + parts["optimizer"]) / processes
        lines.append(
            f"memory sharded by fsdp or deepspeed_zero3: about {_amount(fixed + parts['activations'] + parts['logits'])}"
        )
    return lines


def command(
    model: str, config: TrainConfig, out: Path, *, seed: int = 0, policy: str = "default", launch: str = ""
) -> list[str]:
    """The words that train so from the command line, in several processes where `launch` is the file of an `accelerate` configuration."""
    start = ["accelerate", "launch", "--config_file", launch, "-m", "forethought"] if launch else ["forethought"]
    # Only what differs from what the method sets by itself, so that reading the command again gives this configuration.
    plain = TrainConfig.model_validate({"data": config.data, "method": config.method}).model_dump(mode="json")
    changed = {key: value for key, value in config.model_dump(mode="json").items() if value != plain[key]}
    words = [*start, "train", *([config.data] if config.data else [])]
    words += [f"{key}={json.dumps(value)}" for key, value in changed.items()]
    words += ["--method", config.method, "--model", model, "--policy", policy]
    return [*words, "--seed", str(seed), "--out", str(out)]


def shown(words: list[str]) -> str:
    return shlex.join(words)


def _amount(gib: float) -> str:
    return f"{gib:.1f} GiB" if gib >= 0.1 else f"{gib * 1024:.0f} MiB"


def _count(n: int) -> str:
    return f"{n / 1e9:.2f} B" if n >= 1e9 else f"{n / 1e6:.1f} M" if n >= 1e6 else str(n)
