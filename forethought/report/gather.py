"""From judge runs to the report: follows each run to what it was made from, checks it, and computes every number anew."""

from __future__ import annotations

import shlex
from collections import Counter
from pathlib import Path
from typing import Any

from forethought.analysis.rates import cells
from forethought.attacks import ATTACKS
from forethought.errors import ForethoughtError
from forethought.judges import JUDGES
from forethought.records import LABELS, Attempt, Example, Rejected, Verdict, digest
from forethought.registry import Entry, parse_spec
from forethought.report.data import AttackCard, ModelCard, ReportData, Transcript
from forethought.report.page import render
from forethought.run import Run, explain_disk, read_run, run_hash, write_text

SHOWN_PER_CELL = 8


def write_report(out: Path, judged: dict[str, Path], *, title: str, about: str = "") -> Path:
    """Write the page of the named judge runs (one a model) to `out`; returns its path."""
    page = render(gather(judged, title=title, about=about))
    with explain_disk():
        out.parent.mkdir(parents=True, exist_ok=True)
    write_text(out, page)
    return out


def gather(judged: dict[str, Path], *, title: str, about: str = "") -> ReportData:
    """Everything on the page. Raises ForethoughtError where the runs do not share their prompts, and so cannot be compared."""
    if not judged:
        raise ForethoughtError("there is nothing to report: name at least one judge run.")
    cards, found, transcripts = [], [], []
    attacks: dict[str, AttackCard] = {}
    judges: dict[str, str] = {}
    prompts: dict[str, str] = {}
    seconds, policy, judge_run = 0.0, "", None
    for name, path in judged.items():
        judge_run = read_run(path, "judge")
        attack_run = source_of(judge_run, "attempts", judge_run.info["config"]["attempts"], "attack")
        asked = digest(attack_run.info["inputs"]["prompts"], attack_run.info["config"]["sampling"])
        prompts[asked] = name
        if len(prompts) > 1:
            first, second = list(prompts.values())[:2]
            raise ForethoughtError(
                f"'{first}' and '{second}' were asked different prompts, or with other sampling, and cannot stand in one table."
            )
        attempts, verdicts = attack_run.read("attempts.jsonl", Attempt), judge_run.read("verdicts.jsonl", Verdict)
        found += cells(name, attempts, verdicts)
        transcripts += sample(name, attempts, verdicts)
        card, took, card_policy = model_card(name, attack_run, attempts)
        cards.append(card)
        seconds += took + _took(attack_run) + _took(judge_run)
        policy = policy or card_policy
        for attempt in attempts:
            attacks.setdefault(attempt.attack, _attack_card(attempt.attack))
        for judge in judge_run.info["config"]["judges"]:
            judges[judge] = _about(JUDGES, judge)
    assert judge_run is not None
    info = judge_run.info
    git = info.get("git") or {}
    return ReportData(
        title=title,
        about=about,
        command=shlex.join(info["argv"]),
        seed=info["seed"],
        policy=policy or "none",
        models=tuple(cards),
        attacks=tuple(attacks.values()),
        cells=tuple(found),
        transcripts=tuple(transcripts),
        judges=judges,
        packages=info["packages"],
        hardware={k: str(v) for k, v in info["hardware"].items()},
        git=f"{git['commit'][:12]}{' with uncommitted changes' if git['dirty'] else ''}" if git else "",
        seconds=seconds,
    )


def source_of(run: Run, key: str, path: str, command: str) -> Run:
    """The run that `run` was made from, still the same as then. Raises ForethoughtError where it has been made anew since."""
    source = read_run(path, command)
    if run.info["inputs"][key] != run_hash(source):
        raise ForethoughtError(f"{path} was made anew after {run.path} had used it. Make {run.path} again.")
    return source


