"""`forethought attack`."""

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
    Seed,
    System,
    Take,
    Values,
    commas,
    listed,
    model_config,
    read_prompts,
    wrote,
)


def attack(
    target: Annotated[str, typer.Argument(help="A model, or a training run.")] = "",
    attacks: Annotated[str, typer.Option(help="Lines of --list, separated by commas.")] = "direct",
    data: Data = "starter:test",
    out: Out = Path("runs/attack"),
    take: Take = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="Longest reply, in tokens.")] = 128,
    temperature: Annotated[float, typer.Option(min=0, help="0 is greedy.")] = 0.0,
    system: System = None,
    dtype: Dtype = "float32",
    column: Columns = None,
    value: Values = None,
    seed: Seed = 0,
    overwrite: Overwrite = False,
    list_: ListIt = False,
) -> None:
    """Send prompts, attacked and direct, to a model, harmful and benign alike.

    Example: `forethought attack runs/scot-model --attacks direct,persona,style_json --out runs/attack-scot`
    """
    from forethought.attacks import ATTACKS

    if listed(list_ or not target, ATTACKS):
        return
    from forethought import stages
    from forethought.config import AttackConfig
    from forethought.records import Sampling

    prompts = read_prompts(data, take, column, value, seed, few="harmful=24,benign=24,borderline=32,sensitive=16")
    sampling = Sampling(temperature=temperature, max_tokens=max_tokens)
    # Over-refusal is measured on direct requests, and safety is never shown without it.
    chosen = tuple(dict.fromkeys(("direct", *commas(attacks))))
    config = AttackConfig(attacks=chosen, sampling=sampling, prompts=data)
    print(f"attack: {len(config.attacks)} attacks on {len(prompts)} prompts against {target}")
    tried = stages.attack(out, model_config(target, system, dtype), prompts, config, seed=seed, overwrite=overwrite)
    for key, number in tried.info["counts"].items():
        print(f"  {key}: {number}")
    wrote(tried.path, f"forethought judge {tried.path}")
