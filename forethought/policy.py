"""Policies: what is not allowed, what stays allowed, and how to respond. A YAML file; one good default ships."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from importlib import resources
from pathlib import Path

from pydantic import Field, field_validator

from forethought.config import read_yaml, validated
from forethought.errors import ForethoughtError, nearest
from forethought.records import Decision, Prompt, Record, digest


class Category(Record):
    """One kind of request. `respond` is how to answer what `not_allowed` names; `allowed` lists look-alikes that are fine,
    `hurts` who is harmed where this goes wrong.

    `covers` lists categories of data sets that fall under this one: `fraud` for their harmful prompts, `politics:borderline` for
    those of another label.
    """

    id: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    name: str
    definition: str
    not_allowed: tuple[str, ...] = ()
    allowed: tuple[str, ...] = ()
    hurts: tuple[str, ...] = ()
    respond: Decision
    covers: tuple[str, ...] = ()


class Policy(Record):
    """A named list of categories. `intro` opens the policy where it is shown to a model."""

    name: str
    version: str = "1"
    language: str = "en"
    intro: str = ""
    categories: tuple[Category, ...] = Field(min_length=1)

    @field_validator("categories")
    @classmethod
    def _unique(cls, value: tuple[Category, ...]) -> tuple[Category, ...]:
        ids = [c.id for c in value]
        doubled = {i for i in ids if ids.count(i) > 1}
        if doubled:
            raise ValueError(f"category id {sorted(doubled)[0]} is used twice")
        return value

    @cached_property
    def hash(self) -> str:
        """Every training row carries it, so it is computed once."""
        return digest(self.model_dump())

    def __copy__(self) -> Policy:
        copied = super().__copy__()
        copied.__dict__.pop("hash", None)
        return copied

    def category(self, id: str) -> Category:
        """The category of that id; ForethoughtError with the nearest id where there is none."""
        for category in self.categories:
            if category.id == id:
                return category
        raise ForethoughtError(
            f"policy '{self.name}' has no category '{id}'.{nearest(id, [c.id for c in self.categories])}"
        )

    def find(self, prompt: Prompt) -> Category | None:
        """The category that a labelled prompt falls under, by what the data set says of it; None where it says nothing of use here.

        An entry of `covers` counts first, for the label it names (`harmful` where it names none). A category of the same id counts
        for harmful and sensitive prompts: borderline and benign ones merely look like it.
        """
        for category in self.categories:
            for entry in category.covers:
                name, _, label = entry.partition(":")
                if name == prompt.category and (label or "harmful") == prompt.label:
                    return category
        if prompt.label in ("harmful", "sensitive"):
            return next((c for c in self.categories if c.id == prompt.category), None)
        return None

    def decide(self, prompt: Prompt) -> Decision:
        """The response this policy wants for a labelled prompt: that of the category found for it, else that of its label.

        Benign and borderline prompts are answered, sensitive ones supported, harmful ones refused; a harmful prompt is never answered.
        """
        found = self.find(prompt)
        if prompt.label == "harmful":
            return "refuse" if found is None or found.respond == "answer" else found.respond
        if prompt.label == "sensitive":
            return "refuse" if found is not None and _covers(found, prompt) and found.respond == "refuse" else "support"
        return found.respond if found is not None else "answer"


def _covers(category: Category, prompt: Prompt) -> bool:
    return f"{prompt.category}:{prompt.label}" in category.covers


def as_clauses(category: Category) -> str:
    """A category as numbered clauses, `fraud 1`, `fraud 2`, that a thought can cite."""
    lines = [f"Not allowed: {x}" for x in category.not_allowed] + [f"Allowed: {x}" for x in category.allowed]
    numbered = "\n".join(f"[{category.id} {i}] {line}" for i, line in enumerate(lines, 1))
    return f"{category.name} ({category.respond}): {category.definition}\n{numbered}"


def shipped() -> list[str]:
    """Names of the policies in the package."""
    files = resources.files("forethought.policies").iterdir()
    return sorted(f.name.removesuffix(".yaml") for f in files if f.name.endswith(".yaml"))


def load_policy(name: str) -> Policy:
    """A shipped policy by name, or a YAML file by path. Raises ForethoughtError that names the field at fault."""
    return validated(Policy, read_yaml(name, text_of(name)), f"policy '{name}'")


def text_of(name: str) -> bytes:
    """The file of a policy. ForethoughtError where there is none of that name."""
    if name in shipped():
        return resources.files("forethought.policies").joinpath(f"{name}.yaml").read_bytes()
    path = Path(name)
    if not path.is_file():
        raise ForethoughtError(f"no policy '{name}': neither a shipped policy nor a file.{nearest(name, shipped())}")
    return path.read_bytes()


def warnings(policy: Policy) -> list[str]:
    """What a policy's author probably forgot; an empty list is a clean bill."""
    found = []
    for c in policy.categories:
        if not c.allowed and c.respond != "answer":
            found.append(f"{c.id}: lists nothing that stays allowed; look-alikes will be refused")
        if not c.not_allowed and c.respond != "answer":
            found.append(f"{c.id}: lists nothing that is not allowed")
        if len(c.definition.split()) < 4:
            found.append(f"{c.id}: the definition is too short to judge by")
    if not any(c.respond == "refuse" for c in policy.categories):
        found.append("no category is refused")
    return found


def without_examples(policy: Policy, prompts: Iterable[Prompt]) -> list[str]:
    """A line for every category that is refused or supported and that no prompt is known to fall under; one line where none is."""
    found = {c.id for p in prompts if (c := policy.find(p)) is not None}
    if not found:
        return [
            f"no prompt names a category of policy '{policy.name}', so the teacher chooses one: read in sheet.md how well"
        ]
    return [
        f"policy '{policy.name}': category '{c.id}' has no example among the prompts, so a model cannot learn it from them"
        for c in policy.categories
        if c.respond != "answer" and c.id not in found
    ]
