"""A section of the page: what one gives (`Section`), what it is given (`Gathered`), and how it draws its template (`draw`).

A section is one module of `sections/` with one function `section(found) -> Section | None` and, where it has one, a template of the
same name beside it. It is listed in `page.SECTIONS`, and None leaves it out.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from typing import Any

from jinja2 import BaseLoader, Environment, StrictUndefined, TemplateNotFound
from markupsafe import Markup, escape

from forethought.analysis.rates import Rate
from forethought.analysis.summary import DIRECT
from forethought.progress import duration
from forethought.records import Record
from forethought.report import figures, maps, text
from forethought.report.data import ReportData
from forethought.report.sources import ModelRuns
from forethought.report.text import Row, View, clean

SMALL_N, MANY_UNSCORED = 20, 0.10


@dataclass(frozen=True)
class Gathered:
    """All that a section may draw on: the numbers, and the runs they were computed from (none where a page is drawn from numbers alone).

    `redacted` says that the page is to be shared: transcripts in `data` are masked already, and a section that reads texts from the
    runs must leave them out.
    """

    data: ReportData
    models: tuple[ModelRuns, ...] = ()
    redacted: bool = False


@dataclass(frozen=True)
class Table:
    """The numbers behind a figure, to be downloaded as `name`.csv. `about` says what a row is. Never texts of prompts or replies."""

    name: str
    about: str
    rows: list[Row]

    @property
    def link(self) -> Markup:
        """The rows as a data URI."""
        return Markup("data:text/csv;charset=utf-8;base64,") + base64.b64encode(
            text.as_csv(self.rows).encode("utf-8", "replace")
        ).decode("ascii")


@dataclass(frozen=True)
class Section:
    """One section: `id` is its anchor, `nav` its name in the list of sections, `body` HTML that begins with its h2
    (id `h-{id}`). `style` is CSS of its own: the page allows neither style attributes nor a second style sheet."""

    id: str
    nav: str
    body: Markup
    tables: tuple[Table, ...] = ()
    style: str = ""


def flat(record: Record, *, leave: tuple[str, ...] = ()) -> Row:
    """A record as one row of a table: what is nested stands beside the rest, by its own names. What holds many values is left out."""
    row: Row = {}
    for name in type(record).model_fields:
        value = getattr(record, name)
        if isinstance(value, Record):
            row |= {k: v for k, v in flat(value).items() if k not in row}
        elif name not in leave and not isinstance(value, dict | tuple | list):
            row[name] = value
    return row


def draw(name: str, found: Gathered, **context: Any) -> Markup:
    """The template of a section. Every value is escaped on its way in and cleaned of control characters."""
    data = found.data
    shared = {
        "data": data,
        "redacted": found.redacted,
        "all": list(range(len(data.models))),
        "small_n": SMALL_N,
        "unlike": unshared(data),
        "many_unscored": text.percent(MANY_UNSCORED),
    }
    environment = _environment()
    return Markup(environment.get_template(name).render(shared | context))


def model_views(data: ReportData) -> list[View]:
    """The models with their places, which pick colour and mark."""
    return [{"card": card, "index": index} for index, card in enumerate(data.models)]


def unshared(data: ReportData) -> list[str]:
    """The attacks on harmful requests that not every attacked model was sent, and that no pooled rate holds."""
    sent: dict[str, set[str]] = {}
    for cell in data.cells:
        # What an attack could not be made of was not sent.
        if cell.label == "harmful" and cell.attack != DIRECT and cell.attempts:
            sent.setdefault(cell.model, set()).add(cell.attack)
    return sorted(a for a in set().union(*sent.values()) if not all(a in own for own in sent.values()))


def rate_view(rate: Rate, attempts: int, prompts: int | None = None) -> View:
    """A rate with its marks; `prompts` are those that its attempts are on, where they are fewer."""
    return {
        "rate": rate,
        "small": min(rate.scored, rate.scored if prompts is None else prompts) < SMALL_N,
        "warn": attempts > 0 and rate.unscored / attempts > MANY_UNSCORED,
        "unhelped": None,
        "inapplicable": 0,
        "labels": [],
    }


def resource(name: str) -> str:
    """A file of this package as text."""
    return resources.files("forethought.report").joinpath(name).read_text(encoding="utf-8")


class _Files(BaseLoader):
    """Templates from this package and its sections; both may import the macros."""

    def get_source(self, environment: Environment, template: str) -> tuple[str, None, Callable[[], bool]]:
        home = resources.files("forethought.report")
        for place in (home, home / "sections"):
            if (place / template).is_file():
                return (place / template).read_text(encoding="utf-8"), None, lambda: True
        raise TemplateNotFound(template)


def _environment() -> Environment:
    def final(value: Any) -> Any:
        return clean(value) if isinstance(value, str) and not isinstance(value, Markup) else value

    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=final,
        loader=_Files(),
    )
    environment.filters |= {
        "pct": text.percent, "span": text.span, "duration": duration, "points": text.points, "p": text.p_value,
        "points_span": text.points_span, "tidy": text.tidy, "two": text.two, "three": text.three, "plus_three": text.plus_three,
        "breakable": _breakable,
    }  # fmt: skip
    drawn = {name: _drawn(getattr(figures, name)) for name in ("badge", "strip", "change")}
    environment.globals |= {**drawn, "mark": _drawn(maps.mark), "colour": figures.colour}
    return environment


def _breakable(name: str) -> Markup:
    """A name that may go on in the next line after an underscore."""
    return escape(clean(name)).replace("_", Markup("_<wbr>"))


def _drawn(drawing: Callable[..., str]) -> Callable[..., Markup]:
    return lambda *arguments: Markup(drawing(*arguments))
