"""Styles of rewriting: how a request can be put otherwise. Shared by question evolution in synthesis and by attacks."""

from __future__ import annotations

import json
from functools import cache
from importlib import resources
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from forethought.config import describe_validation, read_yaml
from forethought.errors import ForethoughtError, nearest
from forethought.records import Record

# Question evolution in SCoT (arXiv 2501.19180).
EVOLUTION = (
    "slang",
    "uncommon_dialects",
    "role_play",
    "expert_endorsement",
    "evidence_based_persuasion",
    "logical_appeal",
)
SHOWN = 8


class Style(Record):
    """One style. `ask` describes it to a model that rewrites; `frames` hold {{request}}, for models that cannot; `words` are replaced."""

    id: str
    ask: str
    frames: tuple[str, ...]
    words: dict[str, str] = {}


@cache
def styles() -> dict[str, Style]:
    """All styles by id, as `styles.yaml` lists them."""
    rows = read_yaml("styles.yaml", resources.files("forethought.styles").joinpath("styles.yaml").read_bytes())
    return {s.id: s for s in TypeAdapter(tuple[Style, ...]).validate_python(rows)}


def style(id: str) -> Style:
    """The style of that id. Raises ForethoughtError with the nearest one."""
    if id not in styles():
        raise ForethoughtError(f"unknown style '{id}'.{nearest(id, styles())}")
    return styles()[id]


@cache
def pool() -> tuple[dict[str, str], ...]:
    """Requests with a rewriting in each style of EVOLUTION: `{"request": ..., "slang": ..., ...}`."""
    text = resources.files("forethought.styles").joinpath("demonstrations.jsonl").read_text(encoding="utf-8")
    return tuple(json.loads(line) for line in text.splitlines())


class Chosen(Record):
    """Which requests of the pool are shown to a model that rewrites, and how they were chosen (`choose.py`)."""

    made_from: str
    embedder: str
    requests: tuple[str, ...]


@cache
def chosen(path: str | None = None) -> Chosen:
    """The shipped choice, or that of a file. Raises ForethoughtError where it names a request that is not in the pool."""
    name = path or "chosen.json"
    try:
        text = Path(path).read_bytes() if path else resources.files("forethought.styles").joinpath(name).read_bytes()
        found = Chosen.model_validate_json(text)
    except OSError as error:
        raise ForethoughtError(f"cannot read '{name}': {error.strerror}.") from error
    except ValidationError as error:
        raise ForethoughtError(f"'{name}': {describe_validation(error, Chosen)}") from error
    if unknown := set(found.requests) - {row["request"] for row in pool()}:
        raise ForethoughtError(f"'{name}' names a request that is not in the pool: '{min(unknown)}'.")
    return found
