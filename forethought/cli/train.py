"""`forethought train` and `forethought merge`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from forethought.cli.common import Dtype, ListIt, Out, Overwrite, PolicyName, Seed, Think, listed, wrote
from forethought.errors import ForethoughtError

DryRun = Annotated[bool, typer.Option("--dry-run", help="Print rows, steps, memory and command, and do nothing.")]


def train(
    data: Annotated[Path | None, typer.Argument(help="A synthesis run.")] = None,
    overrides: Annotated[list[str] | None, typer.Argument(help="key=value changes: epochs=3 lora_rank=0 ...")] = None,
    method: Annotated[str, typer.Option(help="A line of --list, options in brackets.")] = "sft",
    model: Annotated[str, typer.Option(help="The model to train.")] = "smollm2",
    policy: PolicyName = "default",
    out: Out = Path("runs/train"),
    seed: Seed = 0,
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
    processes: Annotated[int, typer.Option(min=1, help="How many processes a dry run reckons with.")] = 1,
    list_: ListIt = False,
) -> None:
    """Make a safer model from a synthesis run, by any method of --list.

    Examples: `forethought train runs/scot-data epochs=2 --out runs/scot-model`,
    `forethought train runs/data --method "circuit_breaker(alpha=5)"`, `accelerate launch -m forethought train runs/data`
    """
    from forethought.train import METHODS

    if listed(list_ or (data is None and method != "prompt"), METHODS):
        return
    from forethought import stages
    from forethought.train.launch import is_first

    if data is not None and "=" in str(data):
        overrides, data = [str(data), *(overrides or [])], None
    config = _config(data, method, overrides or [])
    if dry_run:
        from forethought.train.plan import command, describe, shown

        examples = stages.read_examples(config)[0] if config.data else []
        if config.data and not examples:
            raise ForethoughtError(
                f"{config.data} kept no row, so there is nothing to train on: see its rejected.jsonl."
            )
        print("\n".join(describe(model, config, len(examples), processes, examples)))
        launch = "CONFIG.yaml" if processes > 1 else ""
        print(f"command: {shown(command(model, config, out, seed=seed, policy=policy, launch=launch))}")
        return
    if is_first():
        print(f"train: {config.model_dump()}")
    done = stages.train(out, model, config, policy=policy, seed=seed, overwrite=overwrite)
    if is_first():
        for key, number in done.info["metrics"].items():
            print(f"  {key}: {number}")
        wrote(done.path, f"forethought chat {done.path}")


def merge(
    run: Annotated[Path, typer.Argument(help="A training run that made an adapter.")],
    out: Out = Path("runs/merged"),
    dtype: Dtype = "float32",
    think: Think = False,
    overwrite: Overwrite = False,
) -> None:
    """Merge a run's adapter into its base: whole weights that plain transformers and servers load, and that can be trained on.

    Example: `forethought merge runs/scot-model --out runs/scot-merged`
    """
    from forethought import stages

    if dtype not in ("float32", "bfloat16"):
        raise ForethoughtError(f"dtype is float32 or bfloat16, not '{dtype}'.")
    done = stages.merge(out, str(run), dtype=dtype, think=think, overwrite=overwrite)
    wrote(done.path, f"forethought chat {done.path}")


def _config(data: Path | None, method: str, overrides: list[str]) -> Any:
    from forethought.config import TrainConfig, apply_override, validated

    raw: dict[str, Any] = {"data": str(data) if data else None, "method": method}
    for override in overrides:
        apply_override(raw, override)
    return validated(TrainConfig, raw)
