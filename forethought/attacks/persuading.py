"""PAP, persuasive adversarial prompts (Zeng et al. 2024, arXiv 2401.06373): an attacker puts the request so that it persuades.

The techniques are named as in the paper's taxonomy; their definitions and examples in prompts/persuasion.yaml are ours.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterable
from importlib import resources
from pathlib import Path
from typing import Any

from forethought.attacks import Attack
from forethought.attacks.attacker import rewriting, text_of
from forethought.config import read_yaml, validated
from forethought.errors import ForethoughtError, nearest
from forethought.flow import Flow, Rng
from forethought.prompts import fill_messages, read_prompt
from forethought.records import Messages, Prompt, Record, Sent

KEPT = 0.5


class Technique(Record):
    """One way to persuade: what it does, and an example of it on a harmless matter."""

    name: str
    definition: str
    example: str

    @property
    def id(self) -> str:
        return re.sub(r"\W+", "_", self.name.lower()).strip("_")


def pap(technique: str | None = None, taxonomy: str = "", tries: int = 3) -> Attack:
    """The request persuasively put, by one technique, drawn for each prompt where none is named. `taxonomy` is a file of techniques
    instead of ours: YAML, or JSONL with `ss_technique`, `ss_definition` and `ss_example` as the paper publishes it."""
    known = {t.id: t for t in read_taxonomy(taxonomy)}
    wanted = re.sub(r"\W+", "_", technique.lower()).strip("_") if technique else None
    if wanted is not None and wanted not in known:
        raise ForethoughtError(f"pap: unknown technique '{technique}'.{nearest(wanted, known)}")
    template = read_prompt(__package__, "persuade")

    def attack(prompt: Prompt) -> Flow[list[Sent]]:
        text_of(prompt)
        rng = yield Rng()
        assert isinstance(rng, random.Random)
        chosen = known[wanted if wanted is not None else rng.choice(sorted(known))]

        def ask(text: str) -> Messages:
            values = {"technique": chosen.name, "definition": chosen.definition, "example": chosen.example}
            return fill_messages(template, request=text, **values)

        return (yield from rewriting(ask, tries, KEPT)(prompt))

    return attack


def read_taxonomy(path: str = "") -> list[Technique]:
    """The techniques of a file, ours for an empty path. Raises ForethoughtError naming the row at fault."""
    name = path or "persuasion.yaml"
    try:
        file = Path(path).expanduser() if path else resources.files(__package__).joinpath("prompts", name)
        content = file.read_bytes()
    except OSError as error:
        raise ForethoughtError(f"pap: cannot read '{path}': {error.strerror}. Check the path.") from error
    rows = _json_lines(name, content) if name.endswith(".jsonl") else read_yaml(name, content)
    if not isinstance(rows, list) or not rows:
        raise ForethoughtError(f"pap: '{name}' holds no list of techniques.")
    return [_technique(row, number, name) for number, row in enumerate(rows, 1)]


def _json_lines(name: str, content: bytes) -> list[Any]:
    lines: Iterable[str] = filter(str.strip, content.decode("utf-8", "replace").splitlines())
    try:
        return [json.loads(line) for line in lines]
    except ValueError as error:
        raise ForethoughtError(f"pap: '{name}' is not one JSON object a line: {error}.") from error


def _technique(row: Any, number: int, name: str) -> Technique:
    fields = {k.removeprefix("ss_"): v for k, v in row.items()} if isinstance(row, dict) else row
    if isinstance(fields, dict) and "technique" in fields:
        fields = {"name": fields.pop("technique"), **fields}
    return validated(Technique, fields, f"pap: '{name}', row {number}")
