"""`forethought report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from forethought.errors import ForethoughtError


def report(
    runs: Annotated[list[str], typer.Argument(help="Judge runs, each as NAME=RUN or RUN.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The page to write.")] = Path("runs/report.html"),
    title: Annotated[str, typer.Option(help="Title of the page.")] = "Forethought report",
) -> None:
    """Write one self-contained HTML page that compares judged models.

    Example: `forethought report untuned=runs/attack-untuned-judged scot=runs/attack-scot-judged`
    """
    from forethought.report.gather import write_report

    named: dict[str, Path] = {}
    for item in runs:
        name, eq, path = ("", "", item) if Path(item).exists() or "=" not in item else item.partition("=")
        name = name if eq else Path(path).name
        if name in named:
            raise ForethoughtError(f"two runs are called '{name}'. Name them apart: first={named[name]} second={path}")
        named[name] = Path(path)
    print(f"report -> {write_report(out, named, title=title)}")
