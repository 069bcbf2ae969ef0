"""Public sets by name: from the hub, or from a local copy (`xstest:PATH`). No rows ship with the project.

`public.yaml` says where each lives, which columns count and what its labels are in ours. Rows that mix minors and sexual content are
dropped from every set.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from forethought.config import DataConfig, read_yaml
from forethought.data.files import Row, read_rows, to_prompts
from forethought.data.hub import hub_rows
from forethought.errors import ForethoughtError
from forethought.records import Label, Prompt, Record

MINORS = re.compile(
    r"\b(?:child(?:ren)?|kids?|minors?|under-?age|teen\w*|(?:school|little |young )(?:boy|girl)s?|pre-?teen\w*)\b"
    r"|\b(?:\d|1[0-7])[- ]?years?[- ]?old\b",
    re.I,
)
SEXUAL = re.compile(r"\b(?:sex\w*|nudes?|naked|porn\w*|erotic\w*|molest\w*|grooming)\b", re.I)


class PublicSet(Record):
    """One entry of `public.yaml`, which says what its keys mean."""

    hub: str
    text: str
    labels: Label | dict[str, Label]
    label: str = ""
    category: str = ""
    id: str = ""
    subset: str = ""
    split: str = "train"
    options: dict[str, str | bool] = {}
    keep: dict[str, tuple[str, ...]] = {}
    evaluation: bool = False
    licence: str
    note: str


@cache
def public_sets() -> dict[str, PublicSet]:
    """All named sets."""
    rows = read_yaml("public.yaml", resources.files("forethought.data").joinpath("public.yaml").read_bytes())
    return TypeAdapter(dict[str, PublicSet]).validate_python(rows)


def load(config: DataConfig) -> list[Prompt]:
    """Prompts of a named set: from `config.path`, a local copy, where that is given, else from the hub."""
    public = public_sets()[config.source]
    rows = copy_or_hub_rows(config.source, config.path, public.hub, public.subset, public.split, public.options)
    kept = list(_kept(rows, public, config.source))
    columns = {f: c for f in ("text", "label", "category", "id") if (c := getattr(public, f))}
    values: dict[str, str] = {}
    if isinstance(public.labels, str):
        values["label"] = public.labels
    mapped = DataConfig(
        source=config.source, columns=_present(columns, kept) | config.columns, values=values | config.values
    )
    return to_prompts(kept, mapped, config.source)


def copy_or_hub_rows(
    name: str, path: str | None, hub: str, subset: str, split: str, options: Mapping[str, str | bool] | None = None
) -> Iterator[tuple[int, Row]]:
    """Rows of a named set: from the copy at `path` where there is one, else from the hub. ForethoughtError says how to get at them."""
    if path:
        return read_rows(Path(path))
    try:
        return hub_rows(hub, subset, split, **(options or {}))
    except ForethoughtError as error:
        raise ForethoughtError(f"{str(error).rstrip('.')}. A local copy will do: {name}:PATH.") from error


def is_about_minors(value: Any) -> bool:
    """Whether a text, or all that a row holds, speaks of minors and of sex; by words, so that harmless texts fall too."""
    text = " ".join(_texts(value))
    return bool(MINORS.search(text) and SEXUAL.search(text))


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from (text for each in value.values() for text in _texts(each))
    elif isinstance(value, list | tuple):
        yield from (text for each in value for text in _texts(each))


def _kept(rows: Iterator[tuple[int, Row]], public: PublicSet, name: str) -> Iterator[tuple[int, Row]]:
    for number, row in rows:
        row = first_instance(row)
        if is_about_minors(row):
            continue
        if any(column in row and str(row[column]) not in values for column, values in public.keep.items()):
            continue
        if isinstance(public.labels, dict):
            said = str(row.get(public.label))
            if said not in public.labels:
                raise ForethoughtError(
                    f"row {number}: '{public.label}' is {said!r}, none of {', '.join(public.labels)}."
                )
            row = row | {public.label: public.labels[said]}
        if public.category and isinstance(row.get(public.category), list):
            row = row | {public.category: (row[public.category] or [None])[0]}
        for column in public.text.split("|"):
            if isinstance(row.get(column), list):
                row = row | {column: "\n\n".join(map(str, row[column]))}
        if public.id and str(row.get(public.id)).isdigit():
            # Several sets number their rows from 1.
            row = row | {public.id: f"{name}-{row[public.id]}"}
        yield number, row


def first_instance(row: Row) -> Row:
    """A row of self-instruct with the input and output of its first instance, which its instruction speaks of."""
    found = row.get("instances")
    if isinstance(found, list) and found and isinstance(found[0], dict):
        return found[0] | row
    return row


def _present(columns: dict[str, str], rows: list[tuple[int, Row]]) -> dict[str, str]:
    """Of columns that copies name in different ways (`prompt|Goal`) the one that is there; optional ones that are not are left out."""
    first = rows[0][1] if rows else {}
    found = {f: next((c for c in names.split("|") if c.split("+")[0] in first), "") for f, names in columns.items()}
    return {f: c or columns[f].split("|")[0] for f, c in found.items() if c or f in ("text", "label")}
