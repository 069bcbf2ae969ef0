"""What losses read from a model: log-probabilities of trained tokens, and hidden states."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn.functional import cross_entropy

IGNORED = -100


def trained_columns(labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(columns whose logits predict a trained token of some row, the targets there [rows, columns])."""
    columns = (labels[:, 1:] != IGNORED).any(0).nonzero().squeeze(1)
    return columns, labels[:, columns + 1]


def nats_a_token(model: Any, ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy of the trained tokens."""
    columns, targets = trained_columns(labels)
    logits = model(input_ids=ids, logits_to_keep=columns, use_cache=False).logits
    return cross_entropy(logits.float().flatten(0, 1), targets.flatten(), ignore_index=IGNORED)


def logprobs_of(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """log p of each target [rows, columns]; 0 where none is trained."""
    found = logits.float().log_softmax(-1).gather(-1, targets.clamp(min=0).unsqueeze(-1)).squeeze(-1)
    return found * (targets != IGNORED)


def token_logprobs(model: Any, ids: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(log p of each trained token, whether it is trained), both [rows, trained columns]; 0 where it is not.

    Padding is on the right, so causal attention alone keeps it from every trained token: no mask is needed.
    """
    columns, targets = trained_columns(labels)
    logits = model(input_ids=ids, logits_to_keep=columns, use_cache=False).logits
    return logprobs_of(logits, targets), targets != IGNORED


def hidden(model: Any, ids: torch.Tensor, layers: Sequence[int]) -> torch.Tensor:
    """Residual stream after the first `l` blocks for each l in `layers`: [layers, rows, columns, width]. Right padding needs no mask."""
    states = model(input_ids=ids, output_hidden_states=True, logits_to_keep=1, use_cache=False).hidden_states
    return torch.stack([states[layer] for layer in layers]).float()


def mean_logprob(logprobs: torch.Tensor, on: torch.Tensor) -> torch.Tensor:
    """Mean over the tokens that are `on`."""
    return (logprobs * on).sum() / on.sum().clamp(min=1)


def unlikely(logprobs: torch.Tensor, on: torch.Tensor) -> torch.Tensor:
    """Mean of -log(1 - p) over the tokens that are `on`: the loss that drives a completion away (arXiv 2402.04249, 2407.15549)."""
    return -((1 - logprobs.exp()).clamp(min=1e-6).log() * on).sum() / on.sum().clamp(min=1)


def adversarial_terms(logprobs: torch.Tensor, on: torch.Tensor) -> dict[str, torch.Tensor]:
    """Losses on rows that stand as refusals under attack, harmful completions under attack, other rows: towards the first, away from
    the second, and towards the third, each a mean over its tokens."""
    refusals, harmful, others = zip(logprobs.chunk(3), on.chunk(3), strict=True)
    return {"toward": -mean_logprob(*refusals), "away": unlikely(*harmful), "keep": -mean_logprob(*others)}
