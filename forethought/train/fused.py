"""Training's inner loop with fewer passes over memory: LoRA layers and token losses as one function each, forward and backward.

The numbers are those of the plain code up to rounding (tests say so). What a matrix product costs is left alone; saved are the copies,
sums and temporary tensors around it, which on CPU take longer than the products.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch.nn.functional import linear

CHUNK = 32


def fuse_adapters(model: torch.nn.Module) -> int:
    """Replace the forward of every plain LoRA layer on a frozen linear layer; returns how many. Where an adapter is switched off,
    merged, has dropout, or is one of several, the layer does as before."""
    from peft.tuners.lora import Linear

    layers = [m for m in model.modules() if type(m) is Linear and type(m.get_base_layer()) is torch.nn.Linear]
    for layer in layers:
        layer.forward = partial(_adapted, layer, layer.forward)  # type: ignore[method-assign]
    return len(layers)


def _adapted(layer: Any, plain: Any, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    names = layer.active_adapters
    usual = not (layer.disable_adapters or layer.merged or layer.lora_variant or args or kwargs) and len(names) == 1
    if not usual or names[0] not in layer.lora_A or type(layer.lora_dropout[names[0]]) is not torch.nn.Identity:
        return plain(x, *args, **kwargs)  # type: ignore[no-any-return]
    down, up, base = layer.lora_A[names[0]].weight, layer.lora_B[names[0]].weight, layer.base_layer
    return Adapted.apply(x, base.weight, base.bias, down, up, layer.scaling[names[0]])  # type: ignore[no-untyped-call,no-any-return]


class Adapted(torch.autograd.Function):
    """x W' + b + scale (x A') B', with the gradients of x [.., in], A [r, in] and B [out, r]; W [out, in] and b [out] are frozen.

    Computed in W's precision (or autocast's); A and B may be kept in a higher one.
    """

    @staticmethod
    def forward(ctx: Any, x: Any, weight: Any, bias: Any, down: Any, up: Any, scale: float) -> torch.Tensor:
        kind = x.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype
        ctx.given, ctx.scale = x.dtype, scale
        with torch.autocast(kind, enabled=False):
            rows, a, b = x.reshape(-1, x.shape[-1]).to(dtype), down.to(dtype), up.to(dtype) * scale
            inner = rows @ a.t()
            out = linear(rows, weight.to(dtype), None if bias is None else bias.to(dtype))
            out.addmm_(inner, b.t())
        ctx.save_for_backward(rows, inner, weight, down, up)
        return out.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, grad: Any) -> Any:
        rows, inner, weight, down, up = ctx.saved_tensors
        with torch.autocast(rows.device.type, enabled=False):
            flat = grad.reshape(-1, grad.shape[-1]).to(rows.dtype)
            within = flat @ (up.to(rows.dtype) * ctx.scale)
            to_x = None
            if ctx.needs_input_grad[0]:
                to_x = (flat @ weight.to(rows.dtype)).addmm_(within, down.to(rows.dtype))
                to_x = to_x.view(*grad.shape[:-1], -1).to(ctx.given)
            to_down = (within.t() @ rows).to(down.dtype)
            to_up = (flat.t() @ inner).mul_(ctx.scale).to(up.dtype)
        return to_x, None, None, to_down, to_up, None


def token_losses(logits: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Sum of weights * -log softmax(logits)[target]; logits [N, V], targets and weights [N]. The logits are used up: their memory holds
    their gradient afterwards."""
    return TokenLosses.apply(logits, targets, weights)  # type: ignore[no-untyped-call,no-any-return]


class TokenLosses(torch.autograd.Function):
    """Cross-entropy whose gradient is made chunk by chunk in the forward, so that [N, V] is never held twice."""

    @staticmethod
    def forward(ctx: Any, logits: Any, targets: Any, weights: Any) -> torch.Tensor:
        total, buffer = torch.zeros((), dtype=torch.float32, device=logits.device), logits.detach()
        for at in range(0, len(logits), CHUNK):
            part, on, weight = (x[at : at + CHUNK] for x in (buffer, targets[:, None], weights[:, None].float()))
            share = part.float().log_softmax(1)
            total -= (weight * share.gather(1, on)).sum()
            if logits.requires_grad:
                part.copy_(share.exp_().mul_(weight).scatter_add_(1, on, -weight))
        ctx.gradient = buffer if logits.requires_grad else None
        return total

    @staticmethod
    def backward(ctx: Any, grad: Any) -> Any:
        gradient, ctx.gradient = ctx.gradient, None
        return gradient if grad == 1 else gradient.mul_(grad.to(gradient.dtype)), None, None
