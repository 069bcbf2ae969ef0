"""`forethought attack`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

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
    Seed,
    System,
    Think,
    Values,
    commas,
    listed,
    model_config,
    pairs,
    read_budget,
    read_prompts,
    wrote,
)
from forethought.errors import ForethoughtError

FEW = "harmful=24,benign=24,borderline=32,sensitive=16"


def attack(
    target: Annotated[str, typer.Argument(help="A model, or a training run.")] = "",
    attacks: Annotated[
        str | None, typer.Option(help="Lines of --list, separated by commas; direct requests are always sent too.")
    ] = None,
    data: Data = "starter:test",
    out: Out = Path("runs/attack"),
    take: Annotated[
        str | None,
        typer.Option(
            help=f"How many per label, drawn by hash: harmful=20,benign=20. Of starter:test, by default {FEW}."
        ),
    ] = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="Longest reply, in tokens.")] = 128,
    temperature: Annotated[float, typer.Option(min=0, help="0 is greedy.")] = 0.0,
    samples: Annotated[
        int, typer.Option(min=1, help="Replies drawn to everything sent; more than one needs a temperature.")
    ] = 1,
    few: Annotated[
        str | None,
        typer.Option(help="Attacks made on so many prompts of each label only: pair=20,tap=20 (keys as in --attacks)."),
    ] = None,
    attacker: Annotated[
        str | None, typer.Option(help="The model behind attacks that need one; 'target' is the target itself.")
    ] = None,
    helper: Annotated[
        str | None, typer.Option(help="The model that grades inside attacks; default: the attacker.")
    ] = None,
    import_: Annotated[
        Path | None,
        typer.Option(
            "--import", help="Attempts that another tool made, instead of asking the target (docs/attacks.md)."
        ),
    ] = None,
    goals: Annotated[
        Path | None, typer.Option(help="With --import of HarmBench completions: the file of its behaviors.")
    ] = None,
    system: System = None,
    think: Think = False,
    trained: Annotated[
        Path | None, typer.Option(help="The training run that a served or merged target comes from, for the report.")
    ] = None,
    budget: BudgetOf = None,
    dtype: Dtype = "float32",
    concurrency: Concurrency = 32,
    column: Columns = None,
    value: Values = None,
    seed: Seed = 0,
    overwrite: Overwrite = False,
    list_: ListIt = False,
) -> None:
    """Send prompts, attacked and direct, to a model, harmful and benign alike.

    Example: `forethought attack runs/scot-model --attacks direct,persona,style_json --out runs/attack-scot`
    """
    from forethought.attacks import ATTACKS, cost_of

    if listed(list_ or not (target or import_), ATTACKS, cost_of):
        return
    from forethought import stages

    if import_:
        of_asking = {
            "few": few,
            "budget": budget,
            "take": take,
            "attacker": attacker,
            "helper": helper,
            "system": system,
        }
        if unheeded := [option for option, given in of_asking.items() if given]:
            raise ForethoughtError(f"--import asks no model: leave --{unheeded[0]} out.")
        imported(import_, target or "imported", attacks or "imported", value, goals, trained, out, seed, overwrite)
        return
    from forethought.attacks import may_ask
    from forethought.config import AttackConfig, validated
    from forethought.records import Sampling

    prompts = read_prompts(data, take, column, value, seed, few=FEW)
    sampling = Sampling(temperature=temperature, max_tokens=max_tokens)
    # Over-refusal is measured on direct requests, and safety is never shown without it.
    chosen = tuple(dict.fromkeys(("direct", *commas(attacks or ""))))
    if samples > 1 and not temperature:
        raise ForethoughtError(f"--samples {samples} at temperature 0 are one reply. Add --temperature 1.")
    settings = {
        "attacks": chosen,
        "sampling": sampling,
        "prompts": data,
        "attacker": attacker,
        "helper": helper,
        "samples": samples,
        "few": pairs(commas(few or "")),
        "budget": read_budget(budget),
    }
    config = validated(AttackConfig, settings, "attack")
    asked = attacker and any(may_ask(spec, "attacker") for spec in chosen)
    by = f", with {attacker} as attacker" if asked else ""
    print(f"attack: {len(config.attacks)} attacks on {len(prompts)} prompts{config.on_few} against {target}{by}")
    roles = {
        role: model_config(name, None, dtype, concurrency)
        for role, name in (("attacker", attacker), ("helper", helper))
        if name
    }
    tried = stages.attack(
        out,
        model_config(target, system, dtype, concurrency, think, trained),
        prompts,
        config,
        **roles,
        seed=seed,
        overwrite=overwrite,
    )
    for key, number in tried.info["counts"].items():
        print(f"  {key}: {number}")
    wrote(tried.path, f"forethought judge {tried.path}")


def imported(
    path: Path,
    target: str,
    attacks: str,
    value: list[str] | None,
    goals: Path | None,
    trained: Path | None,
    out: Path,
    seed: int,
    overwrite: bool,
) -> None:
    """Attempts of another tool as an attack run; --attacks and --value label=... hold for rows that do not say."""
    from forethought import stages

    given = pairs(value or [])
    if unknown := [key for key in given if key != "label"]:
        raise ForethoughtError(f"--import takes --value label=LABEL alone, not '{unknown[0]}'.")
    made = stages.import_attempts(
        out, path, target, attack=attacks, goals=goals, trained=trained, seed=seed, overwrite=overwrite, **given
    )
    print(
        f"import: {made.info['counts']['planned']} attempts on {target}, {made.info['counts']['failed']} of them failed"
    )
    if without := made.info["without_goal"]:
        print(f"  {without} have no goal: judges take what was sent for the request, jailbreak and all")
    wrote(made.path, f"forethought judge {made.path}")
