"""`forethought export`: attempts and verdicts for other tools."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from forethought.cli.common import named_runs, wrote

export_app = typer.Typer(
    no_args_is_help=True,
    help="Attempts and verdicts for other tools. Example: `forethought export inspect runs/attack-scot-judged`",
)
Runs = Annotated[
    list[str], typer.Argument(help="Judge runs, or attack runs that were not judged, each as NAME=RUN or RUN.")
]
Folder = Annotated[
    Path | None, typer.Option("--out", "-o", help="Folder to write, new or empty; default: beside the first run.")
]


@export_app.command("inspect")
def inspect(runs: Runs, out: Folder = None) -> None:
    """Logs for `inspect view`, one an attack and model (needs the extra `inspect`).

    Example: `forethought export inspect untuned=runs/untuned-judged scot=runs/scot-judged --out logs`
    """
    from forethought.export.inspect_logs import export

    where = _export(export, "inspect", runs, out)
    wrote(where, f"inspect view --log-dir {where}")


@export_app.command("parquet")
def parquet(runs: Runs, out: Folder = None) -> None:
    """attempts.parquet and verdicts.parquet, joined by `model` and `attempt`.

    Example: `forethought export parquet runs/attack-scot-judged`
    """
    from forethought.export.parquet import export

    where = _export(export, "parquet", runs, out)
    wrote(where, f"python -c \"import pandas; print(pandas.read_parquet('{where}/verdicts.parquet'))\"")


def _export(export: Callable[[list[Any], Path], list[Path]], form: str, runs: list[str], out: Path | None) -> Path:
    from forethought.export import read_models

    named = named_runs(runs)
    first = next(iter(named.values()))[0]
    where = out or first.with_name(f"{first.name}-{form}")
    written = export(read_models(named), where)
    print(f"{form}: {len(written)} file{'s' if len(written) != 1 else ''}")
    return where
