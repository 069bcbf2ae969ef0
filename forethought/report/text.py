"""Numbers and texts as the page writes them."""

from __future__ import annotations

import csv
import io
import re
from typing import Any

View = dict[str, Any]
Row = dict[str, Any]
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def clean(text: str) -> str:
    """Text that any browser shows and any file stores: control characters become visible, lone surrogates U+FFFD."""
    text = text.replace("\r\n", "\n")
    return _CONTROL.sub(lambda m: chr(0x2400 + ord(m[0])) if m[0] < " " else "\ufffd", text)


def percent(value: float | None) -> str:
    """`no score` for None; never 0% or 100% for what is not exactly that."""
    if value is None:
        return "no score"
    whole = round(100 * value)
    if value > 0 and whole == 0:
        return "<1%"
    if value < 1 and whole == 100:
        return ">99%"
    return f"{whole}%"


def span(low: float | None, high: float | None) -> str:
    """Two shares as `12–40%`, neither 0 nor 100 for what is not exactly that; empty where there are none."""
    return "" if low is None or high is None else f"{percent(low)[:-1]}–{percent(high)}"


def points(value: float | None) -> str:
    """A difference of shares in points, with its sign: `−12`; `no pairs` for None."""
    if value is None:
        return "no pairs"
    whole = round(100 * value)
    return "±0" if whole == 0 else f"{'+' if whole > 0 else '−'}{abs(whole)}"


def points_span(low: float | None, high: float | None) -> str:
    """Two differences as `−20 to +4`; empty where there are none."""
    return "" if low is None or high is None else f"{points(low)} to {points(high)}"


def p_value(p: float | None) -> str:
    """`p 0.03`; never 0; empty for None."""
    if p is None:
        return ""
    return "p < 0.001" if p < 0.001 else f"p {p:.3f}" if p < 0.1 else f"p {min(p, 1):.2f}"


def two(value: float | None) -> str:
    """`−0.25`; `no number` for None."""
    return "no number" if value is None else f"{value:z.2f}".replace("-", "−")


def three(value: float | None) -> str:
    """`−0.025`; empty for None."""
    return "" if value is None else f"{value:z.3f}".replace("-", "−")


def plus_three(value: float) -> str:
    """A difference with its sign: `+0.025`, `−0.025`, `0.000`."""
    text = three(value)
    return f"+{text}" if value > 0 and text != "0.000" else text


def tidy(value: float) -> str:
    """A mean of small counts: `8`, `8.5`, `1,240`."""
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.1f}"


def as_csv(rows: list[Row]) -> str:
    """Rows with a header of all their columns; what is missing is empty. A text that a spreadsheet would run as a formula gets a quote."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns_of(rows), restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows({k: plain(v) for k, v in row.items()} for row in rows)
    return text.getvalue()


def columns_of(rows: list[Row]) -> list[str]:
    """The columns of all rows, in the order in which they come up."""
    return list(dict.fromkeys(column for row in rows for column in row))


def plain(value: Any) -> Any:
    """A cell that no spreadsheet takes for a formula."""
    return f"'{value}" if isinstance(value, str) and value[:1] in "=+-@\t\r" and value else value
