"""Ready data: STAR-1, conversations (`messages`), and prompt and response columns, with inline `<think>` (`think`) or without (`answers`).

The decision is read off the answer: one that declines refuses. A harmful prompt whose answer does not decline is rejected, as SCoT
filters its source (arXiv 2501.19180), unless its category is one that the policy supports; STAR-1 labels none of its rows, so there a
row that is not declined counts as borderline or, where the policy supports its category, as sensitive [ours].
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from forethought.chat import split
from forethought.config import describe_validation
from forethought.data.card import GUESSED
from forethought.data.files import Row, read_rows
from forethought.data.public import is_about_minors
from forethought.errors import ForethoughtError, first_line, nearest
from forethought.policy import Policy
from forethought.records import LABELS, Decision, Example, Label, Message, Prompt, Rejected, make_prompt
from forethought.refusals import classify

PROMPTS, RESPONSES = ("prompt", "question", "instruction", "input"), ("response", "output", "completion", "answer")
# (messages or text, thought where it has a field of its own, what was said, other fields)
Read = tuple[Any, str | None, str, dict[str, Any]]


def import_rows(form: str, path: Path, policy: Policy, label: Label | None = None) -> Iterator[Example | Rejected]:
    """The example or reject of every row. `label` is for rows that have none; without it the answer decides. Rows that mix minors and
    sex leave nothing but their number.

    Raises ForethoughtError for an unknown form or a row that does not have it.
    """
    minors = 0
    if form not in FORMS:
        raise ForethoughtError(f"unknown form '{form}'.{nearest(form, FORMS)}")
    for number, row in read_rows(path):
        try:
            said, thought, text, fields = FORMS[form](row)
        except (KeyError, IndexError, TypeError, ValueError) as error:
            why = describe_validation(error, Message) if isinstance(error, ValidationError) else _why(error)
            raise ForethoughtError(f"{path.name}, row {number}: {why} Is it of the form '{form}'?") from error
        if is_about_minors(row):
            minors += 1
            continue
        thought, answer, wrong = _parted(thought, text)
        given = fields.pop("label", label)
        if given is not None and given not in LABELS:
            raise ForethoughtError(f"{path.name}, row {number}: label {given!r} is none of {', '.join(LABELS)}.")
        if not (said.strip() if isinstance(said, str) else any(m.role == "user" for m in said)):
            raise ForethoughtError(f"{path.name}, row {number}: there is no user turn.")
        declined = classify(answer, said if isinstance(said, str) else said[-1].content).label == "refusal"
        prompt = make_prompt(
            said,
            given or _guess(declined, fields.get("category"), policy),
            path.stem,
            **{k: str(v) for k, v in fields.items()},
        )
        record = _judge(prompt, thought, answer, wrong, declined, form, policy, labelled=given is not None)
        try:
            record.model_dump_json()  # fails for half a surrogate pair, which no run could write
        except ValueError as error:
            raise ForethoughtError(f"{path.name}, row {number}: {first_line(error)}") from error
        yield record
    if minors:
        sys.stderr.write(f"note: {minors} rows speak of minors and of sex, by their words, and are left out.\n")


def _parted(thought: str | None, text: str) -> tuple[str | None, str, str]:
    """(thought, answer, what is wrong with them, or nothing): words of the one are never trained as the other."""
    parts = split(text)
    if parts.status == "unclosed":
        return None, "", "the thought does not end"
    if parts.status == "repeated":
        return None, parts.answer, "more than one thought, or words before it"
    if thought is None or parts.reasoning is None:
        return thought if thought is not None else parts.reasoning, parts.answer, ""
    return thought, parts.answer, "" if thought.strip() == parts.reasoning else "two thoughts"


def _judge(
    prompt: Prompt,
    thought: str | None,
    answer: str,
    wrong: str,
    declined: bool,
    form: str,
    policy: Policy,
    labelled: bool,
) -> Example | Rejected:
    def no(reason: str) -> Rejected:
        return Rejected(prompt=prompt, method=f"import:{form}", reason=reason, detail=answer[:200])

    wanted = policy.decide(prompt)
    decision: Decision = "refuse" if declined else "support" if wanted == "support" else "answer"
    if wrong:
        return no(wrong)
    if not answer.strip():
        return no("answer is empty")
    if form in ("star1", "think") and (thought is None or not thought.strip()):
        return no("no thought")
    if (decision == "refuse") != (wanted == "refuse"):
        return no("answer declines what is to be answered" if declined else "answer does not decline")
    found = policy.find(prompt)
    return Example(
        prompt=prompt,
        reasoning=thought.strip() if thought and thought.strip() else None,
        answer=answer.strip(),
        decision=decision,
        category=found.id if found and decision != "answer" else None,
        method=f"import:{form}",
        teacher="imported",
        policy=policy.hash,
        checks=("answer agrees with the label" if labelled else GUESSED,),
    )


def _guess(declined: bool, category: Any, policy: Policy) -> Label:
    if declined:
        return "harmful"
    supported = {
        x
        for c in policy.categories
        if c.respond == "support"
        for x in (c.id, *(entry.partition(":")[0] for entry in c.covers))
    }
    return "sensitive" if category in supported else "borderline"


def _star1(row: Row) -> Read:
    # Its own ids are row numbers, so content hashes name the rows.
    return _text(row, "question"), None, _text(row, "response"), _fields({"category": row.get("category")})


def _messages(row: Row) -> Read:
    turns = list(row["messages"])
    if not turns:
        raise ValueError("there are no messages.")
    last = dict(turns.pop())
    if last.get("role") != "assistant":
        raise ValueError("the last message is not the assistant's.")
    field = next((name for name in ("reasoning_content", "reasoning") if last.get(name)), None)
    messages = tuple(Message(role=m["role"], content=m["content"]) for m in turns)
    if messages and messages[-1].role == "assistant":
        raise ValueError("two turns of the assistant follow each other.")
    return messages, _text(last, field) if field else None, _text(last, "content"), _fields(row)


def _pair(row: Row) -> Read:
    """A prompt and a response, whatever their columns are called; an instruction is followed by its input, as self-instruct has them."""
    prompt = next((n for n in PROMPTS if row.get(n)), None)
    # An empty response is one; that another column holds something makes it no other.
    response = next((n for n in RESPONSES if row.get(n) is not None), None)
    if prompt is None or response is None:
        raise ValueError(f"a row needs one of {', '.join(PROMPTS)} and one of {', '.join(RESPONSES)}.")
    more = [_text(row, "input")] if prompt == "instruction" and row.get("input") else []
    return "\n\n".join([_text(row, prompt), *more]), None, _text(row, response), _fields(row)


def _fields(row: Row) -> dict[str, Any]:
    """What else is known of a row; of several categories the first."""
    known = {k: row.get(k) for k in ("id", "label", "category")}
    firsts = {k: next(iter(v), None) if isinstance(v, list) else v for k, v in known.items()}
    for name, value in firsts.items():
        if not isinstance(value, str | int | float | None):
            raise ValueError(f"'{name}' is no text but {value!r}."[:200])
    return {k: v for k, v in firsts.items() if v not in (None, "")}


def _text(row: Row, name: str) -> str:
    if not isinstance(row[name], str):
        raise ValueError(f"'{name}' is no text but {row[name]!r}."[:200])
    return str(row[name])


def _why(error: Exception) -> str:
    return f"there is no {error}." if isinstance(error, KeyError) else str(error)


FORMS: dict[str, Callable[[Row], Read]] = {
    "star1": _star1,
    "messages": _messages,
    "think": _pair,
    "answers": _pair,
}
