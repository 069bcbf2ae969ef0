"""The transcripts of a page, side by side where several models were sent the same: plain data for its script."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from itertools import zip_longest
from typing import Any

from forethought.records import LABELS, Attempt, Verdict
from forethought.report.data import ReportData, Transcript
from forethought.report.text import View, clean

PLACES = {"in": "in training", "near": "near a training prompt", "out": "not in training"}


def options(data: ReportData) -> View:
    """What the transcripts can be filtered by, each in the order of first appearance."""
    shown = data.transcripts
    return {
        "attacks": list(dict.fromkeys(t.attempt.attack for t in shown)),
        "labels": [label for label in LABELS if any(t.attempt.prompt.label == label for t in shown)],
        "verdicts": sorted({v.label for t in shown for v in t.verdicts}),
    }


def groups(data: ReportData) -> list[View]:
    """Transcripts side by side: one group for each thing sent (prompt, attack, sample, and which of several)."""
    places = {model.name: index for index, model in enumerate(data.models)}
    found: dict[tuple[Any, ...], View] = {}
    seen: dict[tuple[Any, ...], int] = defaultdict(int)
    for transcript in data.transcripts:
        attempt = transcript.attempt
        key = (attempt.prompt.id, attempt.attack, attempt.sample)
        turn = seen[transcript.model, key]
        seen[transcript.model, key] += 1
        sent = _sent(attempt)
        if (*key, turn) not in found:
            found[*key, turn] = _group(attempt, sent) | {"met": _met(data, attempt)}
        group = found[*key, turn]
        answer = _answer(transcript, places[transcript.model])
        group["answers"].append(answer if sent == group["sent"] else answer | {"sent": sent})
    for group in found.values():
        group["answers"].sort(key=lambda answer: answer["m"])
    return _mixed(found.values())


def _met(data: ReportData, attempt: Attempt) -> list[str]:
    """The models whose training held the prompt, or one near it, and which."""
    placed = [(m.name, m.distribution.prompts.get(attempt.prompt.base, "out")) for m in data.models if m.distribution]
    return [clean(f"{PLACES[place]}: {name}") for name, place in placed if place != "out"]


def _mixed(groups: Iterable[View]) -> list[View]:
    """The labels in turn, so that the first page of transcripts shows some of each."""
    by_label: dict[str, list[View]] = defaultdict(list)
    for group in groups:
        by_label[group["label"]].append(group)
    turns = zip_longest(*by_label.values())
    return [group for turn in turns for group in turn if group is not None]


def _group(attempt: Attempt, sent: list[list[str]]) -> View:
    prompt = attempt.prompt
    about = {"id": prompt.id, "category": prompt.category or "", "source": prompt.source, "sample": attempt.sample}
    request = "" if [role for role, _ in sent] == ["user"] and sent[0][1] == clean(prompt.request) else prompt.request
    plain = {"attack": attempt.attack, "label": prompt.label, "request": request} | about
    return {k: clean(v) if isinstance(v, str) else v for k, v in plain.items()} | {"sent": sent, "answers": []}


def _sent(attempt: Attempt) -> list[list[str]]:
    turns = [[m.role, clean(m.content)] for m in attempt.messages]
    return [*turns, ["prefilled", clean(attempt.prefix)]] if attempt.prefix else turns


def _answer(transcript: Transcript, place: int) -> View:
    attempt = transcript.attempt
    return {
        "m": place,
        "status": attempt.status or "error",
        "cut": attempt.stop == "length",
        "tokens": attempt.completion_tokens,
        "reasoning": clean(attempt.reasoning or ""),
        "answer": clean(attempt.answer),
        "error": clean(attempt.error or ""),
        "verdicts": [_verdict(v) for v in transcript.verdicts],
    }


def _verdict(verdict: Verdict) -> View:
    evidence = clean(verdict.raw or verdict.error or "")
    return {"judge": clean(verdict.judge), "label": clean(verdict.label), "score": verdict.score, "why": evidence}
