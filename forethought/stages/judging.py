"""Judging: attempts in, verdicts out."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from forethought.attacks import HELPED, needed
from forethought.config import Budget, ModelConfig
from forethought.errors import ForethoughtError, is_broken, is_unanswered, nearest
from forethought.flow import Done, Job
from forethought.judges import JUDGES, Judge, asks_model
from forethought.models import is_served
from forethought.records import Attempt, Verdict
from forethought.registry import parse_spec, resolve
from forethought.run import Run, open_run, read_run, run_hash
from forethought.stages.shared import execute, files_of, weights_of


def judge(
    out: Path,
    attempts_run: Path,
    judges: Iterable[str],
    model: ModelConfig | None = None,
    models: Mapping[str, ModelConfig] | None = None,
    *,
    budget: Budget | None = None,
    seed: int = 0,
    overwrite: bool = False,
) -> Run:
    """Let judges speak on every attempt of an attack run: `verdicts.jsonl` beside it, never into it. Asks no target.

    `model` is behind the judges that ask one, except where `models` names another for a judge. Judges that also graded inside the
    attacks are named in the run's `graded_inside`, for the report to say so. A `budget` caps what servers cost for all judges together.
    """
    source = read_run(attempts_run, "attack")
    named: dict[str, Judge] = {spec: resolve("judge", JUDGES, spec) for spec in judges}
    behind = models_behind(named, model, models or {})
    settings = {
        "judges": list(named),
        "attempts": str(attempts_run),
        "models": {name: m.model_dump() for name, m in behind.items()},
    }
    made_from = {"attempts": run_hash(source), **weights_of(*behind.values()), **files_of(*named)}
    run = open_run(out, "judge", settings, made_from, seed=seed, overwrite=overwrite)
    if run.finished:
        return run
    attempts = source.read("attempts.jsonl", Attempt)
    wanted = [(name, speak, a) for name, speak in named.items() for a in attempts]
    verdicts = let_speak(run, wanted, behind, seed, budget)
    unscored = sum(v.score is None for v in verdicts)
    aimed = graded_inside(source.info["config"], named, behind)
    for name in aimed:
        run.log(aimed_at(name, behind))
    reasons = Counter(
        f"unscored by {v.judge}, {v.label}{f': {v.error}' if v.error else ''}"[:160]
        for v in verdicts
        if v.score is None
    )
    counts = {
        "planned": len(verdicts),
        "ok": len(verdicts) - unscored,
        "failed": unscored,
        **dict(reasons.most_common(8)),
    }
    run.finish(counts, ["verdicts.jsonl"], graded_inside=aimed)
    return run


def let_speak(
    run: Run,
    wanted: Iterable[tuple[str, Judge, Attempt]],
    behind: Mapping[str, ModelConfig],
    seed: int,
    budget: Budget | None = None,
) -> list[Verdict]:
    """The verdicts wanted, in that order, as `verdicts.jsonl` of the run; what the run holds already is kept."""
    verdicts = run.read("verdicts.jsonl", Verdict)
    broken = run.first_time({f"{v.judge}/{v.attempt}" for v in verdicts if is_broken(v.error)})
    verdicts = [v for v in verdicts if f"{v.judge}/{v.attempt}" not in broken]
    run.replace("verdicts.jsonl", verdicts)
    seen = {f"{v.judge}/{v.attempt}" for v in verdicts}
    planned = {f"{name}/{a.id}": (name, speak, a) for name, speak, a in wanted}

    def save(done: Done[Verdict]) -> None:
        name, _, made = planned[done.key]
        verdict = verdict_of(done, name, made)
        verdicts.append(verdict)
        run.append("verdicts.jsonl", [verdict])

    place: dict[str, int] = {}
    for _, _, a in planned.values():
        place.setdefault(a.id, len(place))
    teams: dict[ModelConfig | None, list[str]] = defaultdict(list)
    for name in dict.fromkeys(name for name, _, _ in planned.values()):
        teams[behind.get(name)].append(name)
    for used, names in teams.items():
        # All of a team's judges on one answer before the next: what they read of it is kept for a while only.
        theirs = dict(
            sorted(((k, j) for k, j in planned.items() if j[0] in names), key=lambda item: place[item[1][2].id])
        )
        jobs = [Job(key, partial(speak, a.prompt, a)) for key, (_, speak, a) in theirs.items() if key not in seen]
        # One sum for all teams, so no estimate is made from the beginning of one of them.
        execute(
            run, f"judge {', '.join(names)}", jobs, {"judge": used} if used else {}, save, len(theirs), seed, budget, pilot=False
        )  # fmt: skip
        # What has no answer is not asked about.
        failed = {a.id for _, _, a in theirs.values() if a.error}
        own = [v for v in verdicts if v.judge in names and v.label != "no_answer" and v.attempt not in failed]
        if used and own and all(is_unanswered(v.error) for v in own):
            run.replace("verdicts.jsonl", [v for v in verdicts if v.judge not in names])
            raise ForethoughtError(
                f"{used.name} answered none of {len(own)} questions of {', '.join(names)}. The first: {own[0].error}"
            )
    order = {key: i for i, key in enumerate(planned)}
    verdicts.sort(key=lambda v: order[f"{v.judge}/{v.attempt}"])
    run.replace("verdicts.jsonl", verdicts)
    return verdicts


def models_behind(
    judges: Iterable[str], model: ModelConfig | None, models: Mapping[str, ModelConfig]
) -> dict[str, ModelConfig]:
    """The model behind each judge that asks one. ForethoughtError where it has none, or where a model's judge does not speak."""
    judges = list(judges)
    for name in models:
        if name not in judges:
            raise ForethoughtError(
                f"a model is named for the judge '{name}', which does not speak.{nearest(name, judges)}"
            )
    behind = {}
    for spec in judges:
        entry, used = JUDGES.get(parse_spec(spec)[0]), models.get(spec, model)
        if not asks_model(spec):
            continue
        if used is not None:
            behind[spec] = used
        elif entry is not None:
            raise ForethoughtError(f"the judge '{spec}' needs {entry.needs}. Name one: --model MODEL, or judge.model.")
    return behind


