"""PAIR: an attacker improves its prompt from the target's answer and a grade (Chao et al. 2023, arXiv 2310.08419).

The paper runs up to 30 streams of 3 turns with a fourfold system prompt; defaults here are small. Prompts are ours, and so are the two
lines in place of the paper's JSON, which small attackers do not keep to.
"""

from __future__ import annotations

import re

from forethought.attacks import Attack, rewrite_last
from forethought.attacks.attacker import Useless, ask_target, bare, clip, from_attacker, text_of, usable
from forethought.attacks.grading import By, Try, best, check_counts, grade
from forethought.errors import AskFailed
from forethought.flow import Flow
from forethought.prompts import fill_messages, read_lines, read_prompt
from forethought.records import Message, Messages, Prompt, Sent

PROMPT = re.compile(r"(?:(?:\W*idea\W*:)?[^\n]*\n\s*)?\W*prompt\W*?:\W*?\s(?P<prompt>\S.*)", re.IGNORECASE | re.DOTALL)
LABEL = re.compile(r"^\W*(?:prompt|idea)\W*:", re.IGNORECASE | re.MULTILINE)
# Turns of its own that the attacker still sees.
MEMORY = 2


def pair(streams: int = 3, turns: int = 3, enough: int = 10, by: By = "auto", tries: int = 3) -> Attack:
    """`streams` conversations with the attacker, each with another approach and `turns` prompts, until a reply is graded `enough`. Sends
    the best. What no longer fits a context ends its stream only. A helper grades, see grading.py."""
    check_counts("pair", enough, streams=streams, turns=turns, tries=tries)

    def attack(prompt: Prompt) -> Flow[list[Sent]]:
        text_of(prompt)
        found: list[Try] = []
        failure = AskFailed("not_applicable", "")
        for stream in range(streams):
            history = opening(prompt.request, stream)
            for _ in range(turns):
                try:
                    said = yield from improved(history, prompt.request, tries, stream * tries)
                    tried = yield from put(prompt, said, by)
                except AskFailed as error:
                    # This stream is at its end; another may do better, and what was tried is kept.
                    failure = only_an_end(error)
                    break
                found.append(tried)
                if (tried.grade or 0) >= enough:
                    return best(found)
                history = feedback(history, said, tried, prompt.request)
        if not found:
            raise failure
        return best(found)

    return attack


def opening(request: str, approach: int) -> Messages:
    """What the attacker is first asked, with one of the approaches."""
    approaches = read_lines(__package__, "approaches")
    template = read_prompt(__package__, "improve")
    return fill_messages(template, request=request, approach=approaches[approach % len(approaches)])


def improved(history: Messages, request: str, tries: int, sample: int = 0) -> Flow[str]:
    """The attacker's next prompt. AskFailed of kind `not_applicable` where it writes none that can be used, or its context is full."""
    shown = [read_prompt_line(m.content) for m in read_prompt(__package__, "improve") if m.role == "assistant"]

    def read(said: str) -> str:
        return usable(read_prompt_line(said), request, shown)

    try:
        return (yield from from_attacker(history, read, tries, sample))
    except AskFailed as error:
        raise AskFailed("not_applicable", error.message) if error.kind == "too_long" else error from error


def read_prompt_line(said: str) -> str:
    """What follows `Prompt:`, after one line at most; raises Useless for any other form."""
    match = PROMPT.fullmatch(said)
    if not match or LABEL.search(match["prompt"]):
        raise Useless("has not the form that was asked for" if said else "is empty")
    return bare(match["prompt"])


def put(prompt: Prompt, said: str, by: By) -> Flow[Try]:
    """The prompt `said` in place of the request, the target's reply to it, and its grade."""
    messages = rewrite_last(prompt.messages, lambda _: said)
    reply, answer = yield from ask_target(messages)
    return Try(messages, reply, answer, (yield from grade(prompt.request, answer, by)))


def feedback(history: Messages, said: str, tried: Try, request: str) -> Messages:
    """The conversation with the attacker after one more try, without what lies too far back."""
    first, own = len(read_prompt(__package__, "improve")), [Message(role="assistant", content=f"Prompt: {said}")]
    told = fill_messages(
        read_prompt(__package__, "feedback"),
        answer=clip(tried.answer) or "(nothing)",
        grade=str(tried.grade or "unknown"),
        request=request,
    )
    return (*history[:first], *(*history[first:], *own, *told)[-2 * MEMORY :])


def only_an_end(error: AskFailed) -> AskFailed:
    """The failure where it is that nothing more can be said or read; any other goes on its way."""
    if error.kind not in ("not_applicable", "too_long"):
        raise error
    return error
