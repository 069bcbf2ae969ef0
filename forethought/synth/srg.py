"""`srg`: reasoning along guidelines, several samples, rejection sampling, guidelines absent from the training input.

After SRG (arXiv 2502.04040), of which the outline is known second-hand: the clauses, the filters and the wording are ours, so this
is SRG-style. Arms for the ablation: `guidelines=none`, and `filter=false`.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from forethought.policy import Category, Policy
from forethought.records import Decision, Prompt
from forethought.synth import Synthesizer
from forethought.synth.common import Care
from forethought.synth.evolve import Rewrite
from forethought.synth.guard import Guard
from forethought.synth.outline import Clause, Guidelines, as_instructions, load_guidelines
from forethought.synth.reasoned import Form, Plan, instructions, synthesizer

BARE = Guidelines(
    name="none",
    clauses=(
        Clause(
            title="Thought", ask="Is it safe?", refuse=("{{intent}}",), support=("{{intent}}",), answer=("{{intent}}",)
        ),
        Clause(
            title="Decision",
            ask="Decide.",
            refuse=("{{decision}}",),
            support=("{{decision}}",),
            answer=("{{decision}}",),
            decides=True,
        ),
    ),
)


def srg(
    policy: Policy,
    guidelines: str = "srg",
    samples: int = 3,
    filter: bool = True,
    form: Form = "auto",
    hint: bool | None = None,
    guard: Guard | None = None,
    max_tokens: int = 96,
    answers: Annotated[int, Field(ge=1)] = 1,
    care: Care = "own",
    variants: Annotated[int, Field(ge=0, le=6)] = 0,
    rewrite: Rewrite = "auto",
) -> Synthesizer:
    """`guidelines` is a shipped name, a YAML file, or `none`. `filter=false` keeps the first draft, whatever it decides.

    `form`: a strong teacher writes `free`, a weak one is led along an `outline`; `auto` leads local models. `hint` shows the label to
    the teacher; by default only to one that is led. `max_tokens` bounds the target's own answers
    beside a teacher that is led; `answers`, `care`, `variants` and `rewrite` as in `scot`.
    """
    clauses = BARE if guidelines == "none" else load_guidelines(guidelines)

    def system(prompt: Prompt, category: Category | None, decision: Decision | None) -> str:
        told = f"\n\nThe right decision here is: {decision}." if decision else ""
        if guidelines == "none":
            return instructions("srg_bare", hint=told)
        rules = "\n".join(f"- {c.name} ({c.respond}): {c.definition}" for c in policy.categories)
        return instructions("srg", guidelines=as_instructions(clauses), policy=rules, hint=told)

    plan = Plan(
        "srg", policy, clauses, system, form=form, hint=hint, samples=samples, filter=filter, guard=guard, max_tokens=max_tokens,
        answers=answers, care=care, variants=variants, rewrite=rewrite,
    )  # fmt: skip
    return synthesizer(plan)
