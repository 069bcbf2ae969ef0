"""`forethought synth`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from forethought.cli.common import (
    Columns,
    Data,
    Dtype,
    ListIt,
    Out,
    Overwrite,
    PolicyName,
    Seed,
    Take,
    Values,
    listed,
    model_config,
    read_prompts,
    wrote,
)


def synth(
    method: Annotated[str, typer.Argument(help="A line of --list, options in brackets: 'scot(template=short)'.")] = "",
    data: Data = "starter:train",
    out: Out = Path("runs/synth"),
    policy: PolicyName = "default",
    model: Annotated[str, typer.Option(help="The model to be trained; it gives the benign answers.")] = "smollm2",
    teacher: Annotated[
        str | None, typer.Option(help="The model that writes the reasoning; default: the model itself.")
    ] = None,
    dtype: Dtype = "float32",
    take: Take = None,
    column: Columns = None,
    value: Values = None,
    seed: Seed = 0,
    overwrite: Overwrite = False,
    list_: ListIt = False,
) -> None:
    """Turn prompts into training examples, with what was rejected and why.

    Example: `forethought synth scot --data starter:train --take harmful=50,benign=50 --out runs/scot-data`
    """
    from forethought.synth import SYNTHESIZERS

    if listed(list_ or not method, SYNTHESIZERS):
        return
    from forethought import stages
    from forethought.policy import load_policy

    prompts = read_prompts(data, take, column, value, seed)
    print(f"synth: {method} on {len(prompts)} prompts with {teacher or model}")
    made = stages.synth(
        out, method, prompts, load_policy(policy), model_config(model, None, dtype),
        model_config(teacher, None, dtype) if teacher else None, seed=seed, overwrite=overwrite,
    )  # fmt: skip
    for reason, count in made.info["counts"].items():
        print(f"  {reason}: {count}")
    wrote(made.path, f"head {made.path}/examples.jsonl")
