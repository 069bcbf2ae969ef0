"""What synthesizers share: the target's own answers, refusals, and one-sentence clean-up."""

from __future__ import annotations

import random
import re
from typing import Literal

from forethought.chat import CLOSE, OPEN, split, with_system
from forethought.flow import Ask, Flow
from forethought.prompts import fill, read_lines, read_prompt
from forethought.records import Decision, Prompt, Reply, Sampling
from forethought.refusals import classify
from forethought.thoughts import SENTENCE_END

PACKAGE = "forethought.synth"
# Who answers someone in trouble: the target in its own words, or lines written beforehand.
Care = Literal["own", "lines"]
APOLOGY = re.compile(r"\W*(?:I'm|I am)?(?: so| very| really| truly)* ?(?:sorry|afraid|apologi[sz]e)\b", re.IGNORECASE)


class Reject(Exception):
    """Raised inside a synthesizer to reject its prompt; becomes a Rejected record."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason)
        self.reason, self.detail = reason, detail


def shown(prompt: Prompt) -> str:
    """The request as a model reads it that is told of it in one text: in a conversation behind what was said before."""
    if len(prompt.messages) == 1:
        return prompt.request
    earlier = [f"{m.role.capitalize()}: {m.content}" for m in prompt.messages[:-1]]
    return "\n\n".join([*earlier, f"User: {prompt.request}"])


def answer_to(
    prompt: Prompt, decision: Decision, rng: random.Random, max_tokens: int, answers: int, care: Care
) -> Flow[tuple[str, str]]:
    """(answer, what was checked) to a prompt that is not refused: the target's own words, or to people in trouble prepared ones where
    `care` is `lines`. Raises Reject as `own_answer` does."""
    if decision == "support" and care == "lines":
        return caring_answer(rng.random()), "answer was written beforehand"
    return (yield from own_answer(prompt, max_tokens, decision == "support", answers)), "own answer complies"


def own_answer(prompt: Prompt, max_tokens: int, support: bool = False, tries: int = 1) -> Flow[str]:
    """The target model's own reply, its thought removed, cut back to whole sentences: the greedy one, or else the first of `tries` - 1
    samples that will do.

    With `support` the target answers under a system prompt that asks for care; it is not part of the training row.
    Raises Reject, with what was wrong with the greedy reply, where all refuse, are incoherent, or hold no whole sentence.
    """
    messages, system = prompt.messages, ""
    if support:
        system = read_prompt(PACKAGE, "support")[0].content
        messages = with_system(messages, system)
    faults = []
    for sample in range(tries):
        sampling = Sampling(temperature=0.7 if sample else 0.0, top_p=0.95 if sample else 1.0, max_tokens=max_tokens)
        reply = yield Ask("target", messages, sample=sample, sampling=sampling)
        assert isinstance(reply, Reply)
        try:
            return checked_answer(reply, prompt, system)
        except Reject as fault:
            faults.append(fault)
    raise faults[0]


def checked_answer(reply: Reply, prompt: Prompt, system: str) -> str:
    """The answer in a reply of the target under `system`. Raises Reject where it is not one to learn from."""
    answer = split(reply.text, reply.opened).answer
    if reply.stop == "length":
        answer = whole_sentences(answer)
    if not answer:
        raise Reject("own answer has no whole sentence", reply.text[:200])
    if OPEN in answer or CLOSE in answer:
        raise Reject("own answer holds think tags", answer[:200])
    if system and repeats_run(answer, system):
        raise Reject("own answer repeats its instructions", answer[:200])
    if not system and APOLOGY.match(answer):
        # A small model often opens with a stray apology; trained on, it blurs the difference to a refusal.
        raise Reject("own answer opens with an apology", answer[:200])
    if repeats_sentence(answer):
        raise Reject("own answer repeats itself", answer[:200])
    finding = classify(answer, prompt.request)
    if finding.label in ("refusal", "incoherent", "empty"):
        raise Reject(f"own answer is {finding.label}", answer[:200])
    return answer


def whole_sentences(text: str) -> str:
    """`text` up to its last sentence end; '' where there is none. A number of a list ("2.") ends no sentence."""
    ends = [m.end() for m in SENTENCE_END.finditer(text) if not re.search(r"(?:^|\n|\s)\d+\.$", text[: m.end()])]
    return text[: ends[-1]].strip() if ends else ""


def repeats_run(text: str, other: str, length: int = 6) -> bool:
    """Whether `text` repeats a run of `length` words of `other`."""
    words, source = re.findall(r"\w+", text.lower()), re.findall(r"\w+", other.lower())
    runs = {tuple(source[i : i + length]) for i in range(len(source) - length + 1)}
    return any(tuple(words[i : i + length]) in runs for i in range(len(words) - length + 1))


def repeats_sentence(text: str) -> bool:
    """Whether a sentence of at least four words stands in `text` twice."""
    said = [" ".join(re.findall(r"\w+", part.lower())) for part in re.split(r"[.!?\n]+", text)]
    long = [s for s in said if len(s.split()) >= 4]
    return len(long) != len(set(long))


def first_sentence(text: str) -> str:
    """The first sentence or line of `text`, without its end."""
    line = text.strip().splitlines()[0] if text.strip() else ""
    match = SENTENCE_END.search(line)
    return (line[: match.start()] if match else line).strip().strip("\"'")


def lower_first(text: str) -> str:
    """`text` to stand inside a sentence; an abbreviation keeps its capitals."""
    return text if text[1:2].isupper() else text[:1].lower() + text[1:]


def plain_refusals() -> tuple[str, ...]:
    return read_lines(PACKAGE, "refusals")


def caring_answer(draw: float) -> str:
    """Words for someone in trouble that were written beforehand, chosen by `draw` in [0, 1)."""
    lines = read_lines(PACKAGE, "care")
    return lines[int(draw * len(lines))]


def reasoned_refusal(draw: float, category: str) -> str:
    """A refusal that names the rule, chosen by `draw` in [0, 1)."""
    lines = read_lines(PACKAGE, "refusals_naming_the_rule")
    return fill(lines[int(draw * len(lines))], category=category)
