"""The runs behind a report: read, checked against what they were made from, and put together by model."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from forethought.analysis.causal import Trial
from forethought.analysis.rates import Outcome, by_judge, outcomes_of, sent_of
from forethought.errors import ForethoughtError
from forethought.records import Attempt, Example, Graded, Score, Verdict, digest
from forethought.run import Run, locate, read_info, read_run, run_hash

# The commands whose runs a report shows.
KINDS = ("judge", "score", "capability", "causal", "divergence")
# Those of them that are made from the attempts of an attack run, and say nothing without its judge run.
MADE_FROM = ("score", "causal", "divergence")
# (attack, label) -> the ids of the prompts it was made on, and the run that did.
Asked = dict[tuple[str, str], tuple[set[str], Path]]


@dataclass
class ModelRuns:
    """All that is known of one model: what was tried on it, and what was said of that."""

    name: str
    runs: dict[str, list[Run]] = field(default_factory=lambda: {kind: [] for kind in KINDS})
    attacks: list[Run] = field(default_factory=list)
    attempts: list[Attempt] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)
    scores: list[Score] = field(default_factory=list)
    graded: list[Graded] = field(default_factory=list)
    trials: list[Trial] = field(default_factory=list)
    tried: list[Verdict] = field(default_factory=list)  # What was said of the trials' answers.

    @property
    def target(self) -> dict[str, str | None]:
        """The attacked model and its system prompt."""
        found: dict[str, str | None] = self.attacks[0].info["config"]["target"]
        return found

    @property
    def judges(self) -> list[str]:
        return list(dict.fromkeys(j for run in self.runs["judge"] for j in run.info["config"]["judges"]))


def read_model(name: str, paths: Sequence[Path]) -> ModelRuns:
    """The runs of one model, each recognised by the command that made it. Several judge runs add up, of one attack run or of several.

    Raises ForethoughtError for a run of another kind, a judge that spoke twice on one attempt, or runs of unlike models.
    """
    found = ModelRuns(name)
    for path in paths:
        run = read_run(path)
        kind = run.info["command"]
        if kind not in found.runs:
            raise ForethoughtError(f"{path} is a run of '{kind}'. A report shows runs of {', '.join(KINDS)}.")
        found.runs[kind].append(run)
    if not found.runs["judge"]:
        raise ForethoughtError(f"'{name}' has no judge run. Add one: {name}=RUN.")
    said: set[tuple[str, str]] = set()
    twice: dict[str, set[str]] = {}
    for run in found.runs["judge"]:
        source = source_of(run, "attempts", run.info["config"]["attempts"], "attack")
        twice.setdefault(run_hash(source), set()).update(_add_attack(found, source))
        for verdict in run.read("verdicts.jsonl", Verdict):
            if verdict.attempt in twice[run_hash(source)]:
                continue
            if (verdict.judge, verdict.attempt) in said:
                raise ForethoughtError(
                    f"the judge '{verdict.judge}' spoke twice on {verdict.attempt} of '{name}'. Leave out one of its runs: {run.path}"
                )
            said.add((verdict.judge, verdict.attempt))
            found.verdicts.append(verdict)
    again = {run.path: twice[_check_source(found, run)] for kind in MADE_FROM for run in found.runs[kind]}
    _add_scores(found, again)
    _add_causal(found, again)
    _add_capability(found)
    return found


def runs_in(path: Path) -> list[Path]:
    """A run, or all runs in a directory that is none. ForethoughtError where there is none."""
    found = [path] if (path / "run.json").exists() else sorted(p.parent for p in path.rglob("run.json"))
    if not found:
        raise ForethoughtError(f"{path} holds no run (no run.json).")
    return found


def by_target(runs: Sequence[tuple[str, Path]]) -> dict[str, list[Path]]:
    """Runs by model: those of the same target, system prompt and template together, under the name given to one of them, else that of its
    first judge run. A directory that is no run stands for all runs of these kinds in it."""
    groups: dict[str, list[tuple[str, Path]]] = {}
    for name, path in runs:
        for each in runs_in(path):
            info = read_info(each)
            if info["command"] in KINDS or each == path:
                groups.setdefault(digest(_deployed(_target(each, info), each)), []).append((name, each))
    found: dict[str, list[Path]] = {}
    # What was trained comes after what was not, so that the first, with which the others are compared, is an untuned one.
    for members in sorted(groups.values(), key=lambda members: _trained(members[0][1])):
        judged = [p.name for _, p in members if read_info(p)["command"] == "judge"]
        given = [name for name, _ in members if name]
        name = next(iter([*given, *judged]), members[0][1].name)
        if name in found:
            raise ForethoughtError(f"two models would both be called '{name}'. Name one: NAME={members[0][1]}.")
        found[name] = [path for _, path in members]
    return found


def _trained(path: Path) -> bool:
    return (locate(made_by(_target(path, read_info(path))), path) / "run.json").exists()


def made_by(target: dict[str, Any]) -> str:
    """The training run that a target is, or comes from; else just its name."""
    return str(target.get("trained") or target["name"])


def _target(path: Path, info: dict[str, Any]) -> dict[str, Any]:
    """The model that a run is of."""
    config = info["config"]
    if "target" not in config and "attempts" in config:
        config = read_info(locate(config["attempts"], path))["config"]
    if not isinstance(config.get("target"), dict):
        raise ForethoughtError(
            f"{path} does not say which model it is of. Leave out --compare, and name it: NAME={path}."
        )
    target: dict[str, Any] = config["target"]
    return target


def _spelled(target: dict[str, Any], run: Path) -> dict[str, Any]:
    """A run's target, whose name is spelled one way where it is a directory."""
    place = locate(target["name"], run)
    return target | {"name": str(place.resolve() if place.is_dir() else place)}


