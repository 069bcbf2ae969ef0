"""Divergence: an attack run and its target in; hidden states, distances, probes and maps out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from forethought.analysis.divergence.measure import Group, Looked, Position, Standpoint, look, stand
from forethought.analysis.log_odds import thinks
from forethought.analysis.rates import applies
from forethought.analysis.summary import DIRECT
from forethought.errors import ForethoughtError
from forethought.models import is_served
from forethought.progress import progress
from forethought.records import Attempt, digest
from forethought.run import Run, open_run, read_run, run_hash
from forethought.stages.shared import attacked, load
from forethought.stages.states import (
    FOLDER,
    INDEX,
    State,
    check_hashes,
    goal_of,
    read_states,
    reader,
    rows_of,
    write_hashes,
)

ROWS = "divergence.jsonl"
# Fixed before anything was looked at. Shares of the depth, so that models of other sizes can be set beside one another.
DEPTHS = (0.25, 0.5, 0.75, 1.0)
SOURCE = ("harmful", "benign")


def diverge(
    out: Path,
    attempts_run: Path,
    *,
    thinking: bool | None = None,
    take: int | None = None,
    seed: int = 0,
    overwrite: bool = False,
) -> Run:
    """Read the target's hidden states at every attempt of an attack run and measure how far attacks lie from direct requests:
    `states/` (float16 shards), `states.jsonl` and `divergence.jsonl`.

    `thinking` None finds out from the attempts whether the target thinks: then it is also read where its answer begins. At most `take`
    goals of each label are read, the same ones under every attack. ForethoughtError where the target has no weights here, or is no
    longer the one that was attacked.
    """
    source, target, weights = attacked(attempts_run)
    if is_served(target.name) or target.name.startswith("scripted:"):
        raise ForethoughtError(
            f"hidden states need the weights, and '{target.name}' has none here. Attack smollm2, hf:ID_OR_PATH or a training run."
        )
    attempts = source.read("attempts.jsonl", Attempt)
    thought = thinks(attempts) if thinking is None else thinking
    positions: tuple[Position, ...] = ("prompt", "answer") if thought else ("prompt",)
    settings = {
        "attempts": str(attempts_run),
        "target": target.model_dump(),
        "thinks": thought,
        "depths": list(DEPTHS),
        "take": take,
    }
    run = open_run(
        out, "divergence", settings, {"attempts": run_hash(source), **weights}, seed=seed, overwrite=overwrite
    )
    if run.finished:
        return run
    wanted = _taken([a for a in attempts if applies(a)], take, seed)
    loaded = load(target)
    layers = _layers(loaded)
    read_states(run, wanted, positions, reader(loaded, list(layers.values()), positions), f"read {target.name}")
    states = run.read(INDEX, State)
    seen = _seen(states, positions)
    looked = _look(run, states, seen, layers, seed)
    run.replace(ROWS, looked)
    missing = sum(s.error is not None for s in states)
    counts = {"planned": len(states), "ok": len(states) - missing, "failed": missing}
    layout = {"layers": {str(d): n for d, n in layers.items()}, "unseen": [p for p in positions if p not in seen]}
    run.finish(counts, [INDEX, ROWS, write_hashes(run)], **layout)
    return run


def read_looks(path: Path) -> list[Looked]:
    """The records of a finished run."""
    return read_run(path, "divergence").read(ROWS, Looked)


def recompute(path: Path) -> list[Looked]:
    """The records of a finished run, computed again from its hidden states alone."""
    run = read_run(path, "divergence")
    check_hashes(run)
    positions: tuple[Position, ...] = ("prompt", "answer") if run.info["config"]["thinks"] else ("prompt",)
    layers = {float(depth): n for depth, n in run.info["layers"].items()}
    states = run.read(INDEX, State)
    return list(_looks(path, states, _seen(states, positions), layers, run.info["seed"], set()))


def _seen(states: Sequence[State], positions: Sequence[Position]) -> list[Position]:
    """The first position, and those others where both classes asked directly have a state to measure from: a model may think and never
    come to an answer."""
    there = {(s.position, s.label) for s in states if s.attack == DIRECT and s.error is None}
    return [p for p in positions if p == positions[0] or all((p, label) in there for label in SOURCE)]


def _look(
    run: Run, states: Sequence[State], positions: Sequence[Position], layers: dict[float, int], seed: int
) -> list[Looked]:
    """Every look, in planned order; those that the run holds already are kept."""
    found = run.read(ROWS, Looked)
    total = len(positions) * len(layers) * len({s.attack for s in states} | {DIRECT})
    with progress("measure", total, "looks", len(found)) as bar:
        for record in _looks(run.path, states, positions, layers, seed, {_key(r) for r in found}):
            found.append(record)
            run.append(ROWS, [record])
            bar.advance()
    return found


def _looks(
    path: Path,
    states: Sequence[State],
    positions: Sequence[Position],
    layers: dict[float, int],
    seed: int,
    done: set[tuple[str, float, str]],
) -> Iterator[Looked]:
    attacks = [DIRECT, *(a for a in dict.fromkeys(s.attack for s in states) if a != DIRECT)]
    for position in positions:
        for place, (depth, layer) in enumerate(layers.items()):
            rest = [a for a in attacks if (position, depth, a) not in done]
            at: Standpoint | None = None
            for attack in rest:
                at = at or stand(position, depth, layer, _groups(path, states, DIRECT, position, place, SOURCE))
                labels = [x for x in dict.fromkeys(s.label for s in states if s.attack == attack) if _shown(x, attack)]
                yield look(at, attack, _groups(path, states, attack, position, place, labels), seed)


def _shown(label: str, attack: str) -> bool:
    return attack != DIRECT or label not in SOURCE


def _groups(
    path: Path, states: Sequence[State], attack: str, position: Position, place: int, labels: Iterable[str]
) -> dict[str, Group]:
    found = {}
    for label in labels:
        own = [
            (n, s)
            for n, s in enumerate(states)
            if (s.attack, s.label, s.position) == (attack, label, position)
        ]  # fmt: skip
        whole = [(n, s) for n, s in own if s.error is None]
        rows = rows_of(path / FOLDER, whole, place)
        found[label] = Group(rows, [s.goal for _, s in whole], [s.attempt for _, s in whole], len(own) - len(whole))
    return found


def _layers(loaded: object) -> dict[float, int]:
    """Layer by depth; a model with few layers has fewer depths than DEPTHS."""
    from forethought.optim.latent import at_depths

    found: dict[float, int] = {}
    for depth in DEPTHS:
        (layer,) = at_depths(loaded.model, (depth,))  # type: ignore[attr-defined]
        if layer not in found.values():
            found[depth] = layer
    return found


def _taken(attempts: list[Attempt], take: int | None, seed: int) -> list[Attempt]:
    """The attempts on the first `take` goals of each label, in an order that a hash draws."""
    if take is None:
        return attempts
    goals: dict[str, set[str]] = {}
    for attempt in attempts:
        goals.setdefault(attempt.prompt.label, set()).add(goal_of(attempt))
    kept = {
        (label, goal) for label, there in goals.items() for goal in sorted(there, key=lambda g: digest(seed, g))[:take]
    }
    return [a for a in attempts if (a.prompt.label, goal_of(a)) in kept]


def _key(record: Looked) -> tuple[str, float, str]:
    return record.position, record.depth, record.attack
