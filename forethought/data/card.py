"""A data set card with provenance, as the hub reads it, and a sheet of random kept and rejected examples to read by eye."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from typing import Any

import yaml

from forethought.policy import Policy
from forethought.records import Example, Rejected, digest

# The folders of a path from the root, from a home or from here (`/a/`, `~/a/`, `~ada/a/`, `../a/`), wherever in a word it begins, a
# one-letter option's too; `org/model` and `runs/a` are none.
PLACE = re.compile(
    r"(?:(?<![\w./~-])|(?<=^-\w))(?:(?:~[\w.-]*|\.{1,2})?/|(?:[\w.-]+/)+\.\./)(?:[^/\n,;)}\]\"']*/)*(?=[\w.-])"
)
GUESSED = "label read off the answer"
SIZES = ((1000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"))


def card(info: dict[str, Any], statistics: dict[str, Any], policy: Policy) -> str:
    """Markdown with hub front matter, from a run's `run.json` and its statistics."""
    config = info["config"]
    thoughts, imported = "reasoning" in statistics["lengths"], config["method"].startswith("import:")
    guessed = statistics["checks"].get(GUESSED, 0)
    size = next((name for most, name in SIZES if statistics["examples"] < most), "100K<n<1M")
    front = {
        "license": "other",
        "language": [policy.language],
        "task_categories": ["text-generation"],
        "tags": ["safety", *(["reasoning"] * thoughts), *(["synthetic"] * (not imported)), "forethought"],
        "size_categories": [size],
    }
    # Of ready data the target is only whose tokenizer measures it.
    asked = () if imported else ("target", "teacher", "helper", "guard")
    roles = {r: config[r]["name"] for r in asked if config.get(r)}
    made = [
        f"- method: `{without_place(config['method'])}`",
        *(f"- {role}: `{without_place(name)}`" for role, name in roles.items()),
        f"- policy: {config['policy']} (version {policy.version})",
        *provenance(info),
    ]
    return with_front_matter(
        front,
        [
            f"# Safety {'reasoning ' * thoughts}data, made by {without_place(config['method'])}",
            "",
            f"Prompts with {'a thought about safety and ' * thoughts}an answer. The prompts include harmful requests; the answers to those "
            "that are labelled so decline. The licence is that of the prompts' source: set it above before you publish.",
            *([f"{guessed} prompts had no label. It was read off their answers: one that is declined counts as harmful, any other as "
               "borderline or sensitive, whatever it asks for."] * bool(guessed)),
            "",
            "## How it was made",
            *made,
            "",
            f"## What it holds: {statistics['examples']} examples",
            *_table("kept", statistics["kept"]),
            "",
            f"Lengths in {statistics['unit']}:",
            "",
            "| | " + " | ".join(next(iter(statistics["lengths"].values()), {})) + " |",
            "|---" * (1 + len(next(iter(statistics["lengths"].values()), {}))) + "|",
            *("| " + " | ".join([k, *(f"{x:g}" for x in v.values())]) + " |" for k, v in statistics["lengths"].items()),
            "",
            "## What was rejected, and why",
            *([f"- {reason}: {n}" for reason, n in statistics["rejected"].items()] or ["- nothing"]),
            "",
            "## What it does not show",
            "Labels are those of the source and were not checked again unless a check above says so. A share of the thoughts is wrong: "
            "read `sheet.md` before you train on them. Nothing here says how a model trained on it behaves; attack it and see.",
            "",
        ]
    )  # fmt: skip


def with_front_matter(front: dict[str, Any], lines: Sequence[str]) -> str:
    """A page as the hub reads it: `front` as YAML between rules, then the lines."""
    return "\n".join(["---", yaml.safe_dump(front, sort_keys=False).strip(), "---", *lines])


def provenance(info: dict[str, Any]) -> list[str]:
    """Lines of a card: seed, code, day, command and the hashes of all inputs, from a run's `run.json`."""
    return [
        f"- seed: {info['seed']}; code: {info['code']}; made {time.strftime('%Y-%m-%d', time.gmtime(info['started']))}",
        f"- command: `{' '.join(map(without_place, info['argv']))}`"
        if info["argv"][0] == "forethought"
        else "- made from Python",
        "- inputs, by content hash: " + ", ".join(f"{without_place(k)} `{v[:16]}`" for k, v in info["inputs"].items()),
    ]


def sheet(examples: Sequence[Example], rejected: Sequence[Rejected], seed: int, n: int = 20) -> str:
    """Up to `n` kept examples and `n` rejected prompts, drawn by seed, to be read by a person."""
    kept = sorted(examples, key=lambda e: digest(seed, e.prompt.id))[:n]
    lost = sorted(rejected, key=lambda r: digest(seed, r.prompt.id))[:n]
    parts = [f"# {len(kept)} of {len(examples)} kept", ""]
    for e in kept:
        facts = ", ".join(filter(None, (e.prompt.label, e.decision, e.category, e.prompt.style)))
        thought = _quote(e.reasoning) if e.reasoning is not None else "(no thought)"
        parts += [f"## {e.prompt.id} ({facts})", "", _quote(e.prompt.text), "", thought, "", _quote(e.answer), ""]
    parts += [f"# {len(lost)} of {len(rejected)} rejected", ""]
    for r in lost:
        parts += [
            f"- **{r.reason}** ({r.prompt.label}) {_line(r.prompt.text)}"
            + (f" [{_line(r.detail)}]" if r.detail else "")
        ]
    return "\n".join(parts) + "\n"


def _table(title: str, counts: dict[str, dict[str, int]]) -> list[str]:
    return [
        f"- {title}, by {field}: " + ", ".join(f"{k} {n}" for k, n in found.items()) for field, found in counts.items()
    ]


def _quote(text: str) -> str:
    return "\n".join(f"> {line}" for line in text.splitlines()) or "> (empty)"


def _line(text: str) -> str:
    return " ".join(text.split())[:200]


def without_place(word: str) -> str:
    """A word of a command, or a model, without the server or the folders that it names: the card is made to be published."""
    return PLACE.sub("", re.sub(r"@https?://[^\s,)]+", "", word))
