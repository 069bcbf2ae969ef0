"""Rows of a batch end to end in one sequence, each seeing only itself: nothing is padded, and no row sees another. What all of them begin
with (a chat template's system prompt) stands once before them; its gradient is the sum over the rows.

Linear layers and norms read all rows as one long one; attention is computed row by row. Only for models whose layers are plain full
attention, which is what would otherwise carry one row into the next; others stay padded.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, sdpa_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from forethought.models.pages import plain_attention, window
from forethought.train.forward import IGNORED

ATTENTION = "forethought_rows"


def allow_packing(model: Any, longest: int) -> bool:
    """Make a model read packed rows of up to `longest` tokens; False, and nothing changed, where its layers are not plain full attention
    over so many."""
    seen = window(model)
    if not plain_attention(model) or (seen and longest > seen):
        return False
    model.set_attn_implementation(ATTENTION)
    return True


def pack(inputs: dict[str, torch.Tensor]) -> dict[str, Any]:
    """A padded batch (`collate`) as one sequence: `input_ids`, `position_ids`, `labels`, `weights` [1, tokens]. It is `head_length` tokens
    that stand for the start of every row, and then what each row has of its own, as long as `row_lengths` say."""
    kept, head = inputs["real"].clone(), _alike(inputs)
    kept[1:, :head] = False
    positions = torch.arange(kept.shape[1], device=kept.device).expand_as(kept)
    flat = {name: inputs[name][kept][None] for name in ("input_ids", "labels", "weights")}
    lengths = (inputs["real"].sum(1) - head).tolist()
    return {**flat, "position_ids": positions[kept][None], "row_lengths": lengths, "head_length": head}


def _alike(inputs: dict[str, torch.Tensor]) -> int:
    """How many tokens all rows begin with alike, of which none is trained. One less than there are: the token before a trained one must
    be the row's own, since that is where the trained one is predicted."""
    ids, labels, real = inputs["input_ids"], inputs["labels"], inputs["real"]
    if len(ids) == 1:
        return 0
    alike = ((ids == ids[0]) & real & (labels == IGNORED)).all(0)
    return max(0, int(alike.long().cumprod(0).sum()) - 1)


def row_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: Any,
    row_lengths: list[int] | None = None,
    head_length: int = 0,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention within each row, the head before it; query [1, H, tokens, D], key and value [1, G, tokens, D]. Without `row_lengths`
    it is transformers' own sdpa."""
    if row_lengths is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    dtype = query.dtype
    if query.device.type == "cpu":  # The backward of CPU's kernel is twice as slow in bfloat16.
        query, key, value = query.float(), key.float(), value.float()
    parts = [torch.split(x, [head_length, *row_lengths], 2) for x in (query, key, value)]
    rows = zip(*([torch.cat((head, own), 2) for own in rest] for head, *rest in parts), strict=True)
    shared = query.shape[1] != key.shape[1]
    said = [
        scaled_dot_product_attention(
            q,
            k,
            v,
            dropout_p=kwargs.get("dropout", 0.0),
            is_causal=True,
            scale=kwargs.get("scaling"),
            enable_gqa=shared,
        )
        for q, k, v in rows
    ]
    # Every row says the same of the head.
    said[1:] = [row[:, :, head_length:] for row in said[1:]]
    return torch.cat(said, 2).transpose(1, 2).to(dtype), None


ALL_ATTENTION_FUNCTIONS.register(ATTENTION, row_attention)
ALL_MASK_ATTENTION_FUNCTIONS.register(ATTENTION, sdpa_mask)
