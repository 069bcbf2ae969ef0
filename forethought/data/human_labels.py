"""Answers that people have labelled, to measure judges by: the public files, known by their names, and files of your own.

A file of your own has the columns `prompt`, `response` and at least one of `refused`, `harmful`, `unacceptable`, `careful`, each with
1/0 or yes/no; an empty cell is no label. `label` may say what the prompt is (harmful, benign, borderline, sensitive).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Literal

from forethought.data.files import Row, read_rows
from forethought.errors import ForethoughtError
from forethought.records import LABELS, Attempt, Label, digest, make_prompt

KindName = Literal["refusal", "harm", "unacceptable", "care"]
SUFFIXES = (".csv", ".jsonl")
YES = {"1": True, "1.0": True, "yes": True, "true": True, "0": False, "0.0": False, "no": False, "false": False}


@dataclass(frozen=True)
class Kind:
    """A kind of human label: the column of one's own file, the words for yes and no, and what a judge that speaks about it says with a
    score of 1 (`meaning`, as in `judges.MEANING`). `yes_scores` is the score that goes with yes: 0 for a refusal."""

    column: str
    yes: str
    no: str
    meaning: str
    yes_scores: int = 1


KINDS: dict[KindName, Kind] = {
    "refusal": Kind("refused", "refusal", "not_refused", "not refused", yes_scores=0),
    "harm": Kind("harmful", "harmful", "harmless", "harmful"),
    "unacceptable": Kind("unacceptable", "unacceptable", "acceptable", "unacceptable"),
    "care": Kind("careful", "careful", "careless", "helped with care"),
}


@dataclass(frozen=True)
class Format:
    """A public file: its name, what it speaks about, its columns, and the words of its label: yes, no, or None for in between."""

    name: str
    kind: KindName
    prompt: str
    answer: str
    label: tuple[str, ...]
    words: dict[str, bool | None]


# PyRIT's severities: half is left between, as XSTest's partial refusals are.
SEVERITY = {"0": False, "0.0": False, "0.25": False, "0.5": None, "0.75": True, "1": True, "1.0": True}
FORMATS = (
    Format(
        "xstest_*.csv", "refusal", "prompt", "completion", ("final_label",),
        {"1_full_compliance": False, "2_full_refusal": True, "3_partial_refusal": None},
    ),
    Format("pyrit_refusal_*.csv", "refusal", "objective", "assistant_response", ("human_score",), {**YES}),
    Format("jbb_judge_comparison*.csv", "harm", "goal", "target_response", ("human_majority",), {**YES}),
    Format("pyrit_objective_*.csv", "harm", "objective", "assistant_response", ("human_score",), {**YES}),
    Format("pyrit_harm_*.csv", "harm", "objective", "assistant_response", ("human_score", "human_score_1"), SEVERITY),
)  # fmt: skip


@dataclass(frozen=True)
class HumanCase:
    """One answer and what people said of it: yes, no, or None where they said something in between."""

    source: str
    kind: KindName
    prompt: str
    answer: str
    yes: bool | None
    deserves: Label = "harmful"

    @property
    def word(self) -> str:
        """The human label as a word; `between` for what is neither."""
        kind = KINDS[self.kind]
        return "between" if self.yes is None else kind.yes if self.yes else kind.no


@dataclass(frozen=True)
class Labelled:
    """The cases of a folder, its files with a hash to tell them by, and those files that hold no labels."""

    cases: list[HumanCase]
    files: list[Path]
    left_out: list[Path]

    def attempts(self) -> list[tuple[HumanCase, Attempt]]:
        """Each case with an attempt that holds its answer, for a judge to speak on."""
        seen: Counter[str] = Counter()
        made = []
        for case in self.cases:
            prompt = make_prompt(case.prompt, case.deserves, case.source)
            key = digest(case.source, case.kind, case.prompt, case.answer)
            id = f"{key}-{seen[key]}"
            seen[key] += 1
            tried = Attempt(
                id=id, prompt=prompt, attack="labelled", messages=prompt.messages, raw=case.answer, answer=case.answer,
                status="ok" if case.answer.strip() else "empty_answer",
            )  # fmt: skip
            made.append((case, tried))
        return made


def load_human_labels(where: Path | str) -> Labelled:
    """Every labelled case of a folder's .csv and .jsonl files, or of one file. ForethoughtError: none, or an unknown one."""
    where = Path(where)
    paths = sorted(p for p in where.iterdir() if p.suffix in SUFFIXES) if where.is_dir() else [where]
    cases: list[HumanCase] = []
    files: list[Path] = []
    left_out: list[Path] = []
    for path in paths:
        found = list(_cases(path))
        cases += found
        (files if found else left_out).append(path)
    if not cases:
        columns = ", ".join(kind.column for kind in KINDS.values())
        raise ForethoughtError(
            f"no human labels in '{where}'. Give a folder or file with the columns prompt, response and one of {columns}."
        )
    return Labelled(cases, files, left_out)


def _cases(path: Path) -> Iterator[HumanCase]:
    format = next((f for f in FORMATS if fnmatch(path.name, f.name)), None)
    source = path.stem.removesuffix("_half_a").replace("xstest_xstest_v2_completions_", "xstest_")
    for number, row in read_rows(path):
        yield from _own(row, path, number) if format is None else _public(row, format, source, path, number)


def _public(row: Row, format: Format, source: str, path: Path, number: int) -> Iterable[HumanCase]:
    column = next((c for c in format.label if row.get(c) is not None), None)
    if column is None or row.get(format.answer) is None:
        return []
    word = str(row[column]).strip()
    if word not in format.words:
        raise ForethoughtError(
            f"'{path}', row {number}: the human label '{word}' is none of {', '.join(format.words)}."
        )
    deserves: Label = "harmful"
    if "type" in row:
        deserves = "harmful" if str(row["type"]).startswith("contrast") else "borderline"
    return [HumanCase(source, format.kind, str(row[format.prompt]), str(row[format.answer]), format.words[word], deserves)]  # fmt: skip


def _own(row: Row, path: Path, number: int) -> Iterator[HumanCase]:
    given = [(name, kind) for name, kind in KINDS.items() if row.get(kind.column) not in (None, "")]
    if not given:
        return
    if row.get("prompt") is None or row.get("response") is None:
        raise ForethoughtError(
            f"'{path}', row {number}: it has a label, but not both of the columns prompt and response."
        )
    deserves = row.get("label") or "harmful"
    if deserves not in LABELS:
        raise ForethoughtError(f"'{path}', row {number}: label '{deserves}' is none of {', '.join(LABELS)}.")
    for name, kind in given:
        word = str(row[kind.column]).strip().lower()
        if word not in YES:
            raise ForethoughtError(
                f"'{path}', row {number}: {kind.column} is '{word}'. Write 1 or 0, or leave it empty."
            )
        yield HumanCase(path.stem, name, str(row["prompt"]), str(row["response"]), YES[word], deserves)
