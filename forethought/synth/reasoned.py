"""The loop that SRG, RATIONAL and policy-style synthesis share: several drafts of a thought, filters, the best one kept.

A draft is written freely by a strong teacher, or line by line by a weak one (`outline.py`). Each draft passes the same checks, and a
prompt whose drafts all fail is rejected with the reason of the last.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from forethought.errors import AskFailed
from forethought.flow import Ask, Flow, Rng, RoleName
from forethought.policy import Category, Policy
from forethought.prompts import fill, fill_messages, read_prompt
from forethought.records import Decision, Example, Messages, Prompt, Rejected, Sampling
from forethought.refusals import classify
from forethought.replies import reply_of
from forethought.synth import Made, Synthesizer
from forethought.synth.common import PACKAGE, Care, Reject, answer_to, reasoned_refusal, repeats_run, shown
from forethought.synth.evolve import Rewrite, evolve
from forethought.synth.guard import Guard, guard_check
from forethought.synth.outline import Guidelines, follow
from forethought.synth.restate import RULE, Intent, restate
from forethought.synth.teacher import blind_decision, can_choose, is_led, near, rank, violated, write_freely

Form = Literal["auto", "free", "outline"]
THOUGHT_WORDS = (8, 600)


@dataclass(frozen=True)
class Plan:
    """How one method drafts. `role` writes; `system` makes the free teacher's instructions from (prompt, category, decision or None);
    `hint` says whether a draft may know the decision that the label calls for. `unquotable` is what a thought must not repeat of its
        instructions, by default all of them."""

    method: str
    policy: Policy
    guidelines: Guidelines
    system: Callable[[Prompt, Category | None, Decision | None], str]
    role: RoleName = "teacher"
    form: Form = "auto"
    hint: bool | None = None
    samples: int = 3
    filter: bool = True
    guard: Guard | None = None
    max_tokens: int = 96
    answers: int = 1
    care: Care = "own"
    variants: int = 0
    rewrite: Rewrite = "auto"
    unquotable: str | None = None
    score: Callable[[Prompt, Draft], Flow[float]] | None = None


@dataclass(frozen=True)
class Draft:
    """One candidate: a thought and the answer that goes with it."""

    thought: str
    decision: Decision
    answer: str
    category: Category | None
    intent: str | None
    decisive: tuple[str, ...]
    sample: int
    score: float | None = None


def synthesizer(plan: Plan) -> Synthesizer:
    """What makes a prompt's example by a plan."""

    def make(prompt: Prompt) -> Flow[Made]:
        rng = yield Rng()
        assert isinstance(rng, random.Random)
        return (yield from synthesize(plan, prompt, rng))

    return make


def synthesize(plan: Plan, prompt: Prompt, rng: random.Random) -> Flow[Made]:
    """The best of `plan.samples` drafts as an Example, or why there is none."""
    wanted = plan.policy.decide(prompt)
    try:
        led = yield from is_led(plan.role, {"auto": None, "outline": True, "free": False}[plan.form])
        category = (yield from violated(prompt, plan.policy)) if wanted != "answer" else near(prompt, plan.policy)
        if wanted == "refuse" and category is None:
            raise Reject("no category of the policy is refused")
        draft = yield from _best(plan, prompt, wanted, category, led, rng)
    except Reject as reject:
        return [Rejected(prompt=prompt, method=plan.method, reason=reject.reason, detail=reject.detail)]
    checks = ["decision matches the label", "answer agrees with the decision"] if plan.filter else []
    if draft.sample == RULE:
        checks.append("intent by rule")
    if plan.guard:
        checks.append("guard calls the answer safe")
    example = Example(
        prompt=prompt,
        reasoning=draft.thought,
        answer=draft.answer,
        decision=draft.decision,
        category=draft.category.id if draft.category and draft.decision != "answer" else None,
        intent=draft.intent,
        decisive=(*draft.decisive, " ".join(draft.answer.split(" ")[:2])),
        method=plan.method,
        teacher=plan.role,
        policy=plan.policy.hash,
        sample=max(0, draft.sample),
        score=draft.score,
        checks=(*checks, "best of its drafts" if plan.samples > 1 else "only draft"),
    )
    return (yield from evolve(example, plan.variants, plan.rewrite))


