"""GCG: a suffix found by the gradient of a wanted reply (Zou et al. 2023, arXiv 2307.15043). The search is in `optim/gcg.py`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from forethought.attacks import Attack
from forethought.attacks.suffixes import suffix_attack
from forethought.errors import ForethoughtError
from forethought.records import Found


def gcg(
    steps: int = 100,
    candidates: int = 64,
    topk: int = 64,
    length: int = 20,
    enough: float = 0.0,
    target: str | None = None,
    empty_thought: bool = False,
    max_tokens: int | None = None,
) -> Attack:
    """A suffix of `length` exclamation marks, changed token by token for up to `steps` steps of `candidates` candidates, drawn among the
    `topk` best tokens a place, until the greedy reply starts with `target` or its loss is at most `enough` (nats a token).

    Without `target` it is made from the request. `empty_thought` wants it after a thought without words, which makes a reasoning model
    skip its thought. `max_tokens` caps the tokens that one search may read. (The paper: 500 steps of 512 candidates, topk 256.)
    """
    if min(steps, candidates, topk, length) < 1:
        raise ForethoughtError("gcg needs steps, candidates, topk and length of at least 1.")

    def look(model: Any, tokenizer: Any, place: Any, seed: int, on_step: Callable[[int, float], None]) -> Found:
        from forethought.optim.gcg import gcg as search

        return search(
            model, tokenizer, place, steps=steps, candidates=candidates, topk=topk, enough=enough, max_tokens=max_tokens,
            seed=seed, on_step=on_step,
        )  # fmt: skip

    name = f"gcg({steps}, {candidates}, {topk}, {length}, {enough}, {empty_thought}, {max_tokens})"
    return suffix_attack(name, look, steps, length, target, empty_thought)
