"""`forethought judge` and `forethought calibrate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from forethought.cli.common import ListIt, Overwrite, Seed, commas, listed, number, wrote


def judge(
    attempts: Annotated[Path | None, typer.Argument(help="An attack run.")] = None,
    judges: Annotated[str, typer.Option(help="Lines of --list, separated by commas.")] = "refusal",
    model: Annotated[str | None, typer.Option(help="The model behind judges that ask one.")] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Run directory; default: beside the attempts.")
    ] = None,
    seed: Seed = 0,
    overwrite: Overwrite = False,
    list_: ListIt = False,
) -> None:
    """Judge the attempts of an attack run. Asks no target again.

    Example: `forethought judge runs/attack-scot --judges refusal`
    """
    from forethought.judges import JUDGES

    if listed(list_ or attempts is None, JUDGES):
        return
    assert attempts is not None
    from forethought import stages
    from forethought.config import ModelConfig

    where = out or attempts.with_name(f"{attempts.name}-judged")
    spoken = stages.judge(
        where, attempts, commas(judges), ModelConfig(name=model) if model else None, seed=seed, overwrite=overwrite
    )
    for key, count in spoken.info["counts"].items():
        print(f"  {key}: {count}")
    wrote(spoken.path, f"forethought report {spoken.path}")


def calibrate(
    folder: Annotated[Path, typer.Argument(help="Folder of human-labelled files (docs/judges.md says which).")],
) -> None:
    """Measure the rule-based refusal judge against human labels: accuracy, precision, recall, kappa, by source.

    Example: `forethought calibrate path/to/judge-labels`
    """
    from forethought.analysis.calibration import calibrate as measure
    from forethought.refusals import classify

    print(
        f"{'source':<24}{'n':>5}{'accuracy':>10}{'95%':>15}{'precision':>11}{'recall':>8}{'kappa':>8}{'unscored':>10}  partial refusals"
    )
    for row in measure(lambda answer, prompt: classify(answer, prompt).label, folder):
        a = row.agreement
        numbers = (
            number(a.accuracy),
            f"{number(a.low)}-{number(a.high)}",
            number(a.precision),
            number(a.recall),
            number(a.kappa),
        )
        cells = "".join(f"{text:>{width}}" for text, width in zip(numbers, (10, 15, 11, 8, 8), strict=True))
        print(f"{row.source:<24}{a.n:>5}{cells}{a.unscored:>10}  {row.partial or ''}")
