"""`forethought quickstart` and `forethought run`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from forethought.cli.common import Out, Overwrite, commas
from forethought.cli.train import DryRun


def quickstart(
    overrides: Annotated[list[str] | None, typer.Argument(help="key=value changes to the experiment.")] = None,
    out: Out = Path("runs"),
    overwrite: Overwrite = False,
) -> None:
    """The whole pipeline on the embedded model, on a laptop, in minutes.

    Example: `forethought quickstart seed=1`
    """
    _experiment("quickstart", overrides or [], out, overwrite)


def run(
    experiment: Annotated[str, typer.Argument(help="An experiment file, or the name of a shipped one.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="key=value changes to the experiment.")] = None,
    targets: Annotated[
        str,
        typer.Option(help="Only these targets, by comma, and what they are made from; the report is of them alone."),
    ] = "",
    jobs: Annotated[
        int,
        typer.Option(
            min=1,
            help="So many syntheses, trainings and targets at once, each in a process with its share of the cores, or a GPU. "
            "Each needs memory for a model.",
        ),
    ] = 1,
    out: Out = Path("runs"),
    overwrite: Overwrite = False,
    keep_finished: Annotated[
        bool,
        typer.Option(
            "--keep-finished",
            help="Keep finished stages though another version of Forethought made them; the report names each version.",
        ),
    ] = False,
    dry_run: DryRun = False,
) -> None:
    """Run an experiment file from data to report. Finished stages are skipped.

    Example: `forethought run experiments/quickstart.yaml train.scot.epochs=3`, or a part of it, two things at once:
    `forethought run study --targets refusal,scot_think --jobs 2`
    """
    _experiment(experiment, overrides or [], out, overwrite, dry_run, targets, jobs, keep_finished)


def _experiment(
    name: str,
    overrides: list[str],
    out: Path,
    overwrite: bool,
    dry_run: bool = False,
    targets: str = "",
    jobs: int = 1,
    keep: bool = False,
) -> None:
    from forethought.config import find_experiment, load_experiment, only
    from forethought.pipeline import plan_experiment, run_experiment

    experiment = load_experiment(find_experiment(name), overrides)
    if targets:
        experiment = only(experiment, commas(targets))
    print(f"{experiment.name}: {experiment.about}\n{experiment.model_dump_json(exclude_defaults=True)}", flush=True)
    if dry_run:
        print("\n".join(plan_experiment(experiment, out)))
        return
    page = run_experiment(experiment, out, partial(print, flush=True), overwrite, jobs, keep)
    trained = [n for n, t in experiment.train.items() if t.method != "prompt"]
    talk = f", or talk to a model: forethought chat {out / experiment.name / 'train' / trained[-1]}" if trained else ""
    print(f"\nreport: {page}\nlook at it in a browser{talk}")
