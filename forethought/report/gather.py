"""From runs to the report: follows each run to what it was made from, checks it, and computes every number anew."""

from __future__ import annotations

import json
import shlex
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from forethought.analysis.agreement import Agreed, judge_agreement
from forethought.analysis.distribution import Distribution, distribution, family_of
from forethought.analysis.rates import cells
from forethought.analysis.summary import (
    Heard,
    costs,
    differences,
    differences_by_attack,
    differences_of_every_pair,
    length,
    more_tries,
    pools,
)
from forethought.attacks import describe
from forethought.errors import ForethoughtError, nearest
from forethought.judges import JUDGES, MEANING, inside, meaning
from forethought.models import deployment
from forethought.records import LABELS, Attempt, Example, Rejected, Verdict
from forethought.registry import parse_spec
from forethought.report.data import AttackCard, JudgeCard, ModelCard, ReportData, Transcript
from forethought.report.metrics import metrics
from forethought.report.more import Named, able, refused, scored, thinking
from forethought.report.page import render
from forethought.report.redact import check_masked, masked
from forethought.report.sources import (
    ModelRuns,
    check_comparable,
    heard_of,
    made_by,
    read_model,
    source_of,
    trained_on,
    training_at,
)
from forethought.report.text import as_csv
from forethought.report.transcripts import disagreements
from forethought.run import Run, explain_disk, locate, read_info, write_text
from forethought.thoughts import is_set

# Transcripts on the page: all where there are no more than this, else about as many, the same share of every attack and label.
SHOWN = 20_000
UNKNOWN = "not known here"
AIMED = " (which also graded inside the attacks: they were aimed at its verdict)"
Runs = Mapping[str, Sequence[Path]]  # The runs of each model: at least one judge run.


def write_report(
    out: Path,
    runs: Runs,
    *,
    title: str,
    about: str = "",
    reference: str | None = None,
    compare: bool = False,
    redact: bool = False,
    policy: str | None = None,
) -> Path:
    """Write the page of the named models to `out`, and its numbers beside it (.metrics.csv); returns the page's path.

    `compare` adds every pair of models; `redact` masks all texts, and raises ForethoughtError rather than write a page that still holds
    one; `policy` names the rules that refusals are read by."""
    models = read_models(runs)
    data = gather(models, title=title, about=about, reference=reference, compare=compare, policy=policy)
    data = masked(data) if redact else data
    page = render(data, models, redacted=redact)
    numbers = as_csv(metrics(data))
    if redact:
        check_masked(page, models)
        check_masked(numbers, models)
    with explain_disk():
        out.parent.mkdir(parents=True, exist_ok=True)
    write_text(out, page)
    write_text(out.with_suffix(".metrics.csv"), numbers)
    return out


def read_models(runs: Runs) -> list[ModelRuns]:
    """The runs of each model. Raises ForethoughtError where they do not share their prompts, and so cannot be compared."""
    if not runs:
        raise ForethoughtError("there is nothing to report: name at least one judge run.")
    models = [read_model(name, paths) for name, paths in runs.items()]
    check_comparable(models)
    return models


