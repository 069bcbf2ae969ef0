"""Training's inner loop with fewer passes over memory: LoRA layers, norms, rotary positions and token losses as one function each,
forward and backward.

The numbers are those of the plain code up to rounding (tests say so). What a matrix product costs is left alone; saved are the copies,
sums and temporary tensors around it, which on CPU take longer than the products.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
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


def fuse_norms(model: torch.nn.Module) -> int:
    """Replace the forward of every RMS norm that is x / rms(x) * weight; returns how many. Which ones are is found by trying: some
    families scale by 1 + weight, or norm in another precision."""
    norms = [m for m in model.modules() if type(m).__name__.endswith("RMSNorm") and hasattr(m, "variance_epsilon")]
    fused = [m for m in norms if _is_plain(m)]
    for norm in fused:
        norm.forward = partial(_normed, norm)
    return len(fused)


def _normed(norm: Any, x: torch.Tensor) -> torch.Tensor:
    return Normed.apply(x, norm.weight, norm.variance_epsilon)  # type: ignore[no-untyped-call,no-any-return]


@torch.no_grad()
def _is_plain(norm: Any) -> bool:
    x = torch.randn(2, len(norm.weight), generator=torch.Generator().manual_seed(0)).to(norm.weight)
    near = 1e-5 if x.dtype == torch.float32 else 2e-2
    return torch.allclose(norm(x), _normed(norm, x), rtol=near, atol=near)


class Normed(torch.autograd.Function):
    """x / sqrt(mean(x^2) + eps) * weight, x [.., width], in float32 as the plain module does; gradients of x and of weight [width]."""

    @staticmethod
    def forward(ctx: Any, x: Any, weight: Any, eps: float) -> torch.Tensor:
        full = x.float()
        square = torch.linalg.vector_norm(full, dim=-1, keepdim=True).square_()
        scale = square.div_(x.shape[-1]).add_(eps).rsqrt_()
        ctx.save_for_backward(x, weight, scale)
        unit: torch.Tensor = (full * scale).to(x.dtype)
        return unit.mul_(weight) if weight.dtype == x.dtype else unit * weight

    @staticmethod
    def backward(ctx: Any, grad: Any) -> Any:
        x, weight, scale = ctx.saved_tensors
        full, to_x, to_weight = x.float(), None, None
        if ctx.needs_input_grad[1]:
            to_weight = (grad.float() * full * scale).reshape(-1, x.shape[-1]).sum(0).to(weight.dtype)
        if ctx.needs_input_grad[0]:
            flow = (grad * weight).float()
            along = torch.einsum("...d,...d->...", flow, full).unsqueeze(-1)
            pull = along.mul_(scale.pow(3)).div_(-x.shape[-1])
            to_x = flow.mul_(scale).addcmul_(full, pull).to(x.dtype)
        return to_x, to_weight, None


@contextmanager
def fused_rotary(model: torch.nn.Module) -> Iterator[bool]:
    """Within it, attention layers turn queries and keys by `Turned`; False, and nothing changes, where the family turns them in another
    way, which is found by trying."""
    homes = {type(m).__module__ for m in model.modules() if type(m).__name__.endswith("Attention")}
    modules: list[Any] = [sys.modules[name] for name in homes if hasattr(sys.modules[name], "apply_rotary_pos_emb")]
    plain = modules[0].apply_rotary_pos_emb if len(modules) == 1 else None
    if plain is None or not _turns_halves(plain):
        yield False
        return

    def rotary(q: Any, k: Any, cos: Any, sin: Any, *args: Any, **kwargs: Any) -> tuple[torch.Tensor, torch.Tensor]:
        if args or kwargs or q.shape[-1] != cos.shape[-1] or q.dtype != cos.dtype:
            return plain(q, k, cos, sin, *args, **kwargs)  # type: ignore[no-any-return]
        cos, sin = cos.unsqueeze(1), sin.unsqueeze(1)
        return Turned.apply(q, cos, sin), Turned.apply(k, cos, sin)  # type: ignore[no-untyped-call]

    modules[0].apply_rotary_pos_emb = rotary
    try:
        yield True
    finally:
        modules[0].apply_rotary_pos_emb = plain


@torch.no_grad()
def _turns_halves(plain: Any) -> bool:
    generator = torch.Generator().manual_seed(0)
    q, k, cos, sin = (
        torch.randn(*shape, generator=generator) for shape in ((1, 2, 3, 4), (1, 1, 3, 4), (1, 3, 4), (1, 3, 4))
    )
    try:
        wanted = plain(q, k, cos, sin)
    except (TypeError, RuntimeError):  # Other arguments, or other shapes (GPT-OSS): another way.
        return False
    found = (_turn(x, cos.unsqueeze(1), sin.unsqueeze(1)) for x in (q, k))
    return all(torch.allclose(a, b, atol=1e-6) for a, b in zip(wanted, found, strict=True))


def _turn(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, back: bool = False) -> torch.Tensor:
    """Each pair (x_i, x_i+half) turned, x [B, H, T, D], or the transpose of that; laid out as [B, T, H, D], as linear layers have it."""
    batch, heads, tokens, width = x.shape
    half, to = width // 2, x.new_empty(batch, tokens, heads, width).transpose(1, 2)
    (one, two), (cos1, cos2), (sin1, sin2) = ((t[..., :half], t[..., half:]) for t in (x, cos, sin))
    if back:
        sin1, sin2 = sin2, sin1
    sign = 1 if back else -1
    torch.mul(one, cos1, out=to[..., :half]).addcmul_(two, sin1, value=sign)
    torch.mul(two, cos2, out=to[..., half:]).addcmul_(one, sin2, value=-sign)
    return to


class Turned(torch.autograd.Function):
    """x cos + rotate_half(x) sin, with the gradient of x [B, H, T, D]; cos and sin [B, 1, T, D] have none."""

    @staticmethod
    def forward(ctx: Any, x: Any, cos: Any, sin: Any) -> torch.Tensor:
        ctx.save_for_backward(cos, sin)
        return _turn(x, cos, sin)

    @staticmethod
    def backward(ctx: Any, grad: Any) -> Any:
        cos, sin = ctx.saved_tensors
        return _turn(grad, cos, sin, back=True), None, None


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
