"""How far a judge agrees with people: human-labelled answers, agreement and kappa. Pure functions."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from forethought.analysis.rates import wilson
from forethought.errors import ForethoughtError

XSTEST = {"1_full_compliance": "not_refused", "2_full_refusal": "refusal", "3_partial_refusal": "partial_refusal"}
PYRIT = {"0": "not_refused", "1": "refusal"}
PYRIT_FILE = "pyrit_refusal_refusal.csv"
SCORED = ("refusal", "not_refused")


@dataclass(frozen=True)
class HumanCase:
    """One answer and what people said of it: `refusal`, `not_refused` or `partial_refusal`."""

    source: str
    text: str
    prompt: str
    label: str


@dataclass(frozen=True)
class Agreement:
    """How far a judge agrees with people. What it left unscored counts as wrong in `accuracy` and `kappa`.

    `precision`, `recall` and `f1` are those of the label `refusal`; recall counts an unscored refusal as missed.
    `low` and `high` bound the accuracy (Wilson, 95%). A number that is not defined is None.
    """

    n: int
    unscored: int
    accuracy: float | None
    low: float | None
    high: float | None
    precision: float | None
    recall: float | None
    f1: float | None
    kappa: float | None


@dataclass(frozen=True)
class CalibrationRow:
    """One source: agreement on its clear cases; and what the judge called its partial refusals."""

    source: str
    agreement: Agreement
    partial: dict[str, int]


def cohen_kappa(pairs: Sequence[tuple[str, str]]) -> float | None:
    """Cohen's kappa (1960) over any labels; None where chance alone agrees fully, or there are no pairs."""
    n = len(pairs)
    if not n:
        return None
    first, second = Counter(a for a, _ in pairs), Counter(b for _, b in pairs)
    chance = sum(first[label] * second[label] for label in first) / (n * n)
    observed = sum(a == b for a, b in pairs) / n
    return None if chance == 1 else (observed - chance) / (1 - chance)


def agreement(pairs: Iterable[tuple[str, str]]) -> Agreement:
    """Agreement over (human label, judge label). A judge label other than `refusal` and `not_refused` is unscored."""
    rows = [(human, judged if judged in SCORED else "unscored") for human, judged in pairs]
    n, counts = len(rows), Counter(rows)
    hits = sum(human == judged for human, judged in rows)
    true = counts["refusal", "refusal"]
    called = sum(judged == "refusal" for _, judged in rows)
    actual = sum(human == "refusal" for human, _ in rows)
    low, high = wilson(hits, n) or (None, None)
    return Agreement(
        n=n,
        unscored=sum(judged == "unscored" for _, judged in rows),
        accuracy=hits / n if n else None,
        low=low,
        high=high,
        precision=true / called if called else None,
        recall=true / actual if actual else None,
        f1=2 * true / (called + actual) if called + actual else None,
        kappa=cohen_kappa(rows),
    )


def load_human_labels(folder: Path | str) -> list[HumanCase]:
    """Cases of every `xstest_*_half_a.csv` and of `pyrit_refusal_refusal.csv` in the folder."""
    folder = Path(folder)
    cases = []
    for path in sorted(folder.glob("xstest_*_half_a.csv")):
        source = "xstest_" + path.stem.removesuffix("_half_a").rpartition("completions_")[2]
        for row in _rows(path):
            label = _label(XSTEST, row["final_label"], path)
            cases.append(HumanCase(source, row["completion"], row["prompt"], label))
    if (folder / PYRIT_FILE).exists():
        for row in _rows(folder / PYRIT_FILE):
            label = _label(PYRIT, row["human_score"], folder / PYRIT_FILE)
            cases.append(HumanCase("pyrit_refusal", row["assistant_response"], row["objective"], label))
    if not cases:
        raise ForethoughtError(f"no human labels in '{folder}'. Put xstest_*_half_a.csv or {PYRIT_FILE} there.")
    return cases


def calibrate(judge_fn: Callable[[str, str], str], folder: Path | str) -> list[CalibrationRow]:
    """Agreement of `judge_fn(answer, prompt) -> label` with the human labels, one row a source."""
    cases = [(case, judge_fn(case.text, case.prompt)) for case in load_human_labels(folder)]
    rows = []
    for source in dict.fromkeys(case.source for case, _ in cases):
        clear = [(c.label, judged) for c, judged in cases if c.source == source and c.label in SCORED]
        partial = Counter(judged for c, judged in cases if c.source == source and c.label not in SCORED)
        rows.append(CalibrationRow(source, agreement(clear), dict(partial)))
    return rows


def _rows(path: Path) -> Iterable[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        start = file.tell()
        while file.readline().startswith("#"):
            start = file.tell()
        file.seek(start)
        yield from csv.DictReader(file)


def _label(names: dict[str, str], value: str, path: Path) -> str:
    if value not in names:
        raise ForethoughtError(f"'{path}' has the human label '{value}'. Known: {', '.join(names)}.")
    return names[value]
