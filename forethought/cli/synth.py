"""`forethought synth`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from forethought.cli.common import (
    BudgetOf,
    Columns,
    Concurrency,
    Data,
    Dtype,
    ListIt,
    Out,
    Overwrite,
    PolicyName,
    Seed,
    Take,
    Values,
    commas,
    listed,
    model_config,
    read_budget,
    read_prompts,
    wrote,
)
from forethought.errors import ForethoughtError


def synth(
    method: Annotated[
        list[str] | None,
        typer.Argument(help="A line of --list, options in brackets: 'scot(template=short)'. Or: import FORM PATH."),
    ] = None,
    data: Data = "starter:train",
    out: Out = Path("runs/synth"),
    policy: PolicyName = "default",
    model: Annotated[str, typer.Option(help="The model to be trained; it gives the benign answers.")] = "smollm2",
    teacher: Annotated[
        str | None, typer.Option(help="The model that writes the reasoning; default: the model itself.")
    ] = None,
    helper: Annotated[str | None, typer.Option(help="The model that rewrites and rates; default: the teacher.")] = None,
    guard: Annotated[str | None, typer.Option(help="A model that must call every answer safe; default: none.")] = None,
    evaluation: Annotated[
        str | None, typer.Option(help="Sets never to be trained on, separated by commas: xstest:PATH,starter:test.")
    ] = None,
    drop_leaks: Annotated[
        bool, typer.Option("--drop-leaks", help="Drop prompts that match an evaluation set, instead of stopping.")
    ] = False,
    blind: Annotated[
        int, typer.Option(min=0, help="On how many prompts to ask what the teacher decides without the label.")
    ] = 0,
    label: Annotated[str | None, typer.Option(help="import: the label of rows that have none.")] = None,
    budget: BudgetOf = None,
    dtype: Dtype = "float32",
    concurrency: Concurrency = 32,
    take: Take = None,
    column: Columns = None,
    value: Values = None,
    seed: Seed = 0,
    overwrite: Overwrite = False,
    list_: ListIt = False,
) -> None:
    """Turn prompts into training examples, with what was rejected and why; or import ready ones.

    Examples: `forethought synth scot --data starter:train --take harmful=50,benign=50 --out runs/scot-data`,
    `forethought synth import star1 star1.json --evaluation harmbench:behaviors.csv --out runs/star1`
    """
    from forethought.synth import SYNTHESIZERS
    from forethought.synth.imported import FORMS

    words = method or []
    if listed(list_ or not words, SYNTHESIZERS):
        print(
            f"{'import FORM PATH':<22} examples that are ready, in a file; FORM is {', '.join(FORMS)} (docs/synthesis.md)"
        )
        return
    from forethought import stages
    from forethought.data import check_trainable, parse_data
    from forethought.policy import load_policy
    from forethought.registry import parse_spec

    rules = load_policy(policy)
    checked: dict[str, Any] = {
        "evaluation": {name: read_prompts(name, None, None, None, seed) for name in commas(evaluation or "")},
        "leaks": "drop" if drop_leaks else "stop",
        "seed": seed,
        "overwrite": overwrite,
    }
    if words[0] == "import":
        if len(words) != 3:
            raise ForethoughtError(f"write: forethought synth import FORM PATH, where FORM is {', '.join(FORMS)}.")
        print(f"import: {words[1]} from {words[2]}")
        made = stages.import_data(out, words[1], Path(words[2]), rules, label=label, target=model, **checked)  # type: ignore[arg-type]
    else:
        if len(words) > 1:
            raise ForethoughtError(
                f"one method at a time, not '{' '.join(words)}'. Put options in quotes: 'scot(tries=2)'."
            )
        for part in commas(data) or [data]:
            check_trainable(parse_data(part))
        prompts = read_prompts(data, take, column, value, seed)
        roles = {
            role: model_config(name, None, dtype, concurrency)
            for role, name in (("teacher", teacher), ("helper", helper), ("guard", guard))
            if name
        }
        print(f"synth: {words[0]} on {len(prompts)} prompts with {teacher or model}")
        entry = SYNTHESIZERS.get(parse_spec(words[0])[0])
        if teacher and entry and entry.needs != "teacher":
            print(
                "  note: this method is in the model's own words; the teacher names categories, and is the helper where none is named"
            )
        target = model_config(model, None, dtype, concurrency)
        made = stages.synth(
            out, words[0], prompts, rules, target, blind=blind, budget=read_budget(budget), **roles, **checked
        )
    _report(made)


def _report(made: Any) -> None:
    for warning in made.info.get("warnings", []):
        print(f"  warning: {warning}")
    for reason, count in made.info["counts"].items():
        print(f"  {reason}: {count}")
    for label, found in made.info.get("blind", {}).items():
        print(f"  teacher without the label, {label}: {found.get('right', 0)} of {found['n']} right")
    if made.info["counts"]["ok"]:
        wrote(made.path, f"read {made.path}/sheet.md, then: forethought train {made.path}")
    else:
        wrote(made.path, f"no row was kept, so there is nothing to train on: read why in {made.path}/rejected.jsonl")
