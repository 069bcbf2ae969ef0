"""What the page shows: gathered from run directories by `stages.report`, drawn by `page.render`."""

from __future__ import annotations

from forethought.analysis.rates import Cell
from forethought.records import Attempt, Record, Verdict


class ModelCard(Record):
    """One model of the comparison. `trained_on` is empty for an untuned one."""

    name: str
    base: str
    system: str | None = None
    method: str = "none"
    trained_on: dict[str, int] = {}
    rejected: dict[str, int] = {}
    steps: int = 0
    trained_tokens: int = 0
    train_loss: float | None = None
    validation_loss: float | None = None
    seconds: float = 0.0
    format_ok: float | None = None
    commands: tuple[str, ...] = ()


class Transcript(Record):
    """One attempt on one model with all its verdicts."""

    model: str
    attempt: Attempt
    verdicts: tuple[Verdict, ...]


class AttackCard(Record):
    """What an attack is, for the reader: one sentence and its paper."""

    name: str
    about: str
    paper: str = ""


class ReportData(Record):
    """Everything on the page, computed from run directories alone."""

    title: str
    about: str
    command: str
    seed: int
    policy: str
    models: tuple[ModelCard, ...]
    attacks: tuple[AttackCard, ...]
    cells: tuple[Cell, ...]
    transcripts: tuple[Transcript, ...]
    judges: dict[str, str]
    packages: dict[str, str] = {}
    hardware: dict[str, str] = {}
    git: str = ""
    seconds: float = 0.0
