"""How each number was made: measures, judges, the cards of models and their data, attacks, and the command to make it again."""

from __future__ import annotations

from markupsafe import Markup

from forethought.report import curves
from forethought.report.data import ReportData
from forethought.report.headline import headline
from forethought.report.section import Gathered, Section, Table, draw
from forethought.report.text import Row, View
from forethought.report.transcripts import PLACES


def section(found: Gathered) -> Section | None:
    """Always there."""
    data = found.data
    models = [_model(data, index) for index in range(len(data.models))]
    body = draw("made.html.j2", found, headline=headline(data), models=models, capable=any(data.abilities.values()))
    losses: list[Row] = [
        {"model": m.name, "step": step, "training loss": loss} for m in data.models for step, loss in m.losses
    ]
    rows: list[Row] = [
        {"model": m.name, "field": field, "value": value, "rows": n}
        for m in data.models
        for field, counts in m.data.items()
        for value, n in counts.items()
    ]
    tables = [Table("training-data", "training rows of a model by what they are", rows)] if rows else []
    tables += [Table("training-loss", "a step of training", losses)] if losses else []
    return Section("made", "How it was made", body, tuple(tables))


def _model(data: ReportData, index: int) -> View:
    card = data.models[index]
    places: list[str] = list(card.distribution.prompts.values()) if card.distribution else []
    return {
        "card": card,
        "index": index,
        "kept": sum(card.trained_on.values()),
        "rejected": sum(card.rejected.values()),
        "places": [(word, places.count(place)) for place, word in PLACES.items()] if places else [],
        "losses": Markup(curves.loss(index, card.losses)) if len(card.losses) > 1 else None,
    }
