"""A whole experiment file: data, synthesis, training, attacks on every target, judging, scores, analyses, capability, one report."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

from forethought.analysis.log_odds import thinks
from forethought.attacks import load_attack
from forethought.capability import load_task
from forethought.config import Experiment, ModelConfig, SynthConfig, TrainConfig, find_launch, read_yaml
from forethought.data import check_trainable, load_prompts
from forethought.data.files import read_rows
from forethought.errors import ForethoughtError, nearest
from forethought.jobs import PATIENCE, Part, Say, work_off
from forethought.judges import JUDGES
from forethought.models import check_spec
from forethought.policy import Policy, load_policy
from forethought.records import Attempt, Example, Prompt
from forethought.registry import parse_spec, resolve
from forethought.report.gather import write_report
from forethought.run import Run, keeping_finished, read_run
from forethought.stages import (
    attack,
    capability,
    causal,
    diverge,
    import_data,
    judge,
    not_for,
    read_examples,
    score,
    synth,
    train,
    unload,
)
from forethought.stages.applicable import Analysis
from forethought.stages.attacking import others
from forethought.stages.judging import aimed_at, graded_inside, models_behind
from forethought.stages.synthesis import synthesizer
from forethought.synth.imported import FORMS
from forethought.train import METHODS
from forethought.train.plan import check_can, command, describe, shown


def run_experiment(
    experiment: Experiment, root: Path, say: Say, overwrite: bool = False, jobs: int = 1, keep: bool = False
) -> Path:
    """The whole pipeline of an experiment file under `root/NAME`, `jobs` parts of it at once; finished stages are skipped, with `keep`
    those of other code too. Returns the report's path."""
    home, seed = root / experiment.name, experiment.seed
    policy = load_policy(experiment.policy)
    data = {name: load_prompts(config, seed) for name, config in experiment.data.items()}
    _check_plan(experiment, data, policy)
    if experiment.launch is not None and jobs > 1:
        raise ForethoughtError("'launch' gives each training all processes that there are. Leave --jobs out.")
    for line in _aimed(experiment):
        say(line)
    made = work_off(_parts(experiment), partial(_make, experiment, home, data, policy, overwrite, keep), jobs, say)
    measured = {name: made["attack", name] for name in experiment.targets}
    return write_report(home / "report.html", measured, title=experiment.name, about=experiment.about)


def _parts(experiment: Experiment) -> dict[Part, list[Part]]:
    """What an experiment is made of, and what each part is made from, in the order in which one process makes them."""
    parts: dict[Part, list[Part]] = {("synth", name): [] for name in experiment.synth}
    trained = {name: ("train", name) for name in experiment.train}
    for name, t in experiment.train.items():
        sources = [("synth", s) for s in (*filter(None, [t.data]), *t.match)]
        parts["train", name] = sources + [trained[m] for m in (t.init,) if m in trained]
    for name, target in experiment.targets.items():
        models = (target.name, target.trained, experiment.attack.attacker, experiment.attack.helper)
        parts["attack", name] = [trained[m] for m in models if m in trained]
    return parts


def _make(
    experiment: Experiment,
    home: Path,
    data: dict[str, list[Prompt]],
    policy: Policy,
    overwrite: bool,
    keep: bool,
    part: Part,
    say: Say,
) -> list[Path]:
    """One part: a synthesis, a training, or a target with all that is measured on it, which is what has runs for the report."""
    kind, name = part
    with keeping_finished(keep):
        if kind == "attack":
            return measure_target(experiment, home, name, data[experiment.attack.prompts], say, overwrite=overwrite)
        if kind == "synth":
            _synth(experiment, name, home, data, policy, say, overwrite)
            return []
        t = experiment.train[name]
        say(f"train {name}: {t.method}{f' on {t.data}' if t.data else ''}")
        done = _train(experiment, name, home, overwrite)
    found = done.info["metrics"]
    parts = [
        f"{k} {v:.3f}"
        for k, v in (("loss", found["train_loss"]), ("validation", found["validation_loss"]))
        if v is not None
    ]
    say(f"  {', '.join([*parts, ''])}{found['steps']} steps -> {done.path}")
    return []


