"""`forethought train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from forethought.cli.common import ListIt, Out, Overwrite, Seed, listed, wrote
from forethought.errors import ForethoughtError


def train(
    data: Annotated[Path | None, typer.Argument(help="A synthesis run.")] = None,
    overrides: Annotated[list[str] | None, typer.Argument(help="key=value changes: epochs=3 lora_rank=0 ...")] = None,
    method: Annotated[str, typer.Option(help="A line of --list.")] = "sft",
    model: Annotated[str, typer.Option(help="The model to train.")] = "smollm2",
    out: Out = Path("runs/train"),
    seed: Seed = 0,
    overwrite: Overwrite = False,
    list_: ListIt = False,
) -> None:
    """Fine-tune a model on a synthesis run.

    Example: `forethought train runs/scot-data epochs=2 --out runs/scot-model`
    """
    from forethought.train import METHODS

    if listed(list_ or data is None, METHODS):
        return
    from pydantic import ValidationError

    from forethought import stages
    from forethought.config import TrainConfig, apply_override, describe_validation

    raw: dict[str, Any] = {"data": str(data), "method": method}
    for override in overrides or []:
        apply_override(raw, override)
    try:
        config = TrainConfig.model_validate(raw)
    except ValidationError as error:
        raise ForethoughtError(describe_validation(error, TrainConfig)) from error
    print(f"train: {config.model_dump()}")
    done = stages.train(out, model, config, seed=seed, overwrite=overwrite)
    for key, number in done.info["metrics"].items():
        print(f"  {key}: {number}")
    wrote(done.path, f"forethought chat {done.path}")
