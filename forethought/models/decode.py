"""Local decoding: one forward pass a step, over a token of every decoding row and over pieces of the prompts that wait.

So prompts are read in the same products as replies are written, no row waits for another, and nothing is padded to the longest. A row is
cut into pieces by its own length alone, and every sum is made in an order that does not depend on what else is in the pass (`slots.py`,
`packed.py`). So on CPU a reply is the same to the bit whatever runs beside it (tests say so), and a resumed run repeats an
uninterrupted one. What rows begin with alike (a system prompt, demonstrations, or all of it where a prompt is sampled many times) is
read once and copied.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass, field

import torch
from transformers import PreTrainedModel
from transformers.cache_utils import Cache

from forethought.models.caching import with_cache
from forethought.models.packed import GRAIN
from forethought.models.slots import STEP, Plan, SlotLayer, Span
from forethought.records import Reply, Sampling

POSITIONS = 128
PIECE = 16
HEADS = 8
# An idle decoder keeps slots of up to so many columns, with the prompts in them.
KEPT = 4 * STEP


@dataclass
class Piece:
    """Tokens read together: kept from `column` on, standing at `position` in their text. They see the columns below `base` and those
    from `start` up to their own. `scored`: (index in the piece, option, token) whose log-probability is wanted."""

    tokens: list[int]
    column: int
    position: int
    base: int = 0
    start: int = 0
    scored: list[tuple[int, int, int]] = field(default_factory=list)


@dataclass(eq=False)
class Row:
    """Prompt ids in; generated ids, or the log-probabilities of `options` (token ids), out. The first `head` ids are likely to be
    shared with other rows."""

    ticket: int
    ids: list[int]
    sampling: Sampling
    seed: int
    opened: bool = False
    head: int = 0
    options: tuple[list[int], ...] = ()
    out: list[int] = field(default_factory=list)
    sums: list[float] = field(default_factory=list)
    reply: Reply | None = None
    generator: torch.Generator | None = None
    todo: deque[Piece] = field(default_factory=deque)
    slot: int = -1
    filled: int = 0
    source: Row | None = None

    @property
    def need(self) -> int:
        """Columns that the row may come to use."""
        return len(self.ids) + (sum(map(len, self.options)) if self.options else self.sampling.max_tokens)

    def shares(self, other: Row) -> int:
        """How many columns both fill in the same pieces, so with the same numbers."""
        if self.head != other.head:
            return 0
        if self.ids == other.ids:
            return len(self.ids) - 1
        return self.head if self.ids[: self.head] == other.ids[: self.head] else 0

    def cut(self, first: int) -> None:
        """Line up the pieces from column `first`, which is 0, the head or the last token."""
        last = len(self.ids) - 1
        for start, end in ((0, self.head), (self.head, last)):
            self.todo += [
                Piece(self.ids[i : min(i + PIECE, end)], i, i) for i in range(start, end, PIECE) if i >= first
            ]
        if not self.options:
            return
        self.sums = [0.0] * len(self.options)
        self.todo.append(Piece(self.ids[-1:], last, last, scored=[(0, n, o[0]) for n, o in enumerate(self.options)]))
        column = base = len(self.ids)
        for n, option in enumerate(self.options):
            for i in range(0, len(option) - 1, PIECE):
                tokens = option[i : min(i + PIECE, len(option) - 1)]
                scored = [(j, n, option[i + j + 1]) for j in range(len(tokens))]
                self.todo.append(Piece(tokens, column + i, base + i, base, column, scored))
            column += len(option) - 1


class Decoder:
    """Works off `queue` in at most `slots` slots of at most `columns` columns in all. `step` is one pass; it returns the rows that ended.

    A pass has as many positions as it needs, but at least `least`, so that sums keep their order.
    """

    def __init__(self, model: PreTrainedModel, stops: frozenset[int], slots: int, columns: int, least: int) -> None:
        self.model, self.stops, self.slots, self.columns = model, stops, slots, columns
        self.least = least
        self.queue: deque[Row] = deque()
        self.rows: dict[int, Row] = {}
        self._held: dict[int, Row] = {}
        self._heads: OrderedDict[tuple[int, ...], list[tuple[torch.Tensor, torch.Tensor]]] = OrderedDict()
        self._layers = [SlotLayer() for _ in range(model.config.get_text_config().num_hidden_layers)]
        self._cache = Cache(layers=list(self._layers))

    @property
    def busy(self) -> bool:
        return bool(self.queue or self.rows)

    @torch.inference_mode()
    def step(self) -> list[Row]:
        self._copy_shared()
        if not self.queue:
            self._close_gaps()
        self._admit()
        decoding = [r for _, r in sorted(self.rows.items()) if not (r.todo or r.options or r.source)]
        pieces, room = [], POSITIONS - len(decoding)
        for row in self.rows.values():
            while row.todo and row.source is None and len(row.todo[0].tokens) <= room:
                room -= len(row.todo[0].tokens)
                pieces.append((row, row.todo.popleft()))
        logits = self._forward(decoding, pieces)
        self._keep_heads()
        ended = self._accept(decoding, logits) + self._score(pieces, logits[len(decoding) :])
        for row in ended:
            del self.rows[row.slot]
        if not self.busy and self._layers[0].columns > KEPT:
            self._held.clear()
            for layer in self._layers:
                layer.clear()
        return ended

    def _admit(self) -> None:
        """Rows from the queue into free slots, as long as all fits."""
        while self.queue:
            row = self.queue[0]
            columns = max(self._layers[0].columns, -(-row.need // STEP) * STEP)
            most = min(self.slots, max(1, self.columns // columns))
            free = next((i for i in range(most) if i not in self.rows), None)
            if free is None or (self.rows and max(self.rows) >= most):
                return
            self.queue.popleft()
            row.slot = free
            for layer in self._layers:
                layer.rows, layer.columns = min(max(layer.rows, 1 << free.bit_length()), most), columns
            self._held = {slot: held for slot, held in self._held.items() if slot < most}
            source = max(self._held.values(), key=row.shares, default=None)
            shared = row.shares(source) if source else 0
            head = tuple(row.ids[: row.head])
            if source is not None and shared >= max(row.head, 1):
                self._share(row, source, shared)
            elif head in self._heads:
                self._heads.move_to_end(head)
                for layer, (keys, values) in zip(self._layers, self._heads[head], strict=True):
                    layer.write(free, keys, values)
                row.filled = row.head
            row.cut(max(row.filled, shared if row.source else 0))
            self.rows[free] = self._held[free] = row
            if row.sampling.temperature > 0:
                row.generator = torch.Generator(device=self.model.device).manual_seed(row.seed)

    def _share(self, row: Row, source: Row, columns: int) -> None:
        """Take over columns of another row, now or as soon as it has them."""
        if source.filled < columns:
            row.source = source
        else:
            if source.slot != row.slot:
                for layer in self._layers:
                    layer.copy(source.slot, row.slot, columns)
            row.source, row.filled = None, columns

    def _copy_shared(self) -> None:
        for row in self.rows.values():
            if row.source is not None:
                self._share(row, row.source, row.shares(row.source))

    def _close_gaps(self) -> None:
        """With nothing left to fill them, free slots below the last row are taken by it, so that a pass reads fewer."""
        while self.rows and (top := max(self.rows)) >= len(self.rows):
            row, free = self.rows[top], next(i for i in range(top) if i not in self.rows)
            if any(r.source is row for r in self.rows.values()):
                return
            for layer in self._layers:
                layer.copy(top, free, row.need if row.todo else len(row.ids) + len(row.out))
            del self.rows[top], self._held[top]
            row.slot, self.rows[free], self._held[free] = free, row, row

    def _forward(self, decoding: list[Row], pieces: list[tuple[Row, Piece]]) -> torch.Tensor:
        """Logits [len(decoding) + what the pieces want scored, vocabulary]."""
        device = self.model.device
        tokens = [r.out[-1] if r.out else r.ids[-1] for r in decoding]
        columns = [len(r.ids) + len(r.out) - 1 for r in decoding]
        places, slots = list(columns), [r.slot for r in decoding]
        wanted, spans = list(range(len(decoding))), []
        for row, piece in pieces:
            n, at = len(piece.tokens), len(tokens)
            own = torch.arange(piece.column, piece.column + n, device=device)[:, None]
            seen = torch.arange(piece.column + n, device=device)[None]
            hidden = (seen >= piece.base) & ((seen < piece.start) | (seen > own))
            spans.append(Span(row.slot, at, n, piece.column + n, hidden))
            wanted += [at + i for i in sorted({i for i, _, _ in piece.scored})]
            tokens += piece.tokens
            columns += range(piece.column, piece.column + n)
            places += range(piece.position, piece.position + n)
            slots += [row.slot] * n
            row.filled = piece.column + n
        top, end = max(slots[: len(decoding)], default=-1) + 1, max(columns[: len(decoding)], default=0) + 1
        last = torch.zeros(top, dtype=torch.long)
        for slot, column in zip(slots, columns[: len(decoding)], strict=False):
            last[slot] = column
        beyond = torch.arange(end, device=device)[None] > last.to(device)[:, None]
        index = torch.tensor([slots, columns], device=device)
        plan = Plan(index[0], index[1], len(decoding), top, end, beyond[:, None, None], spans)
        for layer in self._layers:
            layer.plan = plan
        ids, positions, kept = (torch.tensor(self._padded(x), device=device) for x in (tokens, places, wanted))
        return self.model(  # type: ignore[no-any-return]
            input_ids=ids[None],
            position_ids=positions[None],
            # Four dimensions: transformers takes it for a finished mask and leaves it alone.
            attention_mask=torch.ones(1, 1, 1, 1, dtype=torch.bool, device=device),
            **with_cache(self.model, self._cache),
            logits_to_keep=kept,
            plan=plan,
        ).logits[0, : len(wanted)]

    def _padded(self, numbers: list[int]) -> list[int]:
        size = max(self.least, -(-len(numbers) // GRAIN) * GRAIN)
        return numbers + [0] * (size - len(numbers))

    def _keep_heads(self) -> None:
        for row in self.rows.values():
            ids = tuple(row.ids[: row.head])
            if row.head and row.filled >= row.head and ids not in self._heads:
                self._heads[ids] = [layer.read(row.slot, row.head) for layer in self._layers]
                if len(self._heads) > HEADS:
                    self._heads.popitem(last=False)

    def _accept(self, decoding: list[Row], logits: torch.Tensor) -> list[Row]:
        ended = []
        best = greedy(logits[: len(decoding)]) if decoding else []
        for i, row in enumerate(decoding):
            token = best[i] if row.sampling.temperature == 0 else pick(logits[i], row)
            if token not in self.stops:
                row.out.append(token)
                if len(row.out) < row.sampling.max_tokens:
                    continue
            row.reply = Reply(
                text="",
                opened=row.opened,
                stop="stop" if token in self.stops else "length",
                prompt_tokens=len(row.ids),
                completion_tokens=len(row.out),
            )
            ended.append(row)
        return ended

    def _score(self, pieces: list[tuple[Row, Piece]], logits: torch.Tensor) -> list[Row]:
        at = 0
        table = logits.float().log_softmax(-1) if len(logits) else logits
        for row, piece in pieces:
            for i, option, token in piece.scored:
                row.sums[option] += float(table[at + i, token])
            at += len({i for i, _, _ in piece.scored})
        return [r for r in self.rows.values() if r.options and not r.todo and r.source is None]


def greedy(logits: torch.Tensor) -> list[int]:
    """The likeliest token of each row [N, V]. NumPy's argmax is vectorized, torch's on CPU is not."""
    if logits.device.type == "cpu":
        return [int(i) for i in logits.float().numpy().argmax(-1)]
    return logits.argmax(-1).tolist()


def pick(logits: torch.Tensor, row: Row) -> int:
    """A token drawn from the row's own generator after temperature and nucleus (top-p) filtering.

    Tokens that are each less likely than (1 - p) / V cannot be in the nucleus, so that only the others are sorted.
    """
    probabilities = (logits.float() / row.sampling.temperature).softmax(-1)
    draw = torch.rand((), generator=row.generator, device=logits.device)
    if row.sampling.top_p == 1:
        sums = probabilities.cumsum(-1)
        return min(int(torch.searchsorted(sums, draw * sums[-1])), len(sums) - 1)
    few = (probabilities > (1 - row.sampling.top_p) / len(probabilities)).nonzero()[:, 0]
    ordered, index = probabilities[few].sort(descending=True, stable=True)
    sums = ordered.cumsum(-1)
    mass = sums[sums - ordered < row.sampling.top_p]
    return int(few[index[min(int(torch.searchsorted(mass, draw * mass[-1])), len(mass) - 1)]])
