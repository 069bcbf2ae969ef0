"""Prompt sources: one file each, one line in SOURCES. A source is a function `DataConfig -> list[Prompt]`."""

from __future__ import annotations

import importlib
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from forethought.config import DataConfig
from forethought.data.public import public_sets
from forethought.errors import ForethoughtError, nearest
from forethought.records import LABELS, Label, Messages, Prompt, digest
from forethought.registry import Entry

SPLITS = ("train", "extra", "validation", "test")
SPEC = re.compile(r"(.+?)\((.*)\)", re.DOTALL)
SOURCES: dict[str, Entry] = {
    "starter": Entry(
        "forethought.data.starter:load", "our own prompts, in the package: harmful, borderline, sensitive, benign"
    ),
    "jsonl": Entry("forethought.data.files:load_jsonl", "a JSONL file at `path`"),
    "json": Entry("forethought.data.files:load_json", "a file that holds one JSON array, at `path`"),
    "csv": Entry("forethought.data.files:load_csv", "a CSV file at `path`"),
    "parquet": Entry("forethought.data.files:load_parquet", "a Parquet file at `path`"),
    "hub": Entry(
        "forethought.data.hub:load", "a data set of the Hugging Face hub: `path=owner/name` or `owner/name:subset`"
    ),
    "public": Entry(
        "forethought.data.public:load", "a public set by its name: xstest from the hub, xstest:PATH from a copy"
    ),
}


def load_prompts(config: DataConfig, seed: int = 0) -> list[Prompt]:
    """Prompts of a source, filtered by split and drawn by `take`, in an order that depends only on the seed and the prompts.

    Raises ForethoughtError for an unknown source, no rows at all, two rows of the same text with different labels, or one id on two texts.
    """
    if config.more:
        alone = config.model_copy(update={"more": ()})
        return _unique([prompt for one in (alone, *config.more) for prompt in load_prompts(one, seed)])
    entry = SOURCES.get("public" if config.source in public_sets() else config.source)
    if entry is None:
        known = {*SOURCES, *public_sets()}
        raise ForethoughtError(f"unknown data source '{config.source}'.{nearest(config.source, sorted(known))}")
    module, _, attribute = entry.where.partition(":")
    found: list[Prompt] = getattr(importlib.import_module(module), attribute)(config)
    prompts = _unique(found)
    if config.split:
        prompts = [p for p in prompts if p.split == config.split]
    if config.skip is not None:
        first = {p.id for p in draw(prompts, config.skip, seed)}
        prompts = [p for p in prompts if p.id not in first]
    if config.take is not None:
        prompts = draw(prompts, config.take, seed)
    if not prompts:
        where = config.path or config.source
        raise ForethoughtError(f"no prompts in '{where}'{f' of split {config.split!r}' if config.split else ''}.")
    return prompts


def draw(prompts: list[Prompt], take: Mapping[Label, int], seed: int) -> list[Prompt]:
    """At most `take[label]` prompts of each label (none of a label not named), drawn by hash of seed and pair.

    The two sides of a contrast pair are drawn together; one without the other only where a label has too few prompts otherwise.
    """
    groups: dict[str, list[Prompt]] = {}
    for prompt in prompts:
        if take.get(prompt.label, 0) > 0:
            groups.setdefault(prompt.pair or prompt.id, []).append(prompt)
    whole = [groups[key] for key in sorted(groups, key=lambda key: digest(seed, key))]
    halves = [[prompt] for group in whole if len(group) > 1 for prompt in group]
    room = Counter(dict(take))
    chosen: dict[str, Prompt] = {}
    for group in [*whole, *halves]:
        if group[0].id not in chosen and Counter(p.label for p in group) <= room:
            chosen |= {p.id: p for p in group}
            room.subtract(p.label for p in group)
    return [p for label in LABELS for p in chosen.values() if p.label == label]


def parse_data(text: str) -> DataConfig:
    """A data spec of the command line: `starter`, `starter:test`, a file, or a public set (`xstest`, `xstest:PATH`).

    Brackets say what a file calls its columns, which values hold for all its rows, and how many to draw of each label:
    `requests.csv(text=Goal, label=harmful, take=200)`. A label of ours is a value, anything else a column.
    """
    match = SPEC.fullmatch(text.strip())
    name, options = (match[1], match[2]) if match else (text.strip(), "")
    config = _source_of(name)
    if not options:
        return config
    given = dict(_option(part, text) for part in options.split(","))
    take = given.pop("take", None)
    values = {k: v for k, v in given.items() if k == "label" and v in LABELS}
    columns = {k: v for k, v in given.items() if k not in values}
    label = values.get("label")
    if take is not None and (label is None or not take.isdigit()):
        raise ForethoughtError(f"cannot read take={take} in '{text}'. Write label=harmful, take=200.")
    drawn = {label: int(take)} if take is not None else config.take
    return DataConfig.model_validate(config.model_dump() | {"columns": columns, "values": values, "take": drawn})


def check_trainable(config: DataConfig) -> None:
    """ForethoughtError for a source that is for evaluation alone: a model trained on it could not be judged by it."""
    for one in (config, *config.more):
        known = public_sets().get(one.source)
        if known and known.evaluation:
            raise ForethoughtError(f"'{one.source}' is a set to evaluate by. Leave it out of what is trained on.")


def _source_of(text: str) -> DataConfig:
    name, _, rest = text.partition(":")
    if name == "starter":
        if rest not in ("", *SPLITS):
            raise ForethoughtError(f"the starter set has no split '{rest}'.{nearest(rest, SPLITS)}")
        return DataConfig.model_validate({"source": "starter", "split": rest or None})
    if name == "hub" and rest:
        return DataConfig(source="hub", path=rest)
    if name in public_sets():
        return DataConfig(source=name, path=rest or None)
    kind = Path(text).suffix.lstrip(".")
    if rest and not Path(text).exists() and Path(rest).exists():
        raise ForethoughtError(f"no public set '{name}' to read '{rest}' as.{nearest(name, sorted(public_sets()))}")
    if kind in SOURCES:
        return DataConfig(source=kind, path=text)
    raise ForethoughtError(
        f"cannot tell what data '{text}' is. Write starter, starter:test, a .jsonl, .json, .csv or .parquet path, hub:OWNER/NAME, "
        f"or a public set.{nearest(name, sorted(public_sets()))}"
    )


def _option(part: str, text: str) -> tuple[str, str]:
    key, eq, value = (side.strip() for side in part.partition("="))
    if not eq or not key or not value:
        raise ForethoughtError(f"cannot read '{part.strip()}' in '{text}'. Write file.csv(text=COLUMN, label=harmful).")
    return key, value


def _unique(prompts: list[Prompt]) -> list[Prompt]:
    seen: dict[str, Prompt] = {}
    labels: dict[Messages, Label] = {}
    for prompt in prompts:
        label = labels.setdefault(prompt.messages, prompt.label)
        if label != prompt.label:
            raise ForethoughtError(
                f"the prompt {prompt.text[:60]!r} is labelled both {label} and {prompt.label}. Keep one of the rows."
            )
        other = seen.setdefault(prompt.id, prompt)
        if other.messages != prompt.messages:
            raise ForethoughtError(
                f"the id '{prompt.id}' is on two prompts, {other.text[:40]!r} and {prompt.text[:40]!r}. Ids must be unique."
            )
    return list(seen.values())
