"""Perturbations of the residual stream, and the projected gradient search for the worst one.

The inner step of latent adversarial training (Sheshadri et al. 2024, arXiv 2407.15549, section 3: an L2 ball at every position of
the prompt, at chosen layers). There the step is Adam's; here it is plain L2 PGD (Madry et al. 2017, arXiv 1706.06083): a step
along the gradient's direction at each position, then back into the ball.

Layer `l` is the residual stream that enters decoder block `l`, so 0 is the embeddings. `deltas` is one float32 tensor
[layers, rows, width, hidden], rows 1 where all rows share one perturbation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn

from forethought.errors import ForethoughtError

LossOf = Callable[[Any], torch.Tensor]


def decoder_blocks(model: nn.Module) -> list[nn.Module]:
    """The decoder blocks of a causal model, in order, however deeply peft or a wrapper has nested them."""
    wanted = _config(model).num_hidden_layers
    for name, module in model.named_modules():
        if (
            isinstance(module, nn.ModuleList)
            and len(module) == wanted
            and not any(part in name for part in ("vision", "audio"))
        ):
            return list(module)
    raise ForethoughtError(
        f"{type(model).__name__} has no list of {wanted} decoder blocks, so its layers cannot be perturbed."
    )


def at_depths(model: nn.Module, shares: Sequence[float]) -> tuple[int, ...]:
    """Layer numbers at shares of the model's depth: of 30 blocks, (1/3, 2/3) are (10, 20); 0 is the embeddings and 1 the last block."""
    count = len(decoder_blocks(model))
    if not shares or any(not 0 <= share <= 1 for share in shares):
        raise ForethoughtError(f"depths are shares between 0 and 1, such as (1/3, 2/3), not {tuple(shares)}.")
    return tuple(dict.fromkeys(min(round(share * count), count - 1) for share in shares))


@contextmanager
def perturbed(model: nn.Module, layers: Sequence[int], deltas: torch.Tensor) -> Iterator[None]:
    """Add `deltas[i]` to the residual stream that enters block `layers[i]` in every forward of `model` within the block.

    `deltas` [layers, rows or 1, width, hidden] must fit the rows and width of what is run; it keeps its gradient, and is cast to
    the model's dtype only when added. To decode under a perturbation, read the prompt inside and decode from its cache outside.
    Raises ForethoughtError where the shapes do not fit.
    """
    blocks = decoder_blocks(model)
    if len(deltas) != len(layers) or any(not 0 <= layer < len(blocks) for layer in layers):
        raise ForethoughtError(f"{len(deltas)} perturbations for layers {tuple(layers)} of {len(blocks)} do not fit.")
    hooks = []
    try:
        for layer, delta in zip(layers, deltas, strict=True):
            hook = partial(_add, delta)
            hooks.append(blocks[layer].register_forward_pre_hook(hook, with_kwargs=True))
        yield
    finally:
        for handle in hooks:
            handle.remove()


