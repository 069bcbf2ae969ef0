"""`forethought judge RUN`, and `judge calibrate`, `judge sample`, `judge labels`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from forethought.cli.common import (
    Beside,
    BudgetOf,
    ByDefault,
    Concurrency,
    Dtype,
    ListIt,
    Overwrite,
    Seed,
    commas,
    listed,
    model_config,
    named_path,
    number,
    pairs,
    read_budget,
    wrote,
)
from forethought.errors import ForethoughtError

Judges = Annotated[str, typer.Option(help="Lines of --list, separated by commas.")]
Behind = Annotated[str | None, typer.Option(help="The model behind judges that ask one.")]
Models = Annotated[str | None, typer.Option(help="Another model for some judges: JUDGE=MODEL,JUDGE=MODEL.")]


class _RunByDefault(ByDefault):
    default = "run"


judge_app = typer.Typer(
    cls=_RunByDefault,
    help="Judge an attack run, measure judges against people, and label by hand. Example: `forethought judge runs/attack`",
)


@judge_app.command("run")
def judge(
    attempts: Annotated[Path | None, typer.Argument(help="An attack run.")] = None,
    judges: Judges = "refusal",
    model: Behind = None,
    models: Models = None,
    budget: BudgetOf = None,
    dtype: Dtype = "float32",
    concurrency: Concurrency = 32,
    out: Beside = None,
    seed: Seed = 0,
    overwrite: Overwrite = False,
    list_: ListIt = False,
) -> None:
    """Judge the attempts of an attack run. Asks no target again. The word `run` may be left out.

    Example: `forethought judge runs/attack-scot --judges refusal,harmbench --models harmbench=hf:ID`
    """
    from forethought.judges import JUDGES

    if listed(list_ or attempts is None, JUDGES):
        return
    assert attempts is not None
    from forethought import stages
    from forethought.config import ModelConfig
    from forethought.records import Attempt
    from forethought.run import read_run
    from forethought.stages.judging import aimed_at

    attempts = named_path(attempts)
    where = out or attempts.with_name(f"{attempts.name}-judged")
    behind = _models(model, models, dtype, concurrency)
    spoken = stages.judge(
        where, attempts, commas(judges), *behind, budget=read_budget(budget), seed=seed, overwrite=overwrite
    )
    for key, count in spoken.info["counts"].items():
        print(f"  {key}: {count}")
    for line in rate_lines(attempts, spoken):
        print(line)
    asked = {a.prompt.label for a in read_run(attempts, "attack").read("attempts.jsonl", Attempt)}
    if "harmful" in asked and not asked & {"benign", "borderline"}:
        print("note: over-refusal is not known: no benign or borderline prompt was asked.")
    for name in spoken.info["graded_inside"]:
        print(aimed_at(name, {n: ModelConfig.model_validate(m) for n, m in spoken.info["config"]["models"].items()}))
    wrote(spoken.path, f"forethought report {spoken.path}")


@judge_app.command("calibrate")
def calibrate(
    labels: Annotated[Path, typer.Argument(help="A folder of human-labelled files, or one file (docs/judges.md).")],
    judges: Judges = "keywords,refusal,learned_refusal,learned_harm",
    model: Behind = None,
    models: Models = None,
    dtype: Dtype = "float32",
    concurrency: Concurrency = 32,
    kinds: Annotated[
        str | None,
        typer.Option(help="What a judge is measured on besides: JUDGE=KIND, one of refusal, harm, unacceptable, care."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Run directory; default: by judges and labels.")
    ] = None,
    seed: Seed = 0,
    overwrite: Overwrite = False,
) -> None:
    """Measure judges against human labels: accuracy, precision, recall, F1, kappa, unscored, by source, with 95% intervals.

    Example: `forethought judge calibrate path/to/judge-labels --judges keywords,refusal,learned_refusal`
    """
    from forethought import stages
    from forethought.analysis.calibration import CalibrationRow
    from forethought.records import digest
    from forethought.run import code_hash

    one, others = _models(model, models, dtype, concurrency)
    about: dict[str, Any] = dict(pairs(commas(kinds or "")))
    asked = digest(str(labels), judges, model, models, dtype, kinds, seed, code_hash(), length=8)
    where = out or Path("runs") / f"calibrate-{asked}"
    run = stages.calibrate_judges(
        where, labels, commas(judges), one, others, kinds=about, seed=seed, overwrite=overwrite
    )
    rows = run.read("calibration.jsonl", CalibrationRow)
    for line in table_lines(rows):
        print(line)
    for name in run.info["left_out"]:
        print(f"left out: {name} holds no labels")
    wrote(run.path, f"forethought judge ATTACK-RUN --judges {judges}")


@judge_app.command("sample")
def sample(
    runs: Annotated[list[Path], typer.Argument(help="Attack runs, one a model.")],
    label: Annotated[str, typer.Option(help="Which prompts: harmful, benign, borderline or sensitive.")] = "sensitive",
    n: Annotated[int, typer.Option("-n", min=1, help="How many answers, of all models together.")] = 60,
    out: Annotated[Path, typer.Option("--out", "-o", help="The CSV to label; its key is written beside it.")] = Path(
        "labels.csv"
    ),
    seed: Seed = 0,
) -> None:
    """Draw answers to label by hand, blind: shuffled, without the model's name, which is in the key. Label first, open the key later.

    Example: `forethought judge sample runs/attack-base runs/attack-scot --label sensitive -n 60`
    """
    from forethought.records import LABELS
    from forethought.stages import labelling

    if label not in LABELS:
        raise ForethoughtError(f"label '{label}' is none of {', '.join(LABELS)}.")
    key, rows = labelling.sample(runs, label, n, out, seed=seed)
    print(
        f"{rows} answers. Write one word into the column 'human' of each: {', '.join((*labelling.WORDS, labelling.UNSURE))}"
    )
    wrote(out, f"forethought judge labels {out} {key}")


@judge_app.command("labels")
def labels(
    labels: Annotated[Path, typer.Argument(help="The labelled CSV.")],
    key: Annotated[Path, typer.Argument(help="Its key.")],
    judged: Annotated[
        list[Path] | None,
        typer.Option("--judged", help="A judge run on the same attempts, to compare; may be repeated."),
    ] = None,
) -> None:
    """What the labels say: rates by model with 95% Wilson intervals, and how far judges agree with them.

    Example: `forethought judge labels labels.csv labels.key.json --judged runs/attack-scot-judged`
    """
    from forethought.stages import labelling

    rates, words = labelling.count(labels, key)
    for found in rates:
        r = found.rate
        print(
            f"{found.model:<32}{found.word:<10}{r.hits:>4}/{r.scored:<5}{number(r.value)} {_span(r.low, r.high)}  unscored {r.unscored}"
        )
    for judge, a in labelling.agree(words, judged or []).items():
        print(
            f"{judge:<32}agrees on {number(a.accuracy)} {_span(a.low, a.high)} of {a.n}, kappa {number(a.kappa)}, unscored {a.unscored}"
        )


def rate_lines(attempts: Path, spoken: Any) -> list[str]:
    """One table: every rate that the judges' scores give, by attack and label of the prompts."""
    from forethought.analysis.measures import measure
    from forethought.analysis.rates import cells
    from forethought.records import Attempt, Verdict
    from forethought.run import read_run

    heads = (
        ("judge", 18),
        ("attack", 24),
        ("prompts", 12),
        ("rate of", 18),
        ("", 10),
        ("rate", 7),
        ("95%", 15),
        ("unscored", 10),
    )
    rows = [tuple(head for head, _ in heads)]
    sent = read_run(attempts, "attack").read("attempts.jsonl", Attempt)
    for cell in cells("", sent, spoken.read("verdicts.jsonl", Verdict)):
        if (meant := measure(cell.judge, cell.label)) and cell.attempts:
            r = cell.negative if meant.turned else cell.positive
            counts = (
                f"{r.hits}/{r.scored}",
                number(r.value),
                _span(r.low, r.high) if r.scored else "-",
                str(r.unscored),
            )
            rows.append((cell.judge, cell.attack, cell.label, meant.name, *counts))
    return [
        " ".join(
            f"{text:<{w}}" if i < 4 else f"{text:>{w}}" for i, (text, (_, w)) in enumerate(zip(row, heads, strict=True))
        )
        for row in rows
    ]


