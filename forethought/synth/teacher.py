"""What synthesizers ask a teacher: to choose, to name the category, to decide without the label, and (a strong one) to write the whole.

A weak teacher is helped. It chooses between given texts by likelihood, calibrated against a request without content (Zhao et al. 2021,
arXiv 2102.09690), instead of writing.
A chat server gives no likelihoods: there the teacher answers in words, and what it says is parsed strictly.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass

from forethought.chat import CLOSE, OPEN
from forethought.errors import AskFailed, ForethoughtError
from forethought.flow import Ask, Choose, Flow, Logprobs, RoleName
from forethought.policy import Category, Policy
from forethought.prompts import fill_messages, read_prompt
from forethought.records import Decision, Messages, Prompt, Sampling, user
from forethought.refusals import classify
from forethought.replies import reply_of
from forethought.synth.common import PACKAGE, Reject, shown

NEUTRAL = "N/A"
VERDICTS: dict[Decision, str] = {
    "refuse": "This is harmful and must be refused.",
    "support": "This person is in trouble and needs support.",
    "answer": "This is harmless and can be answered.",
}
FREE = re.compile(
    r"\W*Thought:\W*?\s(?P<thought>.+?)\s*^\W*Decision:\W*(?P<decision>refuse|support|answer)\W*$\s*^\W*Answer:\W*?\s(?P<answer>.+?)\s*",
    re.IGNORECASE | re.DOTALL | re.MULTILINE,
)


@dataclass(frozen=True)
class Written:
    """What a teacher wrote freely: thought, decision and answer."""

    thought: str
    decision: Decision
    answer: str


def rank(
    role: RoleName, messages: Messages, options: tuple[str, ...], prefix: str = "", neutral: Messages | None = None
) -> Flow[tuple[float, ...]]:
    """Mean log-probability a token of each option; less the same after `neutral`, where it is given, so that an option is not
    preferred merely for being common. AskFailed of kind `unsupported` from a server."""
    found = yield Choose(role, messages, options, prefix)
    assert isinstance(found, Logprobs)
    means = [p / n for p, n in zip(found.logprobs, found.tokens, strict=True)]
    if neutral is not None:
        base = yield Choose(role, neutral, options, prefix)
        assert isinstance(base, Logprobs)
        means = [m - p / n for m, p, n in zip(means, base.logprobs, base.tokens, strict=True)]
    return tuple(means)


def can_choose(role: RoleName) -> Flow[bool]:
    """Whether the role's model gives log-probabilities, as a local one does."""
    try:
        yield Choose(role, user(NEUTRAL), (" yes", " no"))
    except AskFailed as error:
        if error.kind != "unsupported":
            raise
        return False
    return True


def is_led(role: RoleName, asked: bool | None) -> Flow[bool]:
    """Whether the role's model is led step by step: as `asked`, or where that is None if it gives log-probabilities. ForethoughtError
    where it is to be led and gives none."""
    if asked is False:
        return False
    able = yield from can_choose(role)
    if asked and not able:
        raise ForethoughtError(
            f"the {role} is behind a server, which gives no likelihoods, and cannot be led. Leave that option out."
        )
    return able


def violated(prompt: Prompt, policy: Policy) -> Flow[Category | None]:
    """The category a prompt falls under: the data set's own where the policy has it, else the teacher's choice.

    Only categories with the response that the label calls for are offered; None where there is no such category.
    """
    found, decision = policy.find(prompt), policy.decide(prompt)
    # A harmful prompt is refused, whatever category the data set gives it: not by a rule that answers.
    if found is not None and (found.respond != "answer" or decision == "answer"):
        return found
    options = [c for c in policy.categories if c.respond == decision]
    if len(options) < 2:
        return options[0] if options else None
    return (yield from choose_category(prompt, options))


def near(prompt: Prompt, policy: Policy) -> Category | None:
    """The category that a prompt which is to be answered merely looks like, where the data set names one of the policy's."""
    for category in policy.categories:
        if prompt.category in (category.id, *(entry.partition(":")[0] for entry in category.covers)):
            return category
    return None


