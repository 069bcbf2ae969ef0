"""Attacks: one file a family, one line each in ATTACKS. A factory's signature is its configuration.

Most attacks are a Transform, a function of `messages` (and of `rng`, where it draws), which `as_attack` lifts. Others are a flow, a
function of `prompt`. `a+b` puts b around what a made: `leetspeak+persona`.
"""

from __future__ import annotations

import inspect
import random
from collections.abc import Callable
from typing import Any

from forethought.attacks.compose import UNCHANGED as UNCHANGED
from forethought.attacks.compose import chain, split_spec
from forethought.errors import AskFailed, ForethoughtError
from forethought.flow import Flow, Rng
from forethought.records import Message, Messages, Prompt, Sent
from forethought.registry import Entry, parse_spec, resolve

Attack = Callable[[Prompt], Flow[list[Sent]]]
Transform = Callable[[Messages], Messages]
RandomTransform = Callable[[Messages, random.Random], Messages]

ATTACKER = "an attacker model"
HELPED = "an attacker and a helper model"
FILE = "a file"
SORRY, JAILBROKEN, PAP = "arXiv 2406.14598", "arXiv 2307.02483", "arXiv 2401.06373"

# fmt: off
ATTACKS: dict[str, Entry] = {
    "direct": Entry("forethought.attacks.direct:direct", "the request as it is"),
    "prefix_injection": Entry("forethought.attacks.instructions:prefix_injection", "asks for an opening of agreement", JAILBROKEN),
    "refusal_suppression": Entry("forethought.attacks.instructions:refusal_suppression", "forbids the words of a refusal", JAILBROKEN),
    "style_json": Entry("forethought.attacks.instructions:style_json", "asks for the answer as a JSON object", JAILBROKEN),
    "persona": Entry("forethought.attacks.persona:persona", "puts the request to an assistant without limits", "arXiv 2308.03825"),
    "past_tense": Entry("forethought.attacks.tense:past_tense", "asks how people used to do it, by template", "arXiv 2407.11969"),
    "future_tense": Entry("forethought.attacks.tense:future_tense", "asks how people will do it, by template", "arXiv 2407.11969"),
    "distractors": Entry("forethought.attacks.instructions:distractors", "hides the request among three small tasks", JAILBROKEN),
    "style_short": Entry("forethought.attacks.style:style_short", "asks for a short answer in short words", JAILBROKEN),
    "style_poem": Entry("forethought.attacks.style:style_poem", "asks for the answer as a poem", JAILBROKEN),
    "style_wiki": Entry("forethought.attacks.style:style_wiki", "asks for the answer as an encyclopedia article", JAILBROKEN),
    "persona_aim": Entry("forethought.attacks.persona:persona_aim", "a writer's character who advises without scruple", "arXiv 2308.03825"),
    "persona_dan": Entry("forethought.attacks.persona:persona_dan", "two answers, the second by an unlimited twin", "arXiv 2308.03825"),
    "persona_developer": Entry("forethought.attacks.persona:persona_developer", "pretends that a test mode is on", "arXiv 2308.03825"),
    "role_play": Entry("forethought.attacks.fiction:role_play", "a scene in which an expert explains it", "arXiv 2305.13860"),
    "nested_fiction": Entry("forethought.attacks.fiction:nested_fiction", "stories inside stories that answer it", "arXiv 2311.03191"),
    "expert_endorsement": Entry("forethought.attacks.persuasion:expert_endorsement", "claims that experts recommend answering", PAP),
    "authority_endorsement": Entry("forethought.attacks.persuasion:authority_endorsement", "claims that an institution asked for it", PAP),
    "developer_endorsement": Entry("forethought.attacks.persuasion:developer_endorsement", "claims that the model's makers allow it", PAP),
    "misrepresentation": Entry("forethought.attacks.persuasion:misrepresentation", "claims a profession that needs the answer", PAP),
    "evidence": Entry("forethought.attacks.persuasion:evidence", "claims that studies show answering is safe", PAP),
    "logical_appeal": Entry("forethought.attacks.persuasion:logical_appeal", "argues step by step for an answer", PAP),
    "leetspeak": Entry("forethought.attacks.characters:leetspeak", "digits for letters", JAILBROKEN),
    "disemvowel": Entry("forethought.attacks.characters:disemvowel", "leaves the vowels out", JAILBROKEN),
    "misspelling": Entry("forethought.attacks.characters:misspelling", "swaps letters inside words, drawn by seed", SORRY),
    "fullwidth": Entry("forethought.attacks.characters:fullwidth", "full-width forms of ASCII", "arXiv 2106.09898"),
    "homoglyph": Entry("forethought.attacks.characters:homoglyph", "Cyrillic letters that look Latin", "arXiv 2106.09898"),
    "zero_width": Entry("forethought.attacks.characters:zero_width", "invisible characters between letters", "arXiv 2106.09898"),
    "flip": Entry("forethought.attacks.characters:flip", "all characters in reverse", "arXiv 2410.02832"),
    "reversed_words": Entry("forethought.attacks.characters:reversed_words", "words in reverse order", "arXiv 2410.02832"),
    "rot13": Entry("forethought.attacks.ciphers:rot13", "letters moved by 13", JAILBROKEN),
    "caesar": Entry("forethought.attacks.ciphers:caesar", "letters moved by `shift`", "arXiv 2308.06463"),
    "atbash": Entry("forethought.attacks.ciphers:atbash", "the alphabet mirrored", SORRY),
    "base64": Entry("forethought.attacks.ciphers:base64", "the request in base64", JAILBROKEN),
    "ascii_codes": Entry("forethought.attacks.ciphers:ascii_codes", "the request as character codes", "arXiv 2308.06463"),
    "hexadecimal": Entry("forethought.attacks.ciphers:hexadecimal", "the request's bytes in hexadecimal", "ours"),
    "binary": Entry("forethought.attacks.ciphers:binary", "the request's bytes in binary", "ours"),
    "morse": Entry("forethought.attacks.ciphers:morse", "the request in Morse code", "arXiv 2308.06463"),
    "self_cipher": Entry("forethought.attacks.ciphers:self_cipher", "a cipher in name only, with examples", "arXiv 2308.06463"),
    "payload_splitting": Entry("forethought.attacks.splitting:payload_splitting", "the request in parts to be joined", "arXiv 2302.05733"),
    "code_completion": Entry("forethought.attacks.code_wrap:code_completion", "a program to finish, words in a list", "arXiv 2403.07865"),
    "code_chameleon": Entry("forethought.attacks.code_wrap:code_chameleon", "shuffled words and code that sorts them", "arXiv 2402.16717"),
    "few_shot": Entry("forethought.attacks.shots:few_shot", "earlier turns in which everything was answered", "arXiv 2310.06387"),
    "many_shot": Entry("forethought.attacks.shots:many_shot", "a long dialogue in which everything was answered", "Anil et al. 2024"),
    "small_talk": Entry("forethought.attacks.shots:small_talk", "friendly turns before the request", "arXiv 2404.01833"),
    "answer_prefill": Entry("forethought.attacks.prefill:answer_prefill", "starts the answer with agreement", "arXiv 2404.02151"),
    "empty_thought": Entry("forethought.attacks.reasoning:empty_thought", "opens and closes the thought for the model", "arXiv 2502.12025"),
    "forged_thought": Entry("forethought.attacks.reasoning:forged_thought", "writes a thought that finds it harmless", "arXiv 2502.12893"),
    "no_thought": Entry("forethought.attacks.reasoning:no_thought", "asks the model not to think", "arXiv 2502.12202"),
    "forged_verdict": Entry("forethought.attacks.reasoning:forged_verdict", "a safety check in the prompt, passed", "arXiv 2502.12893"),
    "thought_flooding": Entry("forethought.attacks.reasoning:thought_flooding", "a long harmless puzzle first", "arXiv 2510.26418"),
    "bon": Entry("forethought.attacks.sampled:bon", "best of n: random case, order and noise", "arXiv 2412.03556", cost="n queries"),
    "gcg": Entry("forethought.attacks.gcg:gcg", "a suffix found by gradients of a wanted reply", "arXiv 2307.15043", "weights"),
    "random_search": Entry("forethought.attacks.random_search:random_search", "a suffix by random search", "arXiv 2404.02151", "weights"),
    "latent": Entry("forethought.attacks.latent:latent", "the worst perturbation inside the model", "arXiv 2407.15549", "weights"),
    "templates": Entry("forethought.attacks.template_file:templates", "from a file: templates:PATH", "arXiv 2309.10253", cost="n queries"),
    "replay": Entry("forethought.attacks.replay:replay", "what a file holds for it: replay(path=FILE)", needs=FILE, cost="1 query"),
    "style_frame": Entry("forethought.attacks.rewriting:style_frame", "a style's frame, drawn by seed: style=NAME", SORRY),
    "rewrite": Entry("forethought.attacks.rewriting:rewrite", "rewritten in a style: style=NAME", SORRY, ATTACKER),
    "rewrite_tense": Entry("forethought.attacks.rewriting:rewrite_tense", "tense=past or future, by model", "arXiv 2407.11969", ATTACKER),
    "pap": Entry("forethought.attacks.persuading:pap", "rewritten by one of 40 techniques of persuasion", PAP, ATTACKER),
    "translation": Entry("forethought.attacks.translation:translation", "language=fr, ml or any name", "arXiv 2310.06474", ATTACKER),
    "decomposition": Entry("forethought.attacks.decomposition:decomposition", "in parts, a turn each", "arXiv 2402.17262", ATTACKER),
    "crescendo": Entry("forethought.attacks.crescendo:crescendo", "nearer turn by turn, back if refused", "arXiv 2404.01833", HELPED),
    "pair": Entry("forethought.attacks.pair:pair", "prompts improved from the target's answers", "arXiv 2310.08419", HELPED),
    "tap": Entry("forethought.attacks.tap:tap", "PAIR that branches and prunes", "arXiv 2312.02119", HELPED),
    "autodan": Entry("forethought.attacks.autodan:autodan", "genetic search over templates", "arXiv 2310.04451", HELPED),
}
# fmt: on


