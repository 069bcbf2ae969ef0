"""A request in one sentence that begins with "The user wants", as a thought opens with it.

A teacher writes it. A weak one is helped: of several tries that one is kept from which the request's own words follow best, and where
none keeps the request as well as turning its first person into the third by rule would, that is what is kept.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from forethought.errors import AskFailed
from forethought.flow import Ask, Flow, RoleName
from forethought.prompts import fill_messages, read_lines, read_prompt
from forethought.records import Prompt, Sampling
from forethought.refusals import classify
from forethought.replies import reply_of
from forethought.synth.common import PACKAGE, Reject, first_sentence, lower_first, repeats_run
from forethought.synth.teacher import rank

PREFIX = "The user wants"
RULE = -1
# Nats a token by which a teacher's restatement may explain the request worse than the rule's, which keeps all its words. Of 70
# restatements by SmolLM2-135M on starter prompts, nearly all below it were wrong by eye, and nearly all above it right.
MARGIN = 0.75


@dataclass(frozen=True)
class Intent:
    """A restated request, the sample it came from, and the mean log-probability of the request's own words after it."""

    text: str
    sample: int
    score: float | None = None


def restate(prompt: Prompt, tries: int, candidates: int = 1, role: RoleName = "teacher") -> Flow[list[Intent]]:
    """One-sentence intents without a fault, best first: greedy first, then warmer, until there are `candidates` or `tries` are used up.

    With more than one candidate they are ordered by how well the request's own words follow from them, which a model that restates
    badly can still judge; those that do so much worse than `by_rule`, or do not keep the request, are dropped for it. Raises Reject with
    the last fault where nothing is left.
    """
    found, fault = yield from _tried(prompt, tries, candidates, role)
    # The rule mends what a teacher says of a request, not a teacher that says nothing.
    if candidates > 1 and (
        found or fault.reason in ("intent is about something else", "intent repeats a demonstration")
    ):
        found = yield from _by_request(prompt, found, role)
    if not found:
        raise fault
    return found


def _tried(prompt: Prompt, tries: int, candidates: int, role: RoleName) -> Flow[tuple[list[Intent], Reject]]:
    template = read_prompt(PACKAGE, "scot_intent")
    shown = " / ".join(m.content for m in template if m.role == "assistant")
    messages = fill_messages(template, request=prompt.request)
    fault, found = Reject("intent was not asked for"), dict[str, Intent]()
    for sample in range(tries):
        sampling = Sampling(temperature=0.0 if sample == 0 else 0.7, top_p=0.95, max_tokens=40)
        reply = yield from reply_of(Ask(role, messages, prefix=PREFIX, sample=sample, sampling=sampling))
        text = reply.text.removeprefix(PREFIX).strip()
        said = first_sentence(text)
        wrong = intent_fault(said, prompt.request, cut=reply.stop == "length" and said == text)
        if not wrong and repeats_run(said, shown, 4) and not repeats_run(said, prompt.request, 4):
            wrong = "repeats a demonstration"
        if wrong:
            fault = Reject(f"intent {wrong}", said[:200])
        else:
            found.setdefault(said, Intent(f"{PREFIX} {said}", sample))
            if len(found) >= candidates:
                break
    return list(found.values()), fault


def _by_request(prompt: Prompt, intents: list[Intent], role: RoleName) -> Flow[list[Intent]]:
    ruled = by_rule(prompt.request)
    scored = []
    for intent in [*intents, *([Intent(ruled, RULE)] if ruled else [])]:
        messages = fill_messages(read_prompt(PACKAGE, "said"), intent=intent.text)
        try:
            (score,) = yield from rank(role, messages, (f" {prompt.request}",), prefix='They said: "')
        except AskFailed as error:
            if error.kind != "unsupported":
                raise
            return intents
        scored.append(Intent(intent.text, intent.sample, score))
    least = next((i.score - MARGIN for i in scored if i.sample == RULE and i.score is not None), float("-inf"))
    own = [i for i in scored if i.sample != RULE and i.score is not None and i.score >= least]
    if ruled:
        own = [i for i in own if keeps_request(i.text.removeprefix(PREFIX).strip(), prompt.request)]
    return sorted(own or [i for i in scored if i.sample == RULE] or scored, key=lambda i: -(i.score or 0.0))


