"""Greedy coordinate gradient (Zou et al. 2023, arXiv 2307.15043, section 2.2, algorithm 1): a suffix after which a reply begins as wanted.

Each step takes the gradient of the target's loss at the suffix's tokens, draws candidates that differ in one token among the `topk`
most promising of a place, and goes on with the best of them. From later practice: the part before the suffix is read once,
candidates must survive the tokenizer, and the search ends as soon as the greedy reply starts with the target.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from forethought.optim.suffix import (
    Place,
    Prefix,
    allowed_tokens,
    found,
    losses,
    read_prefix,
    surviving,
    token_gradients,
    width,
)
from forethought.records import Found

OnStep = Callable[[int, float], None]


def gcg(
    model: Any,
    tokenizer: Any,
    place: Place,
    *,
    steps: int = 100,
    candidates: int = 64,
    topk: int = 64,
    enough: float = 0.0,
    max_tokens: int | None = None,
    batch: int = 64,
    seed: int = 0,
    on_step: OnStep | None = None,
) -> Found:
    """Search from `place.start`; returns the best suffix and what it cost. `on_step(step, best loss)` is called after each step.

    Ends after `steps`, or when the greedy reply starts with the whole target, or when the loss (nats a target token) is at most
    `enough`, or before a step that would go beyond `max_tokens` forward tokens. On one machine and thread count the same seed gives
    the same suffix.
    """
    prefix = read_prefix(model, place)
    generator = torch.Generator().manual_seed(seed)
    allowed = allowed_tokens(tokenizer, model.get_input_embeddings().weight.shape[0])
    each = width(place, prefix)
    now = torch.tensor(place.start)
    loss, hit = losses(model, place, prefix, now[None])
    best, best_loss, reached = now, float(loss), bool(hit)
    queries, curve = 1, [best_loss]
    while len(curve) <= steps and not reached and best_loss > enough:
        if max_tokens is not None and (queries + 1 + candidates) * each > max_tokens:
            break
        now, now_loss, hit_now, tried = gcg_step(
            model, tokenizer, place, prefix, now, allowed, generator, candidates=candidates, topk=topk, batch=batch
        )
        queries += tried
        if hit_now or now_loss < best_loss:
            best, best_loss, reached = now, now_loss, hit_now
        curve.append(best_loss)
        if on_step:
            on_step(len(curve) - 1, best_loss)
    return found(tokenizer, place, prefix, best, reached, curve, queries)


def gcg_step(
    model: Any,
    tokenizer: Any,
    place: Place,
    prefix: Prefix,
    suffix: torch.Tensor,
    allowed: torch.Tensor,
    generator: torch.Generator,
    *,
    candidates: int = 64,
    topk: int = 64,
    batch: int = 64,
) -> tuple[torch.Tensor, float, bool, int]:
    """One step from `suffix` [length]: the best candidate, its loss, whether it reaches the target, and how many sequences were run.

    As in the paper the best candidate is taken even where it is worse than `suffix`; one that reaches the target wins over all. Where no
    candidate survives the tokenizer, `suffix` stays, with its loss. For R2D2's pool, call it with a `prefix` read from the current weights.
    """
    slope = token_gradients(model, place, prefix, suffix)
    drawn = propose(slope, suffix, allowed, candidates, topk, generator)
    texts = surviving(tokenizer, place, drawn)
    kept = drawn[[i for i, text in enumerate(texts) if text is not None]]
    if not len(kept):
        kept = suffix[None]
    loss, hit = losses(model, place, prefix, kept, batch)
    first = int((loss - hit.float() * 1e6).argmin())
    return kept[first], float(loss[first]), bool(hit[first]), len(kept) + 1


def propose(
    slope: torch.Tensor, suffix: torch.Tensor, allowed: torch.Tensor, count: int, topk: int, generator: torch.Generator
) -> torch.Tensor:
    """At most `count` different candidates [n, length]: one token of `suffix` replaced by a draw among the `topk` allowed ones that
    promise to lower the loss most there."""
    score = slope.cpu().masked_fill(~allowed, torch.inf)
    score[torch.arange(len(suffix)), suffix] = torch.inf
    best = score.topk(min(topk, int(allowed.sum()) - 1), largest=False).indices
    where = torch.randint(len(suffix), (count,), generator=generator)
    which = torch.randint(best.shape[1], (count,), generator=generator)
    rows = suffix.repeat(count, 1)
    rows[torch.arange(count), where] = best[where, which]
    different: torch.Tensor = torch.unique(rows, dim=0)
    return different
