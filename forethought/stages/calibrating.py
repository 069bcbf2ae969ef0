"""Calibration: human-labelled answers in, each judge's verdicts and its agreement with people out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from forethought.analysis.calibration import Judged, calibrate
from forethought.config import ModelConfig
from forethought.data.human_labels import KINDS, HumanCase, KindName, load_human_labels
from forethought.errors import ForethoughtError, nearest
from forethought.judges import JUDGES, Judge, fitted_on, meaning
from forethought.records import Attempt, Verdict, digest
from forethought.registry import resolve
from forethought.run import Run, hash_file, open_run
from forethought.stages.judging import let_speak, models_behind
from forethought.stages.shared import files_of, weights_of

ROWS = "calibration.jsonl"


def calibrate_judges(
    out: Path,
    labels: Path,
    judges: Iterable[str],
    model: ModelConfig | None = None,
    models: Mapping[str, ModelConfig] | None = None,
    *,
    kinds: Mapping[str, KindName] | None = None,
    seed: int = 0,
    overwrite: bool = False,
) -> Run:
    """Measure judges against the human labels of a folder or file: `verdicts.jsonl` and `calibration.jsonl`.

    A judge is measured on the kind of label that it speaks about (`judges.MEANING`), and on that of `kinds` too: so a judge from outside
    the table says what it speaks about, and a judge of refusals can stand beside those of harm as their baseline.
    """
    found = load_human_labels(labels)
    named: dict[str, Judge] = {spec: resolve("judge", JUDGES, spec) for spec in judges}
    behind = models_behind(named, model, models or {})
    speaks = {spec: _kinds(spec, named, kinds or {}) for spec in named}
    made = found.attempts()
    there = {case.kind for case in found.cases}
    for spec, about in speaks.items():
        if not about & there:
            raise ForethoughtError(
                f"'{labels}' holds no labels of the kind that the judge '{spec}' speaks about ({', '.join(sorted(about))})."
            )
    settings = {
        "judges": list(named),
        "labels": str(labels),
        "kinds": {spec: sorted(about) for spec, about in speaks.items()},
        "models": {name: m.model_dump() for name, m in behind.items()},
    }
    made_from = {path.name: hash_file(path) for path in found.files} | weights_of(*behind.values()) | files_of(*named)
    run = open_run(out, "calibrate", settings, made_from, seed=seed, overwrite=overwrite)
    if run.finished:
        return run
    wanted = [(spec, speak, a) for spec, speak in named.items() for case, a in made if case.kind in speaks[spec]]
    said = {(v.judge, v.attempt): v for v in let_speak(run, wanted, behind, seed)}
    rows = [row for spec in named for row in calibrate(spec, _judged(spec, made, said))]
    run.replace(ROWS, rows)
    unscored = sum(v.score is None for v in said.values())
    counts = {"planned": len(said), "ok": len(said) - unscored, "failed": unscored}
    run.finish(counts, ["verdicts.jsonl", ROWS], left_out=[p.name for p in found.left_out])
    return run


def _kinds(spec: str, named: Iterable[str], given: Mapping[str, KindName]) -> set[KindName]:
    """What a judge is measured on: what it speaks about, and what was named for it."""
    about: set[KindName] = {name for name, kind in KINDS.items() if kind.meaning == meaning(spec)}
    if spec in given:
        about.add(given[spec])
    for name, kind_name in given.items():
        if name not in named:
            raise ForethoughtError(
                f"a kind is named for the judge '{name}', which does not speak.{nearest(name, named)}"
            )
        if kind_name not in KINDS:
            raise ForethoughtError(f"there is no kind of label '{kind_name}'. Known: {', '.join(KINDS)}.")
    if not about:
        raise ForethoughtError(
            f"nobody has said what a score of 1 by the judge '{spec}' means. Add --kinds {spec}=KIND, one of {', '.join(KINDS)}."
        )
    return about


def _judged(
    spec: str, made: Iterable[tuple[HumanCase, Attempt]], said: Mapping[tuple[str, str], Verdict]
) -> Iterator[Judged]:
    fitted = fitted_on(spec)
    for case, attempt in made:
        if (spec, attempt.id) in said:
            yield case, said[spec, attempt.id], digest(case.prompt, case.answer, length=8) in fitted
