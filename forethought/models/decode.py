"""Local decoding: one forward pass a step, over a token of every decoding row and over pieces of the prompts that wait.

So prompts are read in the same products as replies are written, no row waits for another, and nothing is padded to the longest. A row is
cut into pieces by its own length alone, and every sum is made in an order that does not depend on what else is in the pass (`pages.py`,
`packed.py`). So on CPU a reply is the same to the bit whatever runs beside it (tests say so), and a resumed run repeats an
uninterrupted one. What rows begin with alike (a system prompt, demonstrations, an attack's own words, or all of it where a prompt is
sampled many times) is read once; the whole pages of a system prompt or of demonstrations are shared, the rest is copied.
"""

from __future__ import annotations

import heapq
from bisect import insort
from collections import Counter, OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from transformers import PreTrainedModel
from transformers.cache_utils import Cache

from forethought.models.caching import with_cache
from forethought.models.packed import GRAIN
from forethought.models.pages import PAGE, PagedLayer, Plan, Span
from forethought.records import Reply, Sampling

POSITIONS = 128
PIECE = 32
# What was read of prompts is kept for later rows, up to so many pages; an idle decoder keeps as many for rows to come.
KEPT = 32
# Keys and values of the columns that a prompt begins with, a layer each.
Prefix = list[tuple[torch.Tensor, torch.Tensor]]


@dataclass
class Piece:
    """Tokens read together, kept from `column` on. Each sees the columns below `base` and the tokens before it; or, where it is on a
    branch of a tree, the columns of `above[i]`, itself among them. `scored`: (index in the piece, option, token) whose log-probability
    is wanted."""

    tokens: list[int]
    column: int
    base: int = 0
    above: list[list[int]] = field(default_factory=list)
    scored: list[tuple[int, int, int]] = field(default_factory=list)

    @property
    def positions(self) -> list[int]:
        """Where in its text each token stands."""
        if self.above:
            return [self.base + len(seen) - 1 for seen in self.above]
        return list(range(self.column, self.column + len(self.tokens)))

    def hidden(self, columns: int) -> torch.Tensor:
        """What each token does not see: bool [tokens, columns]."""
        own = torch.arange(self.column, self.column + len(self.tokens))[:, None]
        if not self.above:
            return torch.arange(columns)[None] > own
        hidden = torch.ones(len(self.tokens), columns, dtype=torch.bool)
        hidden[:, : self.base] = False
        rows = [i for i, seen in enumerate(self.above) for _ in seen]
        hidden[rows, [column for seen in self.above for column in seen]] = False
        return hidden


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
    pages: list[int] = field(default_factory=list)
    filled: int = 0
    source: Row | None = None
    kept: bool = False

    @property
    def need(self) -> int:
        """Columns that the row may come to use."""
        return len(self.ids) + (sum(map(len, self.options)) if self.options else self.sampling.max_tokens)

    @property
    def whole(self) -> int:
        """Whole pages of the head: its first ones, which rows of the same head share."""
        return self.head // PAGE

    def shares(self, other: Row) -> int:
        """How many columns both fill in the same pieces, so with the same numbers."""
        if self.head != other.head or self.ids[: self.head] != other.ids[: self.head]:
            return 0
        if self.ids == other.ids:
            return len(self.ids) - 1
        same, last = self.head, min(len(self.ids), len(other.ids)) - 1
        while (end := same + PIECE) <= last and self.ids[same:end] == other.ids[same:end]:
            same = end
        return same

    def cut(self, first: int) -> None:
        """Line up the pieces from column `first`, at which one begins, or the last token."""
        last = len(self.ids) - 1
        for start, end in ((0, self.head), (self.head, last)):
            self.todo += [Piece(self.ids[i : min(i + PIECE, end)], i) for i in range(start, end, PIECE) if i >= first]
        if not self.options:
            return
        self.sums = [0.0] * len(self.options)
        self.todo.append(Piece(self.ids[-1:], last, scored=[(0, n, o[0]) for n, o in enumerate(self.options)]))
        self.todo += branches(self.options, len(self.ids))