def table_lines(rows: list[Any]) -> list[str]:
    """One table a kind of label, its sources in order of name, the judges of a source one under the other."""
    from forethought.data.human_labels import KINDS

    heads = (("source", 36), ("judge", 18), ("n", 5), ("unscored", 9), ("accuracy", 22), ("of scored", 10), ("precision", 10),
             ("recall", 7), ("F1", 6), ("kappa", 23))  # fmt: skip
    lines: list[str] = []
    for kind, words in KINDS.items():
        mine = sorted((r for r in rows if r.kind == kind), key=lambda r: r.source)
        if not mine:
            continue
        lines += ["", f"{kind}: people said {words.yes} or {words.no}; precision, recall and F1 are of '{words.yes}'"]
        lines.append("".join(f"{head:<{w}}" if i < 2 else f"{head:>{w}}" for i, (head, w) in enumerate(heads)))
        for row in mine:
            a = row.agreement
            mark = "" if not row.fitted else "*"
            cells = (
                row.source, row.judge + mark, str(a.n), str(a.unscored), f"{number(a.accuracy)} {_span(a.low, a.high)}",
                number(a.of_scored), number(a.precision), number(a.recall), number(a.f1),
                f"{number(a.kappa)} {_span(a.kappa_low, a.kappa_high)}",
            )  # fmt: skip
            text = "".join(
                f"{c:<{w}}" if i < 2 else f"{c:>{w}}" for i, (c, (_, w)) in enumerate(zip(cells, heads, strict=True))
            )
            lines.append(text + (f"  between: {row.between}" if row.between else ""))
        if any(r.fitted for r in mine):
            lines.append("* fitted on answers of this source: no evidence")
    return lines


def _span(low: float | None, high: float | None) -> str:
    return f"({number(low)}-{number(high)})"


def _models(model: str | None, models: str | None, dtype: str, concurrency: int) -> tuple[Any, dict[str, Any]]:
    """The model behind the judges, and those of single judges."""
    named = pairs(commas(models or "")).items()
    found = {judge: model_config(name, None, dtype, concurrency) for judge, name in named}
    return (model_config(model, None, dtype, concurrency) if model else None), found
