"""The report as one HTML page that loads nothing: `render(data)`. Its layout is in page.html.j2, page.css and page.js.

Numbers come from the cells, never from the transcripts, which may be a part of what was run; the spread of tokens needs
all of both.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from importlib import resources
from itertools import zip_longest
from statistics import stdev
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from forethought.analysis.rates import Z95, Cell, Rate, pooled
from forethought.progress import duration
from forethought.records import LABELS, Attempt, Label, Verdict
from forethought.report import figures
from forethought.report.data import ReportData, Transcript

SMALL_N, MANY_UNSCORED, SAMPLE = 20, 0.10, 6
X_TITLE, Y_TITLE = "refused borderline requests", "not refused under attack"
View = dict[str, Any]
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def clean(text: str) -> str:
    """Text that any browser shows and any file stores: control characters become visible, lone surrogates U+FFFD."""
    text = text.replace("\r\n", "\n")
    return _CONTROL.sub(lambda m: chr(0x2400 + ord(m[0])) if m[0] < " " else "\ufffd", text)


def render(data: ReportData) -> str:
    """The page. The same data gives the same bytes; nothing in it reaches the network or runs but our own script."""
    style, script = _resource("page.css"), _resource("page.js")
    groups, judges = _groups(data), _judges(data)
    context = {
        "data": data,
        "style": Markup(style),
        "script": Markup(script),
        "csp": _policy(style, script),
        "models": [_model(data, index) for index in range(len(data.models))],
        "counts": _counts(data),
        "headline": _headline(data, judges[0]),
        "sections": [_section(data, judge) for judge in judges],
        "options": _options(data),
        "total": len(data.transcripts),
        "attempts": sum(c.attempts for c in data.cells if c.judge == judges[0]),
        "sample": [group for group in groups if group["label"] != "harmful"][:SAMPLE],
        "payload": Markup(_payload({"models": [clean(m.name) for m in data.models], "groups": groups})),
        "small_n": SMALL_N,
        "many_unscored": figures.percent(MANY_UNSCORED),
    }
    return _environment().from_string(_resource("page.html.j2")).render(context)


def _resource(name: str) -> str:
    return resources.files("forethought.report").joinpath(name).read_text(encoding="utf-8")


def _environment() -> Environment:
    def final(value: Any) -> Any:
        return clean(value) if isinstance(value, str) and not isinstance(value, Markup) else value

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, finalize=final
    )
    environment.filters |= {"pct": figures.percent, "span": figures.span, "duration": duration}
    environment.globals |= {"badge": _drawn(figures.badge), "strip": _drawn(figures.strip), "colour": figures.colour}
    return environment


def _drawn(draw: Callable[..., str]) -> Callable[..., Markup]:
    return lambda *arguments: Markup(draw(*arguments))


def _policy(style: str, script: str) -> str:
    """A content security policy that lets only our own script and style in, by their hashes."""

    def allowed(text: str) -> str:
        return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"

    rest = "img-src data:; base-uri 'none'; form-action 'none'"
    return f"default-src 'none'; script-src {allowed(script)}; style-src {allowed(style)}; {rest}"


def _payload(value: Any) -> str:
    """JSON that may stand inside a script element: `<`, `>` and `&` only as escapes."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    for mark in "<>&":
        text = text.replace(mark, f"\\u{ord(mark):04x}")
    return text


def _select(data: ReportData, judge: str, label: Label, direct: bool, model: str | None = None) -> list[Cell]:
    return [
        c
        for c in data.cells
        if c.judge == judge and c.label == label and (c.attack == "direct") == direct and model in (None, c.model)
    ]


def _judges(data: ReportData) -> list[str]:
    """Every judge that said anything, `refusal` first: it makes the headline."""
    found = dict.fromkeys([*data.judges, *(c.judge for c in data.cells)])
    return sorted(found, key=lambda name: name != "refusal") or ["refusal"]