HOW = re.compile(
    r"(?:so|ok|okay|hey|hi|please|and|\W)*how (?:do|can|could|would|should|might|to)(?: i| you| we| one)?\b", re.I
)
# "Can you ..." asks for an act whatever its verb; a bare order is known by it.
ASKED = re.compile(
    r"(?:please |hey |so |ok |okay |\W)*(?:can|could|would|will) you (?:please |just |kindly )*(?=[a-z])", re.I
)
ORDER = re.compile(
    r"(?:please |just |can you |could you |would you |will you )*"
    r"(add|advise|argue|build|calculate|coach|come up|compare|compose|convert|convince|create|define|describe|design|develop|draft|draw"
    r"|explain|find|fix|forge|generate|get|give|guide|help|imagine|invent|let|list|make|name|outline|persuade|pick|plan|pretend|propose"
    r"|prove|provide|put|recommend|rewrite|say|set|share|show|sort|suggest|summari[sz]e|talk|teach|tell|translate|turn|walk|write)\b",
    re.I,
)
QUESTION = re.compile(
    r"(?:how (?:many|much|often|long|far|old|big|late|early)|what|which|where|when|why|who|whom|whose|is|are|am|was|were|do|does|did|has"
    r"|have|can|could|would|should|will|may|might)\b",
    re.I,
)
PERSONS = (
    (r"\bI'm\b|\bI am\b|\bim\b", "they are"), (r"\bam I\b", "are they"), (r"\bI was\b", "they were"), (r"\bwas I\b", "were they"),
    (r"\bI've\b", "they have"), (r"\bI'd\b", "they would"), (r"\bI'll\b", "they will"), (r"\bI\b", "they"), (r"\bmyself\b", "themselves"),
    (r"\bmine\b", "theirs"), (r"\bmy\b", "their"), (r"\bme\b", "them"),
)  # fmt: skip


def by_rule(request: str) -> str | None:
    """An English request with its first person turned into the third, behind the opening that its form calls for; None for a long one."""
    text = re.sub(r"\s+", " ", request).strip().rstrip(".?! ").replace("’", "'")
    words = re.findall(r"[a-z]+", text.lower())
    if not 2 <= len(words) <= 45 or "<" in text or not set(words) & set(read_lines(PACKAGE, "common_words")):
        return None
    whole = not re.search(r"[.?!] ", text)
    if whole and (match := HOW.match(text)):
        opening, rest = "to know how to", text[match.end() :]
    elif whole and (asked := ASKED.match(text)):
        opening, rest = "me to", text[asked.end() :]
    elif order := ORDER.match(text):
        opening, rest = "me to", text[order.start(1) :]
    elif whole and QUESTION.match(text):
        opening, rest = "to know", text
    else:
        opening, rest = "help with this:", text
    rest = re.sub(r"[.?!]+ (\w+)", lambda m: f"; {m[1] if m[1] == 'I' else lower_first(m[1])}", rest)
    rest = rest.strip() if re.match(r"I\b", rest.strip()) else lower_first(rest.strip())
    for pattern, other in PERSONS:
        rest = re.sub(pattern, other, rest, flags=re.IGNORECASE)
    said = f"{PREFIX} {opening} {rest}"
    return None if classify(said).label == "refusal" else said


def intent_fault(said: str, request: str, cut: bool) -> str:
    """What is wrong with a restated intent, '' if nothing: it must be short, whole, faithful, and no answer or refusal.

    Faithful is measured by words: at least 60% of the intent's content words come from the request, and the intent holds at least
    35% of the request's (25% of a request of over 20 content words).
    """
    if cut:
        return "is cut off"
    if not 2 <= len(said.split()) <= 40:
        return "is empty or too long"
    if "<" in said or classify(f"{PREFIX} {said}").label == "refusal":
        return "is not an intent"
    return "" if same_request(said, request) else "is about something else"


def same_request(said: str, request: str) -> bool:
    """Whether two texts share so many content words that the one can be taken for a restatement of the other."""
    words, asked = content_words(said), content_words(request)
    shared = len(words & asked)
    return shared >= 0.6 * len(words) and shared >= (0.35 if len(asked) <= 20 else 0.25) * len(asked)


COMMON_ASKS = "find understand learn explain advice information ways instructions create write give tell"
KNOWING = re.compile(
    r"(?:me to|help|advice|an? |the |to (?:know|learn|understand|find out|ask|hear|get|see|be told|explain)\b)", re.I
)
DENIAL = re.compile(r"\b(?:no|not|never|without)\b|n't\b", re.I)


def keeps_request(said: str, request: str) -> bool:
    """Whether a weak teacher's restatement is as faithful as the rule's, by what such teachers get wrong: it brings in nothing of its
    own, keeps at least 60% of the request's content words, denies what the request denies, and makes no order of a question."""
    words, asked = content_words(said) - content_words(COMMON_ASKS), content_words(request)
    if words - asked or len(words & asked) < 0.6 * len(asked):
        return False
    if bool(DENIAL.search(said)) != bool(DENIAL.search(request)):
        return False
    return not QUESTION.match(request.strip()) or bool(KNOWING.match(said))


def content_words(text: str) -> set[str]:
    """Lower-case word stems (first five letters) that carry meaning."""
    common = read_lines(PACKAGE, "common_words")
    return {w[:5] for w in re.findall(r"[^\W\d_]+", text.lower()) if w not in common and len(w) > 2}