def _synth(
    experiment: Experiment,
    name: str,
    home: Path,
    data: dict[str, list[Prompt]],
    policy: Policy,
    say: Say,
    overwrite: bool,
) -> None:
    s, out = experiment.synth[name], home / "synth" / name
    say(f"synth {name}: {_origin(s, data)}")
    checked: dict[str, Any] = {
        "evaluation": {n: data[n] for n in dict.fromkeys((experiment.attack.prompts, *experiment.evaluation))},
        "leaks": experiment.leaks,
        "seed": experiment.seed,
        "overwrite": overwrite,
    }
    if s.form is not None:
        made = import_data(out, s.form, Path(s.path or ""), policy, label=s.label, target=experiment.model, **checked)
    else:
        many = experiment.concurrency
        base = ModelConfig(name=experiment.model, dtype=s.dtype, concurrency=many)
        roles: dict[str, Any] = {r: ModelConfig(name=n, dtype=s.dtype, concurrency=many) for r, n in _roles(s).items()}
        made = synth(out, s.method, data[s.prompts], policy, base, **roles, budget=s.budget, **checked)
    say(f"  kept {made.info['counts']['ok']} of {made.info['counts']['planned']} -> {made.path}")


def measure_target(
    experiment: Experiment,
    home: Path,
    name: str,
    prompts: list[Prompt],
    say: Say,
    *,
    overwrite: bool = False,
) -> list[Path]:
    """Attack, judge and, where the experiment asks for it, score and analyse a target and put capability tasks to it. Returns the
    report's runs."""
    given, seed = experiment.targets[name], experiment.seed
    many = given.concurrency if "concurrency" in given.model_fields_set else experiment.concurrency
    places = {"name": _spec(experiment, home, given.name), "trained": _spec(experiment, home, given.trained)}
    target = given.model_copy(update={**places, "concurrency": many})
    say(f"attack {name}: {len(experiment.attack.attacks)} attacks on {len(prompts)} prompts{experiment.attack.on_few}")
    unload()
    tried = attack(
        home / "attack" / name, target, prompts, experiment.attack, **_attackers(experiment, home), seed=seed, overwrite=overwrite
    )  # fmt: skip
    runs = []
    if (asked := experiment.score) and (skip := not_for("score", tried, asked.at)):
        say(f"  scores: skipped, {skip}")
    elif asked:
        plain = not thinks(tried.read("attempts.jsonl", Attempt))
        settings = asked.model_dump() | ({"samples": 1} if plain else {})
        scored = score(home / "score" / name, tried.path, **settings, seed=seed, overwrite=overwrite)
        say(f"  scores: {scored.info['counts']['failed']} unscored -> {scored.path}")
        runs.append(scored.path)
    runs += _analyzed(experiment, home, name, tried, say, overwrite)
    if tasks := experiment.capability:
        able = capability(
            home / "capability" / name, target, tasks.tasks,
            take=tasks.take, max_tokens=tasks.max_tokens, seed=seed, overwrite=overwrite, say=say,
        )  # fmt: skip
        say(f"  capability: {able.info['counts']['failed']} unscored -> {able.path}")
        runs.append(able.path)
    behind = _behind(experiment)
    if any(behind):
        unload()  # On one GPU there is room for the target or for what judges it.
    spoken = judge(
        home / "judge" / name,
        tried.path,
        experiment.judge.judges,
        *behind,
        budget=experiment.judge.budget,
        seed=seed,
        overwrite=overwrite,
    )
    say(f"  {tried.info['counts']['ok']} attempts, {spoken.info['counts']['failed']} unscored -> {spoken.path}")
    return [spoken.path, *runs]


def _analyzed(experiment: Experiment, home: Path, name: str, tried: Run, say: Say, overwrite: bool) -> list[Path]:
    """The analyses of a target that the experiment asks for and its attempts allow."""
    asked, seed, runs = experiment.analyze, experiment.seed, []
    steps: dict[Analysis, Callable[[Path], Run]] = {}
    if (tests := asked.causal) is not None:
        steps["causal"] = lambda out: causal(out, tried.path, **tests.model_dump(), seed=seed, overwrite=overwrite)
    if (states := asked.divergence) is not None:
        steps["divergence"] = lambda out: diverge(out, tried.path, take=states.take, seed=seed, overwrite=overwrite)
    for kind, make in steps.items():
        skip = not_for(kind, tried)
        if skip:
            say(f"  {kind}: skipped, {skip}")
            continue
        made = make(home / kind / name)
        say(f"  {kind}: {made.info['counts']['failed']} failed -> {made.path}")
        runs.append(made.path)
    return runs


def _spec(experiment: Experiment, home: Path, name: str | None) -> str | None:
    """The model that a name stands for: a training of this experiment, or any model."""
    return str(home / "train" / name) if name in experiment.train else name


def _base(experiment: Experiment, target: ModelConfig) -> str:
    """The model behind a target that is no more than prompted, else the target itself."""
    prompted = target.name in experiment.train and parse_spec(experiment.train[target.name].method)[0] == "prompt"
    return experiment.model if prompted else target.name


