"""Synthesis: prompts in, training examples and rejects out."""

from __future__ import annotations

from collections import Counter
from functools import partial
from pathlib import Path

from forethought.config import ModelConfig
from forethought.flow import Done, Job
from forethought.policy import Policy, without_examples
from forethought.records import (
    LABELS,
    Decision,
    Example,
    Prompt,
    Rejected,
    digest,
)
from forethought.registry import parse_spec, resolve
from forethought.run import Run, hash_file, open_run, write_records
from forethought.stages.shared import execute, weights_of
from forethought.synth import SYNTHESIZERS, Made, Synthesizer
from forethought.synth.teacher import blind_decision


def synth(
    out: Path,
    method: str,
    prompts: list[Prompt],
    policy: Policy,
    target: ModelConfig,
    teacher: ModelConfig | None = None,
    *,
    guard: ModelConfig | None = None,
    helper: ModelConfig | None = None,
    blind: int = 0,
    seed: int = 0,
    overwrite: bool = False,
) -> Run:
    """Turn prompts into training examples: `examples.jsonl` and `rejected.jsonl`, in the order of the prompts.

    `blind` prompts, drawn by hash, are also decided by a teacher that is not shown their label; the share it gets right goes into the
    run's `blind`.
    """
    make = _synthesizer(method, policy, guard is not None)
    teacher = teacher or target
    roles = {"target": target, "teacher": teacher, "helper": helper or teacher, **({"guard": guard} if guard else {})}
    inputs = {
        "prompts": digest([p.model_dump() for p in prompts]),
        "policy": policy.hash,
        **weights_of(*roles.values()),
    }
    inputs |= {name: hash_file(name) for name in _files_of(method)}
    settings = {"method": method, "policy": policy.name, "blind": blind} | {r: m.model_dump() for r, m in roles.items()}
    run = open_run(out, "synth", settings, inputs, seed=seed, overwrite=overwrite)
    if run.finished:
        return run
    for warning in without_examples(policy, prompts):
        run.log(f"warning: {warning}")
    seen = _forget_last(run)
    by_id = {p.id: p for p in prompts}

    def save(done: Done[Made]) -> None:
        made = done.value
        if not isinstance(made, list) or not made or not all(isinstance(m, Example | Rejected) for m in made):
            detail = done.error or f"the synthesizer returned {made!r}"[:200]
            made = [Rejected(prompt=by_id[done.key], method=method, reason="failed", detail=detail)]
        kept = [m for m in made if isinstance(m, Example)]
        # A synthesizer knows which role wrote, not which model plays it.
        kept = [e.model_copy(update={"teacher": roles[e.teacher].name}) if e.teacher in roles else e for e in kept]
        run.append("rejected.jsonl", [m for m in made if isinstance(m, Rejected)])
        run.append("examples.jsonl", kept)

    jobs = [Job(p.id, partial(make, p)) for p in prompts if p.id not in seen]
    execute(run, f"synth {method}", jobs, roles, save, len(prompts), seed)
    order = {p.id: i for i, p in enumerate(prompts)}
    kept, rejected = run.read("examples.jsonl", Example), run.read("rejected.jsonl", Rejected)
    kept.sort(key=lambda e: order[e.prompt.base])
    rejected.sort(key=lambda r: order[r.prompt.base])
    write_records(run.path / "examples.jsonl", kept)
    write_records(run.path / "rejected.jsonl", rejected)
    reasons = Counter(f"rejected: {r.reason}" for r in rejected)
    counts = {"planned": len(prompts), "ok": len({e.prompt.base for e in kept}), "failed": len(rejected), **reasons}
    decided = _decide_blind(run, prompts, policy, roles, blind, seed)
    run.finish(counts, ["examples.jsonl", "rejected.jsonl"], **({"blind": decided} if decided else {}))
    return run


def _synthesizer(method: str, policy: Policy, guarded: bool) -> Synthesizer:
    if guarded and "guard" not in parse_spec(method)[1]:
        # A model named as guard is asked; options in the method's brackets say in which form.
        name, _, rest = method.rstrip().removesuffix(")").partition("(")
        method = f"{name}({', '.join(filter(None, (rest, 'guard=plain')))})"
    return resolve("synthesizer", SYNTHESIZERS, method, policy=policy)  # type: ignore[no-any-return]


def _files_of(method: str) -> list[str]:
    """Files that the method's options name: their content is an input of the run."""
    return [v for v in parse_spec(method)[1].values() if isinstance(v, str) and Path(v).is_file()]


def _forget_last(run: Run) -> set[str]:
    """Ids of prompts that are done. A kill can tear the last prompt's records apart, so that one is made again."""
    files: dict[str, list[Example] | list[Rejected]] = {
        "examples.jsonl": run.read("examples.jsonl", Example),
        "rejected.jsonl": run.read("rejected.jsonl", Rejected),
    }
    torn = {records[-1].prompt.base for records in files.values() if records}
    for name, records in files.items():
        if records:
            write_records(run.path / name, [r for r in records if r.prompt.base not in torn])
    return {r.prompt.base for records in files.values() for r in records} - torn


def _decide_blind(
    run: Run, prompts: list[Prompt], policy: Policy, roles: dict[str, ModelConfig], n: int, seed: int
) -> dict[str, dict[str, int]]:
    """{label: {n, right, exact, unclear}} of the teacher's decisions without the label; `right` says whether it answers just what is to be
    answered, `exact` also tells refusal from support."""
    chosen = sorted(prompts, key=lambda p: digest(seed, "blind", p.id))[:n]
    by_id = {p.id: p for p in chosen}
    found: dict[str, Counter[str]] = {}

    def save(done: Done[Decision]) -> None:
        prompt = by_id[done.key]
        wanted, counts = policy.decide(prompt), found.setdefault(prompt.label, Counter())
        counts["n"] += 1
        if done.value is None:
            counts["unclear"] += 1
        else:
            counts["right"] += (done.value == "answer") == (wanted == "answer")
            counts["exact"] += done.value == wanted

    jobs = [Job(p.id, partial(blind_decision, p, policy)) for p in chosen]
    if jobs:
        execute(run, "teacher without the label", jobs, {"teacher": roles["teacher"]}, save, len(jobs), seed)
    return {label: dict(found[label]) for label in LABELS if label in found}
