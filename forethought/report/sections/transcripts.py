"""The transcripts: a form to search and filter them, a few in plain HTML for readers without scripts, and all of them packed."""

from __future__ import annotations

import json
from typing import Any

from markupsafe import Markup

from forethought.report import transcripts
from forethought.report.data import ReportData
from forethought.report.section import Gathered, Section, draw, model_views
from forethought.report.text import clean

SAMPLE = 6


def section(found: Gathered) -> Section | None:
    """Always there."""
    data = found.data
    groups = transcripts.groups(data)
    about = {"models": [clean(m.name) for m in data.models], "masked": found.redacted}
    payload = about | transcripts.packed(groups)
    body = draw(
        "transcripts.html.j2",
        found,
        models=model_views(data),
        options=transcripts.options(data),
        total=len(data.transcripts),
        attempts=_attempts(data),
        sample=[group for group in groups if group["label"] != "harmful"][:SAMPLE],
        payload=Markup(_payload(payload)),
    )
    return Section("transcripts", "Transcripts", body)


def _attempts(data: ReportData) -> int:
    """Everything that was sent; each judge has cells of its own over the same attempts."""
    return sum({(c.model, c.attack, c.label): c.attempts + c.inapplicable for c in data.cells}.values())


def _payload(value: Any) -> str:
    """JSON that may stand inside a script element: `<`, `>` and `&` only as escapes."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    for mark in "<>&":
        text = text.replace(mark, f"\\u{ord(mark):04x}")
    return text
