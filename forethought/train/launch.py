"""Processes that `accelerate launch` starts: all train, the first alone writes."""

from __future__ import annotations

import os
from datetime import timedelta


def processes() -> int:
    """How many processes train together; 1 without a launcher."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first() -> bool:
    """Whether this process is the one that writes."""
    return int(os.environ.get("RANK", "0")) == 0


def sharded() -> bool:
    """Whether the launcher splits weights between processes (FSDP, DeepSpeed)."""
    return any(os.environ.get(f"ACCELERATE_USE_{engine}", "false") == "true" for engine in ("FSDP", "DEEPSPEED"))


def wait() -> None:
    """Wait until every process is here."""
    if processes() > 1:
        import torch
        from accelerate import PartialState

        # The others wait while the first writes what is to be trained against: by default they would give up after ten minutes.
        PartialState(cpu=not torch.cuda.is_available(), timeout=timedelta(days=2)).wait_for_everyone()
