"""What a page says is what its files say."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from forethought import stages
from forethought.analysis.rates import cells
from forethought.records import Example

DOCS = Path(__file__).resolve().parents[1] / "docs"


def test_the_study_has_the_tables_of_its_numbers() -> None:
    """`docs/study/tables.py` prints them from the CSV files that `docs/study.md` names; the first is in the README too."""
    words = [sys.executable, str(DOCS / "study" / "tables.py")]
    printed = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    tables = printed.strip().split("\n\n")
    page = (DOCS / "study.md").read_text(encoding="utf-8")
    assert len(tables) == 10
    for table in tables:
        assert table in page, f"not as printed: {table[:200]}"
    assert tables[0] in (DOCS.parent / "README.md").read_text(encoding="utf-8")


def test_the_python_page_runs(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every block of `docs/python.md`, one after the other, with a tiny random model in the place of the embedded one."""
    monkeypatch.chdir(tmp_path)
    page = (DOCS / "python.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(blocks) == 4
    names: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block.replace('"smollm2"', repr(f"hf:{tiny}")), "docs/python.md", "exec"), names)
    assert {cell.attack for cell in cells("m", names["attempts"], names["verdicts"])} == {
        "direct",
        "persona",
        "style_json",
    }
    assert names["change"].clusters == 6 and (tmp_path / "runs" / "report.html").is_file()
    assert names["made"].read("examples.jsonl", Example) and names["found"].status
    named = {
        name
        for row in re.findall(r"^\|.*\|$", page, re.MULTILINE)[2:]
        for name in re.findall(r"`([a-z_]+)`", row.split("|")[2])
    }
    assert named and all(hasattr(stages, name) for name in named), named
