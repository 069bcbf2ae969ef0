"""`rational`: the model's own rationale, asked for by a self-check system prompt that fits the label, and trained on without it.

After RATIONAL (arXiv 2503.05021), known second-hand: one prompt asks for risk, intent and impact and then a reasoned refusal, the
other to confirm that the request is safe and then to answer; the rationale holds intent, ethics, impact and decision. The third, for
people in trouble, and all wording are ours. The generator is the model that is trained.
"""

from __future__ import annotations

import random
from typing import Annotated, Literal

from pydantic import Field

from forethought.flow import Flow, Rng
from forethought.policy import Category, Policy
from forethought.records import Decision, Example, Prompt
from forethought.synth import Made, Synthesizer
from forethought.synth.common import Care, plain_refusals
from forethought.synth.evolve import Rewrite
from forethought.synth.guard import Guard
from forethought.synth.outline import load_guidelines
from forethought.synth.reasoned import Form, Plan, instructions, synthesize


def rational(
    policy: Policy,
    guidelines: str = "rational",
    samples: int = 2,
    form: Form = "auto",
    guard: Guard | None = None,
    max_tokens: int = 96,
    answers: Annotated[int, Field(ge=1)] = 1,
    care: Care = "own",
    variants: Annotated[int, Field(ge=0, le=6)] = 0,
    rewrite: Rewrite = "auto",
    reason: Literal["all", "benign"] = "all",
) -> Synthesizer:
    """`samples` rationales a prompt; `form` as in `srg`; `max_tokens` bounds the answers of a model that is led;
    `answers`, `care`, `variants` and `rewrite` as in `scot`. `reason=benign`, an ablation of the paper, leaves out the thoughts of
    what is refused, which gets a plain refusal."""

    def system(prompt: Prompt, category: Category | None, decision: Decision | None) -> str:
        rule = f" It concerns {category.name}: {category.definition}" if category else ""
        return instructions(f"rational_{policy.decide(prompt)}", rule=rule)

    plan = Plan(
        "rational",
        policy,
        load_guidelines(guidelines),
        system,
        role="target",
        form=form,
        hint=True,
        samples=samples,
        guard=guard,
        max_tokens=max_tokens,
        answers=answers,
        care=care,
        variants=variants,
        rewrite=rewrite,
    )

    def make(prompt: Prompt) -> Flow[Made]:
        rng = yield Rng()
        assert isinstance(rng, random.Random)
        made = yield from synthesize(plan, prompt, rng)
        # Only now, so that the same prompts are kept as with all thoughts.
        if reason == "benign" and policy.decide(prompt) == "refuse":
            plain = {"answer": rng.choice(plain_refusals()), "reasoning": None, "intent": None, "decisive": ()}
            made = [m.model_copy(update=plain) if isinstance(m, Example) else m for m in made]
        return made

    return make
