"""A suffix found by random search, without gradients (Andriushchenko et al. 2024, arXiv 2404.02151). The search is in
`optim/random_search.py`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from forethought.attacks import Attack
from forethought.attacks.suffixes import suffix_attack
from forethought.errors import ForethoughtError
from forethought.records import Found


def random_search(
    steps: int = 200,
    candidates: int = 16,
    restarts: int = 2,
    first: int = 1,
    length: int = 20,
    enough: float = 0.0,
    target: str | None = None,
    empty_thought: bool = False,
) -> Attack:
    """Blocks of the suffix are redrawn, `candidates` at a time, and kept where the `first` tokens of `target` become likelier, for up to
    `steps` steps shared by `restarts` + 1 starts; ends as soon as these tokens are the greedy ones or their loss is at most `enough`.

    Without `target` it is made from the request; `empty_thought` as in `gcg`. (The paper: 10,000 steps of one candidate.)
    """
    if min(steps, candidates, first, length) < 1 or restarts < 0:
        raise ForethoughtError(
            "random_search needs steps, candidates, first and length of at least 1, restarts of at least 0."
        )

    def look(model: Any, tokenizer: Any, place: Any, seed: int, on_step: Callable[[int, float], None]) -> Found:
        from forethought.optim.random_search import random_search as search

        return search(
            model, tokenizer, place, steps=steps, candidates=candidates, restarts=restarts, first=first, enough=enough,
            seed=seed, on_step=on_step,
        )  # fmt: skip

    name = f"random_search({steps}, {candidates}, {restarts}, {first}, {length}, {enough}, {empty_thought}, 2)"
    return suffix_attack(name, look, steps, length, target, empty_thought)
