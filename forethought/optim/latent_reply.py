"""A reply under the worst perturbation of the request's residual stream: how far a refusal is from its opposite, inside the model.

An embedding-space or latent-space attack (Schwinn et al. 2024, arXiv 2402.09063, at layer 0; Sheshadri et al. 2024, arXiv
2407.15549, deeper).
It needs more than a user has, so it bounds from above what prompts can do; it is no text and cannot be sent.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn.functional import cross_entropy
from transformers.cache_utils import DynamicCache

from forethought.chat import encode_prompt, opens_thought, render_completion, render_prompt
from forethought.errors import AskFailed
from forethought.models.caching import with_cache
from forethought.optim.latent import at_depths, perturbed, pgd, residual_norms
from forethought.optim.suffix import MARK
from forethought.records import Found, Messages, Reply


def request_positions(tokenizer: Any, messages: Messages) -> tuple[str, list[int], list[bool]]:
    """The rendered prompt, its ids, and which of them hold words of the last turn. AskFailed (`not_applicable`) where there are none."""
    if not messages or messages[-1].role != "user" or not messages[-1].content.strip():
        raise AskFailed("not_applicable", "there is no request to perturb")
    *earlier, last = messages

    def rendered(content: str) -> str:
        return render_prompt(tokenizer, (*earlier, last.model_copy(update={"content": content})))

    prompt = rendered(last.content)
    left = len(rendered(MARK + last.content).rpartition(MARK)[0])
    right = len(prompt) - len(rendered(last.content + MARK).rpartition(MARK)[2])
    found = tokenizer(prompt, add_special_tokens=False, return_offsets_mapping=True)
    inside = [a < right and b > left for a, b in found["offset_mapping"]]
    if not any(inside):
        raise AskFailed("not_applicable", "no token of the request can be told from the template's")
    return prompt, list(found["input_ids"]), inside


def latent_reply(
    model: Any,
    tokenizer: Any,
    messages: Messages,
    target: str,
    *,
    depths: Sequence[float],
    epsilon: float,
    steps: int,
    step_size: float,
    max_tokens: int,
    stops: frozenset[int],
    seed: int = 0,
    empty_thought: bool = False,
) -> Found:
    """PGD at the request's positions towards `target`, then the greedy reply under what was found, in `Found.reply`.

    `epsilon` is a share of the median norm of the residual stream at each depth, `step_size` a share of epsilon.
    """
    prompt, ids, inside = request_positions(tokenizer, messages)
    wanted = encode_prompt(tokenizer, render_completion(prompt, "" if empty_thought else None, target, ""))
    device = model.device
    inputs = {
        "input_ids": torch.tensor([ids + wanted[:-1]], device=device),
        "logits_to_keep": len(wanted),
        "use_cache": False,
    }
    mask = torch.tensor([inside + [False] * (len(wanted) - 1)])
    answer = torch.tensor([wanted], device=device)

    def likelihood(out: Any) -> torch.Tensor:
        return -cross_entropy(out.logits.float().transpose(1, 2), answer)

    layers = at_depths(model, depths)
    radius = [epsilon * norm for norm in residual_norms(model, inputs, layers, mask)]
    generator = torch.Generator().manual_seed(seed)
    deltas = pgd(model, inputs, likelihood, layers, mask, radius, steps, step_size, generator)
    with torch.no_grad(), perturbed(model, layers, deltas):
        out = model(**inputs)
    said, ended = _greedy(model, ids, layers, deltas[:, :, : len(ids)], max_tokens, stops)
    reply = Reply(
        text=tokenizer.decode(said, skip_special_tokens=True),
        opened=opens_thought(prompt),
        stop="stop" if ended else "length",
        prompt_tokens=len(ids),
        completion_tokens=len(said),
    )
    return Found(
        text="",
        loss=-float(likelihood(out)),
        reached=bool((out.logits.argmax(-1) == answer).all()),
        steps=steps,
        queries=steps + 2,
        tokens=(steps + 2) * mask.shape[1],
        reply=reply,
    )


@torch.no_grad()
def _greedy(
    model: Any, ids: list[int], layers: Sequence[int], deltas: torch.Tensor, max_tokens: int, stops: frozenset[int]
) -> tuple[list[int], bool]:
    """Greedy ids after a prompt that is read perturbed, without the stop, and whether one ended it."""
    with perturbed(model, layers, deltas):
        prompt = torch.tensor([ids], device=model.device)
        cache = DynamicCache()
        out = model(input_ids=prompt, logits_to_keep=1, **with_cache(model, cache))
    said: list[int] = []
    while len(said) < max_tokens:
        token = int(out.logits[0, -1].argmax())
        if token in stops:
            return said, True
        said.append(token)
        now = torch.tensor([[token]], device=model.device)
        out = model(input_ids=now, **with_cache(model, cache))
    return said, False