def plan_experiment(experiment: Experiment, root: Path) -> list[str]:
    """What `run_experiment` would do, in lines; asks no model, and loads no weights."""
    policy = load_policy(experiment.policy)
    data = {name: load_prompts(config, experiment.seed) for name, config in experiment.data.items()}
    _check_plan(experiment, data, policy)
    launch, processes = _launch(experiment)
    lines = _aimed(experiment)
    for name, s in experiment.synth.items():
        lines.append(f"synth {name}: {_origin(s, data)}")
    for name, t in experiment.train.items():
        rows = _most_rows(experiment.synth[t.data], data) if t.data else 0
        config = _with_paths(experiment, name, root / experiment.name)
        examples = _made(config)
        most = f" (as many rows as {t.data} makes, at most)" if t.data and not examples else ""
        lines += [f"train {name}: {t.method}{most}"]
        plan = describe(experiment.model, config, len(examples) or rows, processes if rows else 1, examples)
        lines += [f"  {line}" for line in plan]
        words = command(
            experiment.model, config, root / experiment.name / "train" / name, seed=experiment.seed,
            policy=experiment.policy, launch=launch if rows else "",
        )  # fmt: skip
        lines.append(f"  command: {shown(words)}")
    count = len(data[experiment.attack.prompts])
    for name in experiment.targets:
        lines.append(
            f"attack {name}: {len(experiment.attack.attacks)} attacks on {count} prompts{experiment.attack.on_few}"
        )
    return lines


def _origin(synth: SynthConfig, data: dict[str, list[Prompt]]) -> str:
    return f"{synth.method} from {synth.path or f'{len(data[synth.prompts])} prompts'}"


def _most_rows(synth: SynthConfig, data: dict[str, list[Prompt]]) -> int:
    """Each prompt makes a row, and one for each of its variants; each row of a file is one."""
    if synth.path:
        return sum(1 for _ in read_rows(Path(synth.path)))
    return len(data[synth.prompts]) * (1 + int(parse_spec(synth.method)[1].get("variants", 0)))


def _made(config: TrainConfig) -> list[Example]:
    """The rows of a training whose data is there already; none where it is still to be made."""
    if config.data is None or not all(_is_finished(Path(p), "synth") for p in (config.data, *config.match)):
        return []
    return read_examples(config)[0]


def _launched(words: list[str]) -> int:
    """The exit code of a launcher. Its workers are in sessions of their own, and end with it only if it is told to end."""
    process = subprocess.Popen(words)
    try:
        return process.wait()
    except BaseException:
        process.terminate()
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
        raise


def _train(experiment: Experiment, name: str, home: Path, overwrite: bool) -> Run:
    """One training run; in several processes where the experiment says so, and then read back."""
    config, out = _with_paths(experiment, name, home), home / "train" / name
    launch, _ = _launch(experiment)
    given: dict[str, Any] = {"policy": experiment.policy, "seed": experiment.seed}
    if launch and config.data and _is_finished(out):
        # Here, where it is known what may be kept: a process of its own would make it again.
        try:
            return train(out, experiment.model, config, **given)
        except ForethoughtError:
            if not overwrite:
                raise
    if launch and config.data:
        unload()
        words = command(experiment.model, config, out, **given, launch=launch)
        words += ["--overwrite"] if overwrite else []
        # This environment's own, whether or not it is activated.
        if _launched([sys.executable, "-m", "accelerate.commands.launch", *words[2:]]):
            raise ForethoughtError(f"training '{name}' failed, as said above. Its command: {shown(words)}")
        overwrite = False
    return train(out, experiment.model, config, **given, overwrite=overwrite)


def _is_finished(out: Path, command: str = "train") -> bool:
    try:
        return read_run(out, command).finished
    except ForethoughtError:
        return False


def _with_paths(experiment: Experiment, name: str, home: Path) -> TrainConfig:
    """The training of that name, with the runs it is made from in place of their names."""
    t = experiment.train[name]
    paths = {
        "data": str(home / "synth" / t.data) if t.data else None,
        "match": tuple(str(home / "synth" / m) for m in t.match),
        "init": str(home / "train" / t.init) if t.init in experiment.train else t.init,
    }
    return t.model_copy(update=paths)


def _launch(experiment: Experiment) -> tuple[str, int]:
    """(file of the accelerate configuration, processes); ("", 1) where one process trains."""
    if experiment.launch is None:
        return "", 1
    path = find_launch(experiment.launch)
    found = read_yaml(path, path.read_bytes())
    count = found.get("num_processes", 1) if isinstance(found, dict) else None
    if not isinstance(count, int) or count < 1:
        raise ForethoughtError(
            f"'{path}' is no accelerate configuration: it must be a YAML mapping, num_processes a whole number."
        )
    return str(path), count


