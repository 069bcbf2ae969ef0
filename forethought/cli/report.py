"""`forethought report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from forethought.cli.common import named_run, named_runs


def report(
    runs: Annotated[list[str], typer.Argument(help="Runs, each as NAME=RUN or RUN; NAME may come several times.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The page to write.")] = Path("runs/report.html"),
    title: Annotated[str, typer.Option(help="Title of the page.")] = "Forethought report",
    reference: Annotated[
        str | None, typer.Option(help="The model to compare the others with; default: the first.")
    ] = None,
    compare: Annotated[
        bool,
        typer.Option(
            "--compare", help="Put runs of one model together by what they attacked, and compare every pair of models."
        ),
    ] = False,
    redact: Annotated[
        bool, typer.Option("--redact", help="Mask prompts, replies and commands, for a page to be shared.")
    ] = False,
    policy: Annotated[
        str | None, typer.Option("--policy", "-p", help="Rules to read refusals by; default: those of the training.")
    ] = None,
) -> None:
    """Write one self-contained HTML page that compares models.

    Every model needs a judge run; more runs of it are given under the same name, and told apart by what is in them. With `--compare` no
    names are needed, and a directory may hold many runs.

    Example: `forethought report untuned=runs/attack-untuned-judged scot=runs/attack-scot-judged`

    Example: `forethought report runs/quickstart --compare --redact --out shared.html`
    """
    from forethought.report.gather import write_report
    from forethought.report.sources import by_target

    named = by_target([named_run(item) for item in runs]) if compare else named_runs(runs)
    page = write_report(out, named, title=title, reference=reference, compare=compare, redact=redact, policy=policy)
    print(f"report -> {page}\nnumbers -> {page.with_suffix('.metrics.csv')}")