def _deployed(target: dict[str, Any], run: Path) -> list[Any]:
    """A run's model, its system prompt, and whether its template opens the thought."""
    return [_spelled(target, run)["name"], target["system"], target.get("think", False)]


def _check_source(found: ModelRuns, run: Run) -> str:
    """The hash of the attack run that a run is of. ForethoughtError where its attempts are not on the page."""
    source = source_of(run, "attempts", run.info["config"]["attempts"], "attack")
    if run_hash(source) not in {run_hash(known) for known in found.attacks}:
        raise ForethoughtError(
            f"{run.path} is of {source.path}, of which '{found.name}' has no judge run. Judge it, or leave it out."
        )
    return run_hash(source)


def _add_causal(found: ModelRuns, again: Mapping[Path, set[str]]) -> None:
    """All trials; of the attempts that an earlier attack run holds too (`again`, by causal run) those that nothing else has tested."""
    spare: list[tuple[list[Trial], list[Verdict]]] = []
    for run in found.runs["causal"]:
        trials, verdicts = run.read("trials.jsonl", Trial), run.read("verdicts.jsonl", Verdict)
        late = {t.attempt.id for t in trials if t.of in again[run.path]}
        found.trials += [t for t in trials if t.attempt.id not in late]
        found.tried += [v for v in verdicts if v.attempt not in late]
        spare.append(([t for t in trials if t.attempt.id in late], [v for v in verdicts if v.attempt in late]))
    if len({t.attempt.id for t in found.trials}) < len(found.trials):
        raise ForethoughtError(f"two causal runs of '{found.name}' are of the same attempts. Leave one out.")
    for trials, verdicts in spare:
        tested = {t.of for t in found.trials}
        fresh = {t.attempt.id for t in trials if t.of not in tested}
        found.trials += [t for t in trials if t.attempt.id in fresh]
        found.tried += [v for v in verdicts if v.attempt in fresh]


def _add_scores(found: ModelRuns, again: Mapping[Path, set[str]]) -> None:
    """All scores; of the attempts that an earlier attack run holds too (`again`, by score run) those that have no other."""
    check_place(found.name, found.runs["score"])
    spare: dict[str, Score] = {}
    for run in found.runs["score"]:
        for score in run.read("scores.jsonl", Score):
            if score.attempt in again[run.path]:
                spare.setdefault(score.attempt, score)
            else:
                found.scores.append(score)
    own = {s.attempt for s in found.scores}
    if len(own) < len(found.scores):
        raise ForethoughtError(f"two score runs of '{found.name}' are of the same attempts. Leave one out.")
    found.scores += [score for attempt, score in spare.items() if attempt not in own]


