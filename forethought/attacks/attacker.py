"""What attacks share that have a model write for them: fresh samples until one can be used, and what makes one useless.

A text of the attacker is useless where it is empty, cut off, a refusal, the request itself, or where it lost what the request asks for. No
use in the end is `not_applicable`, with the last reason: an unattacked prompt is never sent under an attack's name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TypeVar

from forethought.attacks import UNCHANGED, Attack, rewrite_last
from forethought.chat import split
from forethought.errors import AskFailed
from forethought.flow import Ask, Flow
from forethought.records import Messages, Prompt, Reply, Sampling, Sent
from forethought.refusals import STOP_EN
from forethought.replies import reply_of
from forethought.styles.rewrite import fault_of

T = TypeVar("T")
PREAMBLE = re.compile(
    r"\A(?:sure|certainly|of course|here(?:['’]s| is| are))\b[^\n]{0,100}:\s*\n+(?=\S)", re.IGNORECASE
)
QUOTES = {'"': '"', "'": "'", "“": "”", "«": "»", "`": "`"}
# Words that a prompt may have beyond four times those of its request.
ROOM = 300


class Useless(Exception):
    """What an attacker wrote cannot be used; the message completes "the attacker's text ..."."""


class CutOff(Useless):
    """It is not whole: the next needs more room."""


def from_attacker(
    messages: Messages, read: Callable[[str], T], tries: int = 3, sample: int = 0, max_tokens: int = 400
) -> Flow[T]:
    """What `read` makes of the attacker's reply, which raises Useless for one it cannot use: `fresh` samples then."""
    return (yield from fresh(lambda i, room: one_text(messages, read, i, room), tries, sample, max_tokens))


def fresh(make: Callable[[int, int], Flow[T]], tries: int, sample: int, max_tokens: int) -> Flow[T]:
    """What `make(sample, room)` makes, or where it raises Useless, what it makes of the next sample. Samples count from `sample`.

    A model that thinks first may need more than `max_tokens`, so each cut-off doubles the room of the next. AskFailed of kind
    `not_applicable` with the last reason after `tries`.
    """
    reason, room = "was not asked for", max_tokens
    for i in range(sample, sample + tries):
        try:
            return (yield from make(i, room))
        except CutOff as useless:
            reason, room = str(useless), 2 * room
        except Useless as useless:
            reason = str(useless)
        except AskFailed as error:
            if error.kind != "too_long" or room == max_tokens:
                raise
            break
    raise AskFailed("not_applicable", f"the attacker's text {reason}, in {tries} tries")


def one_text(messages: Messages, read: Callable[[str], T], sample: int, room: int) -> Flow[T]:
    """What `read` makes of one reply of the attacker. Useless for one that cannot be used, CutOff where `room` tokens were too few."""
    sampling = Sampling(temperature=0.8, top_p=0.95, max_tokens=room)
    reply = yield from reply_of(Ask("attacker", messages, sample=sample, sampling=sampling))
    if reply.stop == "length":
        raise CutOff("is cut off")
    return read(bare(reply.text))


def rewriting(
    ask: Callable[[str], Messages], tries: int, share: float = 0.0, check: Callable[[str], None] | None = None
) -> Attack:
    """An attack that sends once what the attacker makes of the last user turn, asked by `ask(text)`.

    At least `share` of the words that carry the request's meaning must be kept; `check` raises Useless for further faults.
    """

    def attack(prompt: Prompt) -> Flow[list[Sent]]:
        text = text_of(prompt)
        messages = ask(text)
        shown = [m.content for m in messages if m.role == "assistant"]

        def read(said: str) -> str:
            usable(said, text, shown, share)
            if check is not None:
                check(said)
            return said

        said = yield from from_attacker(messages, read, tries)
        return [Sent(messages=rewrite_last(prompt.messages, lambda _: said))]

    return attack


def text_of(prompt: Prompt) -> str:
    """The last user turn. AskFailed of kind `not_applicable` where there is none or it is blank."""
    if not prompt.text.strip():
        raise AskFailed("not_applicable", UNCHANGED)
    return prompt.text


def bare(text: str) -> str:
    """`text` without a line before it such as "Here is the prompt:", and without space and one pair of quotes around it."""
    text = PREAMBLE.sub("", text.strip())
    inner = text[1:-1]
    if len(text) > 1 and QUOTES.get(text[0]) == text[-1] and text[0] not in inner and text[-1] not in inner:
        return inner.strip()
    return text


def usable(said: str, request: str, shown: Sequence[str] = (), share: float = 0.0) -> str:
    """`said`, unless something is wrong with it as another wording of the request: raises Useless. `share` is that of the request's
    words that must be kept; one at least."""
    fault = fault_of(said, request, list(shown), room=ROOM)
    if not fault and loses(said, request, share):
        fault = "lost what the request asks for"
    if fault:
        raise Useless(fault)
    return said


def loses(said: str, request: str, share: float = 0.0) -> bool:
    """Whether of the words of the request that carry meaning fewer than `share`, or none, are in `said`; compared by their first four
    letters."""
    wanted = {w[:4] for w in _words(request) if len(w) > 2 and w not in STOP_EN}
    kept = wanted & {w[:4] for w in _words(said)}
    return bool(wanted) and len(kept) < max(1, share * len(wanted))


def ask_target(messages: Messages) -> Flow[tuple[Reply, str]]:
    """The target's reply, and its answer without its thought: empty where it has none. The stage sets how the target samples."""
    reply = yield Ask("target", messages)
    assert isinstance(reply, Reply)
    return reply, split(reply.text, reply.opened).answer.strip()


def clip(text: str, words: int = 120) -> str:
    """The first words of a text, for showing it to a model whose context may be small."""
    spans = [m.end() for m in re.finditer(r"\S+", text[: 20 * words])]
    return text[: spans[words - 1]] + " ..." if len(spans) > words else text[: 20 * words]


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())
