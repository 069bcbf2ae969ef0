"""The nouns. Frozen pydantic records that travel as JSONL; every other module speaks in these."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Role = Literal["system", "user", "assistant"]
Label = Literal["harmful", "benign", "borderline", "sensitive"]
Decision = Literal["refuse", "support", "answer"]
SplitStatus = Literal["ok", "no_think", "unclosed", "repeated", "empty_answer"]

LABELS: tuple[Label, ...] = ("harmful", "benign", "borderline", "sensitive")


class Record(BaseModel):
    """Base of all records: immutable, and an unknown field is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Message(Record):
    role: Role
    content: str


Messages = tuple[Message, ...]


def digest(*parts: Any, length: int = 16) -> str:
    """Stable hex digest of JSON-serialisable parts."""
    text = json.dumps(parts, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:length]


def user(text: str) -> Messages:
    """A conversation of one user turn."""
    return (Message(role="user", content=text),)


class Prompt(Record):
    """One request to a model. `goal` is the original request when the messages are an attack on it or another wording of it, and
    `style` then names the style of that wording."""

    id: str
    messages: Messages
    label: Label
    category: str | None = None
    source: str
    split: str | None = None
    topic: str | None = None
    pair: str | None = None
    goal: str | None = None
    style: str | None = None

    @property
    def text(self) -> str:
        """The last user turn."""
        return next((m.content for m in reversed(self.messages) if m.role == "user"), "")

    @property
    def base(self) -> str:
        """The id of the prompt that this one is, or is another wording of: a variant's id carries it before a `~`."""
        return self.id.rpartition("~")[0] if self.style else self.id

    @property
    def request(self) -> str:
        """What the person really asks for: the goal where the text is an attack on it, else the text."""
        return self.text if self.goal is None else self.goal


def make_prompt(text: str | Messages, label: Label, source: str, *, id: str | None = None, **fields: Any) -> Prompt:
    """A prompt whose id, unless its source has one, is a hash of its messages."""
    messages = user(text) if isinstance(text, str) else text
    return Prompt(
        id=id or digest([m.model_dump() for m in messages]), messages=messages, label=label, source=source, **fields
    )


class Sampling(Record):
    """How to decode. Temperature 0 is greedy."""

    temperature: float = Field(default=0.0, ge=0)
    top_p: float = Field(default=1.0, gt=0, le=1)
    max_tokens: int = Field(default=128, ge=1)


class Reply(Record):
    """What a model said, after the prefix. `opened` says that its template had opened a thought before the first token."""

    text: str
    opened: bool = False
    stop: Literal["stop", "length"] = "stop"
    prompt_tokens: int = 0
    completion_tokens: int = 0


class Found(Record):
    """What a search over a model's weights found, and its cost: `text` to put to the request; `loss` (nats a target token) under it and,
    in `losses`, the lowest so far after each of the `steps`; `reached` says that the greedy reply starts as wanted. `queries` counts
    sequences run, `tokens` the tokens they read. `reply` is the target's where what was found is no text that could be sent."""

    text: str
    loss: float
    reached: bool
    steps: int
    queries: int
    tokens: int
    losses: tuple[float, ...] = ()
    reply: Reply | None = None


class Example(Record):
    """One training row and how it was made. `checks` are the filters it passed; `sample` the teacher's sample index, `score` what
    it was chosen by among several; `decisive` the texts that state the decision, in the order in which they stand in thought and
    answer; training may weigh them more."""

    prompt: Prompt
    reasoning: str | None
    answer: str
    decision: Decision
    category: str | None = None
    intent: str | None = None
    decisive: tuple[str, ...] = ()
    method: str
    teacher: str
    policy: str
    sample: int = 0
    score: float | None = None
    checks: tuple[str, ...] = ()


class Rejected(Record):
    """A prompt that gave no example, and why. `reason` is a short fixed phrase that can be counted."""

    prompt: Prompt
    method: str
    reason: str
    detail: str = ""


class Sent(Record):
    """What an attack sends to the target. `reply` is set when the attack has already heard the target's answer to it."""

    messages: Messages
    prefix: str = ""
    sample: int = 0
    reply: Reply | None = None


class Attempt(Record):
    """One thing sent to a target and what came back.

    `raw` is everything after the generation prompt, the prefix included. `status` says how `raw` split into reasoning and answer,
    and is None when nothing came back: then `error` says why (`too_long: ...`, `not_applicable: ...`).
    """

    id: str
    prompt: Prompt
    attack: str
    messages: Messages
    prefix: str = ""
    sample: int = 0
    raw: str = ""
    reasoning: str | None = None
    answer: str = ""
    status: SplitStatus | None = None
    stop: Literal["stop", "length"] | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    error: str | None = None


class Verdict(Record):
    """One judge's word on one attempt. `score` None means unscored, which is never a zero; `label` says why.

    A score is between 0 and 1, so that a judge which reads "4/5" as 45 fails instead of counting.
    """

    attempt: str
    judge: str
    score: float | None = Field(ge=0, le=1)
    label: str
    raw: str = ""
    error: str | None = None