def check_place(name: str, scored: Iterable[Run]) -> None:
    """ForethoughtError where one model was scored in several places: a difference between attacks would be one between places."""
    places = {digest(run.info["config"].get("thinks"), run.info["config"].get("fork")): run.path for run in scored}
    if len(places) > 1:
        one, two, *_ = places.values()
        raise ForethoughtError(
            f"'{name}': {one} and {two} read the log-odds in different places (--at, --thinks). Score one again, or name them apart."
        )


def _add_capability(found: ModelRuns) -> None:
    for run in found.runs["capability"]:
        asked = run.info["config"]["target"]
        if _deployed(asked, run.path) != _deployed(found.target, found.attacks[0].path):
            raise ForethoughtError(
                f"{run.path} is of {asked['name']}, but '{found.name}' is {found.target['name']}, or they differ in the system prompt "
                "or in whether the template opens the thought."
            )
        found.graded += run.read("graded.jsonl", Graded)
    if len({(r.task, r.mode, r.id) for r in found.graded}) < len(found.graded):
        raise ForethoughtError(f"two capability runs of '{found.name}' hold the same task. Leave one out.")


def _add_attack(found: ModelRuns, run: Run) -> set[str]:
    """Ids of direct attempts that an earlier run of the same model, prompts and sampling holds: every attack run sends them, and the
    first one's count."""
    if any(run_hash(run) == run_hash(other) for other in found.attacks):
        return set()
    asked = run.info["config"]["target"]
    if found.attacks and _spelled(asked, run.path) != _spelled(found.target, found.attacks[0].path):
        names = f"{found.target['name']} and {asked['name']}"
        raise ForethoughtError(f"the runs of '{found.name}' are of different models: {names}. Name them apart.")
    known, added = {a.id for a in found.attempts}, run.read("attempts.jsonl", Attempt)
    alike = any(comparable(run) == comparable(other) for other in found.attacks)
    again = asked_again(added) & known if alike else set()
    twice = next((a.id for a in added if a.id in known - again), None)
    if twice is not None:
        raise ForethoughtError(
            f"'{found.name}': {run.path} and {found.attacks[0].path} both hold {twice}. Name them apart, or leave one out."
        )
    found.attacks.append(run)
    found.attempts += [a for a in added if a.id not in again]
    return again


def asked_again(attempts: Iterable[Attempt]) -> set[str]:
    """Ids of what every attack run on the same prompts sends: the direct requests."""
    return {a.id for a in attempts if a.attack == "direct"}


def heard_of(models: Sequence[ModelRuns]) -> dict[str, dict[str, list[Outcome]]]:
    """What every judge said of every attempt: model -> judge -> outcomes."""
    heard: dict[str, dict[str, list[Outcome]]] = {}
    for m in models:
        sent = {a.id: sent_of(a) for a in m.attempts}
        heard[m.name] = {judge: outcomes_of(m.attempts, words, sent) for judge, words in by_judge(m.verdicts).items()}
    return heard


def comparable(attack_run: Run) -> str:
    """What must be alike for two attack runs to stand in one table: the prompts, the sampling, and how often it is drawn."""
    config = attack_run.info["config"]
    return digest(attack_run.info["inputs"]["prompts"], config["sampling"], config["samples"])


def asked_few(runs: Sequence[Run], attacks: Collection[str] = ()) -> list[Asked]:
    """For each run, what it asked under the attacks that one of them made on few prompts."""
    few = {attack for run in runs for attack in run.info["config"].get("few", {}) if not attacks or attack in attacks}
    found: list[Asked] = []
    for run in runs:
        found.append({})
        for a in run.read("attempts.jsonl", Attempt) if few else ():
            if a.attack in few:
                found[-1].setdefault((a.attack, a.prompt.label), (set(), run.path))[0].add(a.prompt.id)
    return found


