"""Interventions on thoughts: attempts of a model that thinks in, answers after changed thoughts and verdicts on them out."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

from forethought.analysis.causal import Plan, Trial, plans
from forethought.analysis.log_odds import thinks
from forethought.config import ModelConfig
from forethought.errors import AskFailed, ForethoughtError
from forethought.flow import Ask, Done, Flow, Job
from forethought.judges import JUDGES, Judge, asks_model
from forethought.models import is_served
from forethought.records import Attempt, Reply, Sampling
from forethought.registry import resolve
from forethought.run import Run, open_run, run_hash
from forethought.stages.attacking import answered_with
from forethought.stages.judging import let_speak
from forethought.stages.shared import attacked, execute, files_of


def causal(
    out: Path,
    attempts_run: Path,
    *,
    take: int = 24,
    judges: Iterable[str] = ("refusal",),
    max_tokens: int | None = None,
    seed: int = 0,
    overwrite: bool = False,
) -> Run:
    """Have the target of an attack run answer again after its own thoughts and after changed ones: `trials.jsonl`, and `verdicts.jsonl` by
    `judges` that ask no model.

    At most `take` attempts an attack and label; answers are greedy, of at most `max_tokens` (None: as in the attack run).
    ForethoughtError where the target does not think, stands behind a server (which may not go on after a given thought), or is no
    longer the one that was attacked.
    """
    judges = list(dict.fromkeys(judges))
    named: dict[str, Judge] = {spec: resolve("judge", JUDGES, spec) for spec in judges}
    asking = [spec for spec in judges if asks_model(spec)]
    if asking:
        raise ForethoughtError(
            f"the judge '{asking[0]}' may ask a model. Name one that does not: refusal, learned_harm."
        )
    source, target, weights = attacked(attempts_run)
    if is_served(target.name):
        raise ForethoughtError(
            f"'{target.name}' is behind a server, and a thought cannot surely be put into its mouth. "
            "Attack a local model (smollm2, hf:ID_OR_PATH, a training run) and test that run."
        )
    attempts = source.read("attempts.jsonl", Attempt)
    if not thinks(attempts):
        raise ForethoughtError(f"{target.name} does not think before it answers, so there is no thought to test.")
    planned, missing = plans(attempts, take, seed)
    if not planned:
        why = ", ".join(f"{reason}: {n}" for reason, n in missing.items())
        raise ForethoughtError(f"no attempt of {attempts_run} can be tested ({why}).")
    sampling = Sampling(max_tokens=max_tokens or source.info["config"]["sampling"]["max_tokens"])
    settings = {
        "attempts": str(attempts_run),
        "target": target.model_dump(),
        "take": take,
        "judges": judges,
        "sampling": sampling.model_dump(),
    }
    run = open_run(
        out,
        "causal",
        settings,
        {"attempts": run_hash(source), **weights, **files_of(*judges)},
        seed=seed,
        overwrite=overwrite,
    )
    if run.finished:
        return run
    trials = _answers(run, planned, target, sampling, seed)
    verdicts = let_speak(run, [(name, speak, t.attempt) for name, speak in named.items() for t in trials], {}, seed)
    failed = sum(t.attempt.error is not None for t in trials)
    unscored = sum(v.score is None for v in verdicts)
    counts = {"planned": len(trials), "ok": len(trials) - failed, "failed": failed, "unscored": unscored, **missing}
    run.finish(counts, ["trials.jsonl", "verdicts.jsonl"])
    return run


def _answers(run: Run, planned: list[Plan], target: ModelConfig, sampling: Sampling, seed: int) -> list[Trial]:
    """The trials planned, in that order; what the run holds already is kept."""
    trials = run.read("trials.jsonl", Trial)
    by_key = {_key(plan): plan for plan in planned}
    seen = {t.attempt.id for t in trials}

    def save(done: Done[Trial]) -> None:
        made = done.value or _trial(by_key[done.key], {"error": done.error})
        trials.append(made)
        run.append("trials.jsonl", [made])

    jobs = [Job(key, partial(trial_flow, plan, sampling)) for key, plan in by_key.items() if key not in seen]
    execute(run, f"causal {target.name}", jobs, {"target": target}, save, len(planned), seed)
    order = {key: i for i, key in enumerate(by_key)}
    trials.sort(key=lambda t: order[t.attempt.id])
    run.replace("trials.jsonl", trials)
    return trials


def trial_flow(plan: Plan, sampling: Sampling) -> Flow[Trial]:
    """The answer that the target gives after the thought it is handed."""
    try:
        reply = yield Ask("target", plan.attempt.messages, plan.prefix, sampling=sampling)
    except AskFailed as error:
        return _trial(plan, {"error": str(error)})
    assert isinstance(reply, Reply)
    return _trial(plan, answered_with(reply, plan.prefix))


def _key(plan: Plan) -> str:
    return f"{plan.attempt.id}/{plan.kind}"


def _trial(plan: Plan, came_back: dict[str, Any]) -> Trial:
    """The record of a plan and what came back."""
    saved, donor = plan.attempt, plan.donor
    blank = Attempt(
        id=_key(plan),
        prompt=saved.prompt,
        attack=saved.attack,
        messages=saved.messages,
        prefix=plan.prefix,
        sample=saved.sample,
    )
    made = blank.model_copy(update=came_back)
    short, long = sorted((saved, made), key=lambda a: len(a.answer))
    # An answer that ended by itself is another than one that goes on after the same words.
    begun = short.stop == "length" and bool(short.answer) and long.answer.startswith(short.answer)
    return Trial(
        attempt=made,
        of=saved.id,
        kind=plan.kind,
        own=plan.own,
        given=plan.given,
        donor=donor.id if donor else None,
        donor_request=donor.prompt.request if donor else None,
        same=None if made.error is not None else short.answer == long.answer or begun,
    )
