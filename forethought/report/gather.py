"""From runs to the report: follows each run to what it was made from, checks it, and computes every number anew."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from forethought.analysis.agreement import Agreed, judge_agreement
from forethought.analysis.distribution import Distribution, distribution, family_of
from forethought.analysis.measures import knows
from forethought.analysis.rates import cells
from forethought.analysis.summary import Heard, costs, differences, differences_by_attack, length, more_tries, pools
from forethought.attacks import describe
from forethought.errors import ForethoughtError, nearest
from forethought.judges import JUDGES, inside
from forethought.records import LABELS, Attempt, Example, Rejected, Verdict
from forethought.registry import parse_spec
from forethought.report.data import AttackCard, JudgeCard, ModelCard, ReportData, Transcript
from forethought.report.more import able, scored
from forethought.report.page import render
from forethought.report.sources import ModelRuns, check_comparable, heard_of, read_model, source_of, trained_on
from forethought.run import Run, explain_disk, write_text

# Transcripts on the page: at most so many of an attack and label, and no more than about so many in all.
SHOWN_PER_CELL, SHOWN = 8, 1500
AIMED = " (which also graded inside the attacks: they were aimed at its verdict)"
Runs = Mapping[str, Sequence[Path]]  # The runs of each model: at least one judge run.


def write_report(out: Path, runs: Runs, *, title: str, about: str = "", reference: str | None = None) -> Path:
    """Write the page of the named models to `out`; returns its path."""
    page = render(gather(runs, title=title, about=about, reference=reference))
    with explain_disk():
        out.parent.mkdir(parents=True, exist_ok=True)
    write_text(out, page)
    return out


def gather(runs: Runs, *, title: str, about: str = "", reference: str | None = None) -> ReportData:
    """Everything on the page. `reference` is the model that the others are compared with, by default the first.

    Raises ForethoughtError where the runs do not share their prompts, and so cannot be compared.
    """
    if not runs:
        raise ForethoughtError("there is nothing to report: name at least one judge run.")
    models = [read_model(name, paths) for name, paths in runs.items()]
    check_comparable(models)
    reference = reference or models[0].name
    if reference not in runs:
        raise ForethoughtError(f"no model '{reference}' to compare with.{nearest(reference, runs)}")
    made = [model_card(m) for m in models]
    cards = tuple(card for card, _, _ in made)
    heard: Heard = heard_of(models)
    trained = {c.name: c.distribution for c in cards if c.distribution}
    kinds = {(a.attack, a.prompt.label) for m in models for a in m.attempts}
    shown = min(SHOWN_PER_CELL, max(2, SHOWN // max(1, len(kinds) * len(models))))
    info = models[-1].runs["judge"][-1].info
    git = info.get("git") or {}
    return ReportData(
        title=title,
        about=about,
        command=shlex.join(info["argv"]),
        seed=info["seed"],
        policy=next((policy for _, _, policy in made if policy), "none"),
        reference=reference,
        models=cards,
        attacks=tuple(_attack_card(a) for a in dict.fromkeys(a.attack for m in models for a in m.attempts)),
        judges=tuple({judge: _judge_card(judge, m) for m in models for judge in m.judges}.values()),
        cells=tuple(cell for m in models for cell in cells(m.name, m.attempts, m.verdicts)),
        pools=pools(heard, trained),
        transcripts=tuple(t for m in models for t in sample(m.name, m.attempts, m.verdicts, shown)),
        differences=differences(heard, reference),
        by_attack=differences_by_attack(heard, reference),
        agreement=agreement(models),
        tries=more_tries(heard),
        costs=tuple(cost for m in models for cost in costs(m.name, m.attempts)),
        lengths=tuple(length(m.name, m.attempts) for m in models),
        **scored(models, reference),
        **able(models, reference),
        packages=info["packages"],
        hardware={k: str(v) for k, v in info["hardware"].items()},
        git=f"{git['commit'][:12]}{' with uncommitted changes' if git['dirty'] else ''}" if git else "",
        seconds=sum(seconds for _, seconds, _ in made)
        + sum(_took(r) for m in models for r in (*m.attacks, *(run for runs_ in m.runs.values() for run in runs_))),
    )


def agreement(models: Sequence[ModelRuns]) -> dict[str, tuple[Agreed, ...]]:
    """Agreement between judges on harmful requests, of all models together (empty name) and of each.

    Harmful requests only: on the others "not refused" and "harmful" mean different things by design.
    """
    apart: dict[str, tuple[list[Verdict], list[Attempt]]] = {}
    for model in models:
        asked = {a.id: a for a in model.attempts if a.prompt.label == "harmful"}
        words = [
            v
            for v in model.verdicts
            if v.attempt in asked and knows(v.judge) != "helped with care" and not inside(v.judge)
        ]
        # The same request sent to several models has the same id, and is not the same answer.
        apart[model.name] = (
            [v.model_copy(update={"attempt": f"{model.name}/{v.attempt}"}) for v in words],
            [a.model_copy(update={"id": f"{model.name}/{a.id}"}) for a in asked.values()],
        )
    together = ([v for vs, _ in apart.values() for v in vs], [a for _, found in apart.values() for a in found])
    groups = {"": together, **(apart if len(apart) > 1 else {})}
    found = {name: tuple(judge_agreement(verdicts, attempts)) for name, (verdicts, attempts) in groups.items()}
    return {name: rows for name, rows in found.items() if rows}


def sample(name: str, attempts: list[Attempt], verdicts: list[Verdict], shown: int) -> list[Transcript]:
    """The first `shown` attempts of every attack and label, the same prompts for every model."""
    words: dict[str, list[Verdict]] = {}
    for verdict in verdicts:
        words.setdefault(verdict.attempt, []).append(verdict)
    seen: Counter[tuple[str, str]] = Counter()
    chosen = []
    for attempt in attempts:
        cell = (attempt.attack, attempt.prompt.label)
        seen[cell] += 1
        if seen[cell] <= shown:
            chosen.append(Transcript(model=name, attempt=attempt, verdicts=tuple(words.get(attempt.id, ()))))
    return chosen


def model_card(model: ModelRuns) -> tuple[ModelCard, float, str]:
    """The card of the attacked model, the seconds its making took, and the policy it was made under."""
    target, attack_run = model.target, model.attacks[0]
    base = str(target["name"])
    if not (Path(base) / "run.json").exists():
        return ModelCard(name=model.name, base=base, system=target["system"]), 0.0, ""
    train_run = source_of(attack_run, base, base, "train")
    if train_run.info["config"]["method"] == "merge":
        merged = train_run.info["config"]["init"]
        train_run = source_of(train_run, merged, merged, "train")
    config, examples = train_run.info["config"], trained_on(train_run)
    placed = _distribution(examples, model.attempts) if examples else None
    if config["data"] is None:
        card = _prompted_card(model, train_run).model_copy(update={"distribution": placed})
        return card, _took(train_run), config["policy"]
    thoughts = [a.status for a in model.attempts if a.status is not None]
    synth_run = source_of(train_run, "data", config["data"], "synth")
    rejected = synth_run.read("rejected.jsonl", Rejected)
    metrics: dict[str, Any] = train_run.info["metrics"]
    reasons = any(e.reasoning for e in examples)
    before = f", starting from {config['init']}" if config.get("init") else ""
    card = ModelCard(
        name=model.name,
        base=config["model"],
        system=target["system"],
        method=f"{config['method']} on {synth_run.info['config']['method']} ({changed(config)}){before}",
        trained_on={label: train_run.info["counts"][label] for label in LABELS if label in train_run.info["counts"]},
        rejected=dict(Counter(r.reason for r in rejected)),
        steps=metrics["steps"],
        trained_tokens=metrics["trained_tokens"],
        train_loss=metrics["train_loss"],
        validation_loss=metrics["validation_loss"],
        seconds=_took(train_run),
        format_ok=thoughts.count("ok") / len(thoughts) if reasons and thoughts else None,
        commands=tuple(dict.fromkeys(shlex.join(r.info["argv"]) for r in (synth_run, train_run, *model.attacks))),
        distribution=placed,
    )
    return card, _took(train_run) + _took(synth_run), synth_run.info["config"]["policy"]


def _prompted_card(model: ModelRuns, made: Run) -> ModelCard:
    """The card of a model that a method made without training on rows: its system prompt is all that it adds."""
    own = (made.path / "model" / "system.txt").read_text(encoding="utf-8")
    system = "\n\n".join(filter(None, (own, model.target["system"])))
    commands = tuple(dict.fromkeys(shlex.join(r.info["argv"]) for r in (made, *model.attacks)))
    config = made.info["config"]
    return ModelCard(name=model.name, base=config["model"], system=system, method=config["method"], commands=commands)


def _distribution(examples: list[Example], attempts: list[Attempt]) -> Distribution:
    asked = {a.prompt.id: a.prompt for a in attempts}
    return distribution([e.prompt for e in examples], dict.fromkeys(a.attack for a in attempts), list(asked.values()))


def changed(config: dict[str, Any]) -> str:
    """The training settings that a reader needs to compare two models."""
    length = "steps" if config.get("steps") else "epochs"
    keys = (length, "batch_size", "learning_rate", "lora_rank", "decision_weight")
    return ", ".join(f"{key} {config[key]:g}" for key in keys if key in config)


def _took(run: Run) -> float:
    return float(run.info["ended"] - run.info["started"])


def _attack_card(spec: str) -> AttackCard:
    about, paper = describe(spec)
    return AttackCard(name=spec, about=about, paper=paper, family=family_of(spec))


def _judge_card(spec: str, model: ModelRuns) -> JudgeCard:
    entry = JUDGES.get(parse_spec(spec)[0])
    behind = [run.info["config"]["models"].get(spec) for run in model.runs["judge"]]
    aimed = any(spec in run.info.get("graded_inside", ()) for run in model.runs["judge"])
    return JudgeCard(
        name=spec,
        about=entry.about if entry else "a custom judge",
        paper=entry.paper if entry else "",
        knows=knows(spec),
        model=next((str(m["name"]) for m in behind if m), "") + (AIMED if aimed else ""),
    )