def gather(
    models: Sequence[ModelRuns],
    *,
    title: str,
    about: str = "",
    reference: str | None = None,
    compare: bool = False,
    policy: str | None = None,
) -> ReportData:
    """Everything on the page. `reference` is the model that the others are compared with, by default the first."""
    reference = reference or models[0].name
    names = [m.name for m in models]
    if reference not in names:
        raise ForethoughtError(f"no model '{reference}' to compare with.{nearest(reference, names)}")
    made = [model_card(m) for m in models]
    used = next((found for _, _, found in made if found), None)
    cards = tuple(card for card, _, _ in made)
    heard: Heard = heard_of(models)
    trained = {c.name: c.distribution for c in cards if c.distribution}
    seen: set[Path] = set()
    shown = [run for m in models for run in (*m.attacks, *(r for kind in m.runs.values() for r in kind))]
    info = models[-1].runs["judge"][-1].info
    git = info.get("git") or {}
    return ReportData(
        title=title,
        about=about,
        command="\n".join(dict.fromkeys(shlex.join(run.info["argv"]) for m in models for run in m.runs["judge"])),
        seeds=tuple(
            sorted(
                {run.info["seed"] for m in models for run in m.attacks}
                | {seed for seed in map(_seed, models) if seed is not None}
            )
        ),
        policy=used[0] if used else "none",
        reference=reference,
        models=cards,
        attacks=tuple(_attack_card(a) for a in dict.fromkeys(a.attack for m in models for a in m.attempts)),
        judges=tuple({judge: _judge_card(judge, m) for m in models for judge in m.judges}.values()),
        cells=tuple(cell for m in models for cell in cells(m.name, m.attempts, m.verdicts)),
        pools=pools(heard, trained),
        transcripts=tuple(sample(models)),
        differences=differences(heard, reference),
        by_attack=differences_by_attack(heard, reference),
        every_pair=differences_of_every_pair(heard) if compare and len(models) > 2 else (),
        agreement=agreement(models),
        tries=more_tries(heard),
        costs=tuple(cost for m in models for cost in costs(m.name, m.attempts)),
        lengths=tuple(length(m.name, m.attempts) for m in models),
        **scored(models, reference),
        **able(models, reference),
        **refused(models, heard, policy, used),
        **thinking(models, reference, policy, used),
        packages=info["packages"],
        code=tuple(sorted({info["code"] for run in shown for info in _lineage(run.path, seen)})),
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
            if v.attempt in asked and meaning(v.judge) != "helped with care" and not inside(v.judge)
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


def sample(models: Sequence[ModelRuns], most: int = SHOWN) -> Iterator[Transcript]:
    """All attempts; where there are too many, as many of every attack and label, the same for every model: the first sample of each
    prompt, then the second of each, and so on."""
    kinds = {(a.attack, a.prompt.label) for m in models for a in m.attempts}
    total = sum(len(m.attempts) for m in models)
    shown = total if total <= most else max(2, most // max(1, len(kinds) * len(models)))
    for model in models:
        words: dict[str, list[Verdict]] = {}
        for verdict in model.verdicts:
            words.setdefault(verdict.attempt, []).append(verdict)
        kept = _spread(model.attempts, shown)
        for attempt in model.attempts:
            if attempt.id in kept:
                said = tuple(words.get(attempt.id, ()))
                flags = disagreements(attempt, said)
                yield Transcript(model=model.name, attempt=attempt, verdicts=said, flags=flags)


def _spread(attempts: Iterable[Attempt], most: int) -> set[str]:
    """Ids of `most` attempts of every attack and label, spread over its prompts."""
    turns: Counter[tuple[str, str]] = Counter()
    cells: dict[tuple[str, str], list[tuple[int, str]]] = {}
    for a in attempts:
        cells.setdefault((a.attack, a.prompt.label), []).append((turns[a.attack, a.prompt.id], a.id))
        turns[a.attack, a.prompt.id] += 1
    # A stable sort: within a turn the prompts stay in their order.
    return {id for found in cells.values() for _, id in sorted(found, key=lambda item: item[0])[:most]}


def model_card(model: ModelRuns) -> tuple[ModelCard, float, Named | None]:
    """The card of the attacked model, the seconds its making took, and the policy it was made under."""
    target, attack_run = model.target, model.attacks[0]
    name, base = str(target["name"]), made_by(target)
    if not training_at(base, attack_run.path):
        # Of a server, a folder of weights or another tool's attempts nothing is known.
        known = name == "smollm2" or (name.startswith("hf:") and not Path(name[3:]).exists())
        return (
            ModelCard(name=model.name, base=name, system=target["system"], method="none" if known else UNKNOWN),
            0.0,
            None,
        )
    train_run = source_of(attack_run, base, base, "train")
    if train_run.info["config"]["method"] == "merge":
        merged = train_run.info["config"]["init"]
        train_run = source_of(train_run, merged, merged, "train")
    config, examples = train_run.info["config"], trained_on(train_run)
    placed = _distribution(examples, model.attempts) if examples else None
    if config["data"] is None:
        card = _prompted_card(model, train_run).model_copy(update={"distribution": placed})
        return card, _took(train_run), (config["policy"], "") if config["policy"] else None
    thoughts = [a.status for a in model.attempts if a.status is not None and not is_set(a)]
    synth_run = source_of(train_run, "data", config["data"], "synth")
    rejected = synth_run.read("rejected.jsonl", Rejected)
    metrics: dict[str, Any] = train_run.info["metrics"]
    reasons = any(e.reasoning for e in examples)
    card = ModelCard(
        name=model.name,
        base=config["model"],
        system=target["system"],
        method=f"{config['method']} on {synth_run.info['config']['method']} ({changed(config)})",
        init=config.get("init") or "",
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
        data=_data(examples),
        losses=losses(train_run),
    )
    named = (synth_run.info["config"]["policy"], synth_run.info["inputs"].get("policy", ""))
    return card, _took(train_run) + _took(synth_run), named


def _seed(model: ModelRuns) -> int | None:
    """The seed of the training that a model is; None where it is none."""
    path = training_at(made_by(model.target), model.attacks[0].path)
    found = _lineage(path, set()) if path else ()
    return next((i["seed"] for i in found if i["command"] == "train" and i["config"]["method"] != "merge"), None)


def _lineage(path: Path, seen: set[Path]) -> Iterator[dict[str, Any]]:
    """What is written of a run, and of every run that it was made from or asked: nearest first, and none that was `seen`."""
    if path.resolve() in seen or not (path / "run.json").exists():
        return
    seen.add(path.resolve())
    info = read_info(path)
    yield info
    config = info["config"]
    if info["command"] == "train":
        for data in filter(None, (config["data"], *config.get("match", ()))):
            yield from _lineage(locate(data, path), seen)
    behind = config["models"].values() if isinstance(config.get("models"), dict) else ()
    models = [m for m in (*config.values(), *behind) if isinstance(m, dict)]
    for name in (config.get("init"), config.get("model"), *(m.get(key) for m in models for key in ("name", "trained"))):
        if isinstance(name, str) and (trained := training_at(name, path)):
            yield from _lineage(trained, seen)


def _data(examples: Sequence[Example]) -> dict[str, dict[str, int]]:
    """What the training rows are: counts by source, method, teacher, decision, category, style and check passed."""
    counts: dict[str, Counter[str]] = {
        "source": Counter(e.prompt.source for e in examples),
        "made by": Counter(e.method for e in examples),
        "teacher": Counter(e.teacher for e in examples),
        "decision": Counter(e.decision for e in examples),
        "category": Counter(e.category or "none" for e in examples),
        "style": Counter(e.prompt.style for e in examples if e.prompt.style),
        "checks passed": Counter(c for e in examples for c in e.checks),
    }
    return {field: dict(found.most_common()) for field, found in counts.items()}


def losses(train_run: Run, most: int = 200) -> tuple[tuple[int, float], ...]:
    """(step, training loss) as it was logged; of a long log every so many."""
    path = train_run.path / "losses.jsonl"
    if not path.exists():
        return ()
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    found = [(int(r["step"]), float(r["loss"])) for r in rows if "loss" in r]
    return tuple(found[:: -(-len(found) // most)]) if found else ()


def _prompted_card(model: ModelRuns, made: Run) -> ModelCard:
    """The card of a model that a method made without training on rows: its system prompt is all that it adds."""
    base, system = deployment(str(made.path), model.target["system"])
    commands = tuple(dict.fromkeys(shlex.join(r.info["argv"]) for r in (made, *model.attacks)))
    return ModelCard(name=model.name, base=base, system=system, method=made.info["config"]["method"], commands=commands)


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
    name = parse_spec(spec)[0]
    entry = JUDGES.get(name)
    behind = [run.info["config"]["models"].get(spec) for run in model.runs["judge"]]
    aimed = any(spec in run.info.get("graded_inside", ()) for run in model.runs["judge"])
    return JudgeCard(
        name=spec,
        about=(entry.about if entry else "a custom judge") + (AIMED if aimed else ""),
        paper=entry.paper if entry else "",
        knows=MEANING.get(name, ""),
        model=next((str(m["name"]) for m in behind if m), ""),
    )
