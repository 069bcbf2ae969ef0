"""`scripted:` a model that follows a script. A real backend, used by tests and the documentation.

A script is a YAML file of rules tried in order: `- when: REGEX` (searched in the last user turn), `given: REGEX` (searched in the words
put into the model's mouth), `say: TEXT` (with `{text}` for that turn), optional `stop: length`, `fail: KIND`, `die: true` or
`wait: SECONDS`. Without `when` and `given` a rule always fits.
Shipped scripts: `echo`, `refuse`, `comply`.
"""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, TypeAdapter, ValidationError

from forethought.chat import with_system
from forethought.config import describe_validation, read_yaml
from forethought.errors import AskFailed, ForethoughtError, nearest
from forethought.flow import Ask, Logprobs, Question
from forethought.records import Record, Reply, digest

SHIPPED: dict[str, list[dict[str, Any]]] = {
    "echo": [{"say": "{text}"}],
    "refuse": [{"say": "I'm sorry, but I can't help with that."}],
    "comply": [
        {"say": "Sure. There are several ways to look at this, and here is a short overview of the main points."}
    ],
}
Say = Callable[[Ask], Reply | AskFailed]


class Rule(Record):
    """One rule of a script."""

    when: re.Pattern[str] = re.compile("")
    given: re.Pattern[str] = re.compile("")
    say: str = ""
    stop: Literal["stop", "length"] = "stop"
    fail: str | None = None
    die: bool = False
    wait: float = Field(default=0, ge=0)


class ScriptedModel:
    """Answers each ask with `say(ask)`; `Choose` prefers the option that `say`'s text names, else the first."""

    def __init__(self, say: Say, name: str, system: str | None = None) -> None:
        self.identity = f"scripted:{name}"
        self.pinned = True
        self._say = say
        self._system = system
        self._queue: deque[tuple[int, Question]] = deque()
        self.asked: list[Question] = []

    def fingerprint(self, question: Question) -> str:
        return digest([m.model_dump() for m in with_system(question.messages, self._system)], question.prefix)

    def submit(self, ticket: int, question: Question, seed: int) -> None:
        self._queue.append((ticket, question))
        self.asked.append(question)

    def step(self, block: bool = True) -> list[tuple[int, Reply | Logprobs | AskFailed]]:
        done, start = [], time.monotonic()
        # A slow script hands over what there is, as a server would.
        while self._queue and time.monotonic() - start < 0.01:
            ticket, question = self._queue.popleft()
            done.append((ticket, self._reply(question)))
        return done

    def close(self) -> None:
        self._queue.clear()

    def _reply(self, question: Question) -> Reply | Logprobs | AskFailed:
        if isinstance(question, Ask):
            return self._say(question)
        said = self._say(Ask(question.role, question.messages, question.prefix))
        text = said.text if isinstance(said, Reply) else ""
        scores = tuple(
            0.0 if option.strip() and option.strip() in text else -10.0 - i for i, option in enumerate(question.options)
        )
        return Logprobs(scores, tuple(1 for _ in question.options))


def load_scripted(name: str, system: str | None = None) -> ScriptedModel:
    """A shipped script by name or a YAML script by path."""
    if name in SHIPPED:
        return ScriptedModel(follow(SHIPPED[name]), name, system)
    path = Path(name)
    if not path.is_file():
        raise ForethoughtError(f"no script '{name}'.{nearest(name, SHIPPED)}")
    text = path.read_bytes()
    rules = read_yaml(name, text)
    if not isinstance(rules, list) or not all(isinstance(r, dict) for r in rules):
        raise ForethoughtError(f"'{name}' is not a script: it must be a YAML list of rules.")
    return ScriptedModel(follow(rules), digest(text.decode("utf-8")), system)


def follow(rules: list[dict[str, Any]]) -> Say:
    """The behaviour a list of rules describes. Raises ForethoughtError for a rule that cannot be read."""
    try:
        script = TypeAdapter(tuple[Rule, ...]).validate_python(rules)
    except ValidationError as error:
        raise ForethoughtError(f"script: {describe_validation(error, Rule)}") from error

    def say(ask: Ask) -> Reply | AskFailed:
        text = next((m.content for m in reversed(ask.messages) if m.role == "user"), "")
        for rule in script:
            if _fits(rule.when, text) and _fits(rule.given, ask.prefix):
                time.sleep(rule.wait)
                if rule.die:
                    raise ForethoughtError("the scripted server is down (its script says so).")
                if rule.fail is not None:
                    return AskFailed(rule.fail, "the script says so")
                said = rule.say.replace("{text}", text)
                return Reply(text=said, stop=rule.stop, completion_tokens=len(said.split()))
        return AskFailed("bad_reply", "no rule of the script fits")

    return say


def _fits(pattern: re.Pattern[str], text: str) -> bool:
    return re.search(pattern.pattern, text, re.IGNORECASE | re.DOTALL) is not None
