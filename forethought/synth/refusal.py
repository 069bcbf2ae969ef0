"""`refusal`: the data of refusal training (RT), the reference that every claim is made against.

Harmful prompts get one of a few plain refusals; everything else gets the target model's own answer, so that only refusing is taught.
"""

from __future__ import annotations

import random
from typing import Annotated

from pydantic import Field

from forethought.flow import Flow, Rng
from forethought.policy import Policy
from forethought.records import Example, Prompt, Rejected
from forethought.synth import Made, Synthesizer
from forethought.synth.common import Care, Reject, answer_to, plain_refusals
from forethought.synth.evolve import Rewrite, evolve
from forethought.synth.guard import Guard, guard_check


def refusal(
    policy: Policy,
    max_tokens: int = 96,
    answers: Annotated[int, Field(ge=1)] = 1,
    care: Care = "own",
    guard: Guard | None = None,
    variants: Annotated[int, Field(ge=0, le=6)] = 0,
    rewrite: Rewrite = "auto",
) -> Synthesizer:
    """`max_tokens`, `answers`, `care`, `guard` and `variants` as in `scot`, for a baseline on the same questions."""

    def synthesize(prompt: Prompt) -> Flow[Made]:
        decision = policy.decide(prompt)
        rng = yield Rng()
        assert isinstance(rng, random.Random)
        check: list[str] = []
        try:
            if decision == "refuse":
                answer = rng.choice(plain_refusals())
            else:
                answer, *check = yield from answer_to(prompt, decision, rng, max_tokens, answers, care)
            if guard:
                yield from guard_check(prompt, answer, guard)
                check.append("guard calls the answer safe")
        except Reject as reject:
            return [Rejected(prompt=prompt, method="refusal", reason=reject.reason, detail=reject.detail)]
        example = Example(
            prompt=prompt,
            reasoning=None,
            answer=answer,
            decision=decision,
            category=prompt.category if decision != "answer" else None,
            method="refusal",
            teacher="target",
            policy=policy.hash,
            checks=tuple(check),
        )
        return (yield from evolve(example, variants, rewrite))

    return synthesize
