"""Judging: attempts in, verdicts out."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path

from forethought.config import ModelConfig
from forethought.flow import Done, Job
from forethought.judges import JUDGES, Judge
from forethought.records import (
    Attempt,
    Verdict,
)
from forethought.registry import resolve
from forethought.run import Run, open_run, read_run, run_hash, write_records
from forethought.stages.shared import execute, weights_of


def judge(
    out: Path,
    attempts_run: Path,
    judges: Iterable[str],
    model: ModelConfig | None = None,
    *,
    seed: int = 0,
    overwrite: bool = False,
) -> Run:
    """Let judges speak on every attempt of an attack run: `verdicts.jsonl` beside it, never into it. Asks no target."""
    source = read_run(attempts_run, "attack")
    named: dict[str, Judge] = {spec: resolve("judge", JUDGES, spec) for spec in judges}
    settings = {"judges": list(named), "attempts": str(attempts_run), "model": model.model_dump() if model else None}
    made_from = {"attempts": run_hash(source), **weights_of(*([model] if model else []))}
    run = open_run(out, "judge", settings, made_from, seed=seed, overwrite=overwrite)
    if run.finished:
        return run
    attempts = source.read("attempts.jsonl", Attempt)
    verdicts = run.read("verdicts.jsonl", Verdict)
    seen = {f"{v.judge}/{v.attempt}" for v in verdicts}
    planned = {f"{name}/{a.id}": (name, speak, a) for name, speak in named.items() for a in attempts}

    def save(done: Done[Verdict]) -> None:
        name, _, made = planned[done.key]
        verdict = done.value
        if isinstance(verdict, Verdict) and verdict.attempt == made.id:
            # A judge knows its own name, not the options or the module it was called by.
            verdict = verdict.model_copy(update={"judge": name})
        else:
            # A judge that crashed has not said "safe": unscored, with the reason.
            error = done.error or f"the judge returned no verdict on this attempt but {verdict!r}"[:200]
            verdict = Verdict(attempt=made.id, judge=name, score=None, label="error", error=error)
        verdicts.append(verdict)
        run.append("verdicts.jsonl", [verdict])

    jobs = [Job(k, partial(s, a.prompt, a)) for k, (_, s, a) in planned.items() if k not in seen]
    roles = {"judge": model} if model else {}
    execute(run, "judge", jobs, roles, save, len(planned), seed)
    order = {key: i for i, key in enumerate(planned)}
    verdicts.sort(key=lambda v: order[f"{v.judge}/{v.attempt}"])
    write_records(run.path / "verdicts.jsonl", verdicts)
    unscored = sum(v.score is None for v in verdicts)
    run.finish({"planned": len(planned), "ok": len(verdicts) - unscored, "failed": unscored}, ["verdicts.jsonl"])
    return run
