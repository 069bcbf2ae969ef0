"""What the page shows: gathered from run directories by `gather`, drawn by `page.render`."""

from __future__ import annotations

from forethought.analysis.agreement import Agreed
from forethought.analysis.capability import Ability
from forethought.analysis.causal import Followed
from forethought.analysis.cited import Refused
from forethought.analysis.distribution import Distribution
from forethought.analysis.equivalence import Paired
from forethought.analysis.paired import Comparison
from forethought.analysis.rates import Cell
from forethought.analysis.reasoning import Longer, Reasoned
from forethought.analysis.separation import Compared, Separation
from forethought.analysis.summary import Cost, Length, Pool, Tries
from forethought.records import Attempt, Record, Verdict


class ModelCard(Record):
    """One model of the comparison. `init` is the training run that its training began with. `trained_on` is empty for an untuned one, whose
    training is unknown: then `distribution` is None. `data` counts the training rows by what they are (source, category, ...), `losses` are
    (step, training loss)."""

    name: str
    base: str
    system: str | None = None
    method: str = "none"
    init: str = ""
    trained_on: dict[str, int] = {}
    rejected: dict[str, int] = {}
    steps: int = 0
    trained_tokens: int = 0
    train_loss: float | None = None
    validation_loss: float | None = None
    seconds: float = 0.0
    format_ok: float | None = None
    commands: tuple[str, ...] = ()
    distribution: Distribution | None = None
    data: dict[str, dict[str, int]] = {}
    losses: tuple[tuple[int, float], ...] = ()


class Transcript(Record):
    """One attempt on one model with all its verdicts. `flags` are those of `transcripts.disagreements`."""

    model: str
    attempt: Attempt
    verdicts: tuple[Verdict, ...]
    flags: int = 0


class Beside(Record):
    """A harmful request of `category` that a model refused, and the most similar harmless one that it answered, `text`. Both by the
    name of their transcript in a link; `similarity` is from 0 to 1."""

    model: str
    category: str
    refused: str
    harmless: str
    text: str
    similarity: float


class AttackCard(Record):
    """What an attack is, for the reader: one sentence, its paper and its family."""

    name: str
    about: str
    paper: str = ""
    family: str = ""


class JudgeCard(Record):
    """What a judge is. `knows` is what a score of 1 says, empty for a judge from outside the table; `model` is the one behind it."""

    name: str
    about: str
    paper: str = ""
    knows: str = ""
    model: str = ""


class Curve(Record):
    """The ROC curve of one model's log-odds of refusing: harmful requests, asked directly or under all attacks, `against` others, at one
    threshold for all. `points` are (false positive rate, true positive rate), each from 0 to 1."""

    model: str
    scope: str
    against: str
    points: tuple[tuple[float, float], ...]


class ReportData(Record):
    """Everything on the page, computed from run directories alone.

    `reference` is the model that the others are compared with; `agreement` is keyed by model, with all models together under an empty
    name; so are `abilities`, and `ability_changes` from the reference. `decided` are the models whose log-odds are read where their
    thought decides. `categories` are the policy's names by id, `neighbours` lead from refused requests to harmless ones that were
    answered, and `policy_note` says by which policy, or why there are none.
    """

    title: str
    about: str
    command: str
    seeds: tuple[int, ...]
    policy: str
    reference: str
    models: tuple[ModelCard, ...]
    attacks: tuple[AttackCard, ...]
    judges: tuple[JudgeCard, ...]
    cells: tuple[Cell, ...]
    pools: tuple[Pool, ...]
    transcripts: tuple[Transcript, ...]
    differences: tuple[Comparison, ...] = ()
    by_attack: tuple[Comparison, ...] = ()
    every_pair: tuple[Comparison, ...] = ()
    refusals: tuple[Refused, ...] = ()
    categories: dict[str, str] = {}
    policy_note: str = ""
    neighbours: tuple[Beside, ...] = ()
    agreement: dict[str, tuple[Agreed, ...]] = {}
    tries: tuple[Tries, ...] = ()
    costs: tuple[Cost, ...] = ()
    lengths: tuple[Length, ...] = ()
    decided: tuple[str, ...] = ()
    curves: tuple[Curve, ...] = ()
    separations: tuple[Separation, ...] = ()
    auroc_changes: tuple[Compared, ...] = ()
    abilities: dict[str, tuple[Ability, ...]] = {}
    ability_changes: dict[str, tuple[Paired, ...]] = {}
    reasoned: tuple[Reasoned, ...] = ()
    longer: tuple[Longer, ...] = ()
    followed: tuple[Followed, ...] = ()
    packages: dict[str, str] = {}
    hardware: dict[str, str] = {}
    code: tuple[str, ...] = ()
    git: str = ""
    seconds: float = 0.0