def pgd(
    model: nn.Module,
    inputs: Mapping[str, Any],
    loss_fn: LossOf,
    layers: Sequence[int],
    positions_mask: torch.Tensor,
    epsilon: float | Sequence[float],
    steps: int,
    step_size: float,
    generator: torch.Generator | None = None,
) -> torch.Tensor:
    """The perturbation inside the ball that raises `loss_fn(model(**inputs))` most, by projected gradient ascent.

    inputs          what the model is called with; `input_ids` or `inputs_embeds` of [rows, width] tokens
    loss_fn         model output -> scalar, or [rows] of which the sum is taken; it is raised (negate it to lower a loss)
    layers          layer numbers, see `at_depths`
    positions_mask  [rows, width] bool: where to perturb (LAT: the tokens of the prompt); nothing is added elsewhere
    epsilon         radius of the ball in units of the residual stream, one or one a layer; see `residual_norms` for its size
    steps           gradient steps; 0 gives the random start
    step_size       length of a step as a share of epsilon
    generator       of the random start inside the ball (on the CPU); without one the search starts at zero

    Returns deltas [layers, rows, width, hidden], float32, detached, of L2 norm <= epsilon at every position. The model's mode, weights and
    their `.grad` stay as they are; run it in eval mode for a search without dropout.
    """
    mask, radius = _ball(model, layers, positions_mask, epsilon)
    shape = (len(layers), *mask.shape[1:3], _config(model).hidden_size)
    deltas = torch.zeros(shape, device=mask.device)
    if generator is not None:
        start = torch.randn(shape, generator=generator).to(mask.device)
        deltas = _project(start * radius / shape[-1] ** 0.5, radius) * mask
    for _ in range(steps):
        deltas.requires_grad_(True)
        with torch.enable_grad(), perturbed(model, layers, deltas):
            loss = loss_fn(model(**inputs)).float().sum()
        (slope,) = torch.autograd.grad(loss, deltas)
        with torch.no_grad():
            direction = slope / slope.norm(dim=-1, keepdim=True).clamp_min(1e-12)
            deltas = _project(deltas + step_size * radius * direction, radius) * mask
    return deltas.detach()


@torch.no_grad()
def residual_norms(
    model: nn.Module, inputs: Mapping[str, Any], layers: Sequence[int], positions_mask: torch.Tensor
) -> tuple[float, ...]:
    """Median L2 norm of the residual stream at each layer over the masked positions: what an epsilon is a share of.

    The median, since the first token of many models carries a norm a hundred times that of the others.
    """
    blocks, found = decoder_blocks(model), {}

    def keep(layer: int, module: nn.Module, args: Any, kwargs: Any) -> None:
        hidden = args[0] if args else kwargs["hidden_states"]
        found[layer] = float(hidden[positions_mask.to(hidden.device)].float().norm(dim=-1).median())

    hooks = [blocks[n].register_forward_pre_hook(partial(keep, n), with_kwargs=True) for n in layers]
    try:
        model(**inputs)
    finally:
        for handle in hooks:
            handle.remove()
    return tuple(found[layer] for layer in layers)


def _config(model: Any) -> Any:
    return model.config.get_text_config()


def _add(delta: torch.Tensor, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    hidden = args[0] if args else kwargs["hidden_states"]
    if delta.shape[0] not in (1, hidden.shape[0]) or delta.shape[1:] != hidden.shape[1:]:
        raise ForethoughtError(
            f"a perturbation of shape {tuple(delta.shape)} does not fit hidden states of shape {tuple(hidden.shape)}."
        )
    hidden = hidden + delta.to(hidden.device, hidden.dtype)
    return ((hidden, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": hidden})


def _ball(
    model: nn.Module, layers: Sequence[int], positions_mask: torch.Tensor, epsilon: float | Sequence[float]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mask [1, rows, width, 1] and radius [layers, 1, 1, 1]."""
    radii = [float(epsilon)] * len(layers) if isinstance(epsilon, int | float) else [float(e) for e in epsilon]
    if len(radii) != len(layers) or min(radii, default=0) <= 0:
        raise ForethoughtError(
            f"epsilon must be above 0, one or one a layer, not {epsilon} for layers {tuple(layers)}."
        )
    if positions_mask.dim() != 2 or not positions_mask.any():
        raise ForethoughtError("positions_mask must be [rows, width] and mark at least one position to perturb.")
    device = next(model.parameters()).device
    return (
        positions_mask.to(device)[None, :, :, None].float(),
        torch.tensor(radii, device=device)[:, None, None, None],
    )


def _project(deltas: torch.Tensor, radius: torch.Tensor) -> torch.Tensor:
    """Back into the ball: a vector longer than its radius is cut to it."""
    scale: torch.Tensor = (radius / deltas.norm(dim=-1, keepdim=True).clamp_min(1e-12)).clamp_max(1)
    return deltas * scale
