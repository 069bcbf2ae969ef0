"""`policy`: the relevant policy text is in the teacher's context, the thought cites the clause that decides, a scorer keeps the best.

In the manner of deliberative alignment (arXiv 2412.16339) and of the three-criterion scorer of STAR-1 (arXiv 2504.01903); the wording
is ours. The policy text is not part of the training row, so that the model learns to recall it.
"""

from __future__ import annotations

import re
from functools import partial
from typing import Annotated

from pydantic import Field

from forethought.errors import AskFailed
from forethought.flow import Ask, Choose, Flow, Logprobs
from forethought.policy import Category, Policy, as_clauses
from forethought.prompts import fill_messages, read_prompt
from forethought.records import Decision, Prompt, Sampling
from forethought.replies import reply_of
from forethought.synth import Synthesizer
from forethought.synth.common import PACKAGE, Care, Reject, shown
from forethought.synth.evolve import Rewrite
from forethought.synth.guard import Guard
from forethought.synth.outline import load_guidelines
from forethought.synth.reasoned import Draft, Form, Plan, instructions, synthesizer

SCORES = re.compile(r"\s*compliance:\s*(\d{1,2})\s*\n\s*relevance:\s*(\d{1,2})\s*\n\s*accuracy:\s*(\d{1,2})\s*", re.I)
CRITERIA = ("compliance", "relevance", "accuracy")


def policy(
    policy: Policy,
    guidelines: str = "policy",
    samples: int = 2,
    form: Form = "auto",
    hint: bool | None = None,
    least: float = 0.5,
    guard: Guard | None = None,
    max_tokens: int = 96,
    answers: Annotated[int, Field(ge=1)] = 1,
    care: Care = "own",
    variants: Annotated[int, Field(ge=0, le=6)] = 0,
    rewrite: Rewrite = "auto",
) -> Synthesizer:
    """`least` is the lowest mean score, 0 to 1, that a strong scorer (the helper) may give; one that can only compare likelihoods ranks.
    The other options are those of `srg`."""

    def system(prompt: Prompt, category: Category | None, decision: Decision | None) -> str:
        told = f"\n\nThe right decision here is: {decision}." if decision else ""
        shown = [category] if category else [c for c in policy.categories if c.respond != "answer"]
        return instructions("policy", policy="\n\n".join(map(as_clauses, shown)), hint=told)

    # The thought is to quote the policy, but not to repeat what else it is told.
    told = read_prompt(PACKAGE, "policy")[0].content
    plan = Plan(
        "policy", policy, load_guidelines(guidelines), system, form=form, hint=hint, samples=samples, guard=guard,
        max_tokens=max_tokens, unquotable=told, score=partial(score_draft, least=least), answers=answers, care=care,
        variants=variants, rewrite=rewrite,
    )  # fmt: skip
    return synthesizer(plan)


def score_draft(prompt: Prompt, draft: Draft, least: float) -> Flow[float]:
    """Mean of three criteria, 0 to 1, as the helper gives them in words; from a local model the log-odds of saying that each
    is met, which only order the drafts of one prompt. Raises Reject below `least` and where the helper's words cannot be read."""
    template = read_prompt(PACKAGE, "policy_score")
    values = {"request": shown(prompt), "answer": draft.answer}
    messages = fill_messages(template, thought=draft.thought, **values)
    try:
        # All in one ask, so that the policy, the request and the draft are read once.
        found = yield Choose("helper", messages, tuple(f"{name}: {n}" for name in CRITERIA for n in (10, 1)))
        assert isinstance(found, Logprobs)
        gains = [good - bad for good, bad in zip(found.logprobs[::2], found.logprobs[1::2], strict=True)]
        return sum(gains) / len(gains)
    except AskFailed as error:
        if error.kind != "unsupported":
            raise
    reply = yield from reply_of(Ask("helper", messages, sampling=Sampling(max_tokens=512)))
    match = SCORES.fullmatch(reply.text)
    if not match or not all(1 <= int(x) <= 10 for x in match.groups()):
        raise Reject("scorer broke the format", reply.text[:200])
    mean = sum((int(x) - 1) / 9 for x in match.groups()) / 3
    if mean < least:
        raise Reject("scored too low", f"{mean:.2f}, at least {least}")
    return mean