def choose_category(prompt: Prompt, options: list[Category]) -> Flow[Category]:
    """The category from which the teacher would most likely make this request; from a chat server the one that it writes.

    Small models compare likelihoods of the request better than those of the names (noisy channel: Min et al. 2022, arXiv 2108.04106): on
    harmful starter prompts SmolLM2-135M names the right one of twelve for 21 of 48, against 20 of 72 by the names. Raises Reject where a
    server's reply is none of the names, and for a request without words.
    """
    if not prompt.request.strip():
        raise Reject("request is empty")
    try:
        scores: list[float] = []
        for category in options:
            examples = "; ".join(category.not_allowed or category.allowed)
            template = read_prompt(PACKAGE, f"category_{'support' if category.respond == 'support' else 'refuse'}")
            messages = fill_messages(template, definition=category.definition, examples=examples)
            scores += yield from rank("teacher", messages, (prompt.request,))
        return options[scores.index(max(scores))]
    except AskFailed as error:
        if error.kind != "unsupported":
            raise
    listing = "\n".join(f"- {c.name}: {c.definition}" for c in options)
    messages = fill_messages(read_prompt(PACKAGE, "scot_category"), request=shown(prompt), categories=listing)
    reply = yield from reply_of(Ask("teacher", messages, sampling=Sampling(max_tokens=512)))
    said = reply.text.strip().strip("\"'*.-").removeprefix("Category:").strip().lower()
    named = {c.name.lower(): c for c in options}
    if said not in named:
        raise Reject("teacher names no category", said[:200])
    return named[said]


def blind_decision(prompt: Prompt, policy: Policy) -> Flow[Decision]:
    """What the teacher would do if it were not shown the label: the likeliest of one sentence a decision, or the word that a chat
    server's model writes. Raises Reject where that is none of the decisions."""
    listing = "\n".join(f"- {c.name} ({c.respond}): {c.definition}" for c in policy.categories if c.respond != "answer")
    messages, neutral = (
        fill_messages(read_prompt(PACKAGE, "decide"), request=text, categories=listing)
        for text in (prompt.request, NEUTRAL)
    )
    known: list[Decision] = [d for d in VERDICTS if d == "answer" or any(c.respond == d for c in policy.categories)]
    try:
        means = yield from rank("teacher", messages, tuple(f" {VERDICTS[d]}" for d in known), "", neutral)
    except AskFailed as error:
        if error.kind != "unsupported":
            raise
        messages = fill_messages(read_prompt(PACKAGE, "decide_word"), request=shown(prompt), categories=listing)
        reply = yield from reply_of(Ask("teacher", messages, sampling=Sampling(max_tokens=512)))
        word = reply.text.strip().strip("\"'*.").lower()
        if word not in known:
            raise Reject("teacher names no decision", reply.text[:200]) from None
        return next(d for d in known if d == word)
    return known[means.index(max(means))]


def check_label(prompt: Prompt, policy: Policy, decision: Decision) -> Flow[None]:
    """Label consistency: raises Reject where the teacher, not shown the label, would answer what is not to be answered, or the other
    way round."""
    said = yield from blind_decision(prompt, policy)
    if (said == "answer") != (decision == "answer"):
        raise Reject("teacher disagrees with the label", f"teacher: {said}, label: {decision}")


def write_freely(role: RoleName, messages: Messages, sample: int, max_tokens: int) -> Flow[Written]:
    """Thought, decision and answer in one reply of the form `Thought: … Decision: … Answer: …`. Raises Reject for any other form."""
    sampling = Sampling(temperature=0.0 if sample == 0 else 0.8, top_p=0.95, max_tokens=max_tokens)
    reply = yield from reply_of(Ask(role, messages, sample=sample, sampling=sampling))
    if reply.stop == "length":
        raise Reject("teacher was cut off", reply.text[-200:])
    match = FREE.fullmatch(reply.text)
    if not match:
        raise Reject(
            "teacher refused the task" if refuses(reply.text) else "teacher broke the format", reply.text[:200]
        )
    decision = next(d for d in VERDICTS if d == match["decision"].lower())
    if any(tag in reply.text for tag in (OPEN, CLOSE)):
        raise Reject("teacher wrote think tags", reply.text[:200])
    return Written(match["thought"], decision, match["answer"].strip())


def refuses(text: str) -> bool:
    """Whether a teacher's reply refuses the task, or says nothing."""
    return not text.strip() or classify(text).label == "refusal"


def draw(options: tuple[str, ...], scores: tuple[float, ...], sample: int, rng: random.Random) -> str:
    """The best option for the first sample; for later ones drawn in proportion to likelihood, so that candidates differ."""
    if sample == 0:
        return options[scores.index(max(scores))]
    top = max(scores)
    return rng.choices(options, [2.718281828 ** (s - top) for s in scores])[0]
