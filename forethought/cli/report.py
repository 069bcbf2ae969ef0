"""`forethought report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from forethought.cli.common import named_runs


def report(
    runs: Annotated[list[str], typer.Argument(help="Runs, each as NAME=RUN or RUN; NAME may come several times.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The page to write.")] = Path("runs/report.html"),
    title: Annotated[str, typer.Option(help="Title of the page.")] = "Forethought report",
    reference: Annotated[
        str | None, typer.Option(help="The model to compare the others with; default: the first.")
    ] = None,
) -> None:
    """Write one self-contained HTML page that compares models.

    Every model needs a judge run; more runs of it are given under the same name, and told apart by what is in them.

    Example: `forethought report untuned=runs/attack-untuned-judged scot=runs/attack-scot-judged`
    """
    from forethought.report.gather import write_report

    print(f"report -> {write_report(out, named_runs(runs), title=title, reference=reference)}")
