"""One function a command: each reads finished runs and writes a new one. The wiring, and nothing else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import TypeVar

from forethought.attacks import Attack, load_attack
from forethought.chat import OPEN, split
from forethought.config import AttackConfig, ModelConfig, TrainConfig
from forethought.errors import AskFailed, ForethoughtError
from forethought.flow import Ask, Done, Flow, Job, Model, run_flows
from forethought.judges import JUDGES, Judge
from forethought.models import check_spec, load_model
from forethought.models.cache import DiskCache
from forethought.policy import Policy, without_examples
from forethought.progress import progress
from forethought.records import (
    LABELS,
    Attempt,
    Decision,
    Example,
    Prompt,
    Rejected,
    Reply,
    Sampling,
    Sent,
    Verdict,
    digest,
)
from forethought.registry import parse_spec, resolve
from forethought.run import Run, hash_file, open_run, read_run, run_hash, write_records
from forethought.synth import SYNTHESIZERS, Made, Synthesizer
from forethought.synth.teacher import blind_decision

T = TypeVar("T")
LOADED: dict[ModelConfig, Model] = {}


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
    _execute(run, f"synth {method}", jobs, roles, save, len(prompts), seed)
    order = {p.id: i for i, p in enumerate(prompts)}
    kept, rejected = run.read("examples.jsonl", Example), run.read("rejected.jsonl", Rejected)
    kept.sort(key=lambda e: order[base_id(e.prompt)])
    rejected.sort(key=lambda r: order[base_id(r.prompt)])
    write_records(run.path / "examples.jsonl", kept)
    write_records(run.path / "rejected.jsonl", rejected)
    reasons = Counter(f"rejected: {r.reason}" for r in rejected)
    counts = {"planned": len(prompts), "ok": len({base_id(e.prompt) for e in kept}), "failed": len(rejected), **reasons}
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


def base_id(prompt: Prompt) -> str:
    """The id of the prompt that this one is, or is a variant of: variants carry it before a `~`."""
    return prompt.id.rpartition("~")[0] if prompt.style else prompt.id


def _forget_last(run: Run) -> set[str]:
    """Ids of prompts that are done. A kill can tear the last prompt's records apart, so that one is made again."""
    files: dict[str, list[Example] | list[Rejected]] = {
        "examples.jsonl": run.read("examples.jsonl", Example),
        "rejected.jsonl": run.read("rejected.jsonl", Rejected),
    }
    torn = {base_id(records[-1].prompt) for records in files.values() if records}
    for name, records in files.items():
        if records:
            write_records(run.path / name, [r for r in records if base_id(r.prompt) not in torn])
    return {base_id(r.prompt) for records in files.values() for r in records} - torn


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
        _execute(run, "teacher without the label", jobs, {"teacher": roles["teacher"]}, save, len(jobs), seed)
    return {label: dict(found[label]) for label in LABELS if label in found}


def train(out: Path, model: str, config: TrainConfig, *, seed: int = 0, overwrite: bool = False) -> Run:
    """Fine-tune `model` on the examples of a synthesis run; the run's `model/` then loads in plain peft and transformers.

    `config.data` and `config.match` are paths of synthesis runs here.
    """
    source, others = read_run(config.data, "synth"), [read_run(path, "synth") for path in config.match]
    settings = {**config.model_dump(mode="json"), "model": model}
    hashes = {"data": run_hash(source), **{f"match {i}": run_hash(other) for i, other in enumerate(others)}}
    run = open_run(
        out,
        "train",
        settings,
        {**hashes, **weights_of(ModelConfig(name=model))},
        seed=seed,
        overwrite=overwrite,
    )
    if run.finished:
        return run
    from forethought.train import METHODS

    learn = resolve("training method", METHODS, config.method)
    examples = source.read("examples.jsonl", Example)
    for other in others:
        shared = {e.prompt.id for e in other.read("examples.jsonl", Example)}
        examples = [e for e in examples if e.prompt.id in shared]
    unload()
    metrics = learn(examples, model, config, run, seed)
    labels = Counter(str(e.prompt.label) for e in examples)
    rows = int(metrics["rows"]) + int(metrics["held_out"])
    counts: dict[str, int] = {"planned": len(examples), "ok": rows, "failed": len(examples) - rows, **labels}
    outputs = [str(p.relative_to(run.path)) for p in sorted((run.path / "model").iterdir()) if p.is_file()]
    run.finish(counts, [*outputs, "losses.jsonl"], metrics=metrics)
    return run


