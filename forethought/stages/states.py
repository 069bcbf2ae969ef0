"""Hidden states on disk: read from the target of an attack run, kept as float16 in shards, given back a layer at a time.

Nothing here grows with the number of attempts but the index: a shard is held while it is filled, and reading maps the shards into memory
and copies one layer of one shard at a time.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from forethought.analysis.divergence.measure import Position
from forethought.analysis.divergence.subspace import Array, Rows
from forethought.analysis.log_odds import INSIDE
from forethought.attacks import beyond_text
from forethought.chat import decision_point, encode_prompt
from forethought.errors import AskFailed, ForethoughtError
from forethought.flow import Ask
from forethought.progress import progress
from forethought.records import Attempt, Label, Record, digest
from forethought.run import Run, explain_disk, hash_file, write_json

FOLDER, INDEX, HASHES = "states", "states.jsonl", "states.json"
SHARD = 64
# float16 ends at 65504; what is larger is stored divided by a power of two.
LARGEST = 2.0**15
Read = Callable[[Attempt], list[Array | str]]


class State(Record):
    """One hidden state: row `n` of the shards holds [layers, width] of it, divided by `scale`; or `error` says why there is none."""

    attempt: str
    attack: str
    label: Label
    goal: str
    position: Position
    scale: float = 1.0
    error: str | None = None


def read_states(run: Run, attempts: Sequence[Attempt], positions: Sequence[Position], read: Read, label: str) -> None:
    """Bring the run's shards up to date: `read` gives the states of an attempt, one a position. Goes on after the last whole shard."""
    planned = [
        State(attempt=a.id, attack=a.attack, label=a.prompt.label, goal=goal_of(a), position=p)
        for a in attempts
        for p in positions
    ]
    kept = run.read(INDEX, State)
    whole = len(kept) // SHARD * SHARD
    if len(kept) == len(planned):
        return
    run.replace(INDEX, kept[:whole])
    with explain_disk():
        (run.path / FOLDER).mkdir(exist_ok=True)
    rows: list[tuple[State, Array | None]] = []
    with progress(label, len(attempts), "states", whole // len(positions)) as bar:
        for number in range(whole // len(positions), len(attempts)):
            found = read(attempts[number])
            for state, value in zip(planned[number * len(positions) :], found, strict=False):
                rows.append(_packed(state, value))
            if len(rows) >= SHARD or number + 1 == len(attempts):
                _write_shard(run, whole // SHARD, [v for _, v in rows])
                run.append(INDEX, [s for s, _ in rows])
                whole, rows = whole + len(rows), []
            bar.advance()


def reader(loaded: Any, layers: Sequence[int], positions: Sequence[Position]) -> Read:
    """States of a loaded local model. An attempt that has none gives the reason, as a word and an explanation."""
    from forethought.optim.states import hidden_states

    last: list[Any] = [None, []]

    def states(ids: list[int], places: list[int]) -> list[Array]:
        # Several samples of one prompt stand side by side, and have the same states before they answer.
        if last[0] != (ids, places):
            last[:] = [(ids, places), list(hidden_states(loaded.model, ids, layers, places))]
        return list(last[1])

    def tokens(attempt: Attempt, prefix: str) -> list[int]:
        ids = encode_prompt(loaded.tokenizer, loaded.render(Ask("target", attempt.messages, prefix)))
        if len(ids) > loaded.context:
            raise AskFailed("too_long", f"{len(ids)} tokens exceed the context of {loaded.context}")
        return ids

    def read(attempt: Attempt) -> list[Array | str]:
        if attempt.error is not None or beyond_text(attempt.attack):
            return [attempt.error or INSIDE] * len(positions)
        try:
            before = tokens(attempt, attempt.prefix)
            if "answer" not in positions:
                return [*states(before, [-1])]
            point = decision_point(attempt.raw, attempt.prefix)
            if point is None:
                return [states(before, [-1])[0], "unclosed: the thought does not end"]
            whole = tokens(attempt, point)
        except AskFailed as failure:
            return [str(failure)] * len(positions)
        if whole[: len(before)] == before:
            return [*states(whole, [len(before) - 1, -1])]
        return [states(ids, [-1])[0] for ids in (before, whole)]

    return read


def goal_of(attempt: Attempt) -> str:
    """What ties attempts together that depend on one another: one request, in any wording and under any attack, and the other side of its
    contrast pair, which shares its words and would draw a classifier to the wrong side."""
    return digest(attempt.prompt.pair or attempt.prompt.request)


def write_hashes(run: Run) -> str:
    """Hashes of all shards as one small file of the run, so that checking the run does not read them; returns its name."""
    shards = sorted((run.path / FOLDER).glob("*.npy"))
    write_json(run.path / HASHES, {p.name: hash_file(p) for p in shards})
    return HASHES


def rows_of(folder: Path, states: Sequence[tuple[int, State]], layer: int) -> Rows:
    """The states at one layer (by its place among those kept), in chunks [few, width] of float64; `states` are (n, state), in order."""
    where = [n for n, _ in states]
    scales = np.array([s.scale for _, s in states])
    cuts = [i for i in range(1, len(where)) if where[i] // SHARD != where[i - 1] // SHARD]

    def chunks() -> Iterator[Array]:
        for first, last in zip([0, *cuts], [*cuts, len(where)], strict=True):
            if first < last:
                shard = np.load(_shard(folder, where[first] // SHARD), mmap_mode="r")
                inside = [n % SHARD for n in where[first:last]]
                yield shard[inside, layer].astype(np.float64) * scales[first:last, None]

    return chunks


def check_hashes(run: Run) -> None:
    """ForethoughtError where a shard is not as it was when the run finished."""
    for name, expected in json.loads((run.path / HASHES).read_text(encoding="utf-8")).items():
        path = run.path / FOLDER / name
        if not path.exists() or hash_file(path) != expected:
            raise ForethoughtError(f"{path} has changed since the run finished. Make the run again.")


def _packed(state: State, value: Array | str) -> tuple[State, Array | None]:
    if isinstance(value, str):
        return state.model_copy(update={"error": value}), None
    most = float(np.abs(value).max())
    if not np.isfinite(most):
        return state.model_copy(update={"error": "not_finite: the model's hidden states overflow"}), None
    scale = 2.0 ** max(0, int(np.ceil(np.log2(max(most, 1.0) / LARGEST))))
    return state.model_copy(update={"scale": scale}), value / scale


def _write_shard(run: Run, number: int, rows: Iterable[Array | None]) -> None:
    """Whole shards only, under another name until they are complete; a row without a state is zeros."""
    rows = list(rows)
    width = next((row.shape for row in rows if row is not None), (0, 0))
    block = np.stack([np.zeros(width) if row is None else row for row in rows]).astype(np.float16)
    buffer = io.BytesIO()
    np.save(buffer, block)
    path = _shard(run.path / FOLDER, number)
    with explain_disk():
        path.with_suffix(".tmp").write_bytes(buffer.getvalue())
        os.replace(path.with_suffix(".tmp"), path)


def _shard(folder: Path, number: int) -> Path:
    return folder / f"{number:06}.npy"
