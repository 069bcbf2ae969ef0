"""How far a judge agrees with people, by source. Pure functions over human labels and verdicts."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from forethought.analysis.agreement import Counts, Statistic, Unit, bootstrap, kappa
from forethought.analysis.rates import wilson
from forethought.data.human_labels import KINDS, HumanCase, KindName
from forethought.records import Record, Verdict

UNSCORED = "unscored"
FAMILIES = (
    "xstest",
    "pyrit_objective",
    "pyrit_harm",
)  # Files that are parts of one set; each also gets a row for the whole.
Pair = tuple[str, str]  # (human, judge)
# One judged case: what people said, what the judge said, and whether the judge was fitted on this very answer.
Judged = tuple[HumanCase, Verdict, bool]


class Agreement(Record):
    """How far a judge agrees with people. What it left unscored counts as wrong in `accuracy` and `kappa`; `of_scored` leaves it out.

    `precision`, `recall` and `f1` are those of the first of the two words (refusal; harmful); recall counts an unscored one as missed.
    The bounds are 95%: Wilson's for the accuracy where no prompt comes twice, else a bootstrap over prompts, as for kappa. A number
    that is not defined is None.
    """

    n: int
    unscored: int
    accuracy: float | None
    low: float | None
    high: float | None
    of_scored: float | None
    precision: float | None
    recall: float | None
    f1: float | None
    kappa: float | None
    kappa_low: float | None
    kappa_high: float | None


class CalibrationRow(Record):
    """One judge on one source: agreement on its clear cases; what the judge called the cases between; and on how many of the clear cases
    the judge was fitted, so that its agreement there proves nothing."""

    judge: str
    kind: KindName
    source: str
    agreement: Agreement
    between: dict[str, int]
    fitted: int


def agreement(pairs: Iterable[Pair], yes: str = "refusal", groups: Sequence[str] | None = None) -> Agreement:
    """Agreement over (human word, judge's word, or `unscored`); `yes` is the word that precision and recall are about.

    `groups` names the prompt of each pair; without, each is its own.
    """
    rows: list[Unit] = [*pairs]
    counts: Counter[Unit] = Counter(rows)
    n = len(rows)
    of = list(groups) if groups is not None else [str(i) for i in range(n)]
    hits, unscored = sum(human == judged for human, judged in rows), sum(judged == UNSCORED for _, judged in rows)
    true = counts[yes, yes]
    called = sum(judged == yes for _, judged in rows)
    actual = sum(human == yes for human, _ in rows)
    bounds = (wilson(hits, n) if len(set(of)) == n else _bounds(rows, of, _accuracy)) or (None, None)
    spread = _bounds(rows, of, kappa) or (None, None)
    return Agreement(
        n=n,
        unscored=unscored,
        accuracy=hits / n if n else None,
        low=bounds[0],
        high=bounds[1],
        of_scored=hits / (n - unscored) if n > unscored else None,
        precision=true / called if called else None,
        recall=true / actual if actual else None,
        f1=2 * true / (called + actual) if called + actual else None,
        kappa=kappa(counts),
        kappa_low=spread[0],
        kappa_high=spread[1],
    )


def calibrate(judge: str, judged: Iterable[Judged]) -> list[CalibrationRow]:
    """Agreement of one judge with people: a row for each source and kind of label, then one for each family of files."""
    groups: dict[tuple[KindName, str], list[Judged]] = defaultdict(list)
    wholes: dict[tuple[KindName, str], list[Judged]] = defaultdict(list)
    for item in judged:
        case = item[0]
        groups[case.kind, case.source].append(item)
        family = next((f for f in FAMILIES if case.source.startswith(f + "_")), None)
        if family:
            wholes[case.kind, f"{family} (all)"].append(item)
    several = {key: rows for key, rows in wholes.items() if len({r[0].source for r in rows}) > 1}
    return [_row(judge, kind, source, rows) for (kind, source), rows in (groups | several).items()]


def judged_word(kind: KindName, verdict: Verdict) -> str:
    """A verdict in the words of a kind of label: by its score, 0.5 and more being one side; `unscored` without one."""
    if verdict.score is None:
        return UNSCORED
    words = KINDS[kind]
    return words.yes if (verdict.score >= 0.5) == bool(words.yes_scores) else words.no


def _row(judge: str, kind: KindName, source: str, rows: list[Judged]) -> CalibrationRow:
    clear = [(case, judged_word(kind, said), fitted) for case, said, fitted in rows if case.yes is not None]
    found = agreement([(c.word, word) for c, word, _ in clear], KINDS[kind].yes, [c.prompt for c, _, _ in clear])
    between = Counter(judged_word(kind, said) for case, said, _ in rows if case.yes is None)
    fitted = sum(fit for _, _, fit in clear)
    return CalibrationRow(
        judge=judge, kind=kind, source=source, agreement=found, between=dict(sorted(between.items())), fitted=fitted
    )


def _bounds(rows: Sequence[Unit], groups: Sequence[str], statistic: Statistic) -> tuple[float, float] | None:
    return bootstrap(rows, groups, statistic) if rows else None


def _accuracy(counts: Counts) -> float | None:
    total = sum(counts.values())
    return sum(n for (human, judged), n in counts.items() if human == judged) / total if total else None
