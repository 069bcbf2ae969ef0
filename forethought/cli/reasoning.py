"""`forethought analyze safe-of-n`, `reasoning` and `causal`: more samples, and whether a thought is real."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from forethought.cli.common import Beside, Overwrite, PolicyName, Seed, commas, named_path, named_runs, wrote
from forethought.cli.tables import Csv, Row, interval, print_table, write_csv
from forethought.errors import ForethoughtError, nearest

Judged = Annotated[list[str], typer.Argument(help="Judge runs, each as NAME=RUN or RUN; NAME may come several times.")]
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
    print_table(rows)
    write_csv(rows, csv)


def reasoning(
    runs: Judged,
    policy: PolicyName = "default",
    every: Annotated[
        bool, typer.Option("--each-attack", help="Print a line for each attack; the CSV has them.")
    ] = False,
    reference: Annotated[
        str | None, typer.Option(help="The model to compare lengths with; default: the first.")
    ] = None,
    csv: Csv = None,
) -> None:
    """Whether thoughts are real, from judged attempts: their form, their decision against the answer, the rule and the request they
    name, harm in them (judged by `thought`), and what they cost in tokens.

    Example: `forethought judge runs/attack-scot --judges refusal,thought`, then
    `forethought analyze reasoning scot=runs/attack-scot-judged`
    """
    from forethought.analysis.reasoning import longer, reasoned
    from forethought.analysis.summary import ATTACKED, DIRECT
    from forethought.policy import load_policy
    from forethought.report.sources import check_comparable, read_model

    models = [read_model(name, paths) for name, paths in named_runs(runs).items()]
    base = reference or models[0].name
    if base not in {m.name for m in models}:
        raise ForethoughtError(f"no model '{base}' to compare with.{nearest(base, [m.name for m in models])}")
    check_comparable(models)
    rules = load_policy(policy)
    rows: list[Row] = [
        {
            "model": r.model,
            "measure": r.measure,
            "label": r.label,
            "judge": r.judge,
            "attack": r.attack,
            **rate_columns(r.rate),
            "left out": r.left_out,
        }
        for m in models
        if any(a.reasoning for a in m.attempts)
        for r in reasoned(m.name, m.attempts, m.verdicts, rules)
    ]
    sizes: list[Row] = [
        {
            "model": x.model,
            "attack": x.attack,
            "attempts": x.tokens.n,
            **interval("tokens", x.tokens.value, x.tokens.low, x.tokens.high),
            "before the answer": x.before_answer,
            "pairs": x.more.n,
            **interval(f"more than {base}", x.more.value, x.more.low, x.more.high),
        }
        for x in longer({m.name: m.attempts for m in models}, base)
    ]
    wanted = {DIRECT, ATTACKED}
    print(
        f"Rates about thoughts, under policy '{policy}'. In brackets 95%, by prompt; then the bounds if the unscored were no, or yes."
    )
    if rows:
        print_table([r for r in rows if every or r["attack"] in wanted])
    for m in models:
        if not any(a.reasoning for a in m.attempts):
            print(f"{m.name}: no thought in any attempt, so there is nothing to say of its reasoning.")
    print("\nTokens written an attempt, thought and answer, and the share of the text that stands before the answer.")
    print_table([r for r in sizes if every or r["attack"] in wanted])
    write_csv([*rows, *sizes], csv)


def causal(
    attempts: Annotated[
        Path, typer.Argument(help="An attack run on a local model that thinks, or a finished run of this.")
    ],
    out: Beside = None,
    take: Annotated[int, typer.Option(min=1, help="Attempts an attack and label, at most.")] = 24,
    judges: Annotated[str, typer.Option(help="Judges that ask no model, separated by commas.")] = "refusal",
    max_tokens: Annotated[
        int | None, typer.Option(min=1, help="Longest answer; default: as in the attack run.")
    ] = None,
    every: Annotated[
        bool, typer.Option("--each-attack", help="Print every number for each attack; the CSV has them.")
    ] = False,
    csv: Csv = None,
    seed: Seed = 0,
    overwrite: Overwrite = False,
) -> None:
    """Whether answers follow thoughts: the thought is emptied, swapped with another prompt's, given another intent or the opposite
    decision, and the answer is written anew. Its own thought given back is the control.

    Example: `forethought analyze causal runs/attack-scot --take 12`
    """
    from forethought import stages
    from forethought.analysis.causal import ABOUT, ALL, NUMBERS, POOLED, Trial, effects
    from forethought.records import Verdict
    from forethought.run import read_run

    attempts = named_path(attempts)
    made = read_run(attempts)
    if made.info["command"] != "causal":
        where = out or attempts.with_name(f"{attempts.name}-causal")
        made = stages.causal(
            where, attempts, take=take, judges=commas(judges), max_tokens=max_tokens, seed=seed, overwrite=overwrite
        )
    for key, count in made.info["counts"].items():
        print(f"  {key}: {count}")
    found = effects(
        made.info["config"]["target"]["name"], made.read("trials.jsonl", Trial), made.read("verdicts.jsonl", Verdict)
    )
    print("The thought given instead of the model's own, and what the answer then did. In brackets 95%, by prompt.")
    for name, about in (*ABOUT.items(), *NUMBERS.items()):
        print(f"  {name}: {about}")
    rows = [row for f in found for row in _causal_rows(f)]
    print_table([r for r in rows if every or (r["attack"] == ALL and (r["label"] == ALL) == (r["number"] in POOLED))])
    write_csv(rows, csv)
    wrote(made.path, f"forethought analyze causal {made.path} --each-attack")


def _causal_rows(f: Any) -> list[Row]:
    """A row for each number that an intervention has."""
    from forethought.analysis.causal import numbers_of

    place = {"thought": f.kind, "judge": f.judge, "attack": f.attack, "label": f.label}
    return [{**place, "number": name, **_columns(found)} for name, found in numbers_of(f).items()]


def _columns(found: Any) -> Row:
    """The columns of a rate, or of a difference over pairs."""
    if hasattr(found, "hits"):
        return rate_columns(found)
    return {
        **interval("rate", found.value, found.low, found.high),
        "scored": found.n,
        "unscored": found.unscored,
        "lowest": found.lowest,
        "highest": found.highest,
    }


def rate_columns(rate: Any) -> Row:
    """The columns of a Rate."""
    return {
        **interval("rate", rate.value, rate.low, rate.high),
        "hits": rate.hits,
        "scored": rate.scored,
        "unscored": rate.unscored,
        "lowest": rate.lowest,
        "highest": rate.highest,
    }
