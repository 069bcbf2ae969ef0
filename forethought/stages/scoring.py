"""Scoring: attempts in, log-odds of refusing out."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from forethought.analysis.log_odds import NEEDS, refusing, score_flow, thinks
from forethought.errors import ForethoughtError
from forethought.flow import Done, Job
from forethought.records import Attempt, Sampling, Score
from forethought.run import Run, open_run, read_run, run_hash, write_records
from forethought.stages.shared import attacked_model, execute


def score(
    out: Path,
    attempts_run: Path,
    *,
    thinking: bool | None = None,
    samples: int = 1,
    temperature: float = 1.0,
    max_tokens: int | None = None,
    seed: int = 0,
    overwrite: bool = False,
) -> Run:
    """Ask the target of an attack run for the log-odds of refusing at every attempt: `scores.jsonl`.

    `thinking` None finds out from the attempts whether the target thinks. With `samples` > 1 its thoughts are drawn at `temperature`,
    of at most `max_tokens` (None: as in the attack run). ForethoughtError where the target gives no likelihoods, or is no longer the
    one that was attacked.
    """
    source = read_run(attempts_run, "attack")
    target, weights = attacked_model(source)
    if target.name.startswith("openai:"):
        raise ForethoughtError(
            f"the score needs likelihoods, which the server behind '{target.name}' does not give. {NEEDS}"
        )
    attempts = source.read("attempts.jsonl", Attempt)
    thought = thinks(attempts) if thinking is None else thinking
    if samples > 1 and not thought:
        raise ForethoughtError(
            f"{samples} samples of the thought, but this model does not think. Leave out --samples, or say --thinks."
        )
    sampling = Sampling(
        temperature=temperature if samples > 1 else 0.0,
        max_tokens=max_tokens or source.info["config"]["sampling"]["max_tokens"],
    )
    settings = {
        "attempts": str(attempts_run),
        "target": target.model_dump(),
        "thinks": thought,
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

    jobs = [Job(a.id, partial(score_flow, a, thought, samples, sampling)) for a in attempts if a.id not in seen]
    execute(run, f"score {target.name}", jobs, {"target": target}, save, len(attempts), seed)
    order = {a.id: i for i, a in enumerate(attempts)}
    scores.sort(key=lambda s: order[s.attempt])
    write_records(run.path / "scores.jsonl", scores)
    unscored = sum(s.log_odds is None for s in scores)
    run.finish({"planned": len(attempts), "ok": len(scores) - unscored, "failed": unscored}, ["scores.jsonl"])
    return run
