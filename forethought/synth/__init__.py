"""Synthesizers: one file each, one line in SYNTHESIZERS. A factory takes a policy and options and returns a Synthesizer."""

from __future__ import annotations

from collections.abc import Callable

from forethought.flow import Flow
from forethought.records import Example, Prompt, Rejected
from forethought.registry import Entry

Synthesizer = Callable[[Prompt], Flow[Example | Rejected]]

SYNTHESIZERS: dict[str, Entry] = {
    "refusal": Entry(
        "forethought.synth.refusal:refusal",
        "plain refusals, and the target model's own answers to what should be answered: refusal training, the baseline",
    ),
    "scot": Entry(
        "forethought.synth.scot:scot",
        "restate the intent, check it against the policy, then answer or refuse naming the rule (SCoT-style)",
        paper="arXiv 2501.19180",
        needs="teacher",
    ),
}
