"""What judges that ask a model share: when there is nothing to judge, how the reply is read, and what becomes of one that cannot be.

A reply is read whole or not at all: a JSON object, lines `name: value`, or the value alone. Anything else leaves the attempt unscored.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from forethought.flow import Ask, Choose, Flow, Logprobs
from forethought.records import Attempt, Messages, Sampling, Verdict
from forethought.refusals import classify
from forethought.replies import reply_of

By = Literal["reply", "likelihood"]
FENCE = re.compile(r"```\w*\s*|\s*```")
EDGE = r"[\s*_#>\"'`\-]*"  # Markdown and quotes around names and values.
END = r"[\s*_#>\"'`\-.]*"


@dataclass(frozen=True)
class Reading:
    """What a judge's reply says."""

    score: float | None
    label: str


Read = Callable[[str], Reading | None]


def unanswered(judge: str, attempt: Attempt) -> Verdict | None:
    """The verdict on an attempt that holds no answer to judge; None where it holds one."""
    if attempt.status is None:
        return Verdict(attempt=attempt.id, judge=judge, score=None, label="error", error=attempt.error)
    if attempt.status in ("unclosed", "empty_answer") or not attempt.answer.strip():
        return Verdict(attempt=attempt.id, judge=judge, score=None, label="no_answer", raw=attempt.status)
    return None


def ask_judge(judge: str, messages: Messages, attempt: Attempt, read: Read, max_tokens: int) -> Flow[Verdict]:
    """The verdict that the model of the role `judge` gives, as `read` reads it. A thought of that model's own is left out.

    Unscored, with the reply kept: `judge_cut_off`, `judge_refused`, `judge_unreadable`.
    """
    reply = yield from reply_of(Ask("judge", messages, sampling=Sampling(max_tokens=max_tokens)))
    # What a cut-off reply ends with may be half a word or half a number.
    found = read(reply.text) if reply.stop == "stop" else None
    if found is not None:
        return Verdict(attempt=attempt.id, judge=judge, score=found.score, label=found.label, raw=reply.text)
    label, error = "judge_unreadable", "the judge's reply has not the form that was asked for"
    if reply.stop == "length":
        label, error = "judge_cut_off", f"the judge's reply did not end within {max_tokens} tokens"
    elif classify(reply.text).label == "refusal":
        label, error = "judge_refused", "the judge's model refused to judge"
    return Verdict(attempt=attempt.id, judge=judge, score=None, label=label, raw=reply.text, error=error)


def choose_verdict(
    judge: str, messages: Messages, attempt: Attempt, choices: dict[str, Reading], prefix: str = ""
) -> Flow[Verdict]:
    """The likeliest of the options in `choices`. AskFailed where the model gives no likelihoods.

    Not less their likelihood after a text without content (Zhao et al. 2021, arXiv 2102.09690): of nothing, a judge that knows its task is
    sure that it is safe, and whatever it were a little less sure of would count as harm."""
    options = tuple(choices)
    found = yield Choose("judge", messages, options, prefix)
    assert isinstance(found, Logprobs)
    best = choices[options[found.logprobs.index(max(found.logprobs))]]
    raw = ", ".join(f"{option.strip()} {value:+.2f}" for option, value in zip(options, found.logprobs, strict=True))
    return Verdict(attempt=attempt.id, judge=judge, score=best.score, label=best.label, raw=raw)


def read_fields(text: str, names: tuple[str, ...]) -> dict[str, str] | None:
    """The value of each name, in lower case; None where one is missing or is given twice and differently.

    `text` is a JSON object with these keys, or has a line `name: value` for each. For a single name the value alone will do.
    """
    bare = FENCE.sub("", text).strip()
    if bare.startswith("{"):
        return _from_json(bare, names)
    found: dict[str, str] = {}
    for line in bare.splitlines():
        for name in names:
            match = re.fullmatch(rf"{EDGE}{re.escape(name)}{EDGE}[:=]{EDGE}(.*?){END}", line, re.IGNORECASE)
            if match and found.setdefault(name, match[1].lower()) != match[1].lower():
                return None
    if not found and len(names) == 1 and len(bare.splitlines()) == 1:
        match = re.fullmatch(rf"{EDGE}(.*?){END}", bare)
        found = {names[0]: match[1].lower()} if match else {}
    return found if set(found) == set(names) else None


def read_number(text: str, low: int, high: int) -> int | None:
    """A whole number within the scale; `4/5` is 4 on a scale that ends at 5, and nothing on any other."""
    match = re.fullmatch(rf"(\d{{1,4}})(?:\s*/\s*{high})?", text)
    return int(match[1]) if match and low <= int(match[1]) <= high else None


def _from_json(text: str, names: tuple[str, ...]) -> dict[str, str] | None:
    try:
        # A key that comes twice is no clear word.
        pairs = json.loads(text, object_pairs_hook=lambda items: items)
    except ValueError:
        return None
    found: dict[str, str] = {}
    for key, value in pairs if isinstance(pairs, list) else []:
        if isinstance(value, bool):
            value = "yes" if value else "no"
        name = str(key).lower()
        if name in names and (name in found or not isinstance(value, str | int)):
            return None
        if name in names:
            found[name] = str(value).strip().lower()
    return found if set(found) == set(names) else None
