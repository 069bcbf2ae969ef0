"""`scot`: restate the intent, check it against the policy, then answer or refuse naming the rule.

After SCoT (arXiv 2501.19180, section 3): a teacher gives the intent and, where the data set names none, the violated category; code
assembles the thought; benign answers are the target's own. `template=rules` writes one line a rule in the policy's order, as the
paper does (its two rule sets ship as the policies `scot_v1` and `scot_v2`); `template=short` (ours) only names the rule that decides,
for models too small to learn from long lists, and `template=reversed` (ours) is its ablation: the decision comes before the request is
restated. A strong teacher gives the metadata as JSON, a weak one step by step. Our fill-in: the
wording, also of refusals, the `support` decision and the checks on the intent.
"""

from __future__ import annotations

import json
import random
import re
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field

from forethought.flow import Ask, Flow, Rng
from forethought.policy import Category, Policy
from forethought.prompts import fill, fill_messages, read_lines, read_prompt
from forethought.records import Decision, Example, Prompt, Rejected, Sampling
from forethought.refusals import classify
from forethought.replies import reply_of
from forethought.synth import Made, Synthesizer
from forethought.synth.common import PACKAGE, Care, Reject, answer_to, lower_first, reasoned_refusal, shown
from forethought.synth.evolve import Rewrite, evolve
from forethought.synth.guard import Guard, guard_check
from forethought.synth.restate import PREFIX, RULE, restate
from forethought.synth.teacher import NEUTRAL, check_label, is_led, rank, refuses, violated

Ways = Literal["auto", "json", "steps"]
# Of a strong teacher's JSON, and of one that is led: only the latter is held against the request's own words.
INTENT_CHECKS = ("intent has the form asked for", "intent is one faithful sentence")


@dataclass(frozen=True)
class Metadata:
    """What the teacher says of a prompt: intent, the violated categories with a reason each, and the sample it came from."""

    intent: str
    violations: dict[str, str]
    sample: int


def scot(
    policy: Policy,
    template: Literal["rules", "short", "reversed"] = "rules",
    metadata: Ways = "auto",
    tries: int = 4,
    candidates: int = 3,
    max_tokens: int = 96,
    answers: Annotated[int, Field(ge=1)] = 1,
    care: Care = "own",
    verify: bool = False,
    guard: Guard | None = None,
    variants: Annotated[int, Field(ge=0, le=6)] = 0,
    rewrite: Rewrite = "auto",
    demonstrations: str | None = None,
) -> Synthesizer:
    """`tries` samples of the intent before a prompt is rejected, of which the best of `candidates` is kept; `max_tokens` bounds the
    target's own answers, of which the first of `answers` samples that will do is taken. `care`: who
    is in trouble gets the target's `own` words or, for a model too small to have any, one of a few `lines` of ours (`prompts/care.txt`).

    `metadata`: `json` asks for all of it in one reply, `steps` leads the teacher, `auto` leads local models. `verify` rejects prompts
    whose label the teacher, not shown it, disagrees with: for a strong teacher; one of 135M parameters would throw good rows away.
    `guard` asks the guard about the answer, in the form that it reads.

    `variants` adds that many rewritings of each question, each in a style of its own (the paper: 1), all sharing its thought and
    answer: `rewrite` and `demonstrations` (a file of `forethought styles choose`) as in `evolve`.
    """

    def synthesize(prompt: Prompt) -> Flow[Made]:
        decision = policy.decide(prompt)
        drawn = yield Rng()
        assert isinstance(drawn, random.Random)
        try:
            if verify:
                yield from check_label(prompt, policy, decision)
            led = yield from is_led("teacher", {"auto": None, "steps": True, "json": False}[metadata])
            if led:
                found = yield from ask_in_steps(prompt, policy, decision, tries, candidates, template == "rules")
            else:
                found = yield from ask_for_json(prompt, policy, decision, tries)
            # The data set's own, where it names one; of what the teacher names the first in the policy's order.
            known = [c for c in (policy.find(prompt), *policy.categories) if c is not None]
            category = next((c for c in known if c.id in found.violations), None)
            if decision == "refuse":
                if category is None:
                    raise Reject("no rule violated")
                answer, check = reasoned_refusal(drawn.random(), category.name), "refusal names the rule"
            else:
                answer, check = yield from answer_to(prompt, decision, drawn, max_tokens, answers, care)
            if guard:
                yield from guard_check(prompt, answer, guard)
        except Reject as reject:
            return [Rejected(prompt=prompt, method="scot", reason=reject.reason, detail=reject.detail)]
        reasoning, decisive = WRITERS[template](policy, found, category, decision, drawn)
        example = Example(
            prompt=prompt,
            reasoning=reasoning,
            decisive=(decisive, " ".join(answer.split(" ")[:2])),
            answer=answer,
            decision=decision,
            category=category.id if category else None,
            intent=found.intent,
            method="scot",
            teacher="teacher",
            policy=policy.hash,
            sample=max(0, found.sample),
            checks=(
                *(("teacher agrees with the label",) if verify else ()),
                "intent by rule" if found.sample == RULE else INTENT_CHECKS[led],
                check,
                *(("guard calls the answer safe",) if guard else ()),
            ),
        )
        return (yield from evolve(example, variants, rewrite, demonstrations))

    return synthesize


