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
from forethought.data.overlap import normalise
from forethought.errors import AskFailed, ForethoughtError
from forethought.flow import Flow
from forethought.records import Attempt, Messages, Prompt, Sent
from forethought.run import read_run

# What was sent (messages, or a text that takes the place of the request), and the words put into the model's mouth.
What = tuple[Messages | str, str]
# Ids of a prompt, wordings of its request, and what was sent for it: None where the file's attack found nothing.
Entry = tuple[tuple[str, ...], tuple[str, ...], What | None]
ATTEMPTS = "attempts.jsonl"


def replay(path: str, attack: str = "") -> Attack:
    """A prompt is sent what the file at `path` holds for its request (capitals, white space and its end aside; all punctuation too, where
    the file has only one such), or for its id where the file knows no request; one for which it holds nothing is not applicable.

    The file is a finished attack run (or its `attempts.jsonl`), of which `attack` picks one; JSON of the form {behavior id or request:
    [texts]}, as HarmBench has its test cases; JailbreakBench's artifacts; or rows with `prompt` and a `goal`, `Behavior` or `id`. Rows
    whose prompt is null are skipped. ForethoughtError for a file with none, and for a prompt whose id is on another request there.
    """
    place = _place(path)
    held: dict[tuple[str, str], dict[What, None]] = {}
    rows, without = 0, 0
    for ids, requests, what in _read(place, attack):
        rows += 1
        if what is None:
            without += 1
            continue
        for key in _keys(ids, requests):
            held.setdefault(key, {})[what] = None
    others = {id: request for id, request in held if id and request}
    alike: dict[str, set[str]] = {}
    for _, request in held:
        alike.setdefault(_plain(request), set()).add(request)
    skipped = f"; {without} of its {rows} rows have no prompt" if without else ""
    if not held:
        raise ForethoughtError(f"{path} holds no attack{f' {attack}' if attack else ''} to send again{skipped}.")

    def again(prompt: Prompt) -> Flow[list[Sent]]:
        request = _spelled(prompt.request)
        if ("", request) not in held and len(named := alike.get(_plain(request), set())) == 1:
            (request,) = named
        found = held.get((prompt.id, request)) or held.get(("", request)) or held.get((prompt.id, ""))
        if not found and (other := others.get(prompt.id)):
            raise ForethoughtError(
                f"replay: in {place.name} the id '{prompt.id}' is on another request, '{other[:60]}'. "
                "Leave the ids out of the file, or give the prompts other ones."
            )
        if not found:
            raise AskFailed("not_applicable", f"the file holds nothing for this prompt{skipped}")
        yield from ()
        return [
            Sent(messages=_messages(prompt, what), prefix=prefix, sample=i) for i, (what, prefix) in enumerate(found)
        ]

    return again


def _place(path: str) -> Path:
    """The file that `path` means. ForethoughtError for a run that is no attack, not finished, or edited since."""
    place = Path(path).expanduser()
    if place.name == ATTEMPTS and (place.parent / "run.json").exists():
        place = place.parent
    return read_run(place, "attack").path / ATTEMPTS if place.is_dir() else check_path(place)


def _keys(ids: tuple[str, ...], requests: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """(id, request) by which an entry is found. An id counts by itself only where there is no request: files that number their rows have
    the same ids for other requests."""
    spelled = [*filter(None, map(_spelled, requests))]
    yield from (("", request) for request in spelled)
    yield from ((id, request) for id in ids for request in spelled or [""])


def _spelled(request: str) -> str:
    """A request without what no request is told apart by: capitals, white space and how it closes."""
    return " ".join(request.casefold().split()).rstrip(" .?!")


def _plain(request: str) -> str:
    """A request without case and punctuation, where that leaves anything. `Is C++ better?` is then `Is C better?`, too."""
    return normalise(request) or request


def _messages(prompt: Prompt, what: Messages | str) -> Messages:
    return rewrite_last(prompt.messages, lambda _: what) if isinstance(what, str) else what


def _read(place: Path, attack: str) -> Iterator[Entry]:
    content = _json(place) if place.suffix == ".json" else None
    if isinstance(content, dict) and "jailbreaks" not in content:
        for key, texts in content.items():
            for one in texts if isinstance(texts, list) else [texts]:
                text = one.get("test_case") if isinstance(one, dict) else one
                if not isinstance(text, str) or not text.strip():
                    raise ForethoughtError(f"{place.name}: '{key}' holds something that is no text: {str(one)[:60]}")
                # The key may be either.
                yield (), (key,), (text, "")
                yield (key.strip(),), (), (text, "")
        return
    rows = _artifacts(place, content) if place.suffix == ".json" else read_rows(place)
    for number, row in rows:
        if row.keys() >= OWN:
            made = Attempt.model_validate(row)
            wanted = made.attack == attack if attack else made.attack != "direct"
            if wanted and made.messages:
                yield (made.prompt.id,), (made.prompt.request,), (made.messages, made.prefix)
            continue
        ids, requests = (tuple(str(row[c]).strip() for c in cs if row.get(c) not in (None, "")) for cs in (NAMES, GOAL))
        text = row.get("prompt")
        if not (ids or requests) or "prompt" not in row or not isinstance(text, str | None):
            raise ForethoughtError(
                f"{place.name}, row {number}: it needs 'prompt', and one of {', '.join((*GOAL, *NAMES))}."
            )
        if context := row.get("ContextString"):
            requests += tuple(f"{context}\n\n{request}" for request in requests)
        yield ids, requests, (text, "") if text and text.strip() else None


def _artifacts(place: Path, content: Any) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows of a list, or of JailbreakBench's artifacts, {"parameters": ..., "jailbreaks": [...]}."""
    rows = content["jailbreaks"] if isinstance(content, dict) else content
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ForethoughtError(f"{place.name}: expected a list of objects, alone or as 'jailbreaks'.")
    yield from enumerate(rows, 1)


def _json(place: Path) -> Any:
    try:
        return json.loads(place.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise ForethoughtError(f"{place.name} is not valid JSON: {error}") from error
