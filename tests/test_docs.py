"""What a page says is what its files say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

DOCS = Path(__file__).resolve().parents[1] / "docs"


def test_the_study_has_the_tables_of_its_numbers() -> None:
    """`docs/study/tables.py` prints them from the CSV files that `docs/study.md` names; the first is in the README too."""
    words = [sys.executable, str(DOCS / "study" / "tables.py")]
    printed = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    tables = printed.strip().split("\n\n")
    page = (DOCS / "study.md").read_text(encoding="utf-8")
    assert len(tables) == 9
    for table in tables:
        assert table in page, f"not as printed: {table[:200]}"
    assert tables[0] in (DOCS.parent / "README.md").read_text(encoding="utf-8")