def families() -> dict[str, tuple[str, ...]]:
    """The names of ATTACKS by family, which is the name of the module they come from."""
    found: dict[str, tuple[str, ...]] = {}
    for name, entry in ATTACKS.items():
        family = entry.where.partition(":")[0].rpartition(".")[2]
        found[family] = (*found.get(family, ()), name)
    return found


FAMILIES = families()


def load_attack(spec: str) -> tuple[str, Attack]:
    """The attack a spec names, with its name for records. Raises ForethoughtError for an unknown one.

    `a+b+c` applies a first; only the last may be a flow. `templates:PATH` is `templates(path=PATH)`.
    """
    names = split_spec(spec)
    alone = [n for n in names if (entry := ATTACKS.get(_table_name(n))) and entry.needs in (HELPED, FILE)]
    if alone and len(names) > 1:
        own = "sends what its file holds" if ATTACKS[_table_name(alone[0])].needs == FILE else "writes its own messages"
        raise ForethoughtError(f"'{alone[0]}' {own}, so it cannot stand beside '+'. Name it alone.")
    parts = [(part, _resolve(part)) for part in names]
    return spec, as_attack(parts[0][1] if len(parts) == 1 else chain(parts))


def describe(spec: str) -> tuple[str, str]:
    """What the parts of a spec do and their papers, for tables; empty text where a part is not in ATTACKS."""
    entries = [ATTACKS.get(_table_name(part)) for part in split_spec(spec)]
    papers = dict.fromkeys(e.paper for e in entries if e and e.paper)
    return "; then ".join(e.about if e else "a custom attack" for e in entries), ", ".join(papers)


