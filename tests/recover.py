"""How a tester gets the request back out of what an attack sends: one line an attack, plain containment where there is none.

Each takes (what was sent, the request) and says whether the request is all there. What an attack merges (capitals in Morse, vowels that
are left out) is merged on both sides before comparing.
"""

from __future__ import annotations

import base64
import codecs
import json
import re
from collections.abc import Callable

from forethought.attacks.characters import FULLWIDTH, LEET, LOOKALIKE, VOWELS, WORD, ZERO_WIDTH
from forethought.attacks.ciphers import ATBASH, MORSE, shifter
from forethought.attacks.tense import LEADS, MAKES, THIRD_WORD
from forethought.styles import style

Check = Callable[[str, str], bool]
LETTER = re.compile("[A-Za-z]")


def after_head(payload: str) -> str:
    """What follows the line that names the code."""
    return payload.partition("\n\n")[2]


def decoded(decode: Callable[[str], str]) -> Check:
    return lambda payload, text: decode(after_head(payload)) == text


def merged(table: dict[int, int | None]) -> Check:
    return lambda payload, text: payload.translate(table) == text.translate(table)


def from_morse(payload: str, text: str) -> bool:
    back = {code: char for char, code in MORSE.items()}
    words = ("".join(back.get(c, c) for c in word.split(" ")) for word in after_head(payload).split(" / "))
    return " ".join(words).upper() == " ".join(text.split()).upper()


def from_list(payload: str, text: str) -> bool:
    words = re.findall(r"^words\.append\((.*)\)$", payload.replace("\u2028", ""), re.MULTILINE)
    return "".join(map(json.loads, words)) == text.replace("\u2028", "")


def from_shuffled(payload: str, text: str) -> bool:
    words = json.loads(re.search(r"\n\n\nwords = (.*)\ntask = restore", payload, re.DOTALL)[1])  # type: ignore[index]
    half = (len(words) + 1) // 2
    restored = [""] * len(words)
    restored[::2], restored[1::2] = words[:half], words[half:]
    return "".join(restored) == text


def from_parts(payload: str, text: str) -> bool:
    body = payload.split("\n\n")[1]
    parts = dict(line.split(" = ", 1) for line in body.split("\n"))
    return "".join(json.loads(parts[name]) for name in parts.pop("z0").split(" + ")) == text


def in_other_tense(payload: str, text: str) -> bool:
    """All words after the request's opening, the first person turned into the third."""
    bare = text.strip()
    lead = LEADS.match(bare) or MAKES.match(bare)
    tail = bare[lead.end() if lead else 0 :].rstrip("?.! ")
    return bare in payload or all(
        word in payload or THIRD_WORD.search(word) or word in ("I'm", "I") for word in tail.split()
    )


def in_slang(payload: str, text: str) -> bool:
    """All words but those that the style replaces, which are its own words now."""
    words = style("slang").words
    replaced = re.split("|".join(rf"\b{re.escape(word)}\b" for word in words), text, flags=re.IGNORECASE)
    at = -1
    for part in replaced:
        at = payload.find(part, at + 1)
        if at < 0:
            return False
    return True


def scrambled(payload: str, text: str) -> bool:
    """Word by word the same characters, in another order, case, or one code point away."""
    ours, theirs = re.split(r"(\s+)", payload), re.split(r"(\s+)", text)
    return len(payload) == len(text) and len(ours) == len(theirs) and all(map(_noisy, ours, theirs))


def _noisy(word: str, original: str) -> bool:
    """Whether each character of `word` can be matched with one of `original` of its own that noise can have turned into it."""
    near = [{c2 for c in {o, o.swapcase()} for c2 in (c, *_beside(c))} if o.isascii() else {o} for o in original]
    taken: dict[int, int] = {}

    def place(i: int, seen: set[int]) -> bool:
        for j, options in enumerate(near):
            if word[i] in options and j not in seen:
                seen.add(j)
                if j not in taken or place(taken[j], seen):
                    taken[j] = i
                    return True
        return False

    return len(word) == len(original) and all(place(i, set()) for i in range(len(word)))


def _beside(char: str) -> tuple[str, ...]:
    return tuple(chr(ord(char) + d) for d in (-1, 1)) if "!" <= char <= "~" else ()


RECOVERS: dict[str, Check] = {
    "style_frame": in_slang,
    "past_tense": in_other_tense,
    "future_tense": in_other_tense,
    "leetspeak": merged(LEET),
    "disemvowel": merged(VOWELS),
    "fullwidth": merged(FULLWIDTH),
    "homoglyph": merged(LOOKALIKE),
    "misspelling": lambda payload, text: [sorted(w) for w in payload.split()] == [sorted(w) for w in text.split()],
    "zero_width": lambda payload, text: payload.replace(ZERO_WIDTH, "") == text.replace(ZERO_WIDTH, ""),
    "flip": decoded(lambda code: code[::-1]),
    "reversed_words": decoded(lambda code: "".join(reversed(re.split(r"(\s+)", code)))),
    "rot13": decoded(lambda code: codecs.decode(code, "rot13")),
    "caesar": decoded(shifter(-3)),
    "atbash": decoded(lambda code: code.translate(ATBASH)),
    "base64": decoded(lambda code: base64.b64decode(code, validate=True).decode("utf-8", "surrogatepass")),
    "ascii_codes": decoded(lambda code: "".join(chr(int(n)) for n in code.split())),
    "hexadecimal": decoded(lambda code: bytes.fromhex(code).decode("utf-8", "surrogatepass")),
    "binary": decoded(lambda code: bytes(int(b, 2) for b in code.split()).decode("utf-8", "surrogatepass")),
    "morse": from_morse,
    "payload_splitting": from_parts,
    "code_completion": from_list,
    "code_chameleon": from_shuffled,
    "bon": scrambled,
}

# Attacks that change nothing in some texts that are not blank: whether they can change this one.
CAN_CHANGE: dict[str, Callable[[str], bool]] = {
    "leetspeak": lambda text: re.search("[aeiost]", text, re.IGNORECASE | re.ASCII) is not None,
    "disemvowel": lambda text: text.translate(VOWELS) != text and bool(text.translate(VOWELS).strip()),
    "misspelling": lambda text: any(len({*m[0]}) > 1 for m in WORD.finditer(text)),
    "fullwidth": lambda text: any("!" <= c <= "~" for c in text),
    "homoglyph": lambda text: text.translate(LOOKALIKE) != text,
    "zero_width": lambda text: re.search(r"\w\w", text) is not None,
    "flip": lambda text: text[::-1] != text,
    "reversed_words": lambda text: (parts := re.split(r"(\s+)", text)) != parts[::-1],
    "rot13": lambda text: LETTER.search(text) is not None,
    "caesar": lambda text: LETTER.search(text) is not None,
    "atbash": lambda text: LETTER.search(text) is not None,
    "morse": lambda text: any(c.upper() in MORSE for c in text),
    "payload_splitting": lambda text: len(text) > 1,
    "bon": lambda text: LETTER.search(text) is not None,
}
