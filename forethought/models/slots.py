"""Keys and values in slots, and attention over them, for a forward pass over token positions of many rows at once.

A pass holds one new token of each decoding row, and pieces of prompts. What is batched over positions (linear layers, norms) gives a
position the same numbers whatever stands beside it; attention is computed by row, in products whose sums do not depend on other rows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from transformers.cache_utils import CacheLayerMixin
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, sdpa_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

ATTENTION = "forethought_slots"
# Columns are added in such steps; and sums over columns go in such chunks, since a longer product is cut into parts that depend on its
# length, and so on the longest row.
STEP = 128
CHUNK = 256
# Families whose layers do not hand on to attention what the model is called with.
DEAF = ("nemotron",)


@dataclass
class Span:
    """A piece of one row in a pass: positions `at` to `at + count`, which see `hidden`'s complement of the slot's first `end` columns.

    hidden: bool [count, end].
    """

    slot: int
    at: int
    count: int
    end: int
    hidden: torch.Tensor


@dataclass
class Plan:
    """Where each position of a pass is kept (`slots`, `columns`: [used]); its first positions are the decoding rows, by slot.

    hidden: bool [top, 1, 1, end], over the slots below `top`.
    """

    slots: torch.Tensor
    columns: torch.Tensor
    decoding: int
    top: int
    end: int
    hidden: torch.Tensor
    spans: list[Span]


def plain_attention(model: Any) -> bool:
    """Whether every layer is plain full attention through transformers' attention interface, for rows of up to `window(model)` tokens."""
    config = model.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    plain = kinds == {"full_attention"} and not getattr(config, "attn_logit_softcapping", None)
    # DeepSeek's kind keeps one compressed state in place of keys and values.
    plain = plain and not getattr(config, "kv_lora_rank", None) and config.model_type not in DEAF
    own = bool(getattr(model, "_supports_sdpa", False)) and bool(getattr(model, "_supports_attention_backend", False))
    return plain and own and not getattr(config, "is_encoder_decoder", False)


def window(model: Any) -> int | None:
    """How many tokens back each layer sees, where that is fewer than all: Mistral's first models, Phi-3 and Starcoder2 say so by this
    number alone, without a list of layer types."""
    config = model.config.get_text_config()
    if getattr(config, "layer_types", None):
        return None
    return getattr(config, "sliding_window", None) or None


def slot_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: Any,
    plan: Plan | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Grouped-query attention: query [1, H, M, D], key [S, G, D, L], value [S, G, L, D]. Without a plan it is transformers' own sdpa."""
    if plan is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    _, heads, count, width = query.shape
    groups = key.shape[1]
    scale = kwargs.get("scaling") or width**-0.5
    # [M, G, H/G, D]
    asked = (query[0].to(key.dtype) * scale).transpose(0, 1).reshape(count, groups, heads // groups, width)
    out = torch.zeros_like(asked)
    n = plan.decoding
    if n:
        rows = asked[:n]
        if plan.top > n:
            rows = asked.new_zeros(plan.top, *asked.shape[1:]).index_copy_(0, plan.slots[:n], rows)
        said = _attend(rows, key[: plan.top], value[: plan.top], plan.hidden, plan.end)
        out[:n] = said if plan.top == n else said[plan.slots[:n]]
    for span in plan.spans:
        rows = asked[span.at : span.at + span.count].permute(1, 2, 0, 3)
        own = rows.reshape(1, groups, -1, width)
        hidden = span.hidden.repeat(heads // groups, 1)
        said = _attend(own, key[span.slot, None], value[span.slot, None], hidden, span.end)
        out[span.at : span.at + span.count] = said.view(rows.shape).permute(2, 0, 1, 3)
    return out.view(1, count, heads, width).to(query.dtype), None


def _attend(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, hidden: torch.Tensor, end: int
) -> torch.Tensor:
    """query [B, G, Q, D], key [B, G, D, >=end], value [B, G, >=end, D]; hidden broadcasts to [B, G, Q, end]."""
    scores = torch.matmul(query, key[..., :end]).masked_fill_(hidden, -math.inf)
    weights = scores.softmax(-1, dtype=torch.float32).to(value.dtype)
    out = torch.matmul(weights[..., :CHUNK], value[:, :, : min(end, CHUNK)])
    for start in range(CHUNK, end, CHUNK):
        out += torch.matmul(weights[..., start : start + CHUNK], value[:, :, start : min(end, start + CHUNK)])
    return out


ALL_ATTENTION_FUNCTIONS.register(ATTENTION, slot_attention)
ALL_MASK_ATTENTION_FUNCTIONS.register(ATTENTION, sdpa_mask)


class SlotLayer(CacheLayerMixin):  # type: ignore[no-untyped-call]
    """One layer's keys [S, G, D, L] and values [S, G, L, D], in float32 on CPU. `plan` says where the next pass is to be kept."""

    is_sliding = False

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.plan: Plan | None = None
        self.rows = self.columns = 0
        self.is_initialized = True

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None: ...

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        """Keep key_states and value_states [1, G, M, D]; returns all that is kept."""
        plan = self.plan
        assert plan is not None
        self._fit(key_states)
        used = len(plan.slots)
        assert self.keys is not None and self.values is not None
        for kept, new in ((self.keys.transpose(2, 3), key_states), (self.values, value_states)):
            kept[plan.slots, :, plan.columns] = new[0, :, :used].transpose(0, 1).to(kept.dtype)
        return self.keys, self.values

    def _fit(self, like: torch.Tensor) -> None:
        """Make room for `rows` and `columns`; `like` is [.., G, .., D]."""
        if self.keys is not None and self.keys.shape[0] >= self.rows and self.keys.shape[3] >= self.columns:
            return
        groups, width = like.shape[-3], like.shape[-1]
        # CPU's batched products are several times slower in bfloat16 than in float32.
        dtype = torch.float32 if like.device.type == "cpu" else like.dtype
        keys = like.new_zeros(self.rows, groups, width, self.columns, dtype=dtype)
        values = like.new_zeros(self.rows, groups, self.columns, width, dtype=dtype)
        if self.keys is not None:
            rows, columns = min(self.rows, self.keys.shape[0]), self.keys.shape[3]
            keys[:rows, :, :, :columns] = self.keys[:rows]
            values[:rows, :, :columns] = self.values[:rows]  # type: ignore[index]
        self.keys, self.values = keys, values

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.columns, 0

    def get_seq_length(self) -> int:
        return self.columns

    def get_max_length(self) -> int:
        return -1

    def clear(self) -> None:
        self.keys = self.values = None
        self.rows = self.columns = 0

    def copy(self, source: int, target: int, columns: int) -> None:
        """The first columns of one slot into another."""
        self._fit(self.values[0])  # type: ignore[index]
        self.keys[target, :, :, :columns] = self.keys[source, :, :, :columns]  # type: ignore[index]
        self.values[target, :, :columns] = self.values[source, :, :columns]  # type: ignore[index]

    def read(self, slot: int, columns: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self.keys[slot, :, :, :columns].clone(), self.values[slot, :, :columns].clone()  # type: ignore[index]

    def write(self, slot: int, keys: torch.Tensor, values: torch.Tensor) -> None:
        self._fit(values)
        self.keys[slot, :, :, : keys.shape[2]] = keys  # type: ignore[index]
        self.values[slot, :, : values.shape[1]] = values  # type: ignore[index]
