"""The report as one HTML page that loads nothing: `render(data)`. Its layout is in page.html.j2, page.css and page.js.

Numbers come from what `gather` computed over all attempts, never from the transcripts, which may be a part of what was run.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Sequence

from markupsafe import Markup

from forethought.report.data import ReportData
from forethought.report.headline import counts, headline
from forethought.report.section import Gathered, Section, draw, resource
from forethought.report.sections import (
    agreement,
    attacks,
    capability,
    differences,
    divergence,
    made,
    overview,
    reasoning,
    refusals,
    separation,
    transcripts,
    tries,
)
from forethought.report.sources import ModelRuns

# What stands on the page, in this order. A section is one function over what was gathered; None leaves it out.
SECTIONS: tuple[Callable[[Gathered], Section | None], ...] = (
    overview.section,
    differences.section,
    attacks.section,
    tries.section,
    separation.section,
    reasoning.section,
    divergence.section,
    capability.section,
    refusals.section,
    agreement.section,
    transcripts.section,
    made.section,
)


def render(data: ReportData, models: Sequence[ModelRuns] = (), *, redacted: bool = False) -> str:
    """The page. The same data gives the same bytes; nothing in it reaches the network or runs but our own script.

    `models` are the runs behind the numbers, for sections that read more than `data` holds.
    """
    found = Gathered(data, tuple(models), redacted)
    sections = [made for section in SECTIONS if (made := section(found)) is not None]
    style = resource("page.css") + "".join(s.style for s in sections)
    script = resource("page.js")
    return str(
        draw(
            "page.html.j2",
            found,
            style=Markup(style),
            script=Markup(script),
            csp=_policy(style, script),
            counts=counts(data),
            headline=headline(data),
            sections=sections,
        )
    )


def _policy(style: str, script: str) -> str:
    """A content security policy that lets only our own script and style in, by their hashes."""

    def allowed(text: str) -> str:
        return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"

    rest = "img-src data:; base-uri 'none'; form-action 'none'"
    return f"default-src 'none'; script-src {allowed(script)}; style-src {allowed(style)}; {rest}"
