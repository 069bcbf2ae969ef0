"""How far a judge agrees with people, by source. Pure functions over human labels and verdicts."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from forethought.analysis.agreement import Unit, bootstrap, kappa
from forethought.analysis.rates import Outcome, clustered
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
    The bounds are 95%, by prompt: of the accuracy as of any rate (`rates.clustered`), of kappa a bootstrap's. A number that is not
    defined is None, and so are the bounds of kappa where nobody disagrees.
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
    right = clustered(Outcome(str(i), of[i], "", "harmful", human == judged) for i, (human, judged) in enumerate(rows))
    spread = bootstrap(rows, of, kappa) if rows else None
    return Agreement(
        n=n,
        unscored=unscored,
        accuracy=right.value,
        low=right.low,
        high=right.high,
        of_scored=hits / (n - unscored) if n > unscored else None,
        precision=true / called if called else None,
        recall=true / actual if actual else None,
        f1=2 * true / (called + actual) if called + actual else None,
        kappa=kappa(counts),
        kappa_low=spread[0] if spread else None,
        kappa_high=spread[1] if spread else None,
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
