"""The starter set: prompts written by us for this project. See docs/starter-data.md for the card."""

from __future__ import annotations

import json
from importlib import resources

from forethought.config import DataConfig
from forethought.records import Prompt, make_prompt


def load(config: DataConfig) -> list[Prompt]:
    """All starter prompts, in file order. `split` was assigned by topic, so near-duplicates and pairs never straddle."""
    prompts = []
    files = [f for f in resources.files("forethought.data").joinpath("starter").iterdir() if f.name.endswith(".jsonl")]
    for file in sorted(files, key=lambda f: f.name):
        for line in file.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            text, label = row.pop("text"), row.pop("label")
            prompts.append(make_prompt(text, label, "starter", **row))
    return prompts