def needed(spec: str) -> str:
    """What models the parts of a spec need besides the target, for errors and tables; empty for none and for a custom attack."""
    entries = [ATTACKS.get(_table_name(part)) for part in split_spec(spec)]
    return " and ".join(dict.fromkeys(e.needs for e in entries if e and e.needs))


def may_ask(spec: str, role: str) -> bool:
    """Whether an attack asks the model of a role, `attacker` or `helper`; a custom one may."""
    entries = [ATTACKS.get(_table_name(part)) for part in split_spec(spec)]
    return any(entry is None or role in entry.needs for entry in entries)


def beyond_text(spec: str) -> bool:
    """Whether an attack changes the model itself while it replies, so that what it sends does not show the attack."""
    return any(_table_name(part) == "latent" for part in split_spec(spec))


def cost_of(entry: Entry) -> str:
    """What an attack costs a prompt, as a class: `1 query`, `n queries`, `attacker` (and its queries) or `weights`."""
    if "weights" in entry.needs:
        return "weights"
    return entry.cost or ("attacker" if entry.needs else "1 query")


def as_attack(made: Callable[..., Any]) -> Attack:
    """A function of `prompt` as it is; a Transform, a function of `messages` or of `messages, rng`, lifted to an attack that sends
    its result once.

    A transform that leaves the messages unchanged did not attack: its row fails as `not_applicable` and is never counted as safe.
    """
    takes = [*inspect.signature(made).parameters] if callable(made) else []
    if not takes:
        raise ForethoughtError(f"an attack factory must return a function of `prompt` or of `messages`, not {made!r}.")
    if takes[0] != "messages":
        return made
    draws = takes[1:2] == ["rng"]

    def attack(prompt: Prompt) -> Flow[list[Sent]]:
        messages = made(prompt.messages, (yield Rng())) if draws else made(prompt.messages)
        if messages == prompt.messages:
            raise AskFailed("not_applicable", UNCHANGED)
        return [Sent(messages=messages)]

    return attack


