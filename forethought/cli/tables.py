"""Rows as a plain table and as CSV. A row maps a column to text, a count, a number, or None where there is none."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from forethought.cli.common import number
from forethought.report.text import Row, as_csv, columns_of

__all__ = ["Csv", "Row", "interval", "print_table", "write_csv"]
Csv = Annotated[Path | None, typer.Option("--csv", help="Also write the tables to this file.")]
LOW, HIGH = " low", " high"


def interval(name: str, value: float | None, low: float | None, high: float | None) -> Row:
    """The three columns of a number and its interval, which a plain table shows in one."""
    return {name: value, name + LOW: low, name + HIGH: high}


def print_table(rows: list[Row]) -> None:
    """Print rows under their columns: text to the left, numbers to the right."""
    columns = [c for c in columns_of(rows) if not c.endswith((LOW, HIGH))]
    cells = [columns, *([_cell(row, column) for column in columns] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    words = [any(isinstance(row.get(c), str) for row in rows) for c in columns]
    for line in cells:
        print("  ".join(c.ljust(w) if t else c.rjust(w) for c, w, t in zip(line, widths, words, strict=True)).rstrip())


def write_csv(rows: Iterable[Row], csv: Path | None) -> None:
    """Write rows to the file that --csv names, and say so; nothing where it names none."""
    from forethought.run import write_text

    if csv is not None:
        write_text(csv, as_csv(list(rows)))
        print(f"-> {csv}")


def _cell(row: Row, column: str) -> str:
    value = row.get(column)
    if not isinstance(value, float):
        return "-" if value is None else str(value)
    low, high = row.get(column + LOW), row.get(column + HIGH)
    return number(value) + (f" [{number(low)}, {number(high)}]" if low is not None else "")