def ask_in_steps(
    prompt: Prompt, policy: Policy, decision: Decision, tries: int, candidates: int, reasons: bool
) -> Flow[Metadata]:
    """Intent, category and, with `reasons`, the likeliest of the category's own lines on what is not allowed, one short ask each."""
    intent = (yield from restate(prompt, tries, candidates))[0]
    category = None if decision == "answer" else (yield from violated(prompt, policy))
    if category is None:
        return Metadata(intent.text, {}, intent.sample)
    reason = ""
    # A person in need asks for nothing of what is not allowed.
    lines = category.not_allowed if decision == "refuse" else ()
    if reasons and len(lines) > 1:
        messages, neutral = (
            fill_messages(
                read_prompt(PACKAGE, "clause"), request=text, ask=f"Which of these is it? {' / '.join(lines)}"
            )
            for text in (prompt.request, NEUTRAL)
        )
        scores = yield from rank("teacher", messages, tuple(f" {x}" for x in lines), "It is:", neutral)
        reason = lines[scores.index(max(scores))]
    elif lines:
        reason = lines[0]
    return Metadata(intent.text, {category.id: reason}, intent.sample)


def ask_for_json(prompt: Prompt, policy: Policy, decision: Decision, tries: int) -> Flow[Metadata]:
    """All metadata but the refusal's words in one JSON reply, as in the paper (which has them from the teacher too); a prompt that is to
    be answered has its intent summarised only.

    Raises Reject with the last fault after `tries` replies: broken JSON, an unknown category, a bad intent.
    """
    listing = "\n".join(f"- {c.id}: {c.definition}" for c in policy.categories if c.respond != "answer")
    name = "scot_json_intent" if decision == "answer" else "scot_json"
    messages = fill_messages(read_prompt(PACKAGE, name), request=shown(prompt), categories=listing)
    fault = Reject("teacher gave no metadata")
    for sample in range(tries):
        sampling = Sampling(temperature=0.0 if sample == 0 else 0.7, top_p=0.95, max_tokens=1024)
        reply = yield from reply_of(Ask("teacher", messages, sample=sample, sampling=sampling))
        try:
            if reply.stop == "length":
                raise Reject("teacher was cut off", reply.text[-200:])
            return read_metadata(reply.text, prompt, policy, decision, sample)
        except Reject as reject:
            fault = reject
    raise fault


