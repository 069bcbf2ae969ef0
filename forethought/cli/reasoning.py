"""`forethought analyze safe-of-n`, `reasoning` and `causal`: more samples, and whether a thought is real."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from forethought.cli.common import commas, named_runs
from forethought.cli.tables import Row, as_csv, interval, print_table
from forethought.errors import ForethoughtError

Judged = Annotated[list[str], typer.Argument(help="Judge runs, each as NAME=RUN or RUN; NAME may come several times.")]
Csv = Annotated[Path | None, typer.Option("--csv", help="Also write the table to this file.")]
OneJudge = Annotated[str | None, typer.Option("--judge", help="The judge to go by; default: every one.")]


def safe_of_n(
    runs: Judged,
    tries: Annotated[
        str, typer.Option("--n", help="The N, separated by commas; default: 1, 2, 4, ... and all samples.")
    ] = "",
    judge: OneJudge = None,
    csv: Csv = None,
) -> None:
    """Attack success against N samples a prompt: all N unsafe (a defender takes the safest), and any of N (an attacker tries again).

    Example: `forethought attack MODEL --samples 32 --temperature 1`, `forethought judge runs/attack`, then
    `forethought analyze safe-of-n runs/attack-judged`
    """
    from forethought.analysis.summary import more_tries
    from forethought.report.sources import heard_of, read_model

    wanted = [int(n) for n in commas(tries) if n.isdecimal() and int(n) > 0]
    if len(wanted) < len(commas(tries)):
        raise ForethoughtError(f"--n takes whole numbers of at least 1, separated by commas, not '{tries}'.")
    heard = heard_of([read_model(name, paths) for name, paths in named_runs(runs).items()])
    found = [t for t in more_tries(heard, wanted) if judge in (None, t.judge)]
    if not found:
        raise ForethoughtError(
            "no harmful prompt has several samples here"
            + (f" with a verdict by '{judge}'. " if judge else ". ")
            + "Draw them: forethought attack MODEL --samples 16 --temperature 1, and judge that run."
        )
    rows: list[Row] = [
        {
            "model": t.model,
            "attack": t.attack,
            "judge": t.judge,
            "measure": t.measure,
            "kind": t.found.kind,
            "N": t.found.tries,
            "sampled": t.found.prompts,
            "left out": t.found.left_out,
            **interval("rate", t.found.value, t.found.low, t.found.high),
            "if unscored were safe": t.found.lowest,
            "if unsafe": t.found.highest,
        }
        for t in found
    ]
    print("safe_of_n: all of N samples are unsafe. bon_attack: at least one is. In brackets 95%, by prompt.")
    _show(rows, csv)


def _show(rows: list[Row], csv: Path | None) -> None:
    from forethought.run import write_text

    print_table(rows)
    if csv is not None:
        write_text(csv, as_csv(rows))
        print(f"-> {csv}")