def _roles(config: SynthConfig) -> dict[str, str]:
    return {r: n for r in ("teacher", "helper", "guard") if (n := getattr(config, r))}


def _attackers(experiment: Experiment, home: Path) -> dict[str, Any]:
    """The models that attack and grade inside attacks, by role; one that is trained here goes by its name."""
    named = {r: n for r in ("attacker", "helper") if (n := getattr(experiment.attack, r))}
    paths = {r: str(home / "train" / n) if n in experiment.train else n for r, n in named.items()}
    dtype, many = experiment.attack.dtype, experiment.concurrency
    return {r: ModelConfig(name=n, dtype=dtype, concurrency=many) for r, n in paths.items()}


def _behind(experiment: Experiment) -> tuple[ModelConfig | None, dict[str, ModelConfig]]:
    """The model behind the judges, and those of single judges."""
    asked, many = experiment.judge, experiment.concurrency
    one = ModelConfig(name=asked.model, dtype=asked.dtype, concurrency=many) if asked.model else None
    return one, {n: ModelConfig(name=m, dtype=asked.dtype, concurrency=many) for n, m in asked.models.items()}


def _aimed(experiment: Experiment) -> list[str]:
    """A line for each judge that also grades inside the attacks."""
    config, behind = experiment.attack, models_behind(experiment.judge.judges, *_behind(experiment))
    roles = {r: m.model_dump() for r, m in others(ModelConfig(name=experiment.model), config).items()}
    # One served target is enough for autodan to be graded.
    served = next(
        (t.model_dump() for t in experiment.targets.values() if _base(experiment, t).startswith("openai:")), {}
    )
    return [
        aimed_at(n, behind)
        for n in graded_inside(config.model_dump() | roles | {"target": served}, experiment.judge.judges, behind)
    ]


def _check_plan(experiment: Experiment, data: dict[str, list[Prompt]], policy: Policy) -> None:
    """Every name an experiment refers to exists, before hours are spent."""
    for name, s in experiment.synth.items():
        if s.form is not None:
            _known(f"synth.{name}.method", s.form, FORMS)
            read_rows(Path(s.path or ""))  # Checks the file, and reads nothing yet.
            continue
        _known(f"synth.{name}.prompts", s.prompts, data)
        check_trainable(experiment.data[s.prompts])
        synthesizer(s.method, policy, s.guard is not None)
        for spec in _roles(s).values():
            check_spec(spec)
    _launch(experiment)
    before: list[str] = []
    for name, t in experiment.train.items():
        method, _ = parse_spec(t.method)
        if ":" not in method:
            _known(f"train.{name}.method", method, METHODS)
        given = {"policy": policy} if method in METHODS and METHODS[method].needs == "policy" else {}
        resolve("training method", METHODS, t.method, **given)
        if t.data is None and method != "prompt":
            raise ForethoughtError(f"'train.{name}.data' is missing.")
        for source in (*filter(None, [t.data]), *t.match):
            _known(f"train.{name}.data", source, experiment.synth)
        check_can(t, _launch(experiment)[1])
        if t.init in experiment.train and t.init not in before:
            raise ForethoughtError(f"'train.{name}.init' names '{t.init}', which is trained later. List it first.")
        if t.init and t.init not in experiment.train:
            check_spec(t.init)
        before.append(name)
    for target in (ModelConfig(name=experiment.model), *experiment.targets.values()):
        if target.name not in experiment.train:
            check_spec(target.name)
        if target.trained and target.trained not in experiment.train:
            read_run(target.trained, "train")
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
    for model in models_behind(experiment.judge.judges, *_behind(experiment)).values():
        check_spec(model.name)
    tasks = [load_task(spec)[1] for spec in (experiment.capability.tasks if experiment.capability else ())]
    for task in tasks:
        task.read()
    for spec in experiment.analyze.causal.judges if experiment.analyze.causal else ():
        resolve("judge", JUDGES, spec)
    served = [name for name, t in experiment.targets.items() if _base(experiment, t).startswith("openai:")]
    if experiment.score and served and len(served) == len(experiment.targets):
        raise ForethoughtError(
            f"'score' needs likelihoods, which the server behind '{served[0]}' does not give. Leave 'score' out."
        )
    if tasks and served and all(way.likelihood for task in tasks for way in task.ways.values()):
        raise ForethoughtError(
            f"these capability tasks need likelihoods, which the server behind '{served[0]}' does not give. Name gsm8k, or leave them out."
        )


def _known(key: str, name: str, known: Iterable[str]) -> None:
    if name not in known:
        raise ForethoughtError(f"'{key}' names '{name}', which there is not.{nearest(name, known)}")
