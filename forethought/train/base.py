"""The model that a method trains: its tokenizer and layout, its checked rows, its weights and adapter, and what it was before."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, GenerationConfig

from forethought.chat import Encoded, check_channels, check_rows, encode_example, opens_thought, render_prompt, stop_ids
from forethought.config import TrainConfig
from forethought.errors import ForethoughtError
from forethought.models import locate_weights
from forethought.models.hf import from_source, load_tokenizer, load_weights, own_tokenizer
from forethought.models.precision import computed_in
from forethought.records import Example
from forethought.run import Run
from forethought.train.launch import is_first, sharded
from forethought.train.rows import COMPARES

REFERENCE = "reference"
# Parts of a model that only images or sound go through, by the names that transformers gives them; and the number of a block.
UNREAD = re.compile(
    r".*\b(?:vision_\w+|visual|audio_\w+|embed_vision|embed_audio|image_\w+|img_\w+|multi_modal_projector)\b.*"
)
BLOCK = re.compile(r"\.(?:layers|h|blocks)\.(\d+)\.")


@dataclass(frozen=True)
class Base:
    """The model that is trained: its source, the adapter it starts from, tokenizer, stop ids and number of layers."""

    name: str
    source: str
    adapter: Path | None
    tokenizer: Any
    stops: frozenset[int]
    depth: int


def open_base(name: str, init: str | None) -> Base:
    """Tokenizer and layout of a model, before its weights are loaded. `init` is an adapter of it, or names whole weights
    again. ForethoughtError where it is of another model."""
    source, adapter = locate_weights(name)
    if adapter is not None:
        raise ForethoughtError(
            f"'{name}' is an adapter. Go on from it with init={name}, or merge it first: "
            f"forethought merge {name} --out DIR."
        )
    if init is not None:
        other, adapter = locate_weights(init)
        if other != source or (adapter is None and init != name):
            raise ForethoughtError(
                f"init '{init}' is no adapter of '{name}'. Whole weights are trained as model={init}."
            )
    tokenizer = own_tokenizer(adapter) or load_tokenizer(source)
    check_channels(tokenizer)
    layout = from_source(AutoConfig, source)
    try:
        ends = from_source(GenerationConfig, source).eos_token_id
    except ForethoughtError:
        ends = layout.eos_token_id  # Not every model has a generation config.
    return Base(
        name, source, adapter, tokenizer, stop_ids(tokenizer, ends), int(layout.get_text_config().num_hidden_layers)
    )


def encode(base: Base, examples: Sequence[Example], config: TrainConfig, run: Run) -> list[Encoded]:
    """Rows that fit, checked by `chat.check_rows`; how many did not is logged."""
    rows = check_rows(
        base.tokenizer,
        ((e.prompt.messages, e.reasoning, e.answer, e.decisive) for e in examples),
        base.stops,
        config.max_length,
        config.decision_weight,
    )
    if len(rows) < len(examples) and is_first():
        run.log(f"{len(examples) - len(rows)} of {len(examples)} rows are longer than max_length and are left out")
    bare = sum(e.reasoning is None for e in examples)
    if bare and is_first() and opens_thought(render_prompt(base.tokenizer, examples[0].prompt.messages)):
        note = f"note: the chat template opens a thought, which {bare} of {len(examples)} rows teach to close at once."
        run.log(note)
        sys.stderr.write(note + "\n")
    return rows


def encode_held(base: Base, examples: Sequence[Example], config: TrainConfig, run: Run) -> list[tuple[Encoded]]:
    """Rows held out as elements of one row each, no token weighing more than another; [] where there are none."""
    plain = config.model_copy(update={"decision_weight": 1.0})
    return [(row,) for row in encode(base, examples, plain, run)] if examples else []


def encode_each(
    base: Base, examples: Sequence[Example], config: TrainConfig, run: Run
) -> list[tuple[Example, Encoded]]:
    """`encode`, for methods that must know which row is whose."""
    encode(base, examples, config, run)
    rows = ((e, encode_example(base.tokenizer, e.prompt.messages, e.reasoning, e.answer)) for e in examples)
    return [(example, row) for example, row in rows if len(row.ids) <= config.max_length]


def load_trained(base: Base, config: TrainConfig) -> Any:
    """The weights. Where all are trained they are float32, and `dtype` is what is computed in, where this machine can (`precision`)."""
    whole = config.lora_rank == 0 and base.adapter is None
    return load_weights(base.source, "float32" if whole else computed_in(config.dtype))[1]


def with_adapter(
    model: Any, base: Base, config: TrainConfig, seed: int, layers: int | None = None, reference: bool = False
) -> Any:
    """The model with LoRA on every linear layer (of the first `layers` blocks), or with the adapter it starts from and, where a method
    compares with that, a frozen copy of it as `reference`; itself where `lora_rank` is 0.

    What no text reaches (the eyes of a model that sees) is not trained, and nothing behind `layers`: several processes wait for a gradient
    of every weight that is.
    """
    from peft import LoraConfig, PeftModel, get_peft_model

    torch.manual_seed(seed)
    if base.adapter is not None:
        made = PeftModel.from_pretrained(model, str(base.adapter), is_trainable=True)
        _freeze(made, layers)
        if reference:
            made.load_adapter(str(base.adapter), adapter_name=REFERENCE, is_trainable=False)
            if sharded():  # FSDP wants one type of numbers in what it puts together, and peft makes an adapter float32.
                for name, weight in made.named_parameters():
                    if f".{REFERENCE}." in name:
                        weight.data = weight.data.to(model.dtype)
        return made
    _freeze(model, None)
    if config.lora_rank == 0:
        return model
    where: dict[str, Any] = {"target_modules": "all-linear"}
    if any(UNREAD.fullmatch(name) for name, _ in model.named_modules()):
        where["exclude_modules"] = UNREAD.pattern
    if layers is not None:
        # PEFT takes a choice of layers only with modules listed by name.
        where |= {"target_modules": sorted(_linear_names(model)), "layers_to_transform": list(range(layers))}
    lora = LoraConfig(
        r=config.lora_rank,
        lora_alpha=config.lora_alpha,
        lora_dropout=config.lora_dropout,
        task_type="CAUSAL_LM",
        **where,
    )
    experts = {n.rpartition(".")[2] for n, w in model.named_parameters() if w.dim() == 3 and ".experts." in n}
    if experts:
        sys.stderr.write(
            f"note: of the experts {', '.join(sorted(experts))} are one tensor each, get no LoRA and stay as they are.\n"
        )
    return get_peft_model(model, lora)


def _freeze(model: Any, layers: int | None) -> None:
    """No gradient for what sees or hears, nor for blocks behind the first `layers`."""
    for name, weight in model.named_parameters():
        block = BLOCK.search(name)
        if UNREAD.fullmatch(name) or (layers is not None and block and int(block[1]) >= layers):
            weight.requires_grad_(False)


def _linear_names(model: Any) -> set[str]:
    """Last parts of the names of linear modules inside the numbered blocks (`q_proj`, ...)."""
    return {
        name.rpartition(".")[2]
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and any(part.isdigit() for part in name.split("."))
    }


def needs_adapter(method: str, base: Base, config: TrainConfig) -> None:
    """ForethoughtError where a method that compares with the original model would train all of its weights."""
    if config.lora_rank == 0 and base.adapter is None:
        raise ForethoughtError(f"{method} {COMPARES}")


def unadapted(model: Any) -> Any:
    """The model below its adapter."""
    return model.get_base_model() if hasattr(model, "peft_config") else model


@contextmanager
def original(model: Any) -> Iterator[None]:
    """The model as it was at the start, without gradients: its adapter off, or the adapter it started from."""
    training = model.training
    model.eval()  # What it is compared with has no dropout.
    try:
        if REFERENCE not in model.peft_config:
            with model.disable_adapter(), torch.no_grad():
                yield
            return
        model.set_adapter(REFERENCE, inference_mode=True)
        try:
            with torch.no_grad():
                yield
        finally:
            model.set_adapter("default")
    finally:
        model.train(training)
