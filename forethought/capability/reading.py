"""What tasks share: questions from the hub or from a copy, demonstrations, and a generated answer, read or not."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from functools import cache
from importlib import resources
from typing import Any

from forethought.capability import Item
from forethought.chat import raw_reply, split
from forethought.data.files import Row
from forethought.data.public import copy_or_hub_rows, is_about_minors
from forethought.errors import ForethoughtError
from forethought.flow import Ask, Flow
from forethought.prompts import fill_messages, read_prompt
from forethought.records import Graded, Message, Messages, Reply, Sampling

SENTENCE = re.compile(r"\n+|(?<=[.!?])\s+(?=[A-Z*_])")


def read_items(task: str, path: str, hub: tuple[str, str, str], make: Callable[[Row], Item]) -> list[Item]:
    """Questions of a task from a copy at `path`, else from the hub (name, subset, split). ForethoughtError names the row at fault."""
    return list(_items(task, path, hub, make))


def ours_or_copy(task: str, path: str, name: str, make: Callable[[Row], Item]) -> list[Item]:
    """Questions of a task from a copy at `path`, else from `data/NAME.jsonl`, which ships with the package."""
    with resources.as_file(resources.files(__package__).joinpath("data", f"{name}.jsonl")) as ours:
        return read_items(task, path or str(ours), ("", "", ""), make)


def _items(task: str, path: str, hub: tuple[str, str, str], make: Callable[[Row], Item]) -> Iterator[Item]:
    for number, row in copy_or_hub_rows(task, path, *hub):
        try:
            item = make(row)
            item.model_dump_json()  # fails for half a surrogate pair, which no run could write
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            reason = f"no column {error}" if isinstance(error, KeyError) else " ".join(str(error).split())[:120]
            raise ForethoughtError(
                f"{task}: row {number} of {path or hub[0]} is not a question of {task}: {reason}."
            ) from error
        if not is_about_minors(" ".join((item.question, *item.options))):
            yield item


@cache
def demonstrations(name: str) -> tuple[dict[str, Any], ...]:
    """Solved questions in our own words, of `data/NAME.jsonl`: never questions of a test set, and the same for every model."""
    text = resources.files(__package__).joinpath("data", f"{name}.jsonl").read_text(encoding="utf-8")
    return tuple(json.loads(line) for line in text.splitlines() if line.strip())


def conversation(prompt: str, shots: list[tuple[dict[str, str], str]], values: dict[str, str]) -> Messages:
    """Demonstrations as earlier turns, then the question, each in the words of `prompts/PROMPT.md`."""
    template = read_prompt(__package__, prompt)
    turns: list[Message] = []
    for asked, answer in shots:
        turns += [*fill_messages(template, **asked), Message(role="assistant", content=answer)]
    return (*turns, *fill_messages(template, **values))


def first(name: str, shots: int) -> list[dict[str, Any]]:
    """The first `shots` demonstrations; ForethoughtError where there are not so many."""
    known = demonstrations(name)
    if not 0 <= shots <= len(known):
        raise ForethoughtError(f"shots={shots}: there are {len(known)} demonstrations. Write 0 to {len(known)}.")
    return list(known[:shots])


def generated(base: Graded, messages: Messages, sampling: Sampling, read: Callable[[str], str | None]) -> Flow[Graded]:
    """Let the model answer in its own words, thinking as it likes; `read` finds the answer in what follows the thought.

    Of a reply that was cut off the last line is not read: it may hold half a number.
    """
    reply = yield Ask("target", messages, sampling=sampling)
    assert isinstance(reply, Reply)
    raw = raw_reply("", reply)
    parts = split(raw)
    cut = reply.stop == "length"
    answer = parts.answer.rpartition("\n")[0] if cut else parts.answer
    given = read(answer) if answer else None
    error = None
    if given is None and parts.status in ("unclosed", "empty_answer"):
        error = f"no_answer: {'the thought did not end' if parts.status == 'unclosed' else 'nothing was said'}"
    elif given is None and cut:
        error = f"cut_off: no answer within {sampling.max_tokens} tokens"
    elif given is None:
        error = "unparseable: no single answer in the form that was asked for"
    return base.model_copy(
        update={
            "given": given,
            "correct": None if given is None else given == base.gold,
            "raw": raw,
            "status": parts.status,
            "stop": reply.stop,
            "completion_tokens": reply.completion_tokens,
            "error": error,
        }
    )
