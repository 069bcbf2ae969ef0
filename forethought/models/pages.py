"""Keys and values in pages, and attention over them, for a forward pass over token positions of many rows at once.

A row holds as many pages as its text so far needs, wherever they lie (as in vLLM, arXiv 2309.06180), so that short rows pay nothing for
long ones. The whole pages of a head that rows begin with alike (a system prompt) are there once, and decoding rows read them together. A
pass holds one new token of each decoding row, and pieces of prompts. What is batched over positions (linear layers, norms) gives a
position the same numbers whatever stands beside it; attention is computed by page and added up by row, in an order that does not depend
on other rows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from transformers.cache_utils import CacheLayerMixin
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, sdpa_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

ATTENTION = "forethought_pages"
# Columns of a page.
PAGE = 128
# Rows that read the same pages are filled up to a multiple of the first of these that keeps a row's sums in their order.
GRAINS = (8, 64)
# Families whose layers do not hand on to attention what the model is called with.
DEAF = ("nemotron",)


@dataclass
class Span:
    """A piece of one row in a pass: positions `at` to `at + count`, which see `hidden`'s complement of its pages ([k], in order).

    hidden: bool [count, k * PAGE].
    """

    pages: torch.Tensor
    at: int
    count: int
    hidden: torch.Tensor


@dataclass
class Plan:
    """Where each position of a pass is kept (`pages`, `columns`: [used]), and what it sees. Its first `decoding` positions are one new
    token of each row. `owner` says which of them reads each page ([top]; `decoding` for none), `hidden` what of a page it does not
    see (bool [top, 1, 1, PAGE]), `table` which pages it reads (`top` where it has no more: [decoding, most]), and `nth`, for each place in
    a row, the (rows, pages) that have one there; all three leave out the pages of `heads`: (rows, pages) where each row reads each page,
    before its own.
    """

    pages: torch.Tensor
    columns: torch.Tensor
    decoding: int
    owner: torch.Tensor
    hidden: torch.Tensor
    table: torch.Tensor
    nth: list[tuple[torch.Tensor, torch.Tensor]]
    heads: list[tuple[torch.Tensor, torch.Tensor]]
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
    """How long a row may be for each token to see all before it, turned as whatever the row's length: None for any. Mistral's first models,
    Phi-3 and Starcoder2 have a window by its number alone, without a list of layer types; Phi-3's longer siblings turn all positions of
    a pass otherwise as soon as one is beyond the length that they were first trained for."""
    config = model.config.get_text_config()
    back = None if getattr(config, "layer_types", None) else getattr(config, "sliding_window", None)
    turned = getattr(config, "rope_parameters", None) or {}
    first = None
    if turned.get("rope_type") in ("longrope", "dynamic"):
        first = turned.get("original_max_position_embeddings") or config.max_position_embeddings
    return min((n for n in (back, first) if n), default=None)


def paged_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: Any,
    plan: Plan | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Grouped-query attention: query [1, H, M, D], key [P, G, D, PAGE], value [P, G, PAGE, D]. Without a plan it is transformers' own
    sdpa."""
    if plan is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    _, heads, count, width = query.shape
    groups = key.shape[1]
    scale = kwargs.get("scaling") or width**-0.5
    # [M, G, H/G, D]
    asked = (query[0].to(key.dtype) * scale).transpose(0, 1).reshape(count, groups, heads // groups, width)
    out = torch.zeros_like(asked)
    if plan.decoding:
        out[: plan.decoding] = _decode(asked, key, value, plan)
    for span in plan.spans:
        rows = asked[span.at : span.at + span.count].permute(1, 2, 0, 3)
        said = _read(rows.reshape(1, groups, -1, width), key[span.pages], value[span.pages], span.hidden)
        out[span.at : span.at + span.count] = said.view(rows.shape).permute(2, 0, 1, 3)
    return out.view(1, count, heads, width).to(query.dtype), None


def _decode(asked: torch.Tensor, key: torch.Tensor, value: torch.Tensor, plan: Plan) -> torch.Tensor:
    """One token a row: asked [M, G, Q, D]; returns [decoding, G, Q, D]. Every page is multiplied once, where it lies; a row's softmax is
    put together from its pages'."""
    n, top = plan.decoding, len(plan.owner)
    nobody = asked.new_zeros(1, *asked.shape[1:])
    scores = torch.matmul(torch.cat([asked[:n], nobody])[plan.owner], key[:top]).float()
    peaks = scores.masked_fill_(plan.hidden, -math.inf).amax(-1, keepdim=True)
    most = torch.cat([peaks, peaks.new_full((1, *peaks.shape[1:]), -math.inf)])[plan.table].amax(1)
    shared = []
    for rows, pages in plan.heads:
        met = _meet(asked[rows], key[pages])
        most[rows] = torch.maximum(most[rows], met.amax((0, -1)).unsqueeze(-1))
        shared.append(met)
    weights = scores.sub_(torch.cat([most, most.new_zeros(1, *most.shape[1:])])[plan.owner]).exp_()
    sums, found = weights.sum(-1, keepdim=True), torch.matmul(weights.to(value.dtype), value[:top])
    total, out = sums.new_zeros(n, *sums.shape[1:]), sums.new_zeros(n, *asked.shape[1:])
    for (rows, pages), met in zip(plan.heads, shared, strict=True):
        weights = met.sub_(most[rows]).exp_()
        for part, said in zip(weights.sum(-1, keepdim=True), _gather(weights, value[pages]), strict=True):
            total[rows] += part
            out[rows] += said
    for rows, pages in plan.nth:
        total[rows] += sums[pages]
        out[rows] += found[pages]
    return out.div_(total).to(asked.dtype)


def _meet(asked: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
    """Scores of R rows, asked [R, G, Q, D], on the same k pages, key [k, G, D, PAGE]: [k, R, G, Q, PAGE]."""
    count, groups, each, width = asked.shape
    rows = _filled(asked, _grain(asked, key)).transpose(0, 1).reshape(1, groups, -1, width)
    return torch.matmul(rows, key).float().view(len(key), groups, -1, each, PAGE)[:, :, :count].transpose(1, 2)


def _gather(weights: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """What R rows take from the same k pages: weights [k, R, G, Q, PAGE], value [k, G, PAGE, D]; returns [k, R, G, Q, D]."""
    pages, count, groups, each, _ = weights.shape
    rows = _filled(weights.transpose(0, 1), _grain(weights[0], value)).permute(1, 2, 0, 3, 4)
    found = torch.matmul(rows.reshape(pages, groups, -1, PAGE).to(value.dtype), value)
    return found.view(pages, groups, -1, each, value.shape[-1])[:, :, :count].transpose(1, 2)


def _filled(rows: torch.Tensor, grain: int) -> torch.Tensor:
    """With rows of zeros up to a whole number of `grain`, so that what a row gets does not depend on how many there are."""
    missing = -len(rows) % grain
    return torch.cat([rows, rows.new_zeros(missing, *rows.shape[1:])]) if missing else rows


def _grain(rows: torch.Tensor, kept: torch.Tensor) -> int:
    """For rows [R, G, Q, *] by pages [k, G, *, *]. On GPUs no order is promised, so the least."""
    if rows.device.type != "cpu":
        return GRAINS[0]
    return _steady(rows.shape[2], tuple(kept.shape[1:]), kept.dtype, torch.get_num_threads())


@cache
def _steady(each: int, shape: tuple[int, int, int], dtype: torch.dtype, threads: int) -> int:
    """The grain, tried on this machine: the first and the last of so many rows against all that decode at once."""
    generator = torch.Generator().manual_seed(0)
    kept = torch.randn(3, *shape, generator=generator).to(dtype)
    rows = torch.randn(1, shape[0], GRAINS[-1] * each, shape[1], generator=generator).to(dtype)
    whole = torch.matmul(rows, kept)
    for grain in GRAINS[:-1]:
        counts = [n * each for n in range(grain, GRAINS[-1], grain)]
        ends = (end for n in counts for end in (slice(n), slice(-n, None)))
        if all(torch.equal(torch.matmul(rows[:, :, end].contiguous(), kept), whole[:, :, end]) for end in ends):
            return grain
    return GRAINS[-1]


def _read(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
    """A piece of one row: query [1, G, Q, D], the row's own pages key [k, G, D, PAGE] and value [k, G, PAGE, D]; hidden [N, k * PAGE],
    where the Q queries are N positions by H/G heads. Returns [G, Q, D]."""
    k, groups, count = len(key), query.shape[1], query.shape[2]
    scores = torch.matmul(query, key).permute(1, 2, 0, 3).reshape(groups, -1, *hidden.shape)
    weights = scores.masked_fill_(hidden, -math.inf).softmax(-1, dtype=torch.float32).to(value.dtype)
    weights = weights.view(groups, count, k, PAGE)
    out = torch.matmul(weights[:, :, 0], value[0])
    for page in range(1, k):
        out += torch.matmul(weights[:, :, page], value[page])
    return out


ALL_ATTENTION_FUNCTIONS.register(ATTENTION, paged_attention)
ALL_MASK_ATTENTION_FUNCTIONS.register(ATTENTION, sdpa_mask)


class PagedLayer(CacheLayerMixin):  # type: ignore[no-untyped-call]
    """One layer's keys [P, G, D, PAGE] and values [P, G, PAGE, D], in float32 on CPU. `size` says how many pages there are to be, `plan`
    where the next pass is to be kept."""

    is_sliding = False

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.plan: Plan | None = None
        self.size = 0
        self.is_initialized = True

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None: ...

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        """Keep key_states and value_states [1, G, M, D]; returns all that is kept."""
        plan = self.plan
        assert plan is not None
        keys, values = self._fit(key_states)
        used = len(plan.pages)
        for kept, new in ((keys.transpose(2, 3), key_states), (values, value_states)):
            kept[plan.pages, :, plan.columns] = new[0, :, :used].transpose(0, 1).to(kept.dtype)
        return keys, values

    def _fit(self, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """All that is kept, with room for `size` pages; `like` is [.., G, .., D]."""
        if self.keys is None or self.values is None or len(self.keys) < self.size:
            groups, width = like.shape[-3], like.shape[-1]
            # CPU's batched products are several times slower in bfloat16 than in float32.
            dtype = torch.float32 if like.device.type == "cpu" else like.dtype
            keys = like.new_zeros(self.size, groups, width, PAGE, dtype=dtype)
            values = like.new_zeros(self.size, groups, PAGE, width, dtype=dtype)
            if self.keys is not None and self.values is not None:
                keys[: len(self.keys)], values[: len(self.values)] = self.keys, self.values
            self.keys, self.values = keys, values
        return self.keys, self.values

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.get_seq_length(), 0

    def get_seq_length(self) -> int:
        return self.size * PAGE

    def get_max_length(self) -> int:
        return -1

    def clear(self) -> None:
        self.keys = self.values = None
        self.size = 0

    def read(self, pages: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """A copy of what lies in pages."""
        return self.keys[pages], self.values[pages]  # type: ignore[index]

    def write(self, pages: list[int], keys: torch.Tensor, values: torch.Tensor) -> None:
        kept = self._fit(values)
        kept[0][pages], kept[1][pages] = keys, values
