"""Multiple choice: by the likelihood of the options, and by an answer in the model's own words that a strict parser reads.

`likelihood` takes the option with the highest log-probability, summed over its tokens; `likelihood_per_byte` divides that by the option's
length in bytes, as lm-evaluation-harness's `acc_norm` does, so that long options are not at a disadvantage. Both read what a model knows
without a thought: a model trained to think is asked off its path there, and `generation` is its measure.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Literal

from forethought.capability import By, Item, Task, Way
from forethought.capability.reading import SENTENCE, conversation, first, generated
from forethought.errors import ForethoughtError
from forethought.flow import Choose, Flow, Logprobs
from forethought.records import Graded, Messages, Sampling

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
Options = Literal["text", "letters"]
EDGE = r"[\s*_#>`\"'$]*"  # Markdown and quotes around an answer.
LEAD = r"(?:(?:so|therefore|thus|hence|finally|in conclusion)\b,?\s*)?"
SAYS = r"(?:my |the )?(?:final |correct |right |best )?(?:answer|option|choice)(?:\s+is\b:?|\s*[:：])"
# After the letter: nothing, its option's words behind a mark, or a reason.
TAIL = r"(?:[*_`\"'$]*(?:[).:,;]|\s[-–—]|\s*(?=,?\s*(?:because|since|as)\b)).*|[\s*_`\"'$!]*)"
ANCHORED = re.compile(rf"{EDGE}{LEAD}{SAYS}{EDGE}(?:option |choice )?(?P<said>.*)", re.IGNORECASE)
LETTER = re.compile(rf"(?:\\boxed\{{)?\(?(?P<letter>[A-Za-z])(?:\)|\}})?(?P<tail>{TAIL})", re.DOTALL)
BARE = re.compile(rf"{EDGE}\(?(?P<letter>[A-Z])\)?[.)]?{EDGE}|{EDGE}\\boxed\{{(?P<boxed>[A-Z])\}}[.$\s]*")
# Another letter: "A or B", "A, B", "A) iron, B) wood". The article of "B. A planet" is none.
OTHERS = re.compile(
    r"^[\s).,:;/&+]*(?:\b(?:or|and)\b|(?![AI] [a-z])\(?[A-Z]\b)|(?<![\w'])\(?[A-Z]\)|(?<=[,;/\n])\s*\(?[A-Z][.)]\s"
)


def choice_task(read: Callable[[], list[Item]], shots: int, options: Options, by: By) -> Task:
    """A multiple-choice task. With `options=text` the likelihood is that of the option's words after the bare question (a cloze), with
    `letters` that of ` A`, ` B`, ... after all options have been listed; then there is only one likelihood."""
    shown = first("choice", shots)
    likelihoods = {
        "letters": {"likelihood": by_letter(shown)},
        "text": {"likelihood": by_text(shown, False), "likelihood_per_byte": by_text(shown, True)},
    }[options]
    ways: dict[str, Way] = {} if by == "generation" else {k: Way(ask, True) for k, ask in likelihoods.items()}
    if by != "likelihood":
        ways["generation"] = Way(by_generation(shown), False)
    return Task(read, ways)


def item(id: str, question: str, options: list[str], gold: int) -> Item:
    """A question whose right option is number `gold`. ValueError where there is no such option."""
    if not 0 <= gold < len(options) <= len(LETTERS) or len(options) < 2:
        raise ValueError(f"option {gold} of {len(options)} cannot be right")
    texts = tuple(str(o).strip() for o in options)
    if not all(texts) or not question.strip():
        raise ValueError("a question or an option is empty")
    return Item(id=id, question=question.strip(), options=texts, gold=LETTERS[gold])


def by_text(shown: list[dict[str, str]], per_byte: bool) -> Callable[[Item, Sampling], Flow[Graded]]:
    """The option whose words are the likeliest answer to the bare question."""
    shots = [({"question": s["question"]}, _options(s)[LETTERS.index(s["answer"])]) for s in shown]

    def ask(item: Item, sampling: Sampling) -> Flow[Graded]:
        messages = conversation("cloze", shots, {"question": item.question})
        weights = [len(o.encode()) if per_byte else 1 for o in item.options]
        return (yield from likeliest(item, messages, item.options, "", weights))

    return ask


def by_letter(shown: list[dict[str, str]]) -> Callable[[Item, Sampling], Flow[Graded]]:
    """The likeliest letter after `Answer:`, all options listed."""

    def ask(item: Item, sampling: Sampling) -> Flow[Graded]:
        messages = conversation("letters", _lettered(shown), _values(item))
        letters = tuple(f" {letter}" for letter in LETTERS[: len(item.options)])
        return (yield from likeliest(item, messages, letters, "Answer:", [1] * len(letters)))

    return ask


def by_generation(shown: list[dict[str, str]]) -> Callable[[Item, Sampling], Flow[Graded]]:
    """The letter that the model's own words name."""
    shots = [
        (values, f"{s['why']}\nAnswer: {s['answer']}") for (values, _), s in zip(_lettered(shown), shown, strict=True)
    ]

    def ask(item: Item, sampling: Sampling) -> Flow[Graded]:
        messages = conversation("choice", shots, _values(item))
        return (yield from generated(_base(item), messages, sampling, lambda text: read_letter(text, item.options)))

    return ask