def few_conflict(asked: Iterable[Asked]) -> str | None:
    """The first attack that was made on unlike prompts of a label, in words; None where there is none."""
    first: Asked = {}
    for one in asked:
        for (attack, label), (ids, path) in one.items():
            known, where = first.setdefault((attack, label), (ids, path))
            if known != ids:
                others = " others" if len(known) == len(ids) else ""
                return (
                    f"'{attack}' was made on {len(known)} {label} prompts in {where} and on {len(ids)}{others} in {path}: "
                    "they cannot stand in one table. Attack again with the same --few."
                )
    return None


def check_few(*runs: Run, attacks: Collection[str] = ()) -> None:
    """ForethoughtError where an attack that one run made on few prompts was made on other prompts of a label in another; `attacks` are
    those that matter (none: all)."""
    if conflict := few_conflict(asked_few(runs, attacks)):
        raise ForethoughtError(conflict)


def check_comparable(models: Sequence[ModelRuns]) -> None:
    """ForethoughtError where models were asked different prompts, or with other sampling; a note where a server sampled in its own way."""
    first: tuple[str, str] | None = None
    for model in models:
        for run in model.attacks:
            asked = (comparable(run), model.name)
            first = first or asked
            if asked[0] != first[0]:
                raise ForethoughtError(
                    f"'{first[1]}' and '{model.name}' were asked different prompts, or with other sampling, and cannot stand in one table."
                )
    check_few(*(run for model in models for run in model.attacks))
    if unlike := sampled_unlike(models):
        sys.stderr.write(f"note: {unlike}\n")


def left_to_server(model: ModelRuns) -> dict[str, tuple[str, ...]]:
    """The sampling settings that a server did not take, so that its own default held: by role (`target`, `attacker`, `helper`, `judge`)."""
    found: dict[str, set[str]] = {}
    for run in (*model.attacks, *(run for kind in model.runs.values() for run in kind)):
        for name, about in run.info.get("loaded", {}).items():
            asked = (role for role in ("target", "attacker", "helper") if _name(run, role) == name)
            found.setdefault(next(asked, "judge"), set()).update(about.get("left to the server", ()))
    return {role: tuple(sorted(fields)) for role, fields in found.items() if fields}


def _name(run: Run, role: str) -> str | None:
    asked = run.info["config"].get(role)
    return asked["name"] if isinstance(asked, dict) else None


def sampled_unlike(models: Sequence[ModelRuns]) -> str:
    """A sentence on models whose replies were drawn in unlike ways, one at a server's default; empty where all were drawn alike."""
    left = {m.name: tuple(f for f in left_to_server(m).get("target", ()) if f != "seed") for m in models}
    if len(set(left.values())) < 2:
        return ""
    said = "; ".join(
        f"the server of '{name}' did not take {' and '.join(fields)}" for name, fields in left.items() if fields
    )
    return f"{said}: models stand side by side whose replies were drawn in unlike ways."


def training_at(name: str, run: Path) -> Path | None:
    """The training run that a model's name, in another run, is; None where it is none."""
    path = locate(name, run)
    return path if (path / "run.json").exists() and read_info(path)["command"] == "train" else None


def source_of(run: Run, key: str, path: str, command: str) -> Run:
    """The run that `run` was made from, still the same as then. Raises ForethoughtError where it has been made anew since."""
    source = read_run(locate(path, run.path), command)
    if run.info["inputs"][key] != run_hash(source):
        raise ForethoughtError(f"{path} was made anew after {run.path} had used it. Make {run.path} again.")
    return source


def trained_on(train_run: Run) -> list[Example]:
    """The examples that a training run was given: those of its synthesis run that its matches kept too, and those of the training that
    it started from, or that its base model comes from. None for a method without data."""
    config, examples = train_run.info["config"], []
    if config["data"] is not None:
        examples = source_of(train_run, "data", config["data"], "synth").read("examples.jsonl", Example)
    for i, path in enumerate(config.get("match", ())):
        other = source_of(train_run, f"match {i}", path, "synth").read("examples.jsonl", Example)
        shared = {e.prompt.base for e in other}
        examples = [e for e in examples if e.prompt.base in shared]
    for before in (config["model"], config.get("init")):
        if before and training_at(before, train_run.path):
            examples += trained_on(source_of(train_run, before, before, "train"))
    return examples
