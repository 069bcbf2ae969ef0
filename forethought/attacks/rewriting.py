"""The request in other words, by an attacker model: in a style, in another tense. What it writes is sent once.

Styles are those of `forethought/styles`, in the sense of SORRY-Bench (Xie et al. 2024, arXiv 2406.14598).
"""

from __future__ import annotations

import random
from typing import Literal

from forethought.attacks import Attack, RandomTransform, rewrite_last
from forethought.attacks.attacker import Useless, rewriting
from forethought.prompts import fill_messages, read_prompt
from forethought.records import Messages
from forethought.styles import style as find_style
from forethought.styles.rewrite import frame, instructions

# Of the words that carry the request's meaning: half may be put otherwise.
KEPT = 0.5
WHEN = {"past": ("did", "was", "were", "used to", "back", "had"), "future": ("will", "would", "going to", "future")}


def rewrite(style: str = "slang", tries: int = 3) -> Attack:
    """The request in a style of styles.yaml, by a model that is shown demonstrations of it."""
    chosen = find_style(style)

    def ask(text: str) -> Messages:
        return instructions(text, chosen)

    return rewriting(ask, tries, KEPT)


def style_frame(style: str = "slang") -> RandomTransform:
    """The same styles without a model: words replaced, and one of the style's frames, drawn by seed, around the request."""
    chosen = find_style(style)

    def attack(messages: Messages, rng: random.Random) -> Messages:
        return rewrite_last(messages, lambda text: frame(text, chosen, rng))

    return attack


def rewrite_tense(tense: Literal["past", "future"] = "past", tries: int = 3) -> Attack:
    """A question about how it was done, or will be (Andriushchenko and Flammarion 2024, arXiv 2407.11969). The paper takes the best of 20
    rewrites; this is one."""
    template = read_prompt(__package__, f"tense_{tense}")

    def ask(text: str) -> Messages:
        return fill_messages(template, request=text)

    def check(said: str) -> None:
        if not any(f" {word} " in f" {said.lower()} " for word in WHEN[tense]):
            raise Useless(f"is not in the {tense} tense")

    return rewriting(ask, tries, KEPT, check)
