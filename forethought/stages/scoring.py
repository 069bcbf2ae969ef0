"""Scoring: attempts in, log-odds of refusing out."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Literal

from forethought.analysis.fork import Fork, find_fork
from forethought.analysis.log_odds import NEEDS, refusing, score_flow, thinks
from forethought.config import ModelConfig, TrainConfig
from forethought.errors import ForethoughtError
from forethought.flow import Done, Job
from forethought.models import is_served
from forethought.records import Attempt, Sampling, Score
from forethought.run import Run, open_run, read_run, run_hash
from forethought.stages.shared import attacked, execute
from forethought.stages.training import read_examples


def score(
    out: Path,
    attempts_run: Path,
    *,
    thinking: bool | None = None,
    at: Literal["answer", "decision"] = "answer",
    samples: int = 1,
    temperature: float = 1.0,
    max_tokens: int | None = None,
    seed: int = 0,
    overwrite: bool = False,
) -> Run:
    """Ask the target of an attack run for the log-odds of refusing at every attempt: `scores.jsonl`.

    `thinking` None finds out from the attempts whether the target thinks. With `samples` > 1 its thoughts are drawn at `temperature`,
    of at most `max_tokens` (None: as in the attack run). `at` the decision, a model that thinks is looked at inside its thought, by
    the words with which its training rows decide (a plain one where its answer begins, as ever). ForethoughtError where the target
    gives no likelihoods, or is no longer the one that was attacked.
    """
    source, target, weights = attacked(attempts_run)
    if is_served(target.name):
        raise ForethoughtError(
            f"the score needs likelihoods, which the server behind '{target.name}' does not give. {NEEDS}"
        )
    attempts = source.read("attempts.jsonl", Attempt)
    thought = thinks(attempts) if thinking is None else thinking
    if samples > 1 and not thought:
        raise ForethoughtError(
            f"{samples} samples of the thought, but this model does not think. Leave out --samples, or say --thinks."
        )
    fork = fork_of(target) if at == "decision" and thought else None
    if fork and samples > 1:
        raise ForethoughtError("at the decision every way to decide is scored: leave out --samples.")
    sampling = Sampling(
        temperature=temperature if samples > 1 else 0.0,
        max_tokens=max_tokens or source.info["config"]["sampling"]["max_tokens"],
    )
    settings = {
        "attempts": str(attempts_run),
        "target": target.model_dump(),
        "thinks": thought,
        "at": at,
        "fork": fork and asdict(fork),
        "samples": samples,
        "sampling": sampling.model_dump(),
        "refusing": list(refusing()),
    }
    inputs = {"attempts": run_hash(source), **weights}
    run = open_run(out, "score", settings, inputs, seed=seed, overwrite=overwrite)
    if run.finished:
        return run
    scores = run.read("scores.jsonl", Score)
    seen = {s.attempt for s in scores}

    def save(done: Done[Score]) -> None:
        made = done.value or Score(attempt=done.key, log_odds=None, error=done.error)
        scores.append(made)
        run.append("scores.jsonl", [made])

    jobs = [Job(a.id, partial(score_flow, a, thought, samples, sampling, fork)) for a in attempts if a.id not in seen]
    execute(run, f"score {target.name}", jobs, {"target": target}, save, len(attempts), seed)
    order = {a.id: i for i, a in enumerate(attempts)}
    scores.sort(key=lambda s: order[s.attempt])
    run.replace("scores.jsonl", scores)
    unscored = sum(s.log_odds is None for s in scores)
    run.finish({"planned": len(attempts), "ok": len(scores) - unscored, "failed": unscored}, ["scores.jsonl"])
    return run


def fork_of(target: ModelConfig) -> Fork:
    """Where the thoughts that a model was trained on decide. ForethoughtError where that cannot be told."""
    if not (Path(target.name) / "run.json").exists():
        raise ForethoughtError(
            f"'{target.name}' is no training run, so where its thoughts decide is not known. Use --at answer."
        )
    given = read_run(Path(target.name), "train").info["config"]
    rows = TrainConfig(data=given["data"], match=given.get("match", ())) if given.get("data") else None
    fork = find_fork(read_examples(rows)[0]) if rows else None
    if fork is None:
        raise ForethoughtError(
            f"the thoughts that '{target.name}' learnt from do not decide in one place, by one word. Use --at answer."
        )
    return fork
