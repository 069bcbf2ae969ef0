"""`forethought chat`."""

from __future__ import annotations

from typing import Annotated

import typer

from forethought.cli.common import Dtype, System, model_config


def chat(
    model: Annotated[str, typer.Argument(help="A training run, or any model.")],
    system: System = None,
    dtype: Dtype = "float32",
    max_tokens: Annotated[int, typer.Option(min=1, help="Longest reply, in tokens.")] = 256,
) -> None:
    """Talk to a model and see its reasoning. An empty line or Ctrl-D ends.

    Example: `forethought chat runs/quickstart/train/scot`
    """
    from forethought.talk import talk

    talk(model_config(model, system, dtype), max_tokens)
