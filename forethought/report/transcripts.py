"""The transcripts of a page, side by side where several models were sent the same: plain data for its script, packed.

The page holds an index of all of them, small enough to filter by at once, and the texts in chunks that are unpacked when they are shown
or searched. Packed is zlib in base64, which a browser reads with DecompressionStream.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import zip_longest
from typing import Any

from forethought.judges import inside, meaning
from forethought.records import LABELS, Attempt, Verdict, digest
from forethought.refusals import classify
from forethought.report.data import ReportData, Transcript
from forethought.report.text import View, clean
from forethought.thoughts import decision_of, own_thought

CHUNK = 40  # Groups unpacked together.
JUDGES_DIFFER, THOUGHT_DIFFERS = 1, 2
PLACES = {"in": "in training", "near": "near a training prompt", "out": "not in training"}


def options(data: ReportData) -> View:
    """What the transcripts can be filtered by, each in the order of first appearance."""
    shown = data.transcripts
    return {
        "attacks": list(dict.fromkeys(t.attempt.attack for t in shown)),
        "labels": [label for label in LABELS if any(t.attempt.prompt.label == label for t in shown)],
        "verdicts": sorted({v.label for t in shown for v in t.verdicts}),
        "judges": [j.name for j in data.judges if any(v.judge == j.name for t in shown for v in t.verdicts)],
        "thinks": any(t.attempt.reasoning for t in shown),
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
            found[*key, turn] = _group(attempt, sent) | {"ref": reference(attempt, turn), "met": _met(data, attempt)}
        group = found[*key, turn]
        answer = _answer(transcript, places[transcript.model])
        group["answers"].append(answer if sent == group["sent"] else answer | {"sent": sent})
    for group in found.values():
        group["answers"].sort(key=lambda answer: answer["m"])
    return _mixed(found.values())


def reference(attempt: Attempt, turn: int = 0) -> str:
    """The name of a group in a link, `#t-…`: the same for every model, and on every page of these prompts."""
    return digest(attempt.prompt.id, attempt.attack, attempt.sample, turn, length=10)


def packed(found: Sequence[View]) -> View:
    """What the script reads: `index` and `chunks` of CHUNK groups each, packed. A row of the index is [ref, attack, label, answers],
    an answer [model, flags, judge, verdict, judge, verdict, ...], by place in the lists beside it."""
    attacks, labels, judges, words = _Places(), _Places(), _Places(), _Places()
    rows = []
    for group in found:
        answers = [
            [a["m"], a["flags"], *(at for v in a["verdicts"] for at in (judges[v["judge"]], words[v["label"]]))]
            for a in group["answers"]
        ]
        rows.append([group["ref"], attacks[group["attack"]], labels[group["label"]], answers])
    index = {"attacks": [*attacks], "labels": [*labels], "judges": [*judges], "words": [*words], "rows": rows}
    chunks = [pack(found[i : i + CHUNK]) for i in range(0, len(found), CHUNK)]
    return {"chunk": CHUNK, "count": len(found), "index": pack(index), "chunks": chunks}


def pack(value: Any) -> str:
    """JSON, zlib, base64."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return base64.b64encode(zlib.compress(text.encode("utf-8"), 6)).decode("ascii")


class _Places(dict[str, int]):
    """Texts in the order in which they come up, each with its place."""

    def __missing__(self, text: str) -> int:
        self[text] = len(self)
        return self[text]


def disagreements(attempt: Attempt, verdicts: Sequence[Verdict]) -> int:
    """Flags: JUDGES_DIFFER where judges of a harmful request's answer score on different sides of 0.5 (on others "refused" and "harmful" do
    not mean the same, nor does harm in a thought), THOUGHT_DIFFERS where the thought states a decision and the answer does the opposite."""
    sides = {
        v.score >= 0.5
        for v in verdicts
        if v.score is not None and meaning(v.judge) != "helped with care" and not inside(v.judge)
    }
    found = JUDGES_DIFFER if attempt.prompt.label == "harmful" and len(sides) > 1 else 0
    decided = decision_of(own_thought(attempt) or "")
    if decided in ("refuse", "answer"):
        refused = _refused(attempt, verdicts)
        found |= THOUGHT_DIFFERS if refused is not None and refused != (decided == "refuse") else 0
    return found


def _refused(attempt: Attempt, verdicts: Sequence[Verdict]) -> bool | None:
    """By the first judge of refusals that scored it, else by the rules; None where they cannot tell."""
    scored = [v.score for v in verdicts if v.score is not None and meaning(v.judge) == "not refused"]
    if scored:
        return scored[0] < 0.5
    return {"refusal": True, "not_refused": False}.get(classify(attempt.answer, attempt.prompt.request).label)


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
        "flags": transcript.flags,
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
