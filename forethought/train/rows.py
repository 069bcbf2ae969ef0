"""Which rows a method learns from: what is held out, and which rows stand beside each other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeVar

from forethought.config import TrainConfig
from forethought.errors import ForethoughtError
from forethought.flow import generator_for
from forethought.records import Example, digest

# Why DPO and circuit breakers cannot train all weights.
COMPARES = "compares with the original model, which is the trained one with its adapter off. Set lora_rank above 0."
A = TypeVar("A")
B = TypeVar("B")


def hold_out(examples: list[Example], share: float) -> tuple[list[Example], list[Example]]:
    """(training, validation) rows; whole topics are held out, so that look-alikes stay together."""

    def held(example: Example) -> bool:
        return int(digest(example.prompt.topic or example.prompt.base, length=8), 16) / 16**8 < share

    return [e for e in examples if not held(e)], [e for e in examples if held(e)]


def by_decision(examples: Sequence[Example], method: str) -> tuple[list[Example], list[Example]]:
    """(rows to be refused, all others). ForethoughtError where one side is empty."""
    refused = [e for e in examples if e.decision == "refuse"]
    others = [e for e in examples if e.decision != "refuse"]
    if not refused or not others:
        raise ForethoughtError(
            f"{method} needs rows that refuse and rows that do not: there are {len(refused)} and {len(others)}. "
            "Synthesize from harmful and benign prompts."
        )
    return refused, others


def decision_at(example: Example) -> int | None:
    """Where the (stripped) thought states its decision; None where it does not. The words with which the answer begins are decisive too,
    and may stand in the request that the thought restates."""
    thought = (example.reasoning or "").strip()
    found = [thought.find(text) for text in example.decisive if not example.answer.startswith(text)]
    return min((at for at in found if at >= 0), default=None)


def side_by_side(first: Sequence[A], second: Sequence[B], seed: int) -> list[tuple[A, B]]:
    """Pairs of both, each side in an order drawn by `seed`; the shorter side is repeated.
    ForethoughtError where one side is empty."""
    if not first or not second:
        raise ForethoughtError(
            "no row is left on one side of the pairs: all are longer than max_length. Raise max_length."
        )
    rng = generator_for(seed, "pairs")
    one, two = (rng.sample(range(len(side)), len(side)) for side in (first, second))
    return [(first[one[i % len(one)]], second[two[i % len(two)]]) for i in range(max(len(one), len(two)))]


def per_forward(config: TrainConfig, width: int, processes: int) -> int:
    """How many elements of `width` rows one process reads at once: a divisor of its share of the batch."""
    if config.batch_size % processes:
        raise ForethoughtError(
            f"batch_size={config.batch_size} cannot be shared by {processes} processes. Take a multiple of {processes}."
        )
    share = config.batch_size // processes
    return max(n for n in range(1, max(1, config.rows_per_forward // width) + 1) if share % n == 0)


def count_steps(elements: int, config: TrainConfig) -> int:
    """Optimizer steps on `elements` rows (or pairs)."""
    return config.steps or max(1, math.ceil(math.ceil(elements / config.batch_size) * config.epochs))


def no_training() -> dict[str, Any]:
    """The metrics of a run that took no step."""
    counts = dict.fromkeys(("rows", "used", "spare", "held_out", "steps", "trained_tokens"), 0)
    return {**counts, "seconds": 0.0, **dict.fromkeys(("train_loss", "final_loss", "validation_loss"))}
