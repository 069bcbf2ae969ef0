"""Long runs: progress, what stops them with one line, and which checkpoint is whole."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from forethought.errors import ForethoughtError, is_out_of_memory
from forethought.models.heap import give_back
from forethought.progress import Progress
from forethought.train.launch import is_first, wait


class Watch(TrainerCallback):
    """Shows progress, and stops on a loss that is not finite."""

    def __init__(self) -> None:
        self.bar: Progress | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if is_first():
            self.bar = Progress("train", state.max_steps, "steps", state.global_step)

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        logs = kwargs.get("logs") or {}
        if "loss" not in logs:
            return
        if not math.isfinite(logs["loss"]) or not math.isfinite(logs.get("grad_norm", 0.0)):
            raise ForethoughtError(
                f"the loss is not finite at step {state.global_step}. Lower learning_rate; "
                f"the last checkpoint is kept in {args.output_dir}."
            )
        if self.bar is not None:
            self.bar.advance(state.global_step - self.bar.done, f"loss {logs['loss']:.3f}")

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        give_back()

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self.bar is not None:
            self.bar.end()


@contextmanager
def explain_memory(folder: Path) -> Iterator[None]:
    """Memory that runs out, on a GPU or on the machine, becomes one clear line."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise ForethoughtError(
            "out of memory. Lower rows_per_forward (a step's batch_size stays the same) or max_length, or set "
            f"gradient_checkpointing=true; the last checkpoint is kept in {folder}."
        ) from error


def last_whole_checkpoint(folder: Path) -> str | None:
    """The newest checkpoint that was written completely; newer torn ones, which a kill leaves, are removed."""
    found = sorted(folder.glob("checkpoint-*"), key=lambda p: int(p.name.rpartition("-")[2]), reverse=True)
    whole = next((path for path in found if _is_whole(path)), None)
    wait()
    if is_first():
        for path in found[: found.index(whole) if whole else None]:
            shutil.rmtree(path)
    wait()
    return str(whole) if whole else None


def _is_whole(path: Path) -> bool:
    """The Trainer writes its state last; weights and optimizer of one that is not sharded are opened as well."""
    try:
        json.loads((path / "trainer_state.json").read_text(encoding="utf-8"))
        if any(path.glob("global_step*")) or any(path.glob("*_fsdp*")) or any(path.glob("optimizer_*")):
            return True
        torch.load(path / "optimizer.pt", map_location="cpu", weights_only=True)
    except (OSError, ValueError, RuntimeError, EOFError, UnpicklingError):
        return False
    parts = (path.glob("*.safetensors"), path.glob("rng_state*.pth"))
    return (path / "scheduler.pt").exists() and all(any(part) for part in parts)
