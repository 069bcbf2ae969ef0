"""Attempts that other tools have made: our own `attempts.jsonl`, one JSON object a line, or completions as HarmBench writes them.

One object a line: `prompt` (text or messages) and `response`; and if known `goal`, `attack`, `label` (else harmful), `category` and `id`.
HarmBench: `{behavior_id: [{"test_case": ..., "generation": ...}]}`, its goals from the behaviors' file.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from forethought.chat import split
from forethought.data.files import check_path, read_rows
from forethought.errors import ForethoughtError, nearest
from forethought.records import LABELS, Attempt, Message, Messages, Prompt, make_prompt, user

KNOWN = ("prompt", "response", "goal", "attack", "label", "category", "id")
OWN = {"id", "prompt", "attack", "messages", "raw"}
GOAL = ("Behavior", "behavior", "goal", "Goal")
NAMES = ("BehaviorID", "behavior_id", "id")


def read_attempts(
    path: Path, attack: str = "imported", label: str = "harmful", goals: Path | None = None
) -> list[Attempt]:
    """The attempts of a file, in its order. `attack` and `label` hold for rows that do not say; `goals` names each behavior's request.

    Raises ForethoughtError that names the file and the row at fault, and for a file without a row.
    """
    if label not in LABELS:
        raise ForethoughtError(f"label '{label}' is none of {', '.join(LABELS)}.")
    known = read_goals(goals) if goals else {}
    content = None if check_path(path).suffix != ".json" else _json(path)
    rows = _harmbench(path, content, known) if isinstance(content, dict) else read_rows(path)
    made: list[Attempt] = []
    counts: Counter[str] = Counter()
    prompts: dict[str, Prompt] = {}
    for number, row in rows:
        try:
            one = _own(row) if row.keys() >= OWN else _simple(row, attack, label)
            one.model_dump_json()  # fails for half a surrogate pair, which no run could write
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(p) for p in first["loc"])
            raise ForethoughtError(f"{path.name}, row {number}: '{where}': {first['msg']}.") from error
        except (ValueError, TypeError) as error:
            raise ForethoughtError(f"{path.name}, row {number}: {error}") from error
        if prompts.setdefault(one.prompt.id, one.prompt) != one.prompt:
            raise ForethoughtError(f"{path.name}, row {number}: the id '{one.prompt.id}' is on two different prompts.")
        key = f"{one.attack}/{one.prompt.id}"
        made.append(one.model_copy(update={"id": f"{key}/{counts[key]}"}))
        counts[key] += 1
    if not made:
        raise ForethoughtError(f"{path} holds no attempt.")
    return made


def read_goals(path: Path) -> dict[str, str]:
    """Behavior id to request, from a file with such columns as HarmBench's `BehaviorID` and `Behavior`, behind the `ContextString` where it
    has one."""
    found: dict[str, str] = {}
    for number, row in read_rows(path):
        name, goal = (next((row[c] for c in columns if row.get(c)), None) for columns in (NAMES, GOAL))
        if not isinstance(name, str) or not isinstance(goal, str):
            raise ForethoughtError(f"{path.name}, row {number}: it needs a column {NAMES[0]} and a column {GOAL[0]}.")
        context = row.get("ContextString")
        found[name] = f"{context}\n\n{goal}" if isinstance(context, str) and context.strip() else goal
    return found


def _own(row: dict[str, Any]) -> Attempt:
    return Attempt.model_validate(row)


def _simple(row: dict[str, Any], attack: str, label: str) -> Attempt:
    unknown = [k for k in row if k not in KNOWN]
    if unknown:
        raise ValueError(f"unknown key '{unknown[0]}'.{nearest(str(unknown[0]), KNOWN)}")
    prompt, response = row.get("prompt"), row.get("response")
    if not isinstance(response, str):
        raise ValueError(f"'response' must be a text, not {type(response).__name__}.")
    if not isinstance(prompt, str | list) or not prompt:
        raise ValueError("'prompt' must be a text or a list of messages, and not empty.")
    messages: Messages = user(prompt) if isinstance(prompt, str) else tuple(map(Message.model_validate, prompt))
    fields = {k: str(row[k]) for k in ("goal", "category") if row.get(k) not in (None, "")}
    said = row.get("label") or label
    if said not in LABELS:
        raise ValueError(f"label {said!r} is none of {', '.join(LABELS)}.")
    # What is judged is the request. All attacks on one goal are attempts on one prompt, as in runs of ours.
    goal = fields.pop("goal", None)
    asked = make_prompt(goal or messages, said, "imported", id=str(row["id"]) if row.get("id") else None, **fields)
    parts = split(response)
    return Attempt(
        id="",
        prompt=asked,
        attack=named(str(row.get("attack") or attack)),
        messages=messages,
        raw=response,
        reasoning=parts.reasoning,
        answer=parts.answer,
        status=parts.status,
        stop="stop",
    )


def named(attack: str) -> str:
    """A name as attacks have them: letters, digits, dots, dashes and underscores."""
    return re.sub(r"[^\w.\-]+", "_", attack).strip("_") or "imported"


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes().decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise ForethoughtError(f"{path.name}: not UTF-8 text.") from error
    except json.JSONDecodeError as error:
        raise ForethoughtError(f"{path.name}: not valid JSON ({error.msg} at line {error.lineno}).") from error


def _harmbench(path: Path, content: dict[str, Any], goals: dict[str, str]) -> Iterator[tuple[int, dict[str, Any]]]:
    number = 0
    for behavior, cases in content.items():
        if not isinstance(cases, list):
            raise ForethoughtError(f"{path.name}, behavior '{behavior}': expected a list of completions.")
        if goals and behavior not in goals:
            raise ForethoughtError(
                f"{path.name}: behavior '{behavior}' is not among the goals.{nearest(behavior, goals)}"
            )
        for case in cases:
            number += 1
            if not isinstance(case, dict) or not {"test_case", "generation"} <= case.keys():
                raise ForethoughtError(
                    f"{path.name}, row {number} (behavior '{behavior}'): expected an object with 'test_case' and 'generation'."
                )
            row = {"prompt": case["test_case"], "response": case["generation"], "goal": goals.get(behavior)}
            yield number, row | ({"id": behavior} if goals else {})