def graded_inside(attacks: Mapping[str, Any], judges: Iterable[str], behind: Mapping[str, ModelConfig]) -> list[str]:
    """The judges that had a say inside attacks, so that these were aimed at the verdict: those whose model graded there, and `refusal`,
    by whose rules an attack that is graded passes over what was refused. `attacks` are the settings of an attack run, with its `helper`
    as a model."""
    helper, target = attacks.get("helper"), attacks.get("target") or {}
    graded = [s for s in attacks.get("attacks", ()) if HELPED in needed(s)]
    if not graded or attacks.get("imported"):
        return []
    # A local target's replies are not graded by autodan, which goes by their likelihood.
    by_rule = any(not s.startswith("autodan") or is_served(str(target.get("name", ""))) for s in graded)
    name = helper["name"] if isinstance(helper, dict) else None
    return [
        j for j in judges if (by_rule and parse_spec(j)[0] == "refusal") or (j in behind and behind[j].name == name)
    ]


def aimed_at(judge: str, behind: Mapping[str, ModelConfig]) -> str:
    """What to say of such a judge."""
    if judge not in behind:
        return (
            f"note: an answer that the rules of '{judge}' call a refusal gets the lowest grade inside the attacks, so that they are aimed "
            "at its verdict. Add a judge that is not theirs."
        )
    return (
        f"note: '{behind[judge].name}' grades inside the attacks and is behind the judge '{judge}' too, so that they are aimed at its "
        "verdict. Name another model for the judge."
    )


def verdict_of(done: Done[Verdict], judge: str, attempt: Attempt) -> Verdict:
    """What a judge said of an attempt, under the name that it was called by. One that crashed has not said "safe": unscored, and why."""
    if isinstance(done.value, Verdict) and done.value.attempt == attempt.id:
        return done.value.model_copy(update={"judge": judge})
    error = done.error or f"the judge returned no verdict on this attempt but {done.value!r}"[:200]
    return Verdict(attempt=attempt.id, judge=judge, score=None, label="error", error=error)
