"""GSM8K, grade-school mathematics (Cobbe et al. 2021, arXiv 2110.14168), by generation and a strict reading of the final number."""

from __future__ import annotations

import re
from fractions import Fraction

from forethought.capability import Item, Task, Way
from forethought.capability.reading import SENTENCE, conversation, first, generated, read_items
from forethought.data.files import Row
from forethought.flow import Flow
from forethought.records import Graded, Sampling, digest

HUB = ("openai/gsm8k", "main", "test")
EDGE = r"[\s*_#>`\"'~≈$]*"
SAYS = r"(?:(?:so|therefore|thus|hence|finally|in conclusion)\b,?\s*)?(?:my |the )?(?:final |correct )?(?:answer)(?:\s+is\b:?|\s*[:：=])"
ANCHORED = re.compile(rf"{EDGE}{SAYS}{EDGE}(?P<said>.*)", re.IGNORECASE)
MARKED = re.compile(r"####[ \t]*(?P<said>.*)")
MONEY = r"(?:US)?[$€£]?\s*"
NUMBER = re.compile(
    rf"{EDGE}(?:\\boxed\{{|\\\()?\s*(?P<sign>[-−]?)\s*{MONEY}(?P<minus>[-−]?)"
    r"(?P<whole>\d{1,3}(?:,\d{3})+(?!\d)|\d+|(?=\.\d))(?P<part>\.\d+)?(?:\s*/\s*(?P<under>[1-9]\d*))?(?P<unit>.*)",
    re.DOTALL,
)
# A unit may follow, but nothing that changes the number.
UNIT = re.compile(r"(?:\.?\s*[^\d\w.,:=/*+()-]*\s*[^\d.:=,*+]*)?[.!\s*_`\"'$})\\\]]*", re.DOTALL)
SCALE = re.compile(
    r"^\s*-?\s*(?:k|m|bn|hundred|thousand|million|billion|dozen|times|or|to|and|plus|minus|out of|[x×^±–-])(?!\w)", re.I
)


def gsm8k(path: str = "", shots: int = 3) -> Task:
    """The test questions, from the hub or from a copy of its rows."""
    shown = [({"question": s["question"]}, f"{s['steps']}\n#### {s['answer']}") for s in first("number", shots)]

    def ask(item: Item, sampling: Sampling) -> Flow[Graded]:
        base = Graded(task="", mode="", id=item.id, question=item.question, gold=item.gold, chance=0.0)
        messages = conversation("number", shown, {"question": item.question})
        return (yield from generated(base, messages, sampling, read_number))

    return Task(lambda: read_items("gsm8k", path, HUB, _item), {"generation": Way(ask, False)})


def read_number(text: str) -> str | None:
    """The one number that a reply gives as its answer ("1200", "2.5", "2/3"); None where it gives none, or two that differ.

    Read is what follows `####`; where there is none, sentences and lines that begin with "The answer is" or "Answer:"; or a reply that is
    nothing but a number. Commas between thousands, a currency and a unit may stand with it. The last number of a text is a guess, and is
    not read; nor is one that a word changes ("5 million", "3 to 4", "2 hours and 30 minutes").
    """
    said = [m["said"] for m in MARKED.finditer(text)]
    if not said:
        sentences = [s.strip() for s in SENTENCE.split(text)]
        said = [m["said"] for s in sentences if (m := ANCHORED.fullmatch(s))]
    if not said:
        said = [text] if "\n" not in text.strip() else []
    found = {_value(one) for one in said}
    return found.pop() if len(found) == 1 else None


def _value(said: str) -> str | None:
    # A sum worked out in place: the number is what it comes to.
    said = said.rsplit("=", 1)[-1]
    match = NUMBER.fullmatch(said)
    if not match or SCALE.match(match["unit"]) or not UNIT.fullmatch(match["unit"]):
        return None
    if match["sign"] and match["minus"]:
        return None
    number = Fraction((match["whole"].replace(",", "") or "0") + (match["part"] or "")) / int(match["under"] or 1)
    return _written(-number if match["sign"] or match["minus"] else number)


def _written(number: Fraction) -> str:
    """One way to write a number: `-3`, `86.67`, or `2/3` where decimals do not end."""
    digits = next((d for d in range(20) if (number * 10**d).denominator == 1), None)
    if digits is None:
        return str(number)
    whole = str(abs(int(number * 10**digits))).rjust(digits + 1, "0")
    sign = "-" if number < 0 else ""
    return f"{sign}{whole[:-digits]}.{whole[-digits:]}" if digits else f"{sign}{whole}"


def _item(row: Row) -> Item:
    said = str(row["answer"]).rpartition("####")[2].strip()
    gold = _value(said)
    if gold is None:
        raise ValueError(f"its answer {said[:40]!r} is not a number")
    return Item(id=digest(row["question"]), question=str(row["question"]).strip(), gold=gold)