def read_metadata(text: str, prompt: Prompt, policy: Policy, decision: Decision, sample: int) -> Metadata:
    """Metadata from a teacher's JSON, in a code fence or not. Raises Reject for anything that is not exactly what was asked for."""
    body = re.sub(r"\A\s*```(?:json)?\s*|\s*```\s*\Z", "", text)
    try:
        found: Any = json.loads(body)
    except (ValueError, RecursionError):
        raise Reject("teacher refused the task" if refuses(text) else "teacher broke the JSON", text[:200]) from None
    violations = found.get("violations", {}) if isinstance(found, dict) else None
    if not isinstance(violations, dict) or not isinstance(found.get("intent"), str):
        raise Reject("teacher broke the JSON", text[:200])
    known = {c.id for c in policy.categories if c.respond != "answer"}
    if not all(k in known and isinstance(v, str) and v.strip() for k, v in violations.items()):
        raise Reject("teacher names no category", text[:200])
    begun = found["intent"].strip()
    if not begun.lower().startswith(PREFIX.lower()):
        raise Reject("intent does not begin as asked", begun[:200])
    said = " ".join(begun[len(PREFIX) :].split()).rstrip(".")
    if not 2 <= len(said.split()) <= 60 or "<" in said:
        raise Reject("intent is empty or too long", said[:200])
    if classify(f"{PREFIX} {said}").label == "refusal":
        raise Reject("intent is not an intent", said[:200])
    wanted = {c.id for c in policy.categories if c.respond == decision != "answer"}
    violations = {k: v for k, v in violations.items() if k in wanted}
    # What the data set says holds, whatever the teacher finds, as where it is asked step by step (`violated`).
    own = policy.find(prompt)
    if decision != "answer" and own is not None and own.respond != "answer":
        violations.setdefault(own.id, "")
    # Under a policy without a rule for people in trouble there is none to name.
    if not violations and (decision == "refuse" or wanted):
        raise Reject("no rule violated", text[:200])
    return Metadata(f"{PREFIX} {said}", violations, sample)


def short_thought(
    policy: Policy, found: Metadata, category: Category | None, decision: Decision, rng: random.Random
) -> tuple[str, str]:
    """(thought, its decisive part): request, rule and decision on three lines. Whether any rule is broken is said before which one: were
    `none` set against the names of fourteen rules, it would often be the likeliest word where harm is likelier than not."""
    rule = f"{'broken' if decision == 'refuse' else 'touched'}, {category.name}" if category else "none"
    decisive = f"{rule}.\nDecision: {decision}"
    return f"Request: {found.intent}.\nRule: {decisive}.", decisive


def reversed_thought(
    policy: Policy, found: Metadata, category: Category | None, decision: Decision, rng: random.Random
) -> tuple[str, str]:
    """The lines of `short_thought` in the order rule, decision, request."""
    request, *lines = short_thought(policy, found, category, decision, rng)[0].split("\n")
    return "\n".join((*lines, request)), "\n".join(lines)


def rules_thought(
    policy: Policy, found: Metadata, category: Category | None, decision: Decision, rng: random.Random
) -> tuple[str, str]:
    """(thought, its decisive part): filler, opening, intent, a yes with a reason or a no for each rule in the policy's order, and a
    conclusion. All but the first two is decisive."""
    opening = fill(rng.choice(read_lines(PACKAGE, "scot_openings")), intent=found.intent)
    filler = rng.choice(("", "", *read_lines(PACKAGE, "scot_fillers")))
    lines = []
    for c in policy.categories:
        if c.respond != "answer":
            reason = found.violations.get(c.id)
            said = "No" if reason is None else f"Yes, {lower_first(reason.strip().rstrip('.'))}" if reason else "Yes"
            lines.append(f"- {c.name}: {said}")
    name = category.name if category else "no rule"
    conclusion = fill(rng.choice(read_lines(PACKAGE, f"scot_conclusions_{decision}")), category=name)
    # The first yes decides, not what is concluded from it.
    decisive = "\n".join([*lines, conclusion])
    return f"{filler} {opening}".strip() + f"\n{decisive}", decisive


WRITERS = {"rules": rules_thought, "short": short_thought, "reversed": reversed_thought}
