"""Logs that Inspect (UK AI Security Institute, inspect-ai) reads: `inspect view --log-dir FOLDER`. One log an attack and model.

An attempt is a sample, a judge a scorer. Its metrics are our rates, one a label, since a mean over harmful and harmless requests says
nothing; an unscored attempt is Inspect's NaN, which its metrics leave out. Ids follow from the run: the same run gives the same log.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from forethought.analysis.measures import measure
from forethought.analysis.rates import Cell, cells
from forethought.errors import ForethoughtError, pip
from forethought.records import Attempt, Verdict, digest
from forethought.report.sources import ModelRuns
from forethought.run import Run, new_folder, run_hash

STOPS = {"stop": "stop", "length": "max_tokens", None: "unknown"}


def export(models: Sequence[ModelRuns], out: Path) -> list[Path]:
    """Write the logs into a new folder; returns their paths. ForethoughtError where inspect-ai is not installed."""
    try:
        from inspect_ai.log import write_eval_log
    except ImportError as error:
        raise ForethoughtError(f"Inspect logs need inspect-ai. Run: {pip('inspect-ai')}") from error
    home, written = new_folder(out), []
    for model in models:
        said: dict[str, list[Verdict]] = {}
        for verdict in model.verdicts:
            said.setdefault(verdict.attempt, []).append(verdict)
        found = cells(model.name, model.attempts, model.verdicts)
        for attack in dict.fromkeys(a.attack for a in model.attempts):
            attempts = [a for a in model.attempts if a.attack == attack]
            log = _log(model, attack, attempts, said, [c for c in found if c.attack == attack])
            stamp = log.eval.created.replace(":", "-")[:19]
            name = re.sub(r"[\W_]+", "-", f"{model.name}-{attack}").strip("-")[:80]
            path = home / f"{stamp}_{name}_{log.eval.task_id}.eval"
            write_eval_log(log, str(path))
            written.append(path)
    return written


def _log(
    model: ModelRuns, attack: str, attempts: Sequence[Attempt], said: Mapping[str, list[Verdict]], found: Sequence[Cell]
) -> Any:
    from inspect_ai.log import EvalConfig, EvalDataset, EvalLog, EvalPlan, EvalResults, EvalSpec, EvalStats
    from inspect_ai.model import GenerateConfig

    run = _run_of(model, attempts)
    config, sampling = run.info["config"], run.info["config"]["sampling"]
    id = digest("inspect", run_hash(run), model.name, attack, length=22)
    target = str(config["target"]["name"])
    spec = EvalSpec(
        eval_id=id, run_id=digest(run_hash(run), model.name, length=22), task_id=id, task=f"{model.name}/{attack}",
        created=_time(run.info["started"]), model=f"forethought/{target}",
        dataset=EvalDataset(name=str(config["prompts"]), samples=len(attempts), sample_ids=[a.id for a in attempts]),
        config=EvalConfig(), packages={k: str(v) for k, v in run.info["packages"].items() if k != "python"},
        model_generate_config=GenerateConfig(
            temperature=sampling["temperature"], top_p=sampling["top_p"], max_tokens=sampling["max_tokens"]
        ),
        metadata={"attack": attack, "command": " ".join(run.info["argv"]), "seed": run.info["seed"], "run": str(run.path)},
    )  # fmt: skip
    answered = len([a for a in attempts if a.error is None])
    results = EvalResults(total_samples=len(attempts), completed_samples=answered, scores=_scores(found))
    return EvalLog(
        status="success", eval=spec, plan=EvalPlan(name=attack), results=results,
        stats=EvalStats(started_at=_time(run.info["started"]), completed_at=_time(run.info["ended"])),
        samples=[_sample(id, target, a, said.get(a.id, [])) for a in attempts],
    )  # fmt: skip


def _run_of(model: ModelRuns, attempts: Sequence[Attempt]) -> Run:
    """The attack run that made them."""
    if len(model.attacks) == 1:
        return model.attacks[0]
    return next(r for r in model.attacks if attempts[0].attack in r.info["config"]["attacks"])


def _scores(found: Sequence[Cell]) -> list[Any]:
    """One scorer a judge, one metric a label."""
    from inspect_ai.log import EvalMetric, EvalScore

    judges: dict[str, list[Cell]] = {}
    for cell in found:
        judges.setdefault(cell.judge, []).append(cell)
    scores = []
    for judge, own in judges.items():
        metrics = {}
        for cell in own:
            meant = measure(judge, cell.label)
            rate = cell.negative if meant and meant.turned else cell.positive
            name = f"{cell.label}: {meant.name if meant else 'score of 0.5 or more'}"
            if rate.value is not None:
                metrics[name] = EvalMetric(name=name, value=rate.value, metadata=rate.model_dump())
        scores.append(
            EvalScore(
                name=judge, scorer=judge, metrics=metrics, scored_samples=sum(c.positive.scored for c in own),
                unscored_samples=sum(c.attempts - c.positive.scored for c in own),
            )
        )  # fmt: skip
    return scores


def _sample(log: str, target: str, a: Attempt, verdicts: Sequence[Verdict]) -> Any:
    from inspect_ai.log import EvalSample
    from inspect_ai.model import ChatCompletionChoice, ChatMessageAssistant, ModelOutput, ModelUsage

    turns = [_turn(m.role, m.content, f"{log}/{a.id}/{i}") for i, m in enumerate(a.messages)]
    reply = ChatMessageAssistant(
        id=digest(log, a.id, "reply", length=22), content=_content(a), model=target, source="generate"
    )
    usage = ModelUsage(
        input_tokens=a.prompt_tokens,
        output_tokens=a.completion_tokens,
        total_tokens=a.prompt_tokens + a.completion_tokens,
    )
    output = ModelOutput(
        model=target,
        choices=[ChatCompletionChoice(message=reply, stop_reason=STOPS[a.stop])],
        usage=usage,
        error=a.error,
    )
    p = a.prompt
    facts = {
        "label": p.label, "category": p.category, "source": p.source, "prompt": p.id, "request": p.request, "attack": a.attack,
        "status": a.status, "prefix": a.prefix, "sample": a.sample, "raw": a.raw, "error": a.error,
    }  # fmt: skip
    kept = {k: v for k, v in facts.items() if v not in (None, "")}
    return EvalSample(
        id=a.id, epoch=1, uuid=digest(log, a.id, length=22), input=turns, target="", messages=[*turns, reply],
        output=output, scores={v.judge: _score(v) for v in verdicts}, model_usage={target: usage}, metadata=kept,
    )  # fmt: skip


def _turn(role: str, text: str, name: str) -> Any:
    from inspect_ai.model import ChatMessageAssistant, ChatMessageSystem, ChatMessageUser

    kinds = {"system": ChatMessageSystem, "user": ChatMessageUser, "assistant": ChatMessageAssistant}
    return kinds[role](id=digest(name, length=22), content=text)


def _content(a: Attempt) -> Any:
    """The answer, after its thought where there is one."""
    from inspect_ai.model import ContentReasoning, ContentText

    if a.reasoning is None:
        return a.answer
    return [ContentReasoning(reasoning=a.reasoning), ContentText(text=a.answer)]


def _score(v: Verdict) -> Any:
    from inspect_ai.scorer import Score

    facts = {"label": v.label} | ({"error": v.error} if v.error else {})
    if v.score is None:
        return Score(
            value=float("nan"), answer=v.label, explanation=v.raw, metadata=facts | {"unscored_reason": v.label}
        )
    return Score(value=v.score, answer=v.label, explanation=v.raw, metadata=facts)


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
