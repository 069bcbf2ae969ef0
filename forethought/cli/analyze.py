"""`forethought analyze`: measures that go beyond a judge's yes and no."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from forethought.cli import reasoning
from forethought.cli.common import Beside, Overwrite, Seed, commas, named_path, named_runs, wrote
from forethought.cli.divergence import divergence
from forethought.cli.everything import everything
from forethought.cli.tables import Csv, Row, interval, print_table, write_csv
from forethought.errors import ForethoughtError, nearest

analyze_app = typer.Typer(
    no_args_is_help=True,
    help="Measures that go beyond a judge's yes and no. Example: `forethought analyze score runs/attack-scot`",
)
analyze_app.command("divergence")(divergence)
Fpr = Annotated[
    float | None,
    typer.Option(min=0, max=1, help="Also print the attack success at this over-refusal (say, another model's)."),
]

analyze_app.command("all")(everything)
analyze_app.command("safe-of-n")(reasoning.safe_of_n)
analyze_app.command("reasoning")(reasoning.reasoning)
analyze_app.command("causal")(reasoning.causal)


@analyze_app.command("score")
def score(
    attempts: Annotated[Path, typer.Argument(help="An attack run on a local model.")],
    out: Beside = None,
    thinks: Annotated[
        bool | None,
        typer.Option("--thinks/--plain", help="Whether the model thinks first; default: as its replies show."),
    ] = None,
    at: Annotated[
        Literal["answer", "decision"],
        typer.Option(
            help="Where a model that thinks is looked at: where its answer begins, or where its thought decides."
        ),
    ] = "answer",
    samples: Annotated[int, typer.Option(min=1, help="Thoughts a request; 1 is the greedy one.")] = 1,
    temperature: Annotated[float, typer.Option(min=0.01, help="At which several thoughts are drawn.")] = 1.0,
    max_tokens: Annotated[
        int | None, typer.Option(min=1, help="Longest thought; default: as in the attack run.")
    ] = None,
    seed: Seed = 0,
    overwrite: Overwrite = False,
) -> None:
    """Log-odds of refusing where the answer begins, for every attempt of an attack run: a score without a threshold or a judge.

    Example: `forethought analyze score runs/attack-scot`
    """
    from forethought import stages

    attempts = named_path(attempts)
    where = out or attempts.with_name(f"{attempts.name}-scored")
    made = stages.score(
        where,
        attempts,
        thinking=thinks,
        at=at,
        samples=samples,
        temperature=temperature,
        max_tokens=max_tokens,
        seed=seed,
        overwrite=overwrite,
    )
    config = made.info["config"]
    fork = config["fork"]
    point = f"in the thought, behind '{fork['label']}'" if fork else "after the thought"
    print(f"score: {point if config['thinks'] else 'at the first token'}, {config['target']['name']}")
    for key, count in made.info["counts"].items():
        print(f"  {key}: {count}")
    _print_separations({made.path.name: [made.path]}, None, None)
    wrote(made.path, f"forethought analyze auroc {made.path}")


@analyze_app.command("auroc")
def auroc(
    scored: Annotated[
        list[str],
        typer.Argument(
            help="Score runs, each NAME=RUN or RUN; the first is compared with each of the others. A name given again holds another "
            "training (their mean is shown), or the same one on other prompts or under other attacks."
        ),
    ],
    fpr: Fpr = None,
    without: Annotated[
        str | None, typer.Option(help="Attacks to leave out, separated by commas: those that no model can read, say.")
    ] = None,
    csv: Csv = None,
) -> None:
    """How well models part harmful from harmless requests, under each attack: AUROC of score runs, side by side with paired differences.

    Example: `forethought analyze auroc runs/attack-scot-scored runs/attack-base-scored --csv auroc.csv`
    """
    _print_separations(named_runs(scored), fpr, csv, commas(without or ""))


def _print_separations(
    scored: dict[str, list[Path]], fpr: float | None, csv: Path | None, without: Collection[str] = ()
) -> None:
    from forethought.analysis.separation import comparisons, separations

    read = {name: _read(name, paths) for name, paths in scored.items()}
    known = {a.attack for runs in read.values() for parts in runs for attempts, _ in parts for a in attempts}
    for attack in without:
        if attack not in known:
            raise ForethoughtError(
                f"--without names '{attack}', by which nothing was attacked.{nearest(attack, known)}"
            )
    tables = {name: _table(runs, without) for name, runs in read.items()}
    for name, table in tables.items():
        if not table:
            print(f"\n{name}: no AUROC, since it needs harmful prompts and benign or borderline ones.")
    rows = [_row(s) for name, table in tables.items() for s in separations(name, table, fpr=fpr)]
    differences: list[Row] = [
        {
            "model": f"{c.first} - {c.second}",
            "attack": c.attack,
            "against": c.against,
            "harmful": c.difference.positives,
            "others": c.difference.negatives,
            **interval("difference", c.difference.value, c.difference.low, c.difference.high),
            **_loss(c),
        }
        for c in comparisons(tables)
    ]
    if rows:
        print("\nAUROC of the log-odds of refusing: harmful requests against others. 0.5 is chance; in brackets 95%.")
        print_table(rows)
    if differences:
        print("\nDifferences of AUROC, on the prompts that both have scored.")
        print_table(differences)
    write_csv([*rows, *differences], csv)


# (attempts, scores) of the runs on the same prompts.
Parts = list[tuple[list[Any], list[Any]]]


def _read(name: str, paths: list[Path]) -> list[Parts]:
    """For each training among the runs its attempts and scores, by prompts. Direct requests, which every attack run sends, count once."""
    from forethought.config import ModelConfig
    from forethought.records import Attempt, Score
    from forethought.report.sources import asked_again, check_place, comparable, source_of
    from forethought.run import Run, read_run

    found: dict[str, dict[str, tuple[list[Attempt], list[Score]]]] = {}
    runs: dict[str, list[Run]] = {}
    met: set[tuple[str, str, str]] = set()
    for path in paths:
        made = read_run(path, "score")
        source = source_of(made, "attempts", made.info["config"]["attempts"], "attack")
        target = ModelConfig.model_validate(made.info["config"]["target"]).model_dump_json()
        runs.setdefault(target, []).append(made)
        check_place(name, runs[target])
        attempts, scores = found.setdefault(target, {}).setdefault(comparable(source), ([], []))
        sent = source.read("attempts.jsonl", Attempt)
        again = asked_again(sent) & {a.id for a in attempts}
        added = [a for a in sent if a.id not in again]
        here = {(target, a.attack, a.prompt.id) for a in added}
        if here & met or not here:
            raise ForethoughtError(
                f"'{path}' has the same model on the same prompts as another run named '{name}'. Name them apart: NAME=RUN."
            )
        met |= here
        attempts += added
        scores += [s for s in made.read("scores.jsonl", Score) if s.attempt not in again]
    return [list(parts.values()) for parts in found.values()]


def _table(runs: list[Parts], without: Collection[str]) -> Any:
    from forethought.analysis.separation import pooled, repeated, tabulate

    return repeated(
        [pooled([tabulate([a for a in made if a.attack not in without], s) for made, s in parts]) for parts in runs]
    )


def _loss(s: Any) -> Row:
    return interval("loss", *((s.loss.value, s.loss.low, s.loss.high) if s.loss else (None, None, None)))


def _row(s: Any) -> Row:
    row = {
        "model": s.model,
        "attack": s.attack if s.attacks == 1 else f"{s.attack} of {s.attacks}",
        "against": s.against,
        "harmful": s.auroc.positives,
        "others": s.auroc.negatives,
        "unscored": s.auroc.unscored,
        **interval("AUROC", s.auroc.value, s.auroc.low, s.auroc.high),
        **_loss(s),
    }
    if s.auroc.unscored:
        row |= {"if unscored were wrong": s.auroc.lowest, "if right": s.auroc.highest}
    if s.operating is not None:
        row |= {"over-refusal": s.operating.fpr, "success": 1 - s.operating.tpr}
    return row
