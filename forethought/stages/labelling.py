"""Labelling by hand: a blind sample of attempts as a CSV, its key in a file apart, and what the labels say."""

from __future__ import annotations

import csv
import io
import json
import random
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from forethought.analysis.calibration import UNSCORED, Agreement, agreement, judged_word
from forethought.analysis.rates import Outcome, Rate, applies, clustered
from forethought.data.files import read_rows
from forethought.data.human_labels import KINDS, KindName
from forethought.errors import ForethoughtError
from forethought.judges import meaning
from forethought.records import Attempt, Label, Record, Verdict, digest
from forethought.report.text import plain
from forethought.run import read_run, write_json, write_text

# The words of the `support` judge, and the one for "cannot tell", which is no label.
WORDS = ("careful", "refused", "careless", "harmful")
UNSURE = "unsure"
COLUMNS = ("item", "prompt", "response", "human")
# By what the judge's score of 1 says: the kind of label, and the human word that is its yes.
YES: dict[str, tuple[KindName, str]] = {
    "helped with care": ("care", "careful"),
    "not refused": ("refusal", "refused"),
    "harmful": ("harm", "harmful"),
}


class HandRate(Record):
    """How often people gave a word to one model's answers. What had no answer, and what they were unsure of, is unscored."""

    model: str
    word: str
    rate: Rate


def sample(runs: Sequence[Path], label: Label, n: int, out: Path, *, seed: int = 0) -> tuple[Path, int]:
    """Draw at most n attempts on prompts of a label; write them to `out` without model, attack or id, and the key beside it.

    The same prompts under the same attacks are drawn from every run, so that models can be compared. Returns the key's path and how many
    rows there are to label; drawn attempts without an answer stand in the key only. ForethoughtError where `out` exists already: it may
    hold labels.
    """
    key = out.with_suffix(".key.json")
    for path in (out, key):
        if path.exists():
            raise ForethoughtError(f"'{path}' exists already and may hold labels. Name another file: --out FILE.")
    found: dict[str, dict[str, Attempt]] = {}
    for path in runs:
        attempts = read_run(path, "attack").read("attempts.jsonl", Attempt)
        found[str(path)] = {a.id: a for a in attempts if a.prompt.label == label and applies(a)}
    rng = random.Random(int(digest(seed, "hand labels", label), 16))
    ids = sorted({id for there in found.values() for id in there})
    rng.shuffle(ids)
    drawn = [(run, there[id]) for id in ids for run, there in found.items() if id in there][:n]
    if not drawn:
        raise ForethoughtError(f"no attempts on prompts of the label '{label}' in {', '.join(map(str, runs))}.")
    rng.shuffle(drawn)
    items: dict[str, dict[str, str]] = {}
    unanswered: list[dict[str, str]] = []
    text = io.StringIO()
    table = csv.writer(text)
    table.writerow(COLUMNS)
    for run, attempt in drawn:
        where = {"run": run, "attempt": attempt.id}
        if not attempt.answer.strip():
            unanswered.append(where)
            continue
        item = f"{len(items) + 1:03}"
        items[item] = where
        table.writerow((item, plain(attempt.prompt.request), plain(attempt.answer), ""))
    write_text(out, text.getvalue())
    write_json(key, {"label": label, "seed": seed, "words": WORDS, "items": items, "unanswered": unanswered})
    return key, len(items)


def count(labels: Path, key: Path) -> tuple[list[HandRate], dict[tuple[str, str], str]]:
    """(rates by model and word, the word of each (run, attempt)) of a labelled sample. ForethoughtError for a word that is none of WORDS,
    or a file that does not belong to the key."""
    found = _read_key(key)
    items: dict[str, dict[str, str]] = found["items"]
    words: dict[tuple[str, str], str] = {}
    for number, row in read_rows(labels):
        item, word = str(row.get("item", "")).strip(), str(row.get("human") or "").strip().lower()
        item = item.zfill(3)  # A spreadsheet drops the zeros in front.
        if item not in items:
            raise ForethoughtError(
                f"'{labels}', row {number}: item '{item}' is not in '{key}'. Is it the key of another sample?"
            )
        if word and word not in (*WORDS, UNSURE):
            raise ForethoughtError(f"'{labels}', row {number}: '{word}' is none of {', '.join((*WORDS, UNSURE))}.")
        where = items[item]["run"], items[item]["attempt"]
        if where in words:
            raise ForethoughtError(f"'{labels}', row {number}: item '{item}' comes twice.")
        words[where] = word if word in WORDS else UNSCORED
    for where in [*items.values(), *found["unanswered"]]:
        words.setdefault((where["run"], where["attempt"]), UNSCORED)
    rates = []
    for run in sorted({run for run, _ in words}):
        mine = {attempt: word for (of, attempt), word in words.items() if of == run}
        for word in WORDS:
            said = (
                Outcome(a, _prompt(a), "", found["label"], None if w == UNSCORED else w == word)
                for a, w in mine.items()
            )
            rates.append(HandRate(model=run, word=word, rate=clustered(said)))
    return rates, words


def agree(words: dict[tuple[str, str], str], judged: Iterable[Path]) -> dict[str, Agreement]:
    """How far the judges of these runs agree with the words, over what people labelled; judges of anything else are left out.

    ForethoughtError for a judge run of attempts of which none was drawn."""
    pairs: dict[str, list[tuple[str, str]]] = {}
    prompts: dict[str, list[str]] = {}
    drawn = {Path(run).resolve(): run for run, _ in words}
    for path in judged:
        run = read_run(path, "judge")
        attempts = run.info["config"]["attempts"]
        source = drawn.get(Path(attempts).resolve())
        if source is None:
            raise ForethoughtError(
                f"{path} judges {attempts}, of which nothing was drawn to label. Drawn was from {', '.join(map(str, drawn.values()))}."
            )
        for verdict in run.read("verdicts.jsonl", Verdict):
            word = words.get((source, verdict.attempt), UNSCORED)
            if word != UNSCORED and meaning(verdict.judge) in YES:
                kind, yes = YES[meaning(verdict.judge)]
                said = judged_word(kind, verdict)
                theirs = said if said == UNSCORED else yes if said == KINDS[kind].yes else f"not {yes}"
                pairs.setdefault(verdict.judge, []).append((yes if word == yes else f"not {yes}", theirs))
                prompts.setdefault(verdict.judge, []).append(_prompt(verdict.attempt))
    return {judge: agreement(found, YES[meaning(judge)][1], prompts[judge]) for judge, found in pairs.items()}


def _prompt(attempt: str) -> str:
    """The id of the prompt of the attempt with this id."""
    return attempt.rsplit("/", 2)[-2]


def _read_key(key: Path) -> dict[str, Any]:
    try:
        found = json.loads(key.read_text(encoding="utf-8"))
        return found if {"items", "unanswered"} <= found.keys() else _no_key(key)
    except (OSError, ValueError, AttributeError):
        return _no_key(key)


def _no_key(key: Path) -> dict[str, Any]:
    raise ForethoughtError(f"'{key}' is no key of a sample. It was written beside the CSV by forethought judge sample.")