def sample(name: str, attempts: list[Attempt], verdicts: list[Verdict]) -> list[Transcript]:
    """The first SHOWN_PER_CELL attempts of every attack and label, the same prompts for every model."""
    words: dict[str, list[Verdict]] = {}
    for verdict in verdicts:
        words.setdefault(verdict.attempt, []).append(verdict)
    seen: Counter[tuple[str, str]] = Counter()
    chosen = []
    for attempt in attempts:
        cell = (attempt.attack, attempt.prompt.label)
        seen[cell] += 1
        if seen[cell] <= SHOWN_PER_CELL:
            chosen.append(Transcript(model=name, attempt=attempt, verdicts=tuple(words.get(attempt.id, ()))))
    return chosen


def model_card(name: str, attack_run: Run, attempts: list[Attempt]) -> tuple[ModelCard, float, str]:
    """The card of the attacked model, the seconds its making took, and the policy it was made under."""
    target = attack_run.info["config"]["target"]
    thoughts = [a.status for a in attempts if a.status is not None]
    trained = (Path(target["name"]) / "run.json").exists()
    if not trained:
        return ModelCard(name=name, base=target["name"], system=target["system"]), 0.0, ""
    train_run = source_of(attack_run, target["name"], target["name"], "train")
    if train_run.info["config"]["method"] == "merge":
        merged = train_run.info["config"]["init"]
        train_run = source_of(train_run, merged, merged, "train")
    if train_run.info["config"]["data"] is None:
        return _untrained_card(name, attack_run, train_run), _took(train_run), train_run.info["config"]["policy"]
    synth_run = source_of(train_run, "data", train_run.info["config"]["data"], "synth")
    examples, rejected = synth_run.read("examples.jsonl", Example), synth_run.read("rejected.jsonl", Rejected)
    metrics: dict[str, Any] = train_run.info["metrics"]
    reasons = any(e.reasoning for e in examples)
    card = ModelCard(
        name=name,
        base=train_run.info["config"]["model"],
        system=target["system"],
        method=f"{train_run.info['config']['method']} on {synth_run.info['config']['method']} ({changed(train_run.info['config'])})"
        + (f", starting from {before}" if (before := train_run.info["config"].get("init")) else ""),
        trained_on={label: train_run.info["counts"][label] for label in LABELS if label in train_run.info["counts"]},
        rejected=dict(Counter(r.reason for r in rejected)),
        steps=metrics["steps"],
        trained_tokens=metrics["trained_tokens"],
        train_loss=metrics["train_loss"],
        validation_loss=metrics["validation_loss"],
        seconds=_took(train_run),
        format_ok=thoughts.count("ok") / len(thoughts) if reasons and thoughts else None,
        commands=tuple(dict.fromkeys(shlex.join(r.info["argv"]) for r in (synth_run, train_run, attack_run))),
    )
    return card, _took(train_run) + _took(synth_run), synth_run.info["config"]["policy"]


def _untrained_card(name: str, attack_run: Run, made: Run) -> ModelCard:
    """The card of a model that a method made without training on rows."""
    config = made.info["config"]
    own = (made.path / "model" / "system.txt").read_text(encoding="utf-8")
    system = "\n\n".join(filter(None, (own, attack_run.info["config"]["target"]["system"])))
    commands = tuple(dict.fromkeys(shlex.join(r.info["argv"]) for r in (made, attack_run)))
    return ModelCard(name=name, base=config["model"], system=system, method=config["method"], commands=commands)


def changed(config: dict[str, Any]) -> str:
    """The training settings that a reader needs to compare two models."""
    length = "steps" if config.get("steps") else "epochs"
    keys = (length, "batch_size", "learning_rate", "lora_rank", "decision_weight")
    return ", ".join(f"{key} {config[key]:g}" for key in keys if key in config)


def _took(run: Run) -> float:
    return float(run.info["ended"] - run.info["started"])


def _attack_card(spec: str) -> AttackCard:
    name, _ = parse_spec(spec)
    entry = ATTACKS.get(name)
    return AttackCard(name=spec, about=entry.about if entry else "a custom attack", paper=entry.paper if entry else "")


def _about(table: dict[str, Entry], spec: str) -> str:
    name, _ = parse_spec(spec)
    return table[name].about if name in table else "a custom judge"
