"""A whole experiment file: data, synthesis, training, attacks on every target, judging, scores, capability, one report."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from forethought.attacks import load_attack
from forethought.capability import load_task
from forethought.config import Experiment, JudgeConfig, ModelConfig, SynthConfig
from forethought.data import load_prompts
from forethought.errors import ForethoughtError, nearest
from forethought.judges import JUDGES
from forethought.models import check_spec
from forethought.policy import Policy, load_policy
from forethought.records import Prompt
from forethought.registry import parse_spec, resolve
from forethought.report.gather import write_report
from forethought.stages import attack, capability, judge, score, synth, train, unload
from forethought.stages.attacking import others
from forethought.stages.judging import models_behind
from forethought.synth import SYNTHESIZERS
from forethought.train import METHODS


def run_experiment(experiment: Experiment, root: Path, say: Callable[[str], None], overwrite: bool = False) -> Path:
    """The whole pipeline of an experiment file under `root/NAME`; finished stages are skipped. Returns the report's path."""
    home, seed = root / experiment.name, experiment.seed
    policy = load_policy(experiment.policy)
    data = {name: load_prompts(config, seed) for name, config in experiment.data.items()}
    _check_plan(experiment, data, policy)
    base = ModelConfig(name=experiment.model)
    evaluation = {n: data[n] for n in dict.fromkeys((experiment.attack.prompts, *experiment.evaluation))}
    for name, s in experiment.synth.items():
        say(f"synth {name}: {s.method} from {len(data[s.prompts])} prompts")
        roles: dict[str, Any] = {r: ModelConfig(name=n) for r, n in _roles(s).items()}
        made = synth(
            home / "synth" / name, s.method, data[s.prompts], policy, base, **roles,
            evaluation=evaluation, leaks=experiment.leaks, budget=s.budget, seed=seed, overwrite=overwrite,
        )  # fmt: skip
        say(f"  kept {made.info['counts']['ok']} of {made.info['counts']['planned']} -> {made.path}")
    for name, t in experiment.train.items():
        say(f"train {name}: {t.method} on {t.data}")
        paths = {"data": str(home / "synth" / t.data), "match": tuple(str(home / "synth" / m) for m in t.match)}
        done = train(
            home / "train" / name, experiment.model, t.model_copy(update=paths), seed=seed, overwrite=overwrite
        )
        found = done.info["metrics"]
        say(f"  loss {found['train_loss']:.3f}, validation {found['validation_loss']:.3f} -> {done.path}")
    prompts = data[experiment.attack.prompts]
    shown = {
        name: measure_target(experiment, home, name, prompts, say, overwrite=overwrite) for name in experiment.targets
    }
    return write_report(home / "report.html", shown, title=experiment.name, about=experiment.about)


def measure_target(
    experiment: Experiment,
    home: Path,
    name: str,
    prompts: list[Prompt],
    say: Callable[[str], None],
    *,
    overwrite: bool = False,
) -> list[Path]:
    """Attack, judge and, where the experiment asks for it, score a target and put capability tasks to it. Returns the report's runs."""
    given, seed = experiment.targets[name], experiment.seed
    target = given.model_copy(update={"name": _spec(experiment, home, given)})
    say(f"attack {name}: {len(experiment.attack.attacks)} attacks on {len(prompts)} prompts")
    unload()
    tried = attack(
        home / "attack" / name, target, prompts, experiment.attack, **_attackers(experiment, home), seed=seed, overwrite=overwrite
    )  # fmt: skip
    runs = []
    if experiment.score:
        scored = score(
            home / "score" / name, tried.path, **experiment.score.model_dump(), seed=seed, overwrite=overwrite
        )
        say(f"  scores: {scored.info['counts']['failed']} unscored -> {scored.path}")
        runs.append(scored.path)
    if experiment.capability:
        asked = experiment.capability
        able = capability(
            home / "capability" / name, target, asked.tasks,
            take=asked.take, max_tokens=asked.max_tokens, seed=seed, overwrite=overwrite, say=say,
        )  # fmt: skip
        say(f"  capability: {able.info['counts']['failed']} unscored -> {able.path}")
        runs.append(able.path)
    spoken = judge(
        home / "judge" / name,
        tried.path,
        experiment.judge.judges,
        *_behind(experiment.judge),
        seed=seed,
        overwrite=overwrite,
    )
    say(f"  {tried.info['counts']['ok']} attempts, {spoken.info['counts']['failed']} unscored -> {spoken.path}")
    return [spoken.path, *runs]


def _spec(experiment: Experiment, home: Path, target: ModelConfig) -> str:
    """The model a target names: a training of this experiment, or any model."""
    return str(home / "train" / target.name) if target.name in experiment.train else target.name


def _roles(config: SynthConfig) -> dict[str, str]:
    return {r: n for r in ("teacher", "helper", "guard") if (n := getattr(config, r))}


def _attackers(experiment: Experiment, home: Path) -> dict[str, Any]:
    """The models that attack and grade inside attacks, by role; one that is trained here goes by its name."""
    named = {r: n for r in ("attacker", "helper") if (n := getattr(experiment.attack, r))}
    return {r: ModelConfig(name=str(home / "train" / n) if n in experiment.train else n) for r, n in named.items()}


def _behind(config: JudgeConfig) -> tuple[ModelConfig | None, dict[str, ModelConfig]]:
    """The model behind the judges, and those of single judges."""
    one = ModelConfig(name=config.model) if config.model else None
    return one, {name: ModelConfig(name=model) for name, model in config.models.items()}


def _check_plan(experiment: Experiment, data: dict[str, list[Prompt]], policy: Policy) -> None:
    """Every name an experiment refers to exists, before hours are spent."""
    for name, s in experiment.synth.items():
        _known(f"synth.{name}.prompts", s.prompts, data)
        resolve("synthesizer", SYNTHESIZERS, s.method, policy=policy)
        for spec in _roles(s).values():
            check_spec(spec)
    for name, t in experiment.train.items():
        for source in (t.data, *t.match):
            _known(f"train.{name}.data", source, experiment.synth)
        if ":" not in t.method:
            _known(f"train.{name}.method", parse_spec(t.method)[0], METHODS)
    for target in (ModelConfig(name=experiment.model), *experiment.targets.values()):
        if target.name not in experiment.train:
            check_spec(target.name)
    _known("attack.prompts", experiment.attack.prompts, data)
    for spec in experiment.evaluation:
        _known("evaluation", spec, data)
    for spec in experiment.attack.attacks:
        load_attack(spec)
    for model in others(ModelConfig(name=experiment.model), experiment.attack).values():
        if model.name not in experiment.train:
            check_spec(model.name)
    if "direct" not in experiment.attack.attacks:
        raise ForethoughtError("'attack.attacks' must hold 'direct': over-refusal is measured on direct requests.")
    for spec in experiment.judge.judges:
        resolve("judge", JUDGES, spec)
    models_behind(experiment.judge.judges, *_behind(experiment.judge))
    for spec in experiment.capability.tasks if experiment.capability else ():
        load_task(spec)[1].read()
    served = [name for name, t in experiment.targets.items() if t.name.startswith("openai:")]
    if experiment.score and served:
        raise ForethoughtError(
            f"'score' needs likelihoods, which the server behind '{served[0]}' does not give. Leave 'score' out."
        )


def _known(key: str, name: str, known: Iterable[str]) -> None:
    if name not in known:
        raise ForethoughtError(f"'{key}' names '{name}', which there is not.{nearest(name, known)}")
