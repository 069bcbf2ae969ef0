"""Prompt files: Markdown with `## system`, `## user`, `## assistant` headings and {{placeholders}}.

Placeholders are filled in one pass and never with str.format: harmful prompts contain braces.
"""

from __future__ import annotations

import re
from functools import cache
from importlib import resources

from forethought.records import Message, Messages

HEADING = re.compile(r"^## (system|user|assistant)\s*$", re.MULTILINE)
SLOT = re.compile(r"\{\{(\w+)\}\}")


@cache
def read_prompt(package: str, name: str) -> Messages:
    """The turns of `prompts/NAME.md` in a package, placeholders unfilled. ValueError where the file has no turn."""
    text = resources.files(package).joinpath("prompts", f"{name}.md").read_text(encoding="utf-8")
    parts = HEADING.split(text)[1:]
    turns = [(role, body.strip()) for role, body in zip(parts[::2], parts[1::2], strict=True)]
    if not turns:
        raise ValueError(f"prompt file {name}.md has no '## user' turn")
    return tuple(Message.model_validate({"role": role, "content": body}) for role, body in turns)


def fill(template: str, **values: str) -> str:
    """Replace each {{name}} by its value, in one pass. KeyError for a placeholder without a value."""
    return SLOT.sub(lambda match: values[match[1]], template)


def fill_messages(messages: Messages, **values: str) -> Messages:
    """`fill` in every turn."""
    return tuple(Message(role=m.role, content=fill(m.content, **values)) for m in messages)


@cache
def read_lines(package: str, name: str) -> tuple[str, ...]:
    """The lines of `prompts/NAME.txt` in a package, without blank ones and # comments."""
    text = resources.files(package).joinpath("prompts", f"{name}.txt").read_text(encoding="utf-8")
    return tuple(line for line in map(str.strip, text.splitlines()) if line and not line.startswith("#"))