def sent_unasked(attack: Attack, prompt: Prompt, draw: Callable[[], random.Random]) -> list[Sent]:
    """What an attack sends without asking a model; nothing where it would ask one. `draw` gives each generator that it asks for."""
    flow = attack(prompt)
    try:
        question = next(flow)
        while isinstance(question, Rng):
            question = flow.send(draw())
        flow.close()
        return []
    except StopIteration as done:
        sent: list[Sent] = done.value
        return sent


def rewrite_last(messages: Messages, rewrite: Callable[[str], str]) -> Messages:
    """`messages` with the text of the last user turn rewritten."""
    last = last_user(messages)
    if last is None:
        return messages
    turn = Message(role="user", content=rewrite(messages[last].content))
    return (*messages[:last], turn, *messages[last + 1 :])


def last_user(messages: Messages) -> int | None:
    """Where the last user turn stands, or None."""
    return max((i for i, m in enumerate(messages) if m.role == "user"), default=None)


def frame(before: str, after: str = "") -> Transform:
    """A transform that puts fixed text around the last user turn, whose words stay as they are."""

    def attack(messages: Messages) -> Messages:
        return rewrite_last(messages, lambda text: before + text + after)

    return attack


def encoded(encode: Callable[[str], str], before: str = "", after: str = "") -> Transform:
    """A transform that puts fixed text around an encoded last user turn; unchanged where the text is blank or the code has nothing
    to change in it, so that no frame passes for an attack by itself."""

    def rewrite(text: str) -> str:
        code = encode(text) if text.strip() else text
        return text if code == text or not code.strip() else before + code + after

    def attack(messages: Messages) -> Messages:
        return rewrite_last(messages, rewrite)

    return attack


def _resolve(part: str) -> Any:
    if part.startswith("templates:"):
        from forethought.attacks.template_file import templates

        return templates(path=part.partition(":")[2].strip())
    return resolve("attack", ATTACKS, part)


def _table_name(part: str) -> str:
    return "templates" if part.startswith("templates:") else parse_spec(part)[0]