def branches(options: Sequence[list[int]], base: int) -> list[Piece]:
    """Pieces that read the options from column `base` on as a tree, so that what several begin with is read once. The last token of an
    option is only scored."""
    columns: dict[tuple[int, ...], int] = {}
    pieces: list[Piece] = []
    for n, option in enumerate(options):
        above: list[int] = []
        for k in range(1, len(option)):
            start = tuple(option[:k])
            column = columns.setdefault(start, base + len(columns))
            above = [*above, column]
            if (column - base) // PIECE == len(pieces):
                pieces.append(Piece([], column, base))
            piece = pieces[(column - base) // PIECE]
            if column == piece.column + len(piece.tokens):
                piece.tokens.append(option[k - 1])
                piece.above.append(above)
            piece.scored.append((column - piece.column, n, option[k]))
    return pieces


class Decoder:
    """Works off a queue, at most `most` rows at once, in pages of at most `columns` columns in all. `step` is one pass; it returns the
    rows that ended.

    Who may write most goes first, so that no few are left to the end; choices go before them, since others wait for what is chosen. A row
    starts when all that it may come to need is there, and takes pages as it goes on, the lowest that are free.
    A pass has as many positions as it needs, but at least `least`, so that sums keep their order.
    """

    def __init__(self, model: PreTrainedModel, stops: frozenset[int], most: int, columns: int, least: int) -> None:
        self.model, self.stops, self.most, self.columns = model, stops, most, columns
        self.least = least
        self.queue: list[Row] = []
        self.rows: list[Row] = []
        self._free: list[int] = []
        self._users: Counter[int] = Counter()
        self._prompts: OrderedDict[tuple[int, ...], Prefix] = OrderedDict()
        self._layers = [PagedLayer() for _ in range(model.config.get_text_config().num_hidden_layers)]
        self._cache = Cache(layers=list(self._layers))

    @property
    def busy(self) -> bool:
        return bool(self.queue or self.rows)

    def submit(self, row: Row) -> None:
        insort(self.queue, row, key=lambda r: (not r.options, -r.sampling.max_tokens))

    @torch.inference_mode()
    def step(self) -> list[Row]:
        if not self.queue:
            self._close_gaps()
        self._admit()
        decoding = [r for r in self.rows if not (r.todo or r.options or r.source)]
        pieces, room = [], POSITIONS - len(decoding)
        for row in self.rows:
            while row.todo and row.source is None and len(row.todo[0].tokens) <= room:
                room -= len(row.todo[0].tokens)
                pieces.append((row, row.todo.popleft()))
        logits = self._forward(decoding, pieces)
        # Before the pages of rows that end are given to others.
        for row in self.rows:
            if row.source is not None:
                self._share(row, row.source, row.shares(row.source))
            if row.head and not row.kept and row.filled >= row.head:
                row.kept = True
                self._keep(row, row.head)
        ended = self._accept(decoding, logits) + self._score(pieces, logits[len(decoding) :])
        for row in ended:
            # A sample, or a choice, is likely to be followed by another one.
            if row.options or row.sampling.temperature > 0:
                self._keep(row, len(row.ids) - 1)
            self.rows.remove(row)
            self._leave(row)
        if not self.busy and self._layers[0].size > KEPT:
            self._free.clear()
            for layer in self._layers:
                layer.clear()
        return ended

    def _admit(self) -> None:
        """Rows from the queue, as long as all fits."""
        while self.queue and len(self.rows) < self.most:
            row = self.queue[0]
            if self.rows and _held([*self.rows, row]) * PAGE > self.columns:
                return
            self.queue.pop(0)
            known = next(
                (ids for ids in (row.ids[:-1], row.ids[: row.head]) if ids and tuple(ids) in self._prompts), []
            )
            source = max(self.rows, key=row.shares, default=None)
            shared = row.shares(source) if source else 0
            # The whole pages of a head that another row has, or is about to read, are not held twice: `_held` counts on it.
            if source is not None and shared and (row.whole or shared > len(known)):
                self._share(row, source, shared)
            elif known:
                self._prompts.move_to_end(tuple(known))
                pages = self._take(row, len(known))
                for layer, (keys, values) in zip(self._layers, self._prompts[tuple(known)], strict=True):
                    layer.write(pages, keys, values)
                row.filled = len(known)
            row.cut(max(row.filled, shared if row.source else 0))
            self.rows.append(row)
            if row.sampling.temperature > 0:
                row.generator = torch.Generator(device=self.model.device).manual_seed(row.seed)

    def _take(self, row: Row, columns: int) -> list[int]:
        """The row's pages, with room for so many columns."""
        while len(row.pages) < _pages(columns):
            if not self._free:
                size = self._layers[0].size
                grown = min(max(1, 2 * size), max(self.columns // PAGE, _pages(row.need)))
                self._free = list(range(size, grown))
                for layer in self._layers:
                    layer.size = grown
            row.pages.append(heapq.heappop(self._free))
            self._users[row.pages[-1]] = 1
        return row.pages

    def _leave(self, row: Row) -> None:
        """Its pages are free where nobody shares them."""
        for page in row.pages:
            self._users[page] -= 1
            if not self._users[page]:
                heapq.heappush(self._free, page)

    def _share(self, row: Row, source: Row, columns: int) -> None:
        """Take over columns of another row, now or as soon as it has them: the whole pages of a head as they lie, a copy of the rest."""
        if source.filled < columns:
            row.source = source
            return
        row.pages = source.pages[: row.whole]
        self._users.update(row.pages)
        if own := self._take(row, columns)[row.whole :]:
            for layer in self._layers:
                layer.write(own, *layer.read(source.pages[row.whole : _pages(columns)]))
        row.source, row.filled = None, columns

    def _keep(self, row: Row, columns: int) -> None:
        """Copy what was read of a row's first columns, for rows that begin alike."""
        ids = tuple(row.ids[:columns])
        if not ids or ids in self._prompts:
            return
        self._prompts[ids] = [layer.read(row.pages[: _pages(columns)]) for layer in self._layers]
        while len(self._prompts) > 1 and sum(map(_pages, map(len, self._prompts))) > KEPT:
            self._prompts.popitem(last=False)

    def _close_gaps(self) -> None:
        """With nothing left to fill them, free pages below the highest that is used take over its content, so that a pass reads fewer."""
        own = ((page, row, i) for row in self.rows for i, page in enumerate(row.pages) if i >= row.whole)
        used = sorted(own, key=lambda x: -x[0])
        for page, row, i in used:
            if not self._free or self._free[0] > page:
                return
            row.pages[i] = heapq.heapreplace(self._free, page)
            self._users[row.pages[i]], self._users[page] = 1, 0
            for layer in self._layers:
                layer.write([row.pages[i]], *layer.read([page]))

    def _forward(self, decoding: list[Row], pieces: list[tuple[Row, Piece]]) -> torch.Tensor:
        """Logits [len(decoding) + what the pieces want scored, vocabulary]."""
        device = self.model.device
        tokens = [r.out[-1] if r.out else r.ids[-1] for r in decoding]
        columns = [len(r.ids) + len(r.out) - 1 for r in decoding]
        pages = [self._take(r, c + 1)[c // PAGE] for r, c in zip(decoding, columns, strict=True)]
        positions, wanted, spans = list(columns), list(range(len(decoding))), []
        for row, piece in pieces:
            n, at, end = len(piece.tokens), len(tokens), piece.column + len(piece.tokens)
            held = self._take(row, end)[: _pages(end)]
            hidden = piece.hidden(len(held) * PAGE).to(device)
            spans.append(Span(torch.tensor(held, device=device), at, n, hidden))
            wanted += [at + i for i in sorted({i for i, _, _ in piece.scored})]
            tokens += piece.tokens
            positions += piece.positions
            columns += range(piece.column, end)
            pages += [held[c // PAGE] for c in range(piece.column, end)]
            row.filled = end
        plan = self._plan(decoding, pages, columns, spans)
        for layer in self._layers:
            layer.plan = plan
        ids, places, kept = (torch.tensor(self._padded(x), device=device) for x in (tokens, positions, wanted))
        return self.model(  # type: ignore[no-any-return]
            input_ids=ids[None],
            position_ids=places[None],
            # Four dimensions: transformers takes it for a finished mask and leaves it alone.
            attention_mask=torch.ones(1, 1, 1, 1, dtype=torch.bool, device=device),
            **with_cache(self.model, self._cache),
            logits_to_keep=kept,
            plan=plan,
        ).logits[0, : len(wanted)]

    def _plan(self, decoding: list[Row], pages: list[int], columns: list[int], spans: list[Span]) -> Plan:
        device, n = self.model.device, len(decoding)
        top = max((max(row.pages) for row in decoding), default=-1) + 1
        own = [row.pages[row.whole :] for row in decoding]
        most = max(map(len, own), default=0)
        owner, seen = [n] * top, [PAGE] * top
        alike: dict[tuple[int, ...], list[int]] = {}
        for i, row in enumerate(decoding):
            for j, page in enumerate(own[i], row.whole):
                owner[page], seen[page] = i, columns[i] + 1 - j * PAGE
            if row.whole:
                alike.setdefault(tuple(row.pages[: row.whole]), []).append(i)
        table = [pages + [top] * (most - len(pages)) for pages in own]
        nth = []
        for j in range(most):
            rows = [i for i, pages in enumerate(own) if j < len(pages)]
            index = torch.tensor([rows, [table[i][j] for i in rows]], device=device)
            nth.append((index[0], index[1]))
        heads = [
            (torch.tensor(rows, device=device), torch.tensor(pages, device=device)) for pages, rows in alike.items()
        ]
        hidden = torch.arange(PAGE, device=device)[None] >= torch.tensor(seen, device=device)[:, None]
        return Plan(
            pages=torch.tensor(pages, device=device),
            columns=torch.tensor([c % PAGE for c in columns], device=device),
            decoding=n,
            owner=torch.tensor(owner, dtype=torch.long, device=device),
            hidden=hidden[:, None, None],
            table=torch.tensor(table, dtype=torch.long, device=device).view(n, most),
            nth=nth,
            heads=heads,
            spans=spans,
        )

    def _padded(self, numbers: list[int]) -> list[int]:
        size = max(self.least, -(-len(numbers) // GRAIN) * GRAIN)
        return numbers + [0] * (size - len(numbers))

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
        sums = logits.float().logsumexp(-1) if len(logits) else logits
        for row, piece in pieces:
            for i, option, token in piece.scored:
                row.sums[option] += float(logits[at + i, token].float() - sums[at + i])
            at += len({i for i, _, _ in piece.scored})
        return [r for r in self.rows if r.options and not r.todo and r.source is None]


def _pages(columns: int) -> int:
    return -(-columns // PAGE)


def _held(rows: Sequence[Row]) -> int:
    """Pages that all rows may come to need, those of a head that several share once."""
    heads = {tuple(row.ids[: row.head]): row.whole for row in rows if row.whole}
    return sum(_pages(row.need) - row.whole for row in rows) + sum(heads.values())


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
