"""The numbers of a page as one long table, to be kept and compared where transcripts must not be: no text of a prompt or a reply."""

from __future__ import annotations

from collections.abc import Iterator

from forethought.analysis.measures import measure
from forethought.analysis.rates import Rate
from forethought.analysis.roc import Auroc, AurocDifference
from forethought.report.data import ReportData
from forethought.report.text import Row


def metrics(data: ReportData) -> list[Row]:
    """One row a number: `model`, `measure`, `attack` (or a scope of several), `label` (or what it is set against), `by` (a judge, or the
    other model), `value` with its 95% interval, `n` and `unscored`. Rates and AUROCs lie between 0 and 1."""
    return list(_rows(data))


def _rows(data: ReportData) -> Iterator[Row]:
    for pool in data.pools:
        yield _row(pool.model, pool.measure, pool.scope, pool.label, pool.judge, pool.rate)
    for cell in data.cells:
        if meant := measure(cell.judge, cell.label):
            rate = cell.negative if meant.turned else cell.positive
            # Families of attacks, among the scopes above, may be called as one of theirs.
            yield _row(cell.model, f"{meant.name}, one attack", cell.attack, cell.label, cell.judge, rate)
    for one in data.differences:
        d = one.difference
        yield _numbers(
            one.model,
            f"{one.measure} ({one.judge}), less that of",
            one.scope,
            one.label,
            one.reference,
            d.value,
            d.low,
            d.high,
            d.n,
            d.unscored,
        )
    for s in data.separations:
        yield _row(s.model, "AUROC", s.attack, s.against, "", s.auroc)
        if s.loss is not None:
            yield _row(s.model, "AUROC, direct less this", s.attack, s.against, "", s.loss)
    for change in data.auroc_changes:
        yield _row(change.first, "AUROC less that of", change.attack, change.against, change.second, change.difference)
        if change.loss is not None:
            yield _row(change.first, "loss less that of", change.attack, change.against, change.second, change.loss)
    for found in data.reasoned:
        yield _row(found.model, found.measure, found.attack, found.label, found.judge, found.rate)
    for model, abilities in data.abilities.items():
        for able in abilities:
            if able.accuracy is not None:
                yield _row(model, f"{able.task}, {able.mode}", "", "", "", able.accuracy)
            elif able.nll is not None:
                yield _numbers(
                    model,
                    f"{able.task}, nats a token",
                    "",
                    "",
                    "",
                    able.nll,
                    able.nll_low,
                    able.nll_high,
                    able.measured,
                    able.n - able.measured,
                )
    for length in data.lengths:
        yield _numbers(
            length.model, "tokens an answer", "", "", "", length.value, length.low, length.high, length.attempts, 0
        )


def _row(model: str, measure: str, attack: str, label: str, by: str, found: Rate | Auroc | AurocDifference) -> Row:
    if isinstance(found, Rate):
        n, unscored = found.scored, found.unscored
    else:
        n, unscored = found.positives + found.negatives, getattr(found, "unscored", 0)
    return _numbers(model, measure, attack, label, by, found.value, found.low, found.high, n, unscored)


def _numbers(
    model: str, measure: str, attack: str, label: str, by: str,
    value: float | None, low: float | None, high: float | None, n: int, unscored: int,
) -> Row:  # fmt: skip
    rounded = {k: None if v is None else round(v, 4) for k, v in (("value", value), ("low", low), ("high", high))}
    return (
        {"model": model, "measure": measure, "attack": attack, "label": label, "by": by}
        | rounded
        | {"n": n, "unscored": unscored}
    )
