"""Capability: tasks and a model in, graded answers out; ours, or those of lm-evaluation-harness."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from forethought.analysis.equivalence import Paired, equivalences
from forethought.capability import Item, Way, draw, load_task
from forethought.capability.harness import RIGHT_OR_WRONG, evaluate, graded, without_measure
from forethought.config import ModelConfig
from forethought.errors import ForethoughtError, is_broken, is_unanswered
from forethought.flow import Done, Flow, Job
from forethought.models import is_served
from forethought.records import Graded, Sampling, digest
from forethought.run import Run, open_run, read_run, write_json
from forethought.stages.shared import execute, files_of, unload, weights_of

ROWS = "graded.jsonl"


def capability(
    out: Path,
    target: ModelConfig,
    tasks: Iterable[str],
    *,
    take: int | None = None,
    max_tokens: int = 512,
    seed: int = 0,
    overwrite: bool = False,
    say: Callable[[str], None] = print,
) -> Run:
    """Put capability tasks to a model: `graded.jsonl`, one row for each task, mode and question. Always greedy.

    `take` questions of each task are drawn by hash, the same for every model. A server is asked only what needs no likelihoods.
    """
    specs, weights = dict.fromkeys(tasks), weights_of(target)
    loaded = dict(map(load_task, specs))
    if len(loaded) < len(specs):
        raise ForethoughtError("one task is named twice. Give each its own run, or other options.")
    ways = {(name, mode): way for name, task in loaded.items() for mode, way in task.ways.items()}
    if is_served(target.name):
        ways = _without_likelihood(target, ways, say)
    items = {name: draw(loaded[name].read(), take, seed) for name in dict.fromkeys(name for name, _ in ways)}
    for name, found in items.items():
        if not found:
            raise ForethoughtError(f"{name}: there are no questions in its data.")
    inputs = {name: digest([i.model_dump() for i in found]) for name, found in items.items()}
    settings = {
        "tasks": list(loaded), "data": list(specs), "modes": [f"{n} {m}" for n, m in ways], "take": take, "max_tokens": max_tokens,
        "target": target.model_dump(),
    }  # fmt: skip
    run = open_run(
        out, "capability", settings, {**inputs, **weights, **files_of(*specs)}, seed=seed, overwrite=overwrite
    )
    if run.finished:
        return run
    planned = {f"{n}/{m}/{i.id}": (n, m, way, i) for (n, m), way in ways.items() for i in items[n]}
    counts = ", ".join(f"{name} {len(found)}" for name, found in items.items())
    say(f"capability: {len(planned)} asks ({counts} questions; {len(ways)} modes in all) to {target.name}")
    rows = run.read(ROWS, Graded)
    broken = run.first_time({f"{r.task}/{r.mode}/{r.id}" for r in rows if is_broken(r.error)})
    rows = [r for r in rows if f"{r.task}/{r.mode}/{r.id}" not in broken]
    run.replace(ROWS, rows)
    seen = {f"{r.task}/{r.mode}/{r.id}" for r in rows}

    def save(done: Done[Graded]) -> None:
        name, mode, _, item = planned[done.key]
        row = done.value or Graded(
            task=name, mode=mode, id=item.id, question=item.question, gold=item.gold, error=done.error,
            chance=1 / len(item.options) if item.options else None,
        )  # fmt: skip
        rows.append(row)
        run.append(ROWS, [row])

    sampling = Sampling(max_tokens=max_tokens)
    jobs = [Job(k, partial(_named, n, m, w, i, sampling)) for k, (n, m, w, i) in planned.items() if k not in seen]
    execute(run, f"capability {target.name}", jobs, {"target": target}, save, len(planned), seed)
    order = {key: i for i, key in enumerate(planned)}
    rows.sort(key=lambda r: order[f"{r.task}/{r.mode}/{r.id}"])
    return _finish(run, rows, len(planned), [])


def harness(
    out: Path,
    target: ModelConfig,
    tasks: Iterable[str],
    *,
    take: int | None = None,
    max_tokens: int = 512,
    seed: int = 0,
    overwrite: bool = False,
    say: Callable[[str], None] = print,
) -> Run:
    """Tasks of lm-evaluation-harness under the model's chat template: `graded.jsonl` in our form, `harness.json` as it reports them.

    It keeps no state of its own, so a run that was killed begins again.
    """
    names = list(dict.fromkeys(tasks))
    settings = {"harness": names, "take": take, "max_tokens": max_tokens, "target": target.model_dump()}
    run = open_run(out, "capability", settings, weights_of(target), seed=seed, overwrite=overwrite)
    if run.finished:
        return run
    unload()
    found = evaluate(target, names, take, max_tokens, seed)
    if silent := without_measure(found):
        say(
            f"note: not in the table, for want of a measure that is right or wrong for each question: {', '.join(silent)}. "
            "What the harness reports of them is in harness.json."
        )
    # Its task configurations may hold functions.
    kept = {k: found[k] for k in ("results", "versions", "n-shot", "configs") if k in found}
    write_json(run.path / "harness.json", json.loads(json.dumps(kept, default=str)))
    rows = graded(found)
    if not rows:
        raise ForethoughtError(
            f"no question of {', '.join(names)} has a measure that is right or wrong ({', '.join(RIGHT_OR_WRONG)}), so there is nothing to "
            f"compare. What the harness reports is in {run.path / 'harness.json'}; choose another task."
        )
    return _finish(run, rows, len(rows), ["harness.json"])


def _named(name: str, mode: str, way: Way, item: Item, sampling: Sampling) -> Flow[Graded]:
    row = yield from way.ask(item, sampling)
    return row.model_copy(update={"task": name, "mode": mode})


def _without_likelihood(
    target: ModelConfig, ways: dict[tuple[str, str], Way], say: Callable[[str], None]
) -> dict[tuple[str, str], Way]:
    kept = {key: way for key, way in ways.items() if not way.likelihood}
    left = ", ".join(" ".join(key) for key in ways if key not in kept)
    if not kept:
        raise ForethoughtError(
            f"a chat server gives no log-probabilities of fixed text, which {left} need. Use a local model, or a task that is answered by "
            "generation: arc, mmlu, gsm8k, decode."
        )
    if left:
        say(f"note: {target.name} is a chat server and gives no log-probabilities of fixed text: not asked are {left}")
    return kept


def _finish(run: Run, rows: list[Graded], planned: int, more: list[str]) -> Run:
    failed = sum(row.error is not None for row in rows)
    if rows and all(is_unanswered(row.error) for row in rows):
        run.replace(ROWS, [])
        raise ForethoughtError(f"the server answered none of {failed} questions. The first: {rows[0].error}")
    run.replace(ROWS, rows)
    right = Counter(f"right: {row.task} {row.mode}" for row in rows if row.correct)
    run.finish({"planned": planned, "ok": len(rows) - failed, "failed": failed, **right}, [ROWS, *more])
    return run


def compare_runs(
    first: Path, second: Path, *, margin: float = 0.03, margin_nll: float = 0.05, say: Callable[[str], None] = print
) -> list[Paired]:
    """The second capability run against the first. Raises ForethoughtError where they were not asked alike."""
    one, two = read_run(first, "capability"), read_run(second, "capability")
    longest = [run.info["config"]["max_tokens"] for run in (one, two)]
    if longest[0] != longest[1]:
        raise ForethoughtError(
            f"{first} and {second} were asked with different --max-tokens ({longest[0]} and {longest[1]}). Make one of them again."
        )
    if one.info["code"] != two.info["code"]:
        say("note: the two runs were made by different versions of this program, whose questions may differ.")
    return equivalences(one.read(ROWS, Graded), two.read(ROWS, Graded), margin=margin, margin_nll=margin_nll)
