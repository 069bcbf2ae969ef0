"""Attacks that stand in a file already, sent again: to another model, or to tomorrow's. What a search or an attacker found for one model,
and what others have published (HarmBench's test cases, JailbreakBench's artifacts)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from forethought.attacks import Attack, rewrite_last
from forethought.attacks.imported import GOAL, NAMES, OWN
from forethought.data.files import check_path, read_rows
from forethought.errors import AskFailed, ForethoughtError
from forethought.flow import Flow
from forethought.records import Attempt, Messages, Prompt, Sent

# What was sent (messages, or a text that takes the place of the request), and the words put into the model's mouth.
What = tuple[Messages | str, str]


def replay(path: str, attack: str = "") -> Attack:
    """A prompt is sent what the file at `path` holds for it, by its id or by its request; one for which it holds nothing is not applicable.

    The file is an attack run (or its `attempts.jsonl`), of which `attack` picks one; JSON of the form {behavior id or request: [texts]}, as
    HarmBench has its test cases; or rows with `prompt` and a `goal`, `Behavior` or `id`. ForethoughtError for a file with none.
    """
    place = Path(path).expanduser()
    place = place / "attempts.jsonl" if place.is_dir() else check_path(place)
    held: dict[str, dict[What, None]] = {}
    for keys, what in _read(place, attack):
        for key in keys:
            held.setdefault(key.strip(), {})[what] = None
    if not held:
        raise ForethoughtError(f"{path} holds no attack{f' {attack}' if attack else ''} to send again.")

    def again(prompt: Prompt) -> Flow[list[Sent]]:
        found = held.get(prompt.id) or held.get(prompt.request.strip())
        if not found:
            raise AskFailed("not_applicable", "the file holds nothing for this prompt")
        yield from ()
        return [
            Sent(messages=_messages(prompt, what), prefix=prefix, sample=i) for i, (what, prefix) in enumerate(found)
        ]

    return again


def _messages(prompt: Prompt, what: Messages | str) -> Messages:
    return rewrite_last(prompt.messages, lambda _: what) if isinstance(what, str) else what


def _read(place: Path, attack: str) -> Iterator[tuple[tuple[str, ...], What]]:
    """(ids and requests of a prompt, what was sent for it) of everything in the file."""
    if place.suffix == ".json" and isinstance(content := _json(place), dict):
        for key, texts in content.items():
            for one in texts if isinstance(texts, list) else [texts]:
                text = one.get("test_case") if isinstance(one, dict) else one
                if not isinstance(text, str) or not text.strip():
                    raise ForethoughtError(f"{place.name}: '{key}' holds something that is no text: {str(one)[:60]}")
                yield (key,), (text, "")
        return
    for number, row in read_rows(place):
        if row.keys() >= OWN:
            made = Attempt.model_validate(row)
            wanted = made.attack == attack if attack else made.attack != "direct"
            if wanted and made.messages:
                yield (made.prompt.id, made.prompt.request), (made.messages, made.prefix)
            continue
        keys = tuple(str(row[c]) for c in (*GOAL, *NAMES) if row.get(c))
        if not keys or not isinstance(row.get("prompt"), str):
            raise ForethoughtError(
                f"{place.name}, row {number}: it needs 'prompt', and one of {', '.join((*GOAL, *NAMES))}."
            )
        yield keys, (row["prompt"], "")


def _json(place: Path) -> Any:
    try:
        return json.loads(place.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise ForethoughtError(f"{place.name} is not valid JSON: {error}") from error
