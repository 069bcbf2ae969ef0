"""Local decoding: a fixed number of slots over preallocated key-value caches, refilled as soon as a row ends.

Every decoding step has the same shape, every prompt is prefilled alone, and attention over a slot reduces in an order that does not
depend on the slot or on how much of the cache is masked. So on CPU a reply is the same to the bit whatever runs beside it (a test
says so), and a resumed run repeats an uninterrupted one. It is also faster than `generate`, which re-allocates the growing
cache at each step and waits for the longest row of a batch.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import PreTrainedModel
from transformers.cache_utils import Cache, CacheLayerMixin, DynamicCache
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, sdpa_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from forethought.records import Reply, Sampling

ATTENTION = "forethought_slots"
STEP = 128
HEADS = 8


def slot_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: Any,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Grouped-query attention of one new token a row: query [B, H, 1, D], key and value [B, G, L, D], boolean mask [B, 1, 1, L].

    Anything else (prefill, training) goes to transformers' own sdpa. Keys are not repeated over the group, and batched matrix
    products keep each row's sums in one order, which torch's fused CPU kernel does not.
    """
    if query.shape[2] != 1 or attention_mask is None or attention_mask.dtype != torch.bool:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    rows, heads, _, width = query.shape
    groups = key.shape[1]
    scale = kwargs.get("scaling") or width**-0.5
    scores = torch.matmul(query.view(rows, groups, heads // groups, width), key.transpose(-1, -2)) * scale
    weights = scores.masked_fill(~attention_mask, -math.inf).softmax(-1, dtype=torch.float32).to(value.dtype)
    return torch.matmul(weights, value).view(rows, heads, 1, width).transpose(1, 2), None


ALL_ATTENTION_FUNCTIONS.register(ATTENTION, slot_attention)
ALL_MASK_ATTENTION_FUNCTIONS.register(ATTENTION, sdpa_mask)


@dataclass
class Row:
    """One decoding row: prompt ids in, generated ids out. The first `head` ids are likely to be shared with other rows."""

    ticket: int
    ids: list[int]
    sampling: Sampling
    seed: int
    opened: bool = False
    head: int = 0
    out: list[int] = field(default_factory=list)
    generator: torch.Generator | None = None


class _Shared:
    """What all layers of a slot cache read: the column each row writes to, and how many columns are in use."""

    def __init__(self, slots: int, device: torch.device) -> None:
        self.rows = torch.arange(slots, device=device)
        self.columns = torch.zeros(slots, dtype=torch.long, device=device)
        self.end = 1


class _SlotLayer(CacheLayerMixin):  # type: ignore[no-untyped-call]
    is_sliding = False

    def __init__(self, shared: _Shared) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.shared = shared
        self.is_initialized = True

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None: ...

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        s = self.shared
        self.keys[s.rows, :, s.columns] = key_states[:, :, 0]  # type: ignore[index]
        self.values[s.rows, :, s.columns] = value_states[:, :, 0]  # type: ignore[index]
        return self.keys[:, :, : s.end], self.values[:, :, : s.end]  # type: ignore[index]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.shared.end, 0

    def get_seq_length(self) -> int:
        return self.shared.end

    def get_max_length(self) -> int:
        return -1

    def fill(self, slot: int, keys: torch.Tensor, values: torch.Tensor, slots: int) -> None:
        """Copy a prefilled row [1, G, L, D] into a slot, growing the cache in steps."""
        length = keys.shape[2]
        capacity = 0 if self.keys is None else self.keys.shape[2]
        if length >= capacity:
            self.grow(keys, slots, length + 1)
        self.keys[slot, :, :length] = keys[0]  # type: ignore[index]
        self.values[slot, :, :length] = values[0]  # type: ignore[index]

    def grow(self, like: torch.Tensor, slots: int, length: int) -> None:
        capacity = -(-length // STEP) * STEP
        shape = (slots, like.shape[1], capacity, like.shape[3])
        for name in ("keys", "values"):
            old, new = getattr(self, name), like.new_zeros(shape)
            if old is not None:
                new[:, :, : old.shape[2]] = old
            setattr(self, name, new)


class Decoder:
    """Decodes queued rows in `slots` slots. `step` is one token for every busy slot and returns the rows that ended."""

    def __init__(self, model: PreTrainedModel, stops: frozenset[int], slots: int) -> None:
        self.model, self.stops, self.slots = model, stops, slots
        self.queue: deque[Row] = deque()
        self.active: dict[int, Row] = {}
        self._shared = _Shared(slots, model.device)
        self._layers = [_SlotLayer(self._shared) for _ in range(model.config.get_text_config().num_hidden_layers)]
        self._cache = Cache(layers=list(self._layers))
        self._heads: dict[tuple[int, ...], list[tuple[torch.Tensor, torch.Tensor]]] = {}
        self._last = torch.zeros(slots, dtype=torch.long, device=model.device)

    @property
    def busy(self) -> bool:
        return bool(self.queue or self.active)

    @torch.inference_mode()
    def step(self) -> list[tuple[Row, Reply]]:
        ended = self._refill()
        if self.active:
            ended += self._decode()
        return ended

    def _refill(self) -> list[tuple[Row, Reply]]:
        ended = []
        for slot in range(self.slots):
            while slot not in self.active and self.queue:
                row = self.queue.popleft()
                self.active[slot] = row
                logits = self._prefill(slot, row)
                done = self._accept(slot, row, pick(logits, row))
                if done is not None:
                    ended.append(done)
        return ended

    def _prefill(self, slot: int, row: Row) -> torch.Tensor:
        if row.sampling.temperature > 0:
            row.generator = torch.Generator(device=self.model.device).manual_seed(row.seed)
        # A row with a head is always read in two pieces, whether its head is at hand or not, so that its numbers never depend on it.
        cache = self.head(tuple(row.ids[: row.head])) if row.head else DynamicCache()
        ids = torch.tensor([row.ids[row.head :]], device=self.model.device)
        out = self.model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
        for layer, filled in zip(self._layers, out.past_key_values.layers, strict=True):
            layer.fill(slot, filled.keys, filled.values, self.slots)
        return out.logits[0, -1]  # type: ignore[no-any-return]

    def head(self, ids: tuple[int, ...]) -> DynamicCache:
        """A fresh cache filled with the key-values of a shared prompt head; the last few heads are kept."""
        if ids not in self._heads:
            tokens = torch.tensor([ids], device=self.model.device)
            filled = self.model(input_ids=tokens, past_key_values=DynamicCache(), use_cache=True, logits_to_keep=1)
            self._heads[ids] = [(layer.keys, layer.values) for layer in filled.past_key_values.layers]
            if len(self._heads) > HEADS:
                del self._heads[next(iter(self._heads))]
        cache = DynamicCache()
        for i, (keys, values) in enumerate(self._heads[ids]):
            cache.update(keys, values, i)
        return cache

    def _decode(self) -> list[tuple[Row, Reply]]:
        shared, device = self._shared, self.model.device
        columns = [0] * self.slots
        for slot, row in self.active.items():
            columns[slot] = len(row.ids) + len(row.out) - 1
        # Idle slots decode column 0 of whatever they hold: the shape stays fixed, the result is dropped.
        shared.columns.copy_(torch.tensor(columns))
        shared.end = max(columns) + 1
        if shared.end > self._layers[0].keys.shape[2]:  # type: ignore[union-attr]
            for layer in self._layers:
                layer.grow(layer.keys, self.slots, shared.end)  # type: ignore[arg-type]
        mask = torch.arange(shared.end, device=device)[None] <= shared.columns[:, None]
        logits = self.model(
            input_ids=self._last[:, None],
            position_ids=shared.columns[:, None],
            attention_mask=mask[:, None, None],
            past_key_values=self._cache,
            use_cache=True,
        ).logits[:, -1]
        greedy = logits.argmax(-1).tolist()
        ended = []
        for slot, row in list(self.active.items()):
            done = self._accept(slot, row, greedy[slot] if row.sampling.temperature == 0 else pick(logits[slot], row))
            if done is not None:
                ended.append(done)
        return ended

    def _accept(self, slot: int, row: Row, token: int) -> tuple[Row, Reply] | None:
        if token not in self.stops:
            row.out.append(token)
            if len(row.out) < row.sampling.max_tokens:
                self._last[slot] = token
                return None
        del self.active[slot]
        stop = "stop" if token in self.stops else "length"
        return row, Reply(text="", stop=stop, prompt_tokens=len(row.ids), completion_tokens=len(row.out))


def pick(logits: torch.Tensor, row: Row) -> int:
    """The next token of one row: greedy, or drawn from its own generator after temperature and nucleus (top-p) filtering."""
    if row.sampling.temperature == 0:
        return int(logits.argmax())
    probabilities = (logits.float() / row.sampling.temperature).softmax(-1)
    draw = torch.rand((), generator=row.generator, device=logits.device)
    if row.sampling.top_p < 1:
        probabilities, index = probabilities.sort(descending=True)
        sums = probabilities.cumsum(-1)
        mass = sums[sums - probabilities < row.sampling.top_p]
        return int(index[min(int(torch.searchsorted(mass, draw * mass[-1])), len(mass) - 1)])
    sums = probabilities.cumsum(-1)
    return min(int(torch.searchsorted(sums, draw * sums[-1])), len(sums) - 1)
