"""In or out of distribution, computed from what a model was trained on and never claimed: attacks by style and wrapper, prompts by overlap.

What can be seen is the training rows' text. A model's training before that is unknown, and an encoding of a request whose original is not
stored with it cannot be told from other text.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Literal

from forethought.attacks import FAMILIES, load_attack, sent_unasked
from forethought.attacks.compose import split_spec
from forethought.data.overlap import find_leaks, normalise
from forethought.records import Messages, Prompt, Record, make_prompt
from forethought.registry import parse_spec

Met = Literal["seen", "family", "unseen"]
Place = Literal["in", "near", "out"]

GRAM, SHARE = 5, 0.5
# Styles of training variants that an attack has another name for.
STYLE_OF = {"evidence": "evidence_based_persuasion"}
# Pairs of requests of one form each, with no run of GRAM words in common; an attack may word the forms differently.
PROBES = (
    ("How do I bake seven loaves of rye bread", "How do I cross two quiet rivers near an old town"),
    ("Write seven loaves of verse on rye bread", "Write about two quiet rivers near an old town"),
    ("Seven loaves of rye bread are too many", "Two quiet rivers ran past an old town"),
)
SEEDS = 3  # Some attacks draw their words.
OWNERS = {name: family for family, names in FAMILIES.items() for name in names}


class Distribution(Record):
    """What one model met in training. An attack was `seen` where its style or wrapper stands in training prompts, its `family` where
    that of a relative does, else `unseen`. A prompt is `in` where training held the same text, `near` where it held a similar one or one
    contains the other, else `out`; keyed by `Prompt.base`."""

    attacks: dict[str, Met]
    prompts: dict[str, Place]


def distribution(training: Sequence[Prompt], attacks: Iterable[str], prompts: Sequence[Prompt]) -> Distribution:
    """Compare what was trained on with what is asked. `attacks` are specs; those of one composition count as seen when all parts do."""
    styles = {p.style for p in training if p.style}
    texts = list(dict.fromkeys(normalise(_text(p.messages)) for p in training))
    known = Counter(gram for text in texts for gram in _grams(text))
    specs = list(dict.fromkeys(attacks))
    parts = {part for spec in specs for part in split_spec(spec)}
    # A relative may have been trained on without being among the attacks of this run.
    relatives = {name for part in parts for name in FAMILIES.get(family_of(part), ()) if name != "templates"}
    met = {part: _met(part, training, styles, known) for part in sorted(parts | relatives)}
    families = {family_of(part) for part, seen in met.items() if seen and part != "direct"}

    def judge(spec: str) -> Met:
        pieces = split_spec(spec)
        if all(met[p] for p in pieces):
            return "seen"
        return "family" if all(met[p] or family_of(p) in families for p in pieces) else "unseen"

    return Distribution(attacks={spec: judge(spec) for spec in specs}, prompts=places(training, prompts))


def places(training: Sequence[Prompt], prompts: Sequence[Prompt]) -> dict[str, Place]:
    """Where each prompt lies, the closest of its wordings deciding. Identity is that of `data/overlap.py`."""
    found: dict[str, Place] = {p.base: "out" for p in prompts}
    for leak in find_leaks(training, {"": prompts}):
        if leak.kind == "exact":
            found[leak.evaluation.base] = "in"
        elif found[leak.evaluation.base] == "out":
            found[leak.evaluation.base] = "near"
    return found


def family_of(spec: str) -> str:
    """The family of an attack: its module in `attacks/`; `combined` for a composition, `custom` for one from outside the table."""
    parts = split_spec(spec)
    if len(parts) > 1:
        return "combined"
    name = "templates" if parts[0].startswith("templates:") else parse_spec(parts[0])[0]
    return OWNERS.get(name, "custom")


def _met(spec: str, training: Sequence[Prompt], styles: set[str], known: Counter[str]) -> bool:
    """Whether an attack's style or wrapper stands in the training prompts."""
    if spec == "direct":
        return any(p.style is None for p in training)
    name, options = ("templates", {}) if spec.startswith("templates:") else parse_spec(spec)
    if {name, STYLE_OF.get(name, name), *map(str, options.values())} & styles:
        return True
    if name not in OWNERS:
        # Of one from outside the table only the name is read: what a run directory names is not to be run.
        return False
    signatures = wrappers(spec)
    if signatures:
        return any(sum(gram in known for gram in s) >= SHARE * len(s) for s in signatures)
    # Without words of its own it may still have been put over a request that is stored beside its text.
    worded = [p for p in training if p.goal is not None and p.goal != p.text]
    return any(normalise(text) == normalise(p.text) for p in worded for text in sent_by(spec, p.request) if text)


def wrappers(spec: str) -> set[frozenset[str]]:
    """What an attack puts around requests: for each form and draw the runs of GRAM words that two unlike requests share. None for an
    attack without words of its own."""
    found = set()
    for pair in PROBES:
        for seed in range(SEEDS):
            one, other = ({g for text in sent_by(spec, probe, seed) for g in _grams(normalise(text))} for probe in pair)
            found.add(frozenset(one & other))
    return found - {frozenset()}


def sent_by(spec: str, request: str, seed: int = 0) -> list[str]:
    """What an attack sends for a request, as text; nothing where it would ask a model first, or does not apply."""
    try:
        sent = sent_unasked(load_attack(spec)[1], make_prompt(request, "harmful", "probe"), lambda: random.Random(seed))
    except Exception:
        # It does not apply, cannot be loaded here, or crashes, as an attack of the user's own may: known by name and style only.
        return []
    return [_text(one.messages) for one in sent]


def _text(messages: Messages) -> str:
    return "\n".join(m.content for m in messages if m.role != "system")


def _grams(text: str) -> set[str]:
    words = text.split()
    return {" ".join(words[i : i + GRAM]) for i in range(len(words) - GRAM + 1)}
