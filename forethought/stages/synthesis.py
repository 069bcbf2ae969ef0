"""Synthesis: prompts in, training examples and rejects out."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

from forethought.config import Budget, ModelConfig
from forethought.data.card import GUESSED, card, sheet
from forethought.data.files import check_path
from forethought.data.overlap import drop_near_duplicates, find_leaks, leak_error, texts_of
from forethought.data.statistics import describe
from forethought.errors import ForethoughtError, is_broken, is_unanswered
from forethought.flow import Done, Job
from forethought.models import is_served, text_length
from forethought.policy import Policy, without_examples
from forethought.records import (
    LABELS,
    Decision,
    Example,
    Label,
    Prompt,
    Rejected,
    digest,
)
from forethought.registry import parse_spec, resolve
from forethought.run import Run, hash_file, open_run, write_json, write_text
from forethought.stages.shared import execute, files_of, weights_of
from forethought.synth import SYNTHESIZERS, Made, Synthesizer
from forethought.synth.imported import import_rows
from forethought.synth.teacher import blind_decision

Leaks = Literal["stop", "drop"]


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
    evaluation: Mapping[str, Sequence[Prompt]] | None = None,
    leaks: Leaks = "stop",
    budget: Budget | None = None,
    seed: int = 0,
    overwrite: bool = False,
) -> Run:
    """Turn prompts into training examples: `examples.jsonl` and `rejected.jsonl`, in the order of the prompts, with statistics, a card and
    a sheet to read.

    Prompts that nearly repeat an earlier one are rejected. Those that match a prompt of an `evaluation` set are an error, or with
    `leaks="drop"` rejected. `blind` prompts, drawn by hash, are also decided by a teacher that is not shown their label; the share it
    gets right goes into the run's `blind`. A `budget` caps what servers may cost.
    """
    make = synthesizer(method, policy, guard is not None)
    teacher = teacher or target
    roles = {"target": target, "teacher": teacher, "helper": helper or teacher, **({"guard": guard} if guard else {})}
    inputs = {
        "prompts": digest([p.model_dump() for p in prompts]),
        "policy": policy.hash,
        **evaluation_hashes(evaluation),
        **weights_of(*roles.values()),
    }
    inputs |= files_of(method)
    settings = {"method": method, "policy": policy.name, "blind": blind} | {r: m.model_dump() for r, m in roles.items()}
    run = open_run(out, "synth", settings, inputs, seed=seed, overwrite=overwrite)
    if run.finished:
        return run
    run.info["warnings"] = without_examples(policy, prompts)
    for warning in run.info["warnings"]:
        run.log(f"warning: {warning}")
    wanted, unwanted = _sift(prompts, method, evaluation or {}, leaks)
    seen = _forget_last(run)
    if lost := [r for r in unwanted if r.prompt.id not in seen]:
        run.append("rejected.jsonl", lost)
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

    jobs = [Job(p.id, partial(make, p)) for p in wanted if p.id not in seen]
    execute(run, f"synth {method}", jobs, roles, save, len(wanted), seed, budget)
    order = {p.id: i for i, p in enumerate(prompts)}
    kept, rejected = run.read("examples.jsonl", Example), run.read("rejected.jsonl", Rejected)
    # What is refused by a sentence of ours needs no answer.
    asked = {p.id for p in wanted if policy.decide(p) != "refuse"} or {p.id for p in wanted}
    tried = [r for r in rejected if r.prompt.base in asked]
    served = {m.name for m in roles.values() if is_served(m.name)}
    # A row without a thought was written by nobody.
    wrote = any(e.prompt.base in asked or (e.reasoning is not None and e.teacher in served) for e in kept)
    if tried and not wrote and all(is_unanswered(r.detail) for r in tried):
        run.replace("rejected.jsonl", [r for r in rejected if not is_unanswered(r.detail)])
        raise ForethoughtError(f"the server answered none of {len(tried)} prompts. The first: {tried[0].detail}")
    kept.sort(key=lambda e: order[e.prompt.base])
    rejected.sort(key=lambda r: order[r.prompt.base])
    decided = _decide_blind(run, wanted, policy, roles, blind, seed, budget)
    _finish(run, kept, rejected, len(prompts), policy, target.name, {"blind": decided} if decided else {})
    return run


def import_data(
    out: Path,
    form: str,
    path: Path,
    policy: Policy,
    *,
    label: Label | None = None,
    target: str = "smollm2",
    evaluation: Mapping[str, Sequence[Prompt]] | None = None,
    leaks: Leaks = "stop",
    seed: int = 0,
    overwrite: bool = False,
) -> Run:
    """Ready data as a synthesis run, under the same checks. `target` is the model whose tokenizer measures lengths."""
    inputs = {"file": hash_file(check_path(path)), "policy": policy.hash, **evaluation_hashes(evaluation)}
    settings = {
        "method": f"import:{form}",
        "policy": policy.name,
        "path": str(path),
        "label": label,
        "target": {"name": target},
    }
    run = open_run(out, "synth", settings, inputs, seed=seed, overwrite=overwrite)
    if run.finished:
        return run
    records = list(import_rows(form, path, policy, label))
    if not records:
        raise ForethoughtError(f"there is no row in '{path}'.")
    first: dict[str, Example | Rejected] = {}
    for record in records:
        other = first.get(record.prompt.id)
        if other is not None and other.prompt.messages != record.prompt.messages:
            raise ForethoughtError(
                f"{path.name}: the id '{record.prompt.id}' is on two prompts. Leave the column out, and their texts name them."
            )
        if other is None or (isinstance(other, Rejected) and isinstance(record, Example)):
            first[record.prompt.id] = record
    examples = [r for r in first.values() if isinstance(r, Example)]
    _, unwanted = _sift([e.prompt for e in examples], f"import:{form}", evaluation or {}, leaks)
    dropped = {r.prompt.id for r in unwanted}
    others = [
        r if isinstance(r, Rejected) else Rejected(prompt=r.prompt, method=r.method, reason="repeats another prompt")
        for r in records
        if r is not first[r.prompt.id] or isinstance(r, Rejected)
    ]
    kept = [e for e in examples if e.prompt.id not in dropped]
    if guessed := sum(GUESSED in e.checks for e in kept):
        sys.stderr.write(
            f"note: {guessed} rows had no label, which was read off their answers: a harmful request that is answered counts as "
            "borderline. Where all rows are harmful, say --label harmful, and such rows are rejected.\n"
        )
    _finish(run, kept, [*unwanted, *others], len(records), policy, target, {})
    return run


def evaluation_hashes(evaluation: Mapping[str, Sequence[Prompt]] | None) -> dict[str, str]:
    """Content hashes of the sets that training data was checked against."""
    return {f"not in {name}": digest([texts_of(p) for p in prompts]) for name, prompts in (evaluation or {}).items()}


def _sift(
    prompts: Sequence[Prompt], method: str, evaluation: Mapping[str, Sequence[Prompt]], leaks: Leaks
) -> tuple[list[Prompt], list[Rejected]]:
    """(prompts to use, those that leak or nearly repeat another, with the reason). Raises ForethoughtError for a leak where leaks stop."""
    found = find_leaks(prompts, evaluation)
    if found and leaks == "stop":
        raise ForethoughtError(leak_error(found))
    reasons = {k.training.id: ("matches an evaluation prompt", f"{k.set} {k.evaluation.id} ({k.kind})") for k in found}
    clean = [p for p in prompts if p.id not in reasons]
    wanted = drop_near_duplicates(clean)
    used = {p.id for p in wanted}
    reasons |= {p.id: ("nearly repeats another prompt", "") for p in clean if p.id not in used}
    rejected = [
        Rejected(prompt=p, method=method, reason=reasons[p.id][0], detail=reasons[p.id][1])
        for p in prompts
        if p.id in reasons
    ]
    return wanted, rejected


def _finish(
    run: Run,
    kept: list[Example],
    rejected: list[Rejected],
    planned: int,
    policy: Policy,
    target: str,
    extra: dict[str, Any],
) -> None:
    run.replace("examples.jsonl", kept)
    run.replace("rejected.jsonl", rejected)
    measure, unit = text_length(target)
    statistics = describe(kept, rejected, measure, unit)
    write_json(run.path / "statistics.json", statistics | extra)
    write_text(run.path / "README.md", card(run.info, statistics, policy))
    write_text(run.path / "sheet.md", sheet(kept, rejected, run.info["seed"]))
    reasons = Counter(f"rejected: {r.reason}" for r in rejected)
    counts = {"planned": planned, "ok": len({e.prompt.base for e in kept}), "failed": len(rejected), **reasons}
    run.finish(counts, ["examples.jsonl", "rejected.jsonl", "statistics.json", "README.md", "sheet.md"], **extra)


def synthesizer(method: str, policy: Policy, guarded: bool) -> Synthesizer:
    """The synthesizer of a spec; with a guard it is asked about every answer."""
    if guarded and "guard" not in parse_spec(method)[1]:
        # A model named as guard is asked; options in the method's brackets say in which form.
        name, _, rest = method.rstrip().removesuffix(")").partition("(")
        method = f"{name}({', '.join(filter(None, (rest, 'guard=plain')))})"
    return resolve("synthesizer", SYNTHESIZERS, method, policy=policy)  # type: ignore[no-any-return]


def _forget_last(run: Run) -> set[str]:
    """Ids of prompts that are done. A kill can tear the last prompt's records apart, so that one is made again; so is one on which a server
    broke, which may have been down."""
    files: dict[str, list[Example] | list[Rejected]] = {
        "examples.jsonl": run.read("examples.jsonl", Example),
        "rejected.jsonl": run.read("rejected.jsonl", Rejected),
    }
    torn = {records[-1].prompt.base for records in files.values() if records}
    torn |= run.first_time({r.prompt.base for r in run.read("rejected.jsonl", Rejected) if is_broken(r.detail)})
    for name, records in files.items():
        if records:
            run.replace(name, [r for r in records if r.prompt.base not in torn])
    return {r.prompt.base for records in files.values() for r in records} - torn


def _decide_blind(
    run: Run,
    prompts: list[Prompt],
    policy: Policy,
    roles: dict[str, ModelConfig],
    n: int,
    seed: int,
    budget: Budget | None,
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
        execute(
            run,
            "teacher without the label",
            jobs,
            {"teacher": roles["teacher"]},
            save,
            len(jobs),
            seed,
            budget,
            pilot=False,
        )
    return {label: dict(found[label]) for label in LABELS if label in found}
