"""Attacks: prompts and a target in, attempts out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from forethought.attacks import UNCHANGED, Attack, beyond_text, load_attack, may_ask, needed
from forethought.chat import raw_reply, split
from forethought.config import AttackConfig, ModelConfig
from forethought.data import draw
from forethought.errors import AskFailed, ForethoughtError, is_broken, is_unanswered
from forethought.flow import Ask, Choose, Done, Flow, Job
from forethought.models import deployment
from forethought.records import (
    Attempt,
    Found,
    Label,
    Prompt,
    Reply,
    Sampling,
    Sent,
    digest,
)
from forethought.run import Run, open_run
from forethought.stages.shared import execute, files_of, weights_of

T = TypeVar("T")


def attack(
    out: Path,
    target: ModelConfig,
    prompts: list[Prompt],
    config: AttackConfig,
    *,
    attacker: ModelConfig | None = None,
    helper: ModelConfig | None = None,
    seed: int = 0,
    overwrite: bool = False,
) -> Run:
    """Send prompts, attacked and direct, to a target: `attempts.jsonl`.

    `attacker` and `helper` are behind the attacks that need one; without them they are those that `config` names. The samples of one
    prompt are jobs of their own that stand side by side, so that a local model reads the prompt once for all of them.
    """
    attacks = [load_attack(spec) for spec in dict.fromkeys(config.attacks)]
    roles = {"target": target, **others(target, config, attacker, helper)}
    inputs = {"prompts": digest([p.model_dump() for p in prompts]), **weights_of(*roles.values())}
    inputs |= files_of(*config.attacks)
    settings = {**config.model_dump(mode="json"), **{role: model.model_dump() for role, model in roles.items()}}
    run = open_run(out, "attack", settings, inputs, seed=seed, overwrite=overwrite)
    if run.finished:
        return run
    drawn = {n: draw_few(prompts, config.labels, most) for n, most in config.few.items()}
    planned = [
        (n, a, p) for n, a in attacks for p in drawn.get(n, prompts) if p.label in config.labels or n == "direct"
    ]
    attempts = run.read("attempts.jsonl", Attempt)
    if attempts:
        # A kill can tear the last job's attempts apart, so that job is done again.
        broken = run.first_time({a.id for a in attempts if is_broken(a.error)})
        again = {job_of(a, config.samples) for a in attempts if a.id in broken} | {job_of(attempts[-1], config.samples)}
        attempts = [a for a in attempts if job_of(a, config.samples) not in again]
        run.replace("attempts.jsonl", attempts)
    seen = {job_of(a, config.samples) for a in attempts}
    by_key = {(f"{n}/{p.id}", k): (n, a, p) for n, a, p in planned for k in range(config.samples)}
    names = {f"{key}#{k}" if k else key: (key, k) for key, k in by_key}

    def save(done: Done[list[Attempt]]) -> None:
        (key, k), made = names[done.key], done.value
        name, _, prompt = by_key[key, k]
        if made is None:
            made = [Attempt(id=f"{key}/{k}", prompt=prompt, attack=name, messages=(), sample=k, error=done.error)]
        elif made and made[0].error is not None and not made[0].messages:
            run.log(f"{done.key}: {made[0].error}")
        attempts.extend(made)
        run.append("attempts.jsonl", made)

    jobs = [
        Job(job, partial(attempt_flow, *by_key[key, k], config.sampling, k, config.samples), draws=key)
        for job, (key, k) in names.items()
        if (key, k) not in seen
    ]
    # Direct requests come first and cost least, so no estimate is made from them.
    execute(run, f"attack {target.name}", jobs, roles, save, len(by_key), seed, config.budget, pilot=False)
    order = {key: i for i, (key, _) in enumerate(by_key)}
    attempts.sort(key=lambda a: (order[a.id.rpartition("/")[0]], int(a.id.rpartition("/")[2])))
    run.replace("attempts.jsonl", attempts)
    failed = sum(a.error is not None for a in attempts)
    if attempts and all(is_unanswered(a.error) for a in attempts):
        run.replace("attempts.jsonl", [])
        raise ForethoughtError(f"the server answered none of {failed} attempts. The first: {attempts[0].error}")
    reasons = Counter(f"failed, {a.error}"[:120] for a in attempts if a.error is not None)
    counts = {"planned": len(by_key), "ok": len(attempts) - failed, "failed": failed, **dict(reasons.most_common(8))}
    run.finish(counts, ["attempts.jsonl"])
    return run


def draw_few(prompts: list[Prompt], labels: Iterable[Label], most: int) -> list[Prompt]:
    """At most so many prompts of each label. By no run's own seed, and whatever the other labels are (which `draw` heeds, to keep contrast
    pairs together): models are compared on the same ones."""
    return [p for label in labels for p in draw([p for p in prompts if p.label == label], {label: most}, 0)]


def job_of(attempt: Attempt, samples: int) -> tuple[str, int]:
    """(attack and prompt, sample): what made an attempt."""
    key, _, number = attempt.id.rpartition("/")
    return key, int(number) % samples


def others(
    target: ModelConfig, config: AttackConfig, attacker: ModelConfig | None = None, helper: ModelConfig | None = None
) -> dict[str, ModelConfig]:
    """The models besides the target that the attacks may ask, by role. ForethoughtError where one needs a model and none is named."""
    attacker = attacker or (ModelConfig(name=config.attacker, dtype=config.dtype) if config.attacker else None)
    helper = helper or (ModelConfig(name=config.helper, dtype=config.dtype) if config.helper else None)
    for spec in config.attacks:
        needs = needed(spec)
        if attacker is None and "attacker" in needs:
            raise ForethoughtError(
                f"the attack '{spec}' needs {needs}. Name one: --attacker MODEL, or attack.attacker; 'target' is the target itself."
            )
    itself = target.model_copy(update={"name": deployment(target.name)[0], "system": None})
    found = {"attacker": attacker, "helper": helper or attacker}
    # A model that no attack asks is not loaded: it would take memory, and make the run another one.
    used = {r: m for r, m in found.items() if m is not None and any(may_ask(spec, r) for spec in config.attacks)}
    return {role: itself if model.name == "target" else model for role, model in used.items()}


@dataclass
class Tally:
    """What was asked for one attempt, by role, and the tokens of those asks and replies."""

    queries: Counter[str] = field(default_factory=Counter)
    tokens: int = 0

    def taken(self) -> dict[str, Any]:
        """The fields of an Attempt; the tally starts anew."""
        found = {"queries": dict(self.queries), "query_tokens": self.tokens}
        self.queries, self.tokens = Counter(), 0
        return found


def tallied(flow: Flow[T], tally: Tally, sampling: Sampling) -> Flow[T]:
    """`flow` with everything it asks counted, and the target sampling as the run says whoever asks it."""
    value: Any = None
    failure: AskFailed | None = None
    try:
        while True:
            try:
                question = flow.send(value) if failure is None else flow.throw(failure)
            except StopIteration as stop:
                made: T = stop.value
                return made
            value, failure = None, None
            if isinstance(question, Ask) and question.role == "target":
                question = replace(question, sampling=sampling)
            if isinstance(question, Ask | Choose):
                tally.queries[question.role] += 1
            try:
                value = yield question
            except AskFailed as error:
                failure = error
            if isinstance(value, Reply):
                tally.tokens += value.prompt_tokens + value.completion_tokens
            elif isinstance(value, Found):
                tally.queries["target"] += value.queries
                tally.tokens += value.tokens
    finally:
        flow.close()


def attempt_flow(
    name: str, make: Attack, prompt: Prompt, sampling: Sampling, sample: int = 0, samples: int = 1
) -> Flow[list[Attempt]]:
    """Run one attack on one prompt and put what it sends to the target: the reply numbered `sample` of `samples` to each."""
    tally = Tally()
    return (yield from tallied(_attempts(name, make, prompt, tally, sample, samples), tally, sampling))


def _attempts(name: str, make: Attack, prompt: Prompt, tally: Tally, sample: int, samples: int) -> Flow[list[Attempt]]:
    """Attempt i x samples + sample is of the i-th thing sent."""
    key = f"{name}/{prompt.id}"
    blank = Attempt(id=f"{key}/{sample}", prompt=prompt, attack=name, messages=(), sample=sample)
    try:
        sent: list[Sent] = yield from make(prompt)
        if name != "direct" and not beyond_text(name):
            # What is as it was is no attack, whatever a flow of one's own gives back.
            changed = [one for one in sent if one.prefix or one.reply or one.messages != prompt.messages]
            if sent and not changed:
                raise AskFailed("not_applicable", UNCHANGED)
            sent = changed
        if not sent:
            raise AskFailed("not_applicable", "the attack sent nothing")
    except AskFailed as error:
        return [blank.model_copy(update={"error": str(error), **tally.taken()})]
    if sample:
        # Every sample makes the attack again, from the cache: it is counted once.
        tally.taken()
    attempts = []
    for i, one in enumerate(sent):
        number = one.sample * samples + sample
        base = blank.model_copy(
            update={
                "id": f"{key}/{i * samples + sample}",
                "messages": one.messages,
                "prefix": one.prefix,
                "sample": number,
            }
        )
        reply = one.reply
        if reply is None or (samples > 1 and not beyond_text(name)):
            # What a search has heard, it has chosen by: among several samples that reply would not be a random one.
            try:
                answered = yield Ask("target", one.messages, one.prefix, number)
            except AskFailed as error:
                attempts.append(base.model_copy(update={"error": str(error), **tally.taken()}))
                continue
            assert isinstance(answered, Reply)
            reply = answered
        elif sample:
            continue
        attempts.append(base.model_copy(update={**answered_with(reply, one.prefix), **tally.taken()}))
    return attempts


def answered_with(reply: Reply, prefix: str = "") -> dict[str, Any]:
    """The fields of an Attempt that say what came back."""
    raw = raw_reply(prefix, reply)
    parts = split(raw)
    return {
        "raw": raw,
        "reasoning": parts.reasoning,
        "answer": parts.answer,
        "status": parts.status,
        "stop": reply.stop,
        "prompt_tokens": reply.prompt_tokens,
        "completion_tokens": reply.completion_tokens,
    }
