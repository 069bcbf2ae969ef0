"""Random search for a suffix (Andriushchenko et al. 2024, arXiv 2404.02151, section 3): no gradients, only the log-probability of how the
reply starts.

From the paper: a short block of neighbouring tokens is replaced at random, a change is kept if the first target tokens become likelier,
blocks shrink as they do, and the search is restarted. Ours: no template around the request, several changes are tried in one forward,
candidates must survive the tokenizer, blocks shrink at the probabilities below, and a restart begins from a random suffix.
"""

from __future__ import annotations

from typing import Any

import torch

from forethought.optim.gcg import OnStep
from forethought.optim.suffix import Place, allowed_tokens, first_tokens, losses, read_prefix, surviving, width
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
    best, best_loss, reached = torch.tensor(place.start), float("inf"), False
    queries, done, curve = 0, 0, []
    each_start = -(-steps // (restarts + 1))
    while done < steps and not reached and best_loss > enough:
        now = best if not done else _random_suffix(tokenizer, place, tokens, generator)
        loss, hit = losses(model, place, prefix, now[None])
        now_loss, hit_now, queries = float(loss), bool(hit), queries + 1
        end = min(steps, done + each_start)
        while True:
            if hit_now or now_loss < best_loss:
                best, best_loss, reached = now, now_loss, hit_now
            curve.append(best_loss)
            if done >= end or reached or best_loss <= enough:
                break
            drawn = change(now, tokens, now_loss, candidates, generator)
            alive = [i for i, text in enumerate(surviving(tokenizer, place, drawn)) if text is not None]
            done += 1
            if alive:
                loss, hit = losses(model, place, prefix, drawn[alive], batch)
                queries += len(alive)
                at = int((loss - hit.float() * 1e6).argmin())
                if bool(hit[at]) or float(loss[at]) < now_loss:
                    now, now_loss, hit_now = drawn[alive][at], float(loss[at]), bool(hit[at])
            if on_step:
                on_step(done, min(best_loss, now_loss))
    (text,) = surviving(tokenizer, place, best[None])
    assert text is not None, "the search goes through surviving suffixes only"
    read = queries * width(place, prefix) + len(place.before)
    return Found(
        text=text, loss=best_loss, reached=reached, steps=done, queries=queries, tokens=read, losses=tuple(curve)
    )


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
