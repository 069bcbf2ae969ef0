"""`forethought analyze all`: whatever can be computed for the given runs, one analysis after the other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from forethought.cli import reasoning
from forethought.cli.common import Overwrite, PolicyName, Seed
from forethought.cli.divergence import divergence
from forethought.errors import ForethoughtError

if TYPE_CHECKING:
    from forethought.run import Run

TAKE = 24  # Of the causal tests, where nothing is said.


@dataclass
class Tried:
    """An attack run, the judge runs on it, and runs of single analyses that there are already, by kind."""

    source: Run
    judged: list[Path] = field(default_factory=list)
    made: dict[str, Path] = field(default_factory=dict)

    @property
    def path(self) -> Path:
        return self.source.path

    @property
    def name(self) -> str:
        return self.path.name


@dataclass
class Log:
    """Runs one analysis after another and says of each that is skipped, or fails, why."""

    failed: list[str] = field(default_factory=list)

    def run(self, title: str, skip: str, analyse: Callable[[], Any]) -> bool:
        """Whether the analysis is there now."""
        if skip:
            print(f"\n== {title}: skipped, {skip}")
            return False
        print(f"\n== {title}")
        try:
            analyse()
        except ForethoughtError as error:
            print(f"{title}: failed, {error}")
            self.failed.append(title)
            return False
        return True


def everything(
    runs: Annotated[list[Path], typer.Argument(help="Attack runs, judge runs, or directories that hold such.")],
    take: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="At most so many attempts an attack and label (causal; default 24), or requests a label (divergence; default all).",
        ),
    ] = None,
    policy: PolicyName = "default",
    seed: Seed = 0,
    overwrite: Overwrite = False,
) -> None:
    """All measures that can be computed for these runs: samples, reasoning, score and AUROC, causal tests, hidden states. What cannot be is
    skipped, with a line that says why. Every analysis that asks a model has a run directory of its own beside the attempts: run the same
    command again to go on.

    Example: `forethought analyze all runs/attack-scot-judged runs/attack-base-judged --take 12`
    """
    found, log = _read(runs), Log()
    unjudged = [str(t.path) for t in found if not t.judged]
    if unjudged:
        print(f"without a judge run, so left out of samples, reasoning and the report: {', '.join(unjudged)}")
    for t in found:
        _ask(t, log, take, seed, overwrite)
    # What sets models side by side needs those that were asked the same prompts.
    sets = _alike(found)
    for alike in sets:
        if len(sets) > 1:
            print(f"\n=== on the same prompts: {', '.join(t.name for t in alike)}")
        judged = [f"{t.name}={path}" for t in alike for path in t.judged]
        log.run("safe-of-n", _no_samples(alike, judged), partial(reasoning.safe_of_n, judged))
        log.run("reasoning", _no_thoughts(alike, judged), partial(reasoning.reasoning, judged, policy=policy))
        _auroc([t.made["score"] for t in alike if "score" in t.made], log)
    for n, alike in enumerate(sets, 1):
        shown = [f"{t.name}={path}" for t in alike if t.judged for path in (*t.judged, *t.made.values())]
        if shown:
            print(f"\nnext: forethought report {' '.join(shown)}{f' --out runs/report-{n}.html' if n > 1 else ''}")
    if log.failed:
        raise ForethoughtError(f"{len(log.failed)} analyses failed, as said above: {', '.join(log.failed)}.")


def _alike(found: list[Tried]) -> list[list[Tried]]:
    """Those that were asked the same prompts, with the same sampling, together: each with the first that it can stand in a table with."""
    from forethought.report.sources import asked_few, comparable, few_conflict

    asked = dict(zip((t.path for t in found), asked_few([t.source for t in found]), strict=True))

    def fits(t: Tried, alike: list[Tried]) -> bool:
        if comparable(alike[0].source) != comparable(t.source):
            return False
        return not few_conflict(asked[other.path] for other in (*alike, t))

    sets: list[list[Tried]] = []
    for t in found:
        alike = next((alike for alike in sets if fits(t, alike)), None)
        if alike is None:
            sets.append([t])
        else:
            alike.append(t)
    return sets


def _ask(t: Tried, log: Log, take: int | None, seed: int, overwrite: bool) -> None:
    """The analyses that ask the model or read its states, each in a directory of its own beside the attempts."""
    from forethought import stages
    from forethought.cli.analyze import score

    def beside(ending: str) -> Path:
        return t.path.with_name(f"{t.name}-{ending}")

    steps: dict[Any, tuple[Path, Callable[[Path], None]]] = {
        "score": (beside("scored"), lambda out: score(t.path, out=out, seed=seed, overwrite=overwrite)),
        "causal": (
            beside("causal"),
            lambda out: reasoning.causal(t.path, out=out, take=take or TAKE, seed=seed, overwrite=overwrite),
        ),
        "divergence": (
            beside("divergence"),
            lambda out: divergence([t.path], out=out, take=take, seed=seed, overwrite=overwrite),
        ),
    }
    for kind, (out, analyse) in steps.items():
        title = f"{kind} {t.name}"
        if kind in t.made and t.made[kind].resolve() != out.resolve():
            print(f"\n== {title}: there already -> {t.made[kind]}")
            continue
        t.made.pop(kind, None)
        if log.run(title, stages.not_for(kind, t.source), lambda analyse=analyse, out=out: analyse(out)):  # type: ignore[misc]
            t.made[kind] = out
    stages.unload()


def _auroc(scored: list[Path], log: Log) -> None:
    from forethought.cli.analyze import auroc

    alike = [p for p, n in Counter(path.name for path in scored).items() if n > 1]
    skip = "" if len(scored) > 1 else "it compares at least two scored runs"
    skip = f"two score runs have the same name, {alike[0]}" if alike else skip
    log.run("auroc", skip, lambda: auroc([str(path) for path in scored]))


def _read(runs: list[Path]) -> list[Tried]:
    """The attack runs behind all that was named, each once, in the order given. ForethoughtError for a run of another kind."""
    from forethought.report.sources import MADE_FROM, runs_in, source_of
    from forethought.run import read_info, read_run

    found: dict[Path, Tried] = {}
    for path in dict.fromkeys(each for given in runs for each in runs_in(given)):
        command = read_info(path)["command"]
        if command not in ("attack", "judge", *MADE_FROM):
            if path in runs:
                raise ForethoughtError(f"{path} is a run of '{command}'. Name attack runs, or judge runs.")
            continue
        made = read_run(path, command)
        source = made if command == "attack" else source_of(made, "attempts", made.info["config"]["attempts"], "attack")
        tried = found.setdefault(source.path.resolve(), Tried(source))
        if command == "judge":
            tried.judged.append(path)
        elif command != "attack":
            tried.made[command] = path
    if not found:
        raise ForethoughtError(f"no attack run in {', '.join(map(str, runs))}.")
    names = Counter(t.name for t in found.values())
    twice = next((name for name, n in names.items() if n > 1), None)
    if twice:
        raise ForethoughtError(
            f"two attack runs have the same name, '{twice}'. Rename one, so that they can be told apart."
        )
    return list(found.values())


def _no_samples(found: list[Tried], judged: list[str]) -> str:
    if not judged:
        return "no judge run: forethought judge RUN"
    sent = Counter(
        (t.name, a.attack, a.prompt.id) for t in found if t.judged for a in _attempts(t) if a.prompt.label == "harmful"
    )
    return "" if max(sent.values(), default=0) > 1 else "nothing was sampled several times (attack --samples)"


def _no_thoughts(found: list[Tried], judged: list[str]) -> str:
    if not judged:
        return "no judge run: forethought judge RUN"
    return "" if any(a.reasoning for t in found if t.judged for a in _attempts(t)) else "no model here thinks"


def _attempts(t: Tried) -> list[Any]:
    from forethought.records import Attempt

    return t.source.read("attempts.jsonl", Attempt)