def read_letter(text: str, options: tuple[str, ...]) -> str | None:
    """The one letter that a reply gives as its answer; None where it gives none, or two that differ.

    Read are sentences and lines that begin by saying so ("Answer: B", "The correct answer is (B) iron.", "So my final choice is B
    because ..."), an option's own words in that place, and a reply that is nothing but a letter or an option as it was listed. A letter
    somewhere else ("A) because ...") is a guess, and is not read.
    """
    whole = _as_listed(text, options)
    if whole:
        return whole
    found = set()
    for sentence in SENTENCE.split(text):
        match = ANCHORED.fullmatch(sentence.strip())
        if match:
            found.add(_said(match["said"].strip(), options))
    return found.pop() if len(found) == 1 else None


def _said(said: str, options: tuple[str, ...]) -> str | None:
    known = LETTERS[: len(options)]
    named = _as_listed(said, options)
    if named:
        return named
    match = LETTER.fullmatch(said)
    if not match or OTHERS.search(match["tail"]):
        return None
    # A small letter followed by words may be the article.
    letter = match["letter"] if re.search(r"\w", match["tail"]) else match["letter"].upper()
    return letter if letter in known else None


def _as_listed(text: str, options: tuple[str, ...]) -> str | None:
    """The letter of a text that is a letter alone, or one option's words, with or without its letter."""
    known = LETTERS[: len(options)]
    bare = BARE.fullmatch(text)
    letter = (bare["letter"] or bare["boxed"]) if bare else ""
    if letter and letter in known:
        return letter
    plain = _squash(text)
    same = [k for k, o in zip(known, options, strict=True) if plain in (_squash(o), _squash(f"{k} {o}"))]
    return same[0] if len(same) == 1 and plain else None


def _squash(text: str) -> str:
    return re.sub(r"[\W_]+", " ", text).strip().casefold() or text.strip()


def likeliest(
    item: Item,
    messages: Messages,
    options: tuple[str, ...],
    prefix: str,
    weights: list[int],
    without: Messages | None = None,
) -> Flow[Graded]:
    """The item's option with the highest log-probability after `prefix` over its weight; a tie is unparseable. `options` are the words
    that stand for the item's own, in their order. With `without`, a conversation that does not hold the question, what counts is by how
    much the question makes an option likelier (pointwise mutual information; Holtzman et al. 2021, arXiv 2104.08315)."""
    found = yield Choose("target", messages, options, prefix)
    assert isinstance(found, Logprobs)
    scores = [p / w for p, w in zip(found.logprobs, weights, strict=True)]
    if without is not None:
        before = yield Choose("target", without, options, prefix)
        assert isinstance(before, Logprobs)
        scores = [s - p / w for s, p, w in zip(scores, before.logprobs, weights, strict=True)]
    best = [k for k, score in zip(LETTERS, scores, strict=False) if score == max(scores)]
    given = best[0] if len(best) == 1 else None
    return _base(item).model_copy(
        update={
            "given": given,
            "correct": None if given is None else given == item.gold,
            "logprobs": found.logprobs,
            "tokens": found.tokens,
            "error": None if given else "unparseable: two options are equally likely",
        }
    )


def _base(item: Item) -> Graded:
    return Graded(task="", mode="", id=item.id, question=item.question, gold=item.gold, chance=1 / len(item.options))


def _values(item: Item) -> dict[str, str]:
    listed = "\n".join(f"{k}. {o}" for k, o in zip(LETTERS, item.options, strict=False))
    return {"question": item.question, "options": listed}


def _options(shot: dict[str, str]) -> list[str]:
    if not isinstance(shot["options"], list):
        raise ForethoughtError("a demonstration needs a list of options.")
    return shot["options"]


def _lettered(shown: list[dict[str, str]]) -> list[tuple[dict[str, str], str]]:
    return [
        (
            {
                "question": s["question"],
                "options": "\n".join(f"{k}. {o}" for k, o in zip(LETTERS, _options(s), strict=False)),
            },
            f"Answer: {s['answer']}",
        )
        for s in shown
    ]
