"""The report as one HTML page that loads nothing: `render(data)`. Its layout is in page.html.j2, page.css and page.js.

Numbers come from what `gather` computed over all attempts, never from the transcripts, which may be a part of what was run.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from importlib import resources
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from forethought.progress import duration
from forethought.report import figures, overview, tables, text, transcripts
from forethought.report.data import ReportData
from forethought.report.text import View, clean

SAMPLE = 6


def render(data: ReportData) -> str:
    """The page. The same data gives the same bytes; nothing in it reaches the network or runs but our own script."""
    style, script = _resource("page.css"), _resource("page.js")
    groups = transcripts.groups(data)
    harmful = "harmful"
    context = {
        "data": data,
        "style": Markup(style),
        "script": Markup(script),
        "csp": _policy(style, script),
        "models": [_model(data, index) for index in range(len(data.models))],
        "counts": overview.counts(data),
        "headline": overview.headline(data),
        "trained": any(m.distribution for m in data.models),
        "families": tables.families(data),
        "others": tables.others(data),
        "differences": tables.differences(data),
        "agreement": tables.agreement(data),
        "tries": tables.more_tries(data),
        "separation": tables.separation(data),
        "rocs": _rocs(data),
        "capability": tables.capability(data),
        "options": transcripts.options(data),
        "total": len(data.transcripts),
        "attempts": _attempts(data),
        "sample": [group for group in groups if group["label"] != harmful][:SAMPLE],
        "payload": Markup(_payload({"models": [clean(m.name) for m in data.models], "groups": groups})),
        "small_n": tables.SMALL_N,
        "many_unscored": text.percent(tables.MANY_UNSCORED),
    }
    return _environment().from_string(_resource("page.html.j2")).render(context)


def _attempts(data: ReportData) -> int:
    """Everything that was sent; each judge has cells of its own over the same attempts."""
    return sum({(c.model, c.attack, c.label): c.attempts for c in data.cells}.values())


def _model(data: ReportData, index: int) -> View:
    card = data.models[index]
    places: list[str] = list(card.distribution.prompts.values()) if card.distribution else []
    return {
        "card": card,
        "index": index,
        "kept": sum(card.trained_on.values()),
        "rejected": sum(card.rejected.values()),
        "places": [(word, places.count(place)) for place, word in transcripts.PLACES.items()] if places else [],
    }


def _rocs(data: ReportData) -> list[View]:
    """One small figure for each comparison that has a curve."""
    places = {m.name: i for i, m in enumerate(data.models)}
    found: dict[tuple[str, str], list[tuple[int, tuple[tuple[float, float], ...]]]] = {}
    for curve in data.curves:
        found.setdefault((curve.scope, curve.against), []).append((places[curve.model], curve.points))
    order = sorted(found, key=lambda key: (key[1] != "benign", key[0] != "direct"))
    return [
        {"scope": scope, "against": against, "figure": Markup(figures.roc(found[scope, against]))}
        for scope, against in order
    ]


def _resource(name: str) -> str:
    return resources.files("forethought.report").joinpath(name).read_text(encoding="utf-8")


def _environment() -> Environment:
    def final(value: Any) -> Any:
        return clean(value) if isinstance(value, str) and not isinstance(value, Markup) else value

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, finalize=final
    )
    environment.filters |= {
        "pct": text.percent, "span": text.span, "duration": duration, "points": text.points, "p": text.p_value,
        "points_span": text.points_span, "tidy": text.tidy,
    }  # fmt: skip
    drawn = {name: _drawn(getattr(figures, name)) for name in ("badge", "strip", "change")}
    environment.globals |= {**drawn, "colour": figures.colour}
    return environment


def _drawn(draw: Callable[..., str]) -> Callable[..., Markup]:
    return lambda *arguments: Markup(draw(*arguments))


def _policy(style: str, script: str) -> str:
    """A content security policy that lets only our own script and style in, by their hashes."""

    def allowed(text: str) -> str:
        return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"

    rest = "img-src data:; base-uri 'none'; form-action 'none'"
    return f"default-src 'none'; script-src {allowed(script)}; style-src {allowed(style)}; {rest}"


def _payload(value: Any) -> str:
    """JSON that may stand inside a script element: `<`, `>` and `&` only as escapes."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    for mark in "<>&":
        text = text.replace(mark, f"\\u{ord(mark):04x}")
    return text
