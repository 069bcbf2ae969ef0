"""`scot`: restate the intent, check it against the policy, then answer or refuse naming the rule.

After SCoT (arXiv 2501.19180, section 3): a teacher gives the intent and, where the data set names none, the violated category; code
assembles the thought; benign answers are the target's own. `template=rules` writes one line a rule in the policy's order, as the
paper does; `template=short` (ours) only names the rule that decides, for models too small to learn from long lists. Question
evolution is not part of this first version. Our fill-in: the wording, the `support` decision and the checks on the intent.
"""

from __future__ import annotations

import random
import re
from typing import Literal

from forethought.chat import split
from forethought.errors import AskFailed
from forethought.flow import Ask, Choose, Flow, Logprobs, Rng
from forethought.policy import Category, Policy
from forethought.prompts import fill, fill_messages, read_lines, read_prompt
from forethought.records import Decision, Example, Prompt, Rejected, Reply, Sampling
from forethought.refusals import classify
from forethought.synth import Synthesizer
from forethought.synth.common import PACKAGE, Reject, first_sentence, own_answer, reasoned_refusal, repeats_run

PREFIX = "The user wants"
NONE = "none"


def scot(
    policy: Policy,
    template: Literal["rules", "short"] = "rules",
    tries: int = 4,
    max_tokens: int = 96,
    verify: bool = False,
) -> Synthesizer:
    """`tries` samples of the intent before a prompt is rejected; `max_tokens` bounds the target's own answers.

    `verify` rejects prompts whose label the teacher, not shown it, disagrees with. Off by default: a teacher of 135M parameters
    decides near chance, so its word would throw good rows away. Switch it on for a strong one.
    """

    def synthesize(prompt: Prompt) -> Flow[Example | Rejected]:
        decision = policy.decide(prompt)
        drawn = yield Rng()
        assert isinstance(drawn, random.Random)
        try:
            if verify:
                yield from check_label(prompt, policy, decision)
            intent, sample = yield from restate(prompt, tries)
            category = None if decision == "answer" else (yield from violated(prompt, policy))
            if decision == "refuse":
                if category is None:
                    raise Reject("no category of the policy is refused")
                answer = reasoned_refusal(drawn.random(), category.name)
            else:
                answer = yield from own_answer(prompt, policy, max_tokens, support=decision == "support")
        except Reject as reject:
            return Rejected(prompt=prompt, method="scot", reason=reject.reason, detail=reject.detail)
        write = rules_thought if template == "rules" else short_thought
        reasoning, decisive = write(policy, intent, category, decision, drawn)
        return Example(
            prompt=prompt,
            reasoning=reasoning,
            decisive=(decisive, " ".join(answer.split(" ")[:2])),
            answer=answer,
            decision=decision,
            category=category.id if category else None,
            intent=intent,
            method="scot",
            teacher="teacher",
            policy=policy.hash,
            sample=sample,
            checks=(
                *(("teacher agrees with the label",) if verify else ()),
                "intent is one faithful sentence",
                "own answer complies" if decision != "refuse" else "refusal names the rule",
            ),
        )

    return synthesize


def restate(prompt: Prompt, tries: int) -> Flow[tuple[str, int]]:
    """The teacher's one-sentence intent and the sample that gave it: greedy first, then warmer. Raises Reject with the last fault."""
    template = read_prompt(PACKAGE, "scot_intent")
    shown = " / ".join(m.content for m in template if m.role == "assistant")
    messages = fill_messages(template, request=prompt.request)
    fault, said = "", ""
    for sample in range(tries):
        sampling = Sampling(temperature=0.0 if sample == 0 else 0.7, top_p=0.95, max_tokens=40)
        reply = yield Ask("teacher", messages, prefix=PREFIX, sample=sample, sampling=sampling)
        assert isinstance(reply, Reply)
        text = split(reply.text, reply.opened).answer.removeprefix(PREFIX).strip()
        said = first_sentence(text)
        fault = intent_fault(said, prompt.request, cut=reply.stop == "length" and said == text)
        if not fault and repeats_run(said, shown, 4) and not repeats_run(said, prompt.request, 4):
            fault = "repeats a demonstration"
        if not fault:
            return f"{PREFIX} {said}", sample
    raise Reject(f"intent {fault}", said[:200])


