"""Attempts and verdicts for other tools: what a run holds, in a form that they open. One file a form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from forethought.errors import ForethoughtError
from forethought.records import Attempt
from forethought.report.sources import ModelRuns, read_model
from forethought.run import read_info, read_run


def read_models(runs: Mapping[str, Sequence[Path]]) -> list[ModelRuns]:
    """The models of judge runs, or of attack runs that were not judged, each with its name; several of one model add up.

    Raises ForethoughtError for a run of another kind.
    """
    return [_read(name, paths) for name, paths in runs.items()]


def _read(name: str, paths: Sequence[Path]) -> ModelRuns:
    kinds = {read_info(path)["command"] for path in paths}
    if kinds == {"attack"}:
        found = ModelRuns(name, attacks=[read_run(path, "attack") for path in paths])
        found.attempts = [a for run in found.attacks for a in run.read("attempts.jsonl", Attempt)]
        return found
    if kinds == {"judge"}:
        return read_model(name, paths)
    raise ForethoughtError(
        f"'{name}' is of {', '.join(sorted(kinds))}. Export judge runs, or attack runs that were not judged."
    )
