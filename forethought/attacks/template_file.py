"""Templates from a file: `templates:PATH`, or `templates(path=PATH, take=5)`. Reads what others have published and what you wrote.

Formats: `.json`, a list of texts (HarmBench's human jailbreaks, collections from the wild) or of objects (DeepInception's
`plain_attack` with `inception_attack`, or a `template`, `text` or `prompt`); `.csv` with one of those columns (GPTFuzzer, arXiv
2309.10253); `.txt`, one template a line, # for comments. The request goes where the template has a mark, such as {{request}}, {0} or
[INSERT PROMPT HERE], else below it.
"""

from __future__ import annotations

import csv
import io
import json
import random
import re
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from forethought.attacks import UNCHANGED, Attack, last_user, rewrite_last
from forethought.errors import AskFailed, ForethoughtError
from forethought.flow import Flow, Rng
from forethought.records import Prompt, Sent

WORDS = r"(?:(?:insert|enter|write|put|your|user|the|my)[ _])*"
# In angle brackets "instruction" and the like are tags.
MARK = re.compile(
    r"\{0\}|\{\{\s*(?:request|prompt|goal|query)\s*\}\}|"
    rf"[\[{{<]{WORDS}(?:prompt|question|request)(?:[ _]here)?\\?[\]}}>]|"
    rf"[\[{{]{WORDS}(?:query|goal|instruction|behaviou?r)(?:[ _]here)?\\?[\]}}]|"
    r"<(?:(?:insert|enter|write|put|your|the|my)[ _])+(?:query|goal|instruction|behaviou?r)(?:[ _]here)?\\?>",
    re.IGNORECASE,
)
COLUMNS = ("template", "text", "prompt")


def templates(path: str = "", take: int = 1, index: int | None = None, seed: int | None = None) -> Attack:
    """Each prompt is sent in `take` templates (0: all), drawn for each prompt anew, or the same for all prompts where `seed` is
    given; `index` sends it in that one template alone. `sample` is the template's index. Without a path, templates of ours.

    Raises ForethoughtError for a file that cannot be read or has no template, and for an index or a number that is out of range.
    """
    known = read_templates(path)
    if index is not None and not 0 <= index < len(known):
        raise ForethoughtError(f"templates: index={index} is not among 0 to {len(known) - 1} of '{path or 'ours'}'.")
    if not 0 <= take <= len(known):
        raise ForethoughtError(
            f"templates: take={take} is not among 0 to {len(known)}, the templates of '{path or 'ours'}'."
        )

    def attack(prompt: Prompt) -> Flow[list[Sent]]:
        if last_user(prompt.messages) is None:
            raise AskFailed("not_applicable", UNCHANGED)
        rng = (yield Rng()) if seed is None else random.Random(seed)
        assert isinstance(rng, random.Random)
        chosen = [index] if index is not None else sorted(rng.sample(range(len(known)), take or len(known)))
        sent = [Sent(messages=rewrite_last(prompt.messages, lambda t: insert(known[i], t)), sample=i) for i in chosen]
        return [one for one in sent if one.messages != prompt.messages]

    return attack


def insert(template: str, request: str) -> str:
    """`template` with the request at every mark, in one pass, or below it where it has none."""
    made, marks = MARK.subn(lambda _: request, template)
    return made if marks else f"{template.rstrip()}\n\n{request}"


@cache
def read_templates(path: str) -> tuple[str, ...]:
    """The templates of a file, in its order, without repeats; those that are shipped for an empty path."""
    if not path:
        name, content = "templates.txt", resources.files(__package__).joinpath("prompts/templates.txt").read_bytes()
    else:
        name = path
        try:
            content = Path(path).expanduser().read_bytes()
        except OSError as error:
            raise ForethoughtError(f"templates: cannot read '{path}': {error.strerror}. Check the path.") from error
    try:
        found = _read(name, content.decode("utf-8-sig"))
    except (ValueError, csv.Error) as error:
        reason = " ".join(str(error).split())
        raise ForethoughtError(f"templates: '{path}' cannot be read as {Path(name).suffix}: {reason}.") from error
    found = list(dict.fromkeys(text for text in found if text.strip()))
    if not found:
        raise ForethoughtError(
            f"templates: '{path}' holds no template. Give a list of texts, or a column of {COLUMNS}."
        )
    return tuple(found)


def _read(name: str, text: str) -> list[str]:
    match Path(name).suffix.lower():
        case ".json":
            rows = json.loads(text)
            if not isinstance(rows, list):
                raise ValueError("it is not a list")
            return [_template(row, i) for i, row in enumerate(rows)]
        case ".csv":
            return [_template(row, i) for i, row in enumerate(csv.DictReader(io.StringIO(text)))]
        case ".txt":
            return [line for line in map(str.strip, text.splitlines()) if line and not line.startswith("#")]
        case suffix:
            raise ValueError(f"'{suffix}' is none of .json, .csv and .txt")


def _template(row: Any, index: int) -> str:
    """The template of one row; DeepInception's has the plain request replaced by a mark."""
    if isinstance(row, str):
        return row
    if isinstance(row, dict):
        if "plain_attack" in row and "inception_attack" in row:
            plain = re.escape(str(row["plain_attack"]).strip().rstrip("."))
            made, found = re.subn(plain, "{{request}}", str(row["inception_attack"]), flags=re.IGNORECASE)
            if not found:
                raise ValueError(f"row {index}: 'inception_attack' does not hold its 'plain_attack'")
            return made
        for column in COLUMNS:
            if isinstance(row.get(column), str):
                return str(row[column])
    raise ValueError(f"row {index} is no text and has none of the columns {', '.join(COLUMNS)}")
