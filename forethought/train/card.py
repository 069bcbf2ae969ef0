"""A model card with provenance, as the hub reads it, in the place of peft's blank one. It claims nothing that was not measured."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from forethought.data.card import provenance, with_front_matter, without_place
from forethought.run import read_info

CARD = "README.md"
HUB_ID = re.compile(r"\w[\w.-]*/[\w.-]+")
EMBEDDED = "HuggingFaceTB/SmolLM2-135M-Instruct"


def card(info: dict[str, Any], model: Path, merge: dict[str, Any] | None = None, *, opened: bool = False) -> str:
    """Markdown with hub front matter, from a training's `run.json`, for what lies in `model`; `merge` is that of its merge (the same
    where nothing is known of the training), and `opened` says that the chat template opens a thought."""
    config, metrics = info["config"], info["metrics"]
    adapter, method = (model / "adapter_config.json").exists(), without_place(config["method"])
    base = published(config["model"])
    front: dict[str, Any] = {"license": "other", **({"base_model": base} if base else {})}
    front |= {"library_name": "peft" if adapter else "transformers", "pipeline_tag": "text-generation"}
    front |= {"tags": ["safety", "forethought", *(["lora"] if adapter else [])]}
    named = without_place(config["model"].removeprefix("hf:")) if not base or "@" in config["model"] else base
    read = {key: _with_method(config[key]) for key in ("data", "init") if config.get(key)}
    known = merge is not info
    made = [
        f"- method: `{method}`" if known else "- merged from an adapter of whose training nothing is known here",
        f"- base model: `{named}`",
        *(f"- {key}: {value}" for key, value in read.items()),
        *([f"- {metrics['used']} examples, {metrics['steps']} steps"] if metrics["steps"] else []),
        *provenance(info),
    ]
    if merge and known:
        made += [
            f"- merged into the base in {merge['config']['dtype']}:",
            *(f"  {line}" for line in provenance(merge)),
        ]
    reply = (
        "The template opens a thought, so every reply begins inside one: the answer is what follows `</think>`, and a reply "
        "without it is no answer."
        if opened
        else "A reply may open with a thought between `<think>` and `</think>`; the answer is what follows. A thought that never "
        "ends is no answer."
    )
    return with_front_matter(
        front,
        [
            f"# {named}, trained with {method}" if known else f"# {named} with an adapter merged in",
            "",
            "The licence is that of the base model and of the data: set it above before you publish.",
            "",
            "## How it was made",
            *made,
            "",
            "## How to use it",
            f"{reply} Let nobody but the model write inside it.",
            "",
            "## What it does not show",
            "Nothing here says how the model behaves. Measure it (`forethought attack`, `judge`, `capability`, `report`) and put in the "
            "numbers with their intervals: attack success, and beside it over-refusal and capability, the base model's too.",
            "",
        ]
    )  # fmt: skip


def _with_method(path: str) -> str:
    """A run by its path, and how it was made, where it is still there."""
    there = (Path(path) / "run.json").exists()
    how = f", made by `{without_place(read_info(path)['config']['method'])}`" if there else ""
    return f"`{without_place(path)}`{how}"


def published(spec: str) -> str | None:
    """The hub's name of a model; None where it has none that is known here."""
    if spec == "smollm2":
        return EMBEDDED
    whole = spec.removeprefix("hf:")
    name = whole.partition("@")[0]
    return name if HUB_ID.fullmatch(name) and not Path(whole).exists() and not Path(name).exists() else None
