"""Best-of-N: many random augmentations of one request (Hughes et al. 2024, arXiv 2412.03556, section 2, text)."""

from __future__ import annotations

import random
import re

from forethought.attacks import UNCHANGED, Attack, rewrite_last
from forethought.errors import AskFailed, ForethoughtError
from forethought.flow import Flow, Rng
from forethought.records import Prompt, Sent

TRIES = 20


def bon(n: int = 8, sigma: float = 0.4) -> Attack:
    """`n` attempts, each with its own draw of word scrambling, capitals and noise; `sample` counts them from 0.

    An attempt that left the text as it was is drawn again, up to 20 times, and left out then.
    """
    if n < 1 or not 0 < sigma <= 1:
        raise ForethoughtError(f"bon needs n of at least 1 and sigma above 0, at most 1, not n={n} and sigma={sigma}.")

    def attack(prompt: Prompt) -> Flow[list[Sent]]:
        rng = yield Rng()
        assert isinstance(rng, random.Random)
        sent = []
        for i in range(n):
            for _ in range(TRIES):
                messages = rewrite_last(prompt.messages, lambda text: augment(text, sigma, rng))
                if messages != prompt.messages:
                    sent.append(Sent(messages=messages, sample=i))
                    break
        if not sent:
            raise AskFailed("not_applicable", UNCHANGED)
        return sent

    return attack


def augment(text: str, sigma: float, rng: random.Random) -> str:
    """`text` with inner letters of words shuffled and letters' case changed, each with chance sqrt(sigma), and printable ASCII
    moved by one code point with chance sigma cubed. The length stays, and so does white space."""
    often, seldom = sigma**0.5, sigma**3

    def scramble(match: re.Match[str]) -> str:
        word = match[0]
        if rng.random() >= often:
            return word
        inner = list(word[1:-1])
        rng.shuffle(inner)
        return word[0] + "".join(inner) + word[-1]

    def noise(char: str) -> str:
        if "!" <= char <= "~" and rng.random() < seldom:
            moved = chr(ord(char) + rng.choice((-1, 1)))
            return moved if "!" <= moved <= "~" else char
        return char

    def case(char: str) -> str:
        if char.isascii() and char.isalpha() and rng.random() < often:
            return char.swapcase()
        return char

    scrambled = re.sub(r"\S{4,}", scramble, text)
    return "".join(noise(case(char)) for char in scrambled)