def _best(
    plan: Plan, prompt: Prompt, wanted: Decision, category: Category | None, led: bool, rng: random.Random
) -> Flow[Draft]:
    intents = (yield from restate(prompt, plan.samples + 1, plan.samples, plan.role)) if led else []
    hint = plan.hint if plan.hint is not None else led
    decision = wanted if hint or not led else (yield from blind_decision(prompt, plan.policy))
    answer = (yield from _answer(plan, prompt, category, decision, rng)) if led else ""
    kept: list[Draft] = []
    fault = Reject("no draft")
    drafts = min(plan.samples, len(intents)) if led else plan.samples
    for sample in range(drafts):
        try:
            if led:
                draft = yield from _led(plan, prompt, category, decision, intents[sample], answer, sample, rng)
            else:
                draft = yield from _free(plan, prompt, category, wanted if hint else None, sample)
            if any(draft.thought == other.thought for other in kept):
                continue
            if plan.filter:
                yield from _check(plan, prompt, draft, wanted, category)
            if plan.guard:
                yield from guard_check(prompt, draft.answer, plan.guard)
            # By likelihoods drafts are only ordered, so that a single one needs no score.
            if plan.score and (drafts > 1 or not (yield from can_choose("helper"))):
                draft = replace(draft, score=(yield from plan.score(prompt, draft)))
            elif plan.score:
                draft = replace(draft, score=None)
            kept.append(draft)
        except Reject as reject:
            fault = reject
        except AskFailed as error:
            fault = Reject("ask failed", str(error)[:200])
        if not plan.filter and kept:
            break
    if not kept:
        raise fault
    return max(kept, key=lambda d: (d.score if d.score is not None else -_oddness(d.thought), -d.sample))


def _answer(plan: Plan, prompt: Prompt, category: Category | None, decision: Decision, rng: random.Random) -> Flow[str]:
    """The answer that all drafts of a teacher which is led share: a refusal that names the rule, or what
    `answer_to` gives."""
    if decision == "refuse":
        return reasoned_refusal(rng.random(), category.name if category else "the rules")
    answer, _ = yield from answer_to(prompt, decision, rng, plan.max_tokens, plan.answers, plan.care)
    return answer


def _led(
    plan: Plan,
    prompt: Prompt,
    category: Category | None,
    decision: Decision,
    intent: Intent,
    answer: str,
    sample: int,
    rng: random.Random,
) -> Flow[Draft]:
    outline = yield from follow(
        plan.guidelines, intent.text, prompt.request, category, decision, sample, rng, plan.role
    )
    return Draft(
        outline.thought, decision, answer, category, intent.text, outline.decisive, intent.sample, intent.score
    )


def _free(plan: Plan, prompt: Prompt, category: Category | None, hint: Decision | None, sample: int) -> Flow[Draft]:
    system = plan.system(prompt, category, hint)
    messages = fill_messages(read_prompt(PACKAGE, "free"), instructions=system, request=shown(prompt))
    written = yield from write_freely(plan.role, messages, sample, 1200)
    low, high = THOUGHT_WORDS
    if not low <= len(written.thought.split()) <= high:
        raise Reject("thought is empty or too long", written.thought[:200])
    if repeats_run(written.thought, system if plan.unquotable is None else plan.unquotable, 12):
        raise Reject("thought repeats its instructions", written.thought[:200])
    thought = f"{written.thought}\nDecision: {written.decision}."
    return Draft(thought, written.decision, written.answer, category, None, (f"Decision: {written.decision}.",), sample)


def _check(plan: Plan, prompt: Prompt, draft: Draft, wanted: Decision, category: Category | None) -> Flow[None]:
    if draft.decision != wanted:
        raise Reject("decision does not match the label", f"{draft.decision}, label: {wanted}")
    finding = classify(draft.answer, prompt.request)
    if (finding.label == "refusal") != (draft.decision == "refuse"):
        raise Reject("answer does not agree with the decision", draft.answer[:200])
    if finding.label in ("incoherent", "empty"):
        raise Reject(f"answer is {finding.label}", draft.answer[:200])
    if draft.decision == "answer":
        yield from helpful_check(prompt, draft.answer)


def helpful_check(prompt: Prompt, answer: str) -> Flow[None]:
    """Raises Reject where the answer is not about the request: its words are no likelier after it than after an empty one; on a
    server, where the helper says so."""
    try:
        (gain,) = yield from rank("helper", prompt.messages, (answer,), "", _without_content(prompt.messages))
    except AskFailed as error:
        if error.kind != "unsupported":
            raise
        messages = fill_messages(read_prompt(PACKAGE, "helpful"), request=shown(prompt), answer=answer)
        reply = yield from reply_of(Ask("helper", messages, sampling=Sampling(max_tokens=512)))
        word = reply.text.strip().strip("\"'*.").lower()
        if word not in ("yes", "no"):
            raise Reject("helper gives no verdict", reply.text[:200]) from None
        if word == "no":
            raise Reject("answer does not help", answer[:200]) from None
        return
    if gain < 0.05:
        raise Reject("answer is not about the request", f"{gain:.3f} nats a token: {answer[:160]}")


def _without_content(messages: Messages) -> Messages:
    return (*messages[:-1], messages[-1].model_copy(update={"content": "Hello."}))


def _oddness(thought: str) -> float:
    """Distance of a thought's length from 80 words, in doublings: among equals the middling one is kept."""
    ratio = max(1, len(thought.split())) / 80
    return max(ratio, 1 / ratio)


def instructions(name: str, **values: str) -> str:
    """A free teacher's system prompt from `prompts/NAME.md`."""
    return fill(read_prompt(PACKAGE, name)[0].content, **values)
