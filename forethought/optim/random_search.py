"""Random search for a suffix (Andriushchenko et al. 2024, arXiv 2404.02151, section 3): no gradients, only the log-probability of how the
reply starts.

From the paper: a short block of neighbouring tokens is replaced at random, a change is kept if the first target tokens become likelier,
blocks shrink as they do, and the search is restarted. Ours: no template around the request, several changes are tried in one forward,
candidates must survive the tokenizer, blocks shrink at the probabilities below, and a restart begins from a random suffix.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from typing import Any

import torch

from forethought.optim.gcg import OnStep
from forethought.optim.suffix import Place, allowed_tokens, first_tokens, found, losses, read_prefix, surviving
from forethought.records import Found

# Up to this loss of the first tokens (nats), change so many neighbouring tokens at once.
BLOCKS = ((0.7, 1), (2.3, 2), (float("inf"), 4))
TRIES = 64


def random_search(
    model: Any,
    tokenizer: Any,
    place: Place,
    *,
    steps: int = 200,
    candidates: int = 16,
    restarts: int = 2,
    first: int = 1,
    enough: float = 0.0,
    batch: int = 64,
    seed: int = 0,
    on_step: OnStep | None = None,
) -> Found:
    """Search from `place.start` for a suffix that makes the `first` tokens of the target likely; `restarts` more starts share `steps`.

    Ends early when these tokens are the greedy ones, or their mean loss is at most `enough`. Returns the best over all starts; on one
    machine and thread count the same seed gives the same suffix.
    """
    place = first_tokens(place, first)
    prefix = read_prefix(model, place)
    generator = torch.Generator().manual_seed(seed)
    tokens = allowed_tokens(tokenizer, model.get_input_embeddings().weight.shape[0]).nonzero().squeeze(1)
    evaluate = partial(losses, model, place, prefix, batch=batch)
    best, best_loss, reached, queries, curve = torch.tensor(place.start), float("inf"), False, 0, []
    share = -(-steps // (restarts + 1))
    for begin in range(0, steps, share):
        now = _random_suffix(tokenizer, place, tokens, generator) if begin else best
        path = _climb(evaluate, tokenizer, place, now, tokens, candidates, generator)
        for taken, (suffix, loss, hit, tried) in enumerate(islice(path, min(share, steps - begin) + 1)):
            queries += tried
            if hit or loss < best_loss:
                best, best_loss, reached = suffix, loss, hit
            if taken or not begin:
                curve.append(best_loss)
            if taken and on_step:
                on_step(begin + taken, best_loss)
            if reached or best_loss <= enough:
                return found(tokenizer, place, prefix, best, reached, curve, queries)
    return found(tokenizer, place, prefix, best, reached, curve, queries)


def _climb(
    evaluate: Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]],
    tokenizer: Any,
    place: Place,
    now: torch.Tensor,
    tokens: torch.Tensor,
    candidates: int,
    generator: torch.Generator,
) -> Iterator[tuple[torch.Tensor, float, bool, int]]:
    """Suffix, its loss, whether it reaches the target, and sequences run: at the start `now`, and after each step, without end."""
    loss, hit = evaluate(now[None])
    now_loss, hit_now, tried = float(loss), bool(hit), 1
    while True:
        yield now, now_loss, hit_now, tried
        drawn = change(now, tokens, now_loss, candidates, generator)
        drawn = drawn[[i for i, text in enumerate(surviving(tokenizer, place, drawn)) if text is not None]]
        tried = len(drawn)
        if tried:
            loss, hit = evaluate(drawn)
            at = int((loss - hit.float() * 1e6).argmin())
            if bool(hit[at]) or float(loss[at]) < now_loss:
                now, now_loss, hit_now = drawn[at], float(loss[at]), bool(hit[at])


def change(
    suffix: torch.Tensor, tokens: torch.Tensor, loss: float, count: int, generator: torch.Generator
) -> torch.Tensor:
    """`count` candidates [count, length]: a block of neighbouring tokens of `suffix` replaced by draws from `tokens`."""
    block = min(next(size for limit, size in BLOCKS if loss <= limit), len(suffix))
    rows = suffix.repeat(count, 1)
    where = torch.randint(len(suffix) - block + 1, (count, 1), generator=generator) + torch.arange(block)
    drawn = tokens[torch.randint(len(tokens), (count, block), generator=generator)]
    return rows.scatter(1, where, drawn)


def _random_suffix(tokenizer: Any, place: Place, tokens: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """A random suffix that survives the tokenizer: `place.start` with its tokens redrawn one after the other where that survives."""
    now = torch.tensor(place.start)
    for i in range(len(now)):
        rows = now.repeat(TRIES, 1)
        rows[:, i] = tokens[torch.randint(len(tokens), (TRIES,), generator=generator)]
        alive = [n for n, text in enumerate(surviving(tokenizer, place, rows)) if text is not None]
        now = rows[alive[0]] if alive else now
    return now
