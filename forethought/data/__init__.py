"""Prompt sources: one file each, one line in SOURCES. A source is a function `DataConfig -> list[Prompt]`."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path

from forethought.config import DataConfig
from forethought.errors import ForethoughtError, nearest
from forethought.records import LABELS, Label, Prompt, digest
from forethought.registry import Entry

SOURCES: dict[str, Entry] = {
    "starter": Entry(
        "forethought.data.starter:load", "our own prompts, in the package: harmful, borderline, sensitive, benign"
    ),
    "jsonl": Entry("forethought.data.files:load_jsonl", "a JSONL file at `path`"),
    "csv": Entry("forethought.data.files:load_csv", "a CSV file at `path`"),
    "parquet": Entry("forethought.data.files:load_parquet", "a Parquet file at `path`"),
    "hub": Entry(
        "forethought.data.hub:load", "a data set of the Hugging Face hub: `path=owner/name` or `owner/name:subset`"
    ),
}


def load_prompts(config: DataConfig, seed: int = 0) -> list[Prompt]:
    """Prompts of a source, filtered by split and drawn by `take`, in an order that depends only on the seed and the prompts.

    Raises ForethoughtError for an unknown source, no rows at all, or two rows of the same text with different labels.
    """
    if config.source not in SOURCES:
        raise ForethoughtError(f"unknown data source '{config.source}'.{nearest(config.source, SOURCES)}")
    module, _, attribute = SOURCES[config.source].where.partition(":")
    found: list[Prompt] = getattr(importlib.import_module(module), attribute)(config)
    prompts = _unique(found)
    if config.split:
        prompts = [p for p in prompts if p.split == config.split]
    if config.take is not None:
        prompts = draw(prompts, config.take, seed)
    if not prompts:
        where = config.path or config.source
        raise ForethoughtError(f"no prompts in '{where}'{f' of split {config.split!r}' if config.split else ''}.")
    return prompts


def draw(prompts: list[Prompt], take: Mapping[Label, int], seed: int) -> list[Prompt]:
    """At most `take[label]` prompts of each label (none of a label not named), drawn by hash of seed and pair, so that the two
    sides of a contrast pair are drawn together."""
    chosen: list[Prompt] = []
    for label in LABELS:
        own = [p for p in prompts if p.label == label]
        own.sort(key=lambda p: digest(seed, p.pair or p.id))
        chosen += own[: take.get(label, 0)]
    return chosen


def parse_data(text: str) -> DataConfig:
    """A data spec of the command line: `starter`, `starter:test`, or a path ending in .jsonl, .csv or .parquet."""
    name, _, split = text.partition(":")
    if name == "starter":
        return DataConfig.model_validate({"source": "starter", "split": split or None})
    kind = Path(text).suffix.lstrip(".")
    if kind in SOURCES:
        return DataConfig(source=kind, path=text)
    raise ForethoughtError(
        f"cannot tell what data '{text}' is. Write starter, starter:test, or a .jsonl, .csv or .parquet path."
    )


def _unique(prompts: list[Prompt]) -> list[Prompt]:
    seen: dict[str, Prompt] = {}
    for prompt in prompts:
        other = seen.setdefault(prompt.id, prompt)
        if other.label != prompt.label:
            raise ForethoughtError(
                f"the prompt {prompt.text[:60]!r} is labelled both {other.label} and {prompt.label}. Keep one of the rows."
            )
    return list(seen.values())
