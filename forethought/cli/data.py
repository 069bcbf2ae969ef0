"""`forethought data`."""

from __future__ import annotations

from typing import Annotated

import typer

from forethought.cli.common import Columns, ListIt, Values, listed, read_prompts


def data(
    source: Annotated[
        str, typer.Argument(help="starter, starter:SPLIT, a file, or a public set (NAME or NAME:PATH).")
    ] = "",
    column: Columns = None,
    value: Values = None,
    show: Annotated[int, typer.Option(help="How many prompts to print.")] = 0,
    list_: ListIt = False,
) -> None:
    """Count the prompts of a source by label, category and split.

    Example: `forethought data starter:train --show 5`
    """
    from collections import Counter

    from forethought.data import SOURCES

    if listed(list_ or not source, SOURCES):
        return
    prompts = read_prompts(source, None, column, value, 0)
    print(f"{len(prompts)} prompts")
    for field in ("label", "category", "split"):
        counts = Counter(str(getattr(p, field)) for p in prompts)
        print(f"  by {field}: " + ", ".join(f"{k} {n}" for k, n in counts.most_common()))
    for prompt in prompts[:show]:
        print(f"  [{prompt.label}, {prompt.category or '-'}] {prompt.text}")