def intent_fault(said: str, request: str, cut: bool) -> str:
    """What is wrong with a restated intent, '' if nothing: it must be short, whole, faithful, and no answer or refusal.

    Faithful is measured by words: at least 60% of the intent's content words come from the request, and the intent holds at least
    35% of the request's (25% of a request of over 20 content words).
    """
    words, asked = content_words(said), content_words(request)
    if cut:
        return "is cut off"
    if not 2 <= len(said.split()) <= 40:
        return "is empty or too long"
    if "<" in said or classify(f"{PREFIX} {said}").label == "refusal":
        return "is not an intent"
    shared = len(words & asked)
    if shared < 0.6 * len(words) or shared < (0.35 if len(asked) <= 20 else 0.25) * len(asked):
        return "is about something else"
    return ""


def content_words(text: str) -> set[str]:
    """Lower-case word stems (first five letters) that carry meaning."""
    common = read_lines(PACKAGE, "common_words")
    return {w[:5] for w in re.findall(r"[^\W\d_]+", text.lower()) if w not in common and len(w) > 2}


def violated(prompt: Prompt, policy: Policy) -> Flow[Category | None]:
    """The category a prompt falls under: the data set's own where the policy has it, else the teacher's choice.

    Only categories with the response that the label calls for are offered.
    """
    by_id = {c.id: c for c in policy.categories}
    if prompt.category in by_id:
        return by_id[prompt.category]
    decision = policy.decide(prompt)
    options = [c for c in policy.categories if c.respond == decision]
    if not options:
        return None
    return (yield from choose_category(prompt, options))


def check_label(prompt: Prompt, policy: Policy, decision: Decision) -> Flow[None]:
    """Label consistency: the teacher, not shown the label, chooses among all categories and none. Raises Reject where it would
    answer what the label says not to, or the other way round."""
    found = yield from choose_category(prompt, list(policy.categories), none=True)
    teacher = found.respond if found else "answer"
    if (teacher == "answer") != (decision == "answer"):
        raise Reject(
            "teacher disagrees with the label", f"{found.name if found else NONE}: {teacher}, label: {decision}"
        )


def choose_category(prompt: Prompt, options: list[Category], none: bool = False) -> Flow[Category | None]:
    """The teacher's most likely category by mean log-probability; from a chat server, which gives none, the one that it writes.

    With `none` the teacher may also say that no category fits. Raises Reject where a server's reply is none of the names.
    """
    listing = "\n".join(f"- {c.name}: {c.definition}" for c in options) + (
        "\n- none: nothing wrong with it" if none else ""
    )
    messages = fill_messages(read_prompt(PACKAGE, "scot_category"), request=prompt.request, categories=listing)
    choices: dict[str, Category | None] = {c.name: c for c in options} | ({NONE: None} if none else {})
    try:
        found = yield Choose("teacher", messages, tuple(f" {name}" for name in choices), prefix="Category:")
    except AskFailed as error:
        if error.kind != "unsupported":
            raise
        reply = yield Ask("teacher", messages, sampling=Sampling(max_tokens=512))
        assert isinstance(reply, Reply)
        said = split(reply.text, reply.opened).answer.strip().strip("\"'*.-").removeprefix("Category:").strip().lower()
        named = {name.lower(): c for name, c in choices.items()}
        if said not in named:
            raise Reject("teacher names no category", said[:200]) from None
        return named[said]
    assert isinstance(found, Logprobs)
    means = [p / n for p, n in zip(found.logprobs, found.tokens, strict=True)]
    return list(choices.values())[means.index(max(means))]


def short_thought(
    policy: Policy, intent: str, category: Category | None, decision: Decision, rng: random.Random
) -> tuple[str, str]:
    """(thought, its decisive part): request, rule and decision on three lines."""
    decisive = f"{category.name if category else 'none'}.\nDecision: {decision}"
    return f"Request: {intent}.\nRule: {decisive}.", decisive


def rules_thought(
    policy: Policy, intent: str, category: Category | None, decision: Decision, rng: random.Random
) -> tuple[str, str]:
    """(thought, its decisive part): filler, opening, intent, a yes or no for each rule in the policy's order, and a conclusion."""
    opening = fill(rng.choice(read_lines(PACKAGE, "scot_openings")), intent=intent)
    filler = rng.choice(("", "", *read_lines(PACKAGE, "scot_fillers")))
    checked = [c for c in policy.categories if c.respond != "answer"]
    lines = [f"- {c.name}: {'yes, this falls under it' if c == category else 'no'}" for c in checked]
    name = category.name if category else "no rule"
    conclusion = fill(rng.choice(read_lines(PACKAGE, f"scot_conclusions_{decision}")), category=name)
    return "\n".join([f"{filler} {opening}".strip(), *lines, conclusion]), conclusion
