"""Attacks: prompts and a target in, attempts out."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from forethought.attacks import Attack, load_attack
from forethought.chat import raw_reply, split
from forethought.config import AttackConfig, ModelConfig
from forethought.errors import AskFailed, ForethoughtError
from forethought.flow import Ask, Done, Flow, Job
from forethought.records import (
    Attempt,
    Prompt,
    Reply,
    Sampling,
    Sent,
    digest,
)
from forethought.run import Run, open_run, write_records
from forethought.stages.shared import execute, weights_of


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
    execute(run, f"attack {target.name}", jobs, {"target": target}, save, len(planned), seed)
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
        raw = raw_reply(one.prefix, reply)
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