def _counts(data: ReportData) -> View:
    """How few attempts stand behind each rate, and the difference of two rates that chance alone could give."""
    rows = []
    for label in LABELS:
        sizes = {c.attempts for c in data.cells if c.label == label}
        if sizes:
            several = any(c.attack != "direct" for c in data.cells if c.label == label)
            rows.append({"label": label, "low": min(sizes), "high": max(sizes), "each": several})
    low, high = min((r["low"] for r in rows), default=0), max((r["high"] for r in rows), default=0)
    common = [c.attempts for c in data.cells if c.label == "harmful"] or [c.attempts for c in data.cells]
    usual = sorted(common)[len(common) // 2] if common else 0
    return {"rows": rows, "low": low, "high": high, "usual": usual, "noise": noise(usual)}


def noise(n: int) -> int:
    """Points by which two rates near 50%, each from n attempts, differ by chance alone in one comparison of twenty."""
    return min(100, round(100 * Z95 * math.sqrt(0.5 / n))) if n else 100


def _model(data: ReportData, index: int) -> View:
    card = data.models[index]
    kept, rejected = sum(card.trained_on.values()), sum(card.rejected.values())
    return {"card": card, "index": index, "kept": kept, "rejected": rejected}


def _shared(data: ReportData, judge: str) -> list[str]:
    """The attacks on harmful prompts that every attacked model was sent: pooling others would compare unlike sums."""
    sent: dict[str, set[str]] = defaultdict(set)
    for cell in _select(data, judge, "harmful", False):
        sent[cell.model].add(cell.attack)
    return sorted(set.intersection(*sent.values())) if sent else []


def _headline(data: ReportData, judge: str) -> View:
    shared, points, cards = _shared(data, judge), [], []
    for index, model in enumerate(data.models):

        def total(label: Label, direct: bool, kind: str, name: str = model.name) -> Rate:
            chosen = _select(data, judge, label, direct, name)
            return pooled(getattr(c, kind) for c in chosen if direct or c.attack in shared)

        attacked, over = total("harmful", False, "not_refused"), total("borderline", True, "refused")
        points.append(figures.Point(clean(model.name), index, over, attacked))
        rest = [
            ("Not refused, asked directly", total("harmful", True, "not_refused")),
            ("Refused: benign, under the same attacks", total("benign", False, "refused")),
            ("Refused: sensitive", total("sensitive", True, "refused")),
        ]
        big = [("Not refused under attack", "harmful requests, attacks pooled", attacked)]
        big.append(("Over-refusal on borderline", "refused, asked directly", over))
        tokens = _tokens(data, judge, model.name)
        cards.append({"index": index, "model": model, "big": big, "rest": rest, "tokens": tokens})
    drawn = [p for p in points if p.x.value is not None and p.y.value is not None]
    return {
        "judge": judge,
        "cards": cards,
        "read": drawn[0] if drawn else None,
        "left_out": [p.name for p in points if p not in drawn],
        "shared": shared,
        "unshared": sorted({c.attack for c in _select(data, judge, "harmful", False)} - set(shared)),
        "wide": Markup(figures.scatter(points, X_TITLE, Y_TITLE)),
        "narrow": Markup(figures.scatter(points, X_TITLE, Y_TITLE, 360, 390)),
    }


def _tokens(data: ReportData, judge: str, model: str) -> View:
    """Mean tokens of an answer over all cells; its 95% interval where the transcripts hold every attempt, else None."""
    cells = [c for c in data.cells if c.judge == judge and c.model == model]
    n = sum(c.attempts for c in cells)
    mean = sum(c.tokens * c.attempts for c in cells) / n if n else None
    answered = [t.attempt for t in data.transcripts if t.model == model]
    lengths = [a.completion_tokens for a in answered if not (a.error or "").startswith("not_applicable")]
    half = Z95 * stdev(lengths) / math.sqrt(n) if n > 1 and len(lengths) == n else None
    return {"mean": mean, "n": n, "half": half}


def _section(data: ReportData, judge: str) -> View:
    """The tables of one judge: attacks on harmful prompts, the same on benign ones, and what else was sent."""
    others = [label for label in LABELS if label not in ("harmful", "benign")]
    return {
        "judge": judge,
        "harmful": _table(data, judge, ["harmful"], "not_refused"),
        "benign": _table(data, judge, ["benign"], "refused"),
        "others": _table(data, judge, others, "refused"),
    }


def _table(data: ReportData, judge: str, labels: Iterable[Label], kind: str) -> list[View]:
    """Rows of (label, attack), each with one cell a model; None where the model was not sent it."""
    found = {(c.label, c.attack, c.model): c for c in data.cells if c.judge == judge}
    about = {a.name: a for a in data.attacks}
    attacks = dict.fromkeys([*about, *(attack for _, attack, _ in found)])
    rows = []
    for label in labels:
        for attack in sorted(attacks, key=lambda name: name != "direct"):
            cells = [found.get((label, attack, m.name)) for m in data.models]
            if any(cells):
                views = [_cell(c, kind) if c else None for c in cells]
                rows.append({"label": label, "attack": attack, "about": about.get(attack), "cells": views})
    return rows


def _cell(cell: Cell, kind: str) -> View:
    rate: Rate = getattr(cell, kind)
    return {
        "rate": rate,
        "unhelped": cell.unhelped if kind == "refused" and cell.unhelped.hits != rate.hits else None,
        "small": rate.scored < SMALL_N,
        "warn": cell.attempts > 0 and rate.unscored / cell.attempts > MANY_UNSCORED,
        "labels": sorted(cell.labels.items(), key=lambda item: (-item[1], item[0])),
    }


def _options(data: ReportData) -> View:
    """What the transcripts can be filtered by, each in the order of first appearance."""
    shown = data.transcripts
    return {
        "attacks": list(dict.fromkeys(t.attempt.attack for t in shown)),
        "labels": [label for label in LABELS if any(t.attempt.prompt.label == label for t in shown)],
        "verdicts": sorted({v.label for t in shown for v in t.verdicts}),
    }


def _groups(data: ReportData) -> list[View]:
    """Transcripts side by side: one group for each thing sent (prompt, attack, sample, and which of several)."""
    places = {model.name: index for index, model in enumerate(data.models)}
    groups: dict[tuple[Any, ...], View] = {}
    seen: dict[tuple[Any, ...], int] = defaultdict(int)
    for transcript in data.transcripts:
        attempt = transcript.attempt
        key = (attempt.prompt.id, attempt.attack, attempt.sample)
        turn = seen[transcript.model, key]
        seen[transcript.model, key] += 1
        sent = _sent(attempt)
        if (*key, turn) not in groups:
            groups[*key, turn] = _group(attempt, sent)
        group = groups[*key, turn]
        answer = _answer(transcript, places[transcript.model])
        group["answers"].append(answer if sent == group["sent"] else answer | {"sent": sent})
    for group in groups.values():
        group["answers"].sort(key=lambda answer: answer["m"])
    return _mixed(groups.values())


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
