"""AutoDAN's genetic search over jailbreak templates (Liu et al. 2023, arXiv 2310.04451, AutoDAN-GA).

Kept from the paper: fitness by the likelihood of an agreeing opening, an elite, roulette selection, crossover by sentences, mutation by
a model. Not kept: the word scores of its hierarchical variant, and its population of 64 grown from one template; ours grows from a file's.
"""

from __future__ import annotations

import math
import random
import re
from dataclasses import dataclass

from forethought.attacks import Attack, rewrite_last
from forethought.attacks.attacker import Useless, ask_target, from_attacker, text_of
from forethought.attacks.grading import HIGHEST, Try, best, check_counts, grade
from forethought.attacks.template_file import MARK, insert, read_templates
from forethought.errors import AskFailed, ForethoughtError
from forethought.flow import Choose, Flow, Logprobs, Rng
from forethought.prompts import fill_messages, read_prompt
from forethought.records import Messages, Prompt, Sent
from forethought.refusals import classify

REQUEST = "[REQUEST]"
SENTENCE = re.compile(r"(?<=[.!?:])\s+")
CROSSED = 0.5
# Of a population, at least one, that goes on unchanged.
ELITE = 0.25


@dataclass(frozen=True)
class Scored:
    """A template with its fitness, more is better, and the try behind it where the target had to answer."""

    template: str
    fitness: float
    tried: Try | None = None


def autodan(
    population: int = 6, generations: int = 3, path: str = "", opening: str = "Sure, here is", tries: int = 2
) -> Attack:
    """Templates from a file (ours by default), crossed and reworded by the attacker for `generations`. Sends the fittest.

    Fitness is the log-probability a token of `opening` as the target's first words; behind a server, which gives none, the helper's
    grade of the target's reply.
    """
    check_counts("autodan", HIGHEST, generations=generations, tries=tries)
    check_counts("autodan", HIGHEST, 2, population=population)
    if not opening.strip():
        raise ForethoughtError("autodan needs an opening of at least one word: autodan(opening='Sure,').")
    known = [MARK.sub(lambda _: REQUEST, t) for t in read_templates(path) if len(MARK.findall(t)) == 1]
    if len(known) < 2:
        raise ForethoughtError(
            f"autodan needs at least two templates with one place for the request; '{path}' has less."
        )

    def attack(prompt: Prompt) -> Flow[list[Sent]]:
        text_of(prompt)
        rng = yield Rng()
        assert isinstance(rng, random.Random)
        alive = yield from scored(prompt, rng.sample(known, min(population, len(known))), opening)
        if not alive:
            raise AskFailed("too_long", "the request fits the target's context in no template")
        last: AskFailed | None = None
        mutated = 0
        for generation in range(generations):
            ranked = sorted(alive, key=lambda one: -one.fitness)
            kept = ranked[: max(1, round(ELITE * population))]
            children: list[str] = []
            for i in range(population - len(kept)):
                child = cross(*roulette(ranked, rng), rng)
                try:
                    child = yield from mutate(child, tries, (generation * population + i) * tries)
                    mutated += 1
                except AskFailed as error:
                    if error.kind not in ("not_applicable", "too_long"):
                        raise
                    last = error
                children.append(child)
            new = [c for c in dict.fromkeys(children) if c not in {one.template for one in kept}]
            alive = [*kept, *(yield from scored(prompt, new, opening))]
        if not mutated and last is not None:
            raise AskFailed("not_applicable", f"no template was reworded: {last.message}")
        fittest = max(alive, key=lambda one: one.fitness)
        if fittest.tried is not None:
            return best([one.tried for one in alive if one.tried is not None])
        return [Sent(messages=put_in(prompt, fittest.template))]

    return attack


def put_in(prompt: Prompt, template: str) -> Messages:
    """The messages with the request in a template."""
    return rewrite_last(prompt.messages, lambda text: insert(template, text))


def scored(prompt: Prompt, templates: list[str], opening: str) -> Flow[list[Scored]]:
    """Templates with their fitness for this request; one that does not fit the target's context has none, and is left out."""
    found = []
    for template in templates:
        try:
            found.append((yield from fitness(prompt, template, opening)))
        except AskFailed as error:
            if error.kind != "too_long":
                raise
    return found


def fitness(prompt: Prompt, template: str, opening: str) -> Flow[Scored]:
    """A template with its fitness for this request: how likely the target is to open so, or from a server the helper's grade."""
    messages = put_in(prompt, template)
    try:
        asked = yield Choose("target", messages, (opening,))
    except AskFailed as error:
        if error.kind != "unsupported":
            raise
        reply, answer = yield from ask_target(messages)
        tried = Try(messages, reply, answer, (yield from grade(prompt.request, answer)))
        return Scored(template, float(tried.grade or 0), tried)
    assert isinstance(asked, Logprobs)
    return Scored(template, asked.logprobs[0] / max(asked.tokens[0], 1))


def roulette(ranked: list[Scored], rng: random.Random) -> tuple[str, str]:
    """Two parents, drawn in proportion to the softmax of their fitness."""
    weights = [math.exp(one.fitness - ranked[0].fitness) for one in ranked]
    first, second = rng.choices(ranked, weights, k=2)
    return first.template, second.template


def cross(first: str, second: str, rng: random.Random) -> str:
    """The sentences of two templates, at each place of one or the other; the first as it is where the request would be lost or doubled."""
    if rng.random() >= CROSSED:
        return first
    ours, theirs = SENTENCE.split(first), SENTENCE.split(second)
    sides = [(ours, theirs)[rng.random() < 0.5] for _ in range(max(len(ours), len(theirs)))]
    child = " ".join(side[i] for i, side in enumerate(sides) if i < len(side))
    return child if len(MARK.findall(child)) == 1 else first


def mutate(template: str, tries: int, sample: int) -> Flow[str]:
    """A template reworded by the attacker, with the request's place kept. AskFailed where it writes none."""

    def read(said: str) -> str:
        if not said or said == template:
            raise Useless("is unchanged" if said else "is empty")
        if said.count(REQUEST) != 1 or len(MARK.findall(said)) != 1:
            raise Useless("refuses" if classify(said).label == "refusal" else "lost the place of the request")
        if len(said.split()) > 2 * len(template.split()) + 40:
            raise Useless("is too long")
        return said

    messages = fill_messages(read_prompt(__package__, "mutate"), text=template)
    return (yield from from_attacker(messages, read, tries, sample))