def attack(
    out: Path,
    target: ModelConfig,
    prompts: list[Prompt],
    config: AttackConfig,
    *,
    seed: int = 0,
    overwrite: bool = False,
) -> Run:
    """Send prompts, attacked and direct, to a target: `attempts.jsonl`."""
    attacks = [load_attack(spec) for spec in dict.fromkeys(config.attacks)]
    inputs = {"prompts": digest([p.model_dump() for p in prompts]), **weights_of(target)}
    settings = {**config.model_dump(mode="json"), "target": target.model_dump()}
    run = open_run(out, "attack", settings, inputs, seed=seed, overwrite=overwrite)
    if run.finished:
        return run
    planned = [(n, a, p) for n, a in attacks for p in prompts if p.label in config.labels or n == "direct"]
    attempts = run.read("attempts.jsonl", Attempt)
    if attempts:
        # A kill can tear the last job's attempts apart, so that job is done again.
        last = attempts[-1].id.rpartition("/")[0]
        attempts = [a for a in attempts if a.id.rpartition("/")[0] != last]
        write_records(run.path / "attempts.jsonl", attempts)
    seen = {a.id.rpartition("/")[0] for a in attempts}
    by_key = {f"{n}/{p.id}": (n, p) for n, _, p in planned}

    def save(done: Done[list[Attempt]]) -> None:
        name, prompt = by_key[done.key]
        made = done.value
        if made is None:
            made = [Attempt(id=f"{done.key}/0", prompt=prompt, attack=name, messages=(), error=done.error)]
        attempts.extend(made)
        run.append("attempts.jsonl", made)

    jobs = [
        Job(f"{n}/{p.id}", partial(attempt_flow, n, a, p, config.sampling))
        for n, a, p in planned
        if f"{n}/{p.id}" not in seen
    ]
    _execute(run, f"attack {target.name}", jobs, {"target": target}, save, len(planned), seed)
    order = {key: i for i, key in enumerate(by_key)}
    attempts.sort(key=lambda a: order[a.id.rpartition("/")[0]])
    write_records(run.path / "attempts.jsonl", attempts)
    failed = sum(a.error is not None for a in attempts)
    if attempts and all((a.error or "").startswith(("refused_by_server", "bad_reply")) for a in attempts):
        write_records(run.path / "attempts.jsonl", [])
        raise ForethoughtError(f"the server answered none of {failed} attempts. The first: {attempts[0].error}")
    run.finish({"planned": len(planned), "ok": len(attempts) - failed, "failed": failed}, ["attempts.jsonl"])
    return run


def attempt_flow(name: str, make: Attack, prompt: Prompt, sampling: Sampling) -> Flow[list[Attempt]]:
    """Run one attack on one prompt and put what it sends to the target."""
    key = f"{name}/{prompt.id}"
    sent: list[Sent] = yield from make(prompt)
    if not sent:
        raise AskFailed("not_applicable", "the attack sent nothing")
    attempts = []
    for i, one in enumerate(sent):
        base = Attempt(
            id=f"{key}/{i}", prompt=prompt, attack=name, messages=one.messages, prefix=one.prefix, sample=one.sample
        )
        reply = one.reply
        if reply is None:
            try:
                answered = yield Ask("target", one.messages, one.prefix, one.sample, sampling)
            except AskFailed as error:
                attempts.append(base.model_copy(update={"error": str(error)}))
                continue
            assert isinstance(answered, Reply)
            reply = answered
        raw = (f"{OPEN}\n" if reply.opened else "") + one.prefix + reply.text
        parts = split(raw)
        attempts.append(
            base.model_copy(
                update={
                    "raw": raw,
                    "reasoning": parts.reasoning,
                    "answer": parts.answer,
                    "status": parts.status,
                    "stop": reply.stop,
                    "prompt_tokens": reply.prompt_tokens,
                    "completion_tokens": reply.completion_tokens,
                }
            )
        )
    return attempts


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
    _execute(run, "judge", jobs, roles, save, len(planned), seed)
    order = {key: i for i, key in enumerate(planned)}
    verdicts.sort(key=lambda v: order[f"{v.judge}/{v.attempt}"])
    write_records(run.path / "verdicts.jsonl", verdicts)
    unscored = sum(v.score is None for v in verdicts)
    run.finish({"planned": len(planned), "ok": len(verdicts) - unscored, "failed": unscored}, ["verdicts.jsonl"])
    return run


def weights_of(*models: ModelConfig) -> dict[str, str]:
    """Content hashes of the training runs among the models, to tie a run to the weights it used. Unknown models are errors."""
    for model in models:
        check_spec(model.name)
    return {m.name: found for m in models if (found := _content(m.name)) is not None}


def _content(spec: str) -> str | None:
    """Hash of a training run, of the weights of another local model, or of a script; None for a server or a hub model."""
    if (Path(spec) / "run.json").exists():
        return run_hash(read_run(spec, "train"))
    place = Path(spec.partition(":")[2] or spec)
    files = sorted(p for p in place.iterdir() if p.is_file()) if place.is_dir() else [place] if place.is_file() else []
    return digest([(p.name, hash_file(p)) for p in files]) if files else None


def load(model: ModelConfig) -> Model:
    """A loaded model, shared by the stages of one process."""
    if model not in LOADED:
        LOADED[model] = load_model(model.name, system=model.system, dtype=model.dtype)
    return LOADED[model]


def unload() -> None:
    """Close every loaded model."""
    for model in LOADED.values():
        model.close()
    LOADED.clear()


def _execute(
    run: Run,
    label: str,
    jobs: list[Job[T]],
    roles: dict[str, ModelConfig],
    save: Callable[[Done[T]], None],
    total: int,
    seed: int,
) -> None:
    """Run jobs with their models, the disk cache and a progress line; `save` keeps each result as soon as it is there."""
    models = {role: load(model) for role, model in roles.items()} if jobs else {}
    cache = DiskCache(cache_path(run.path)) if models else None
    errors = 0
    try:
        with progress(label, total, "done", total - len(jobs)) as bar:
            for done in run_flows(jobs, models, seed=seed, cache=cache, salt=str(run.info["started"])):
                errors += done.error is not None
                if done.error is not None:
                    run.log(f"{done.key}: {done.error}")
                save(done)
                bar.advance(note=f"{errors} failed" if errors else "")
    except BaseException:
        # Whatever is still queued belongs to the run that stopped here.
        unload()
        raise
    finally:
        if cache is not None:
            cache.close()


def cache_path(run: Path) -> Path:
    """The reply cache that runs under the same `runs` directory share; beside the run where there is none of that name."""
    home = next((p for p in run.absolute().parents if p.name == "runs"), run.absolute().parent)
    return home / ".cache" / "replies.sqlite"
