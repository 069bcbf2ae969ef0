"""Synthesizers: one file each, one line in SYNTHESIZERS. A factory takes a policy and options and returns a Synthesizer."""

from __future__ import annotations

from collections.abc import Callable

from forethought.flow import Flow
from forethought.records import Example, Prompt, Rejected
from forethought.registry import Entry

# What a prompt gives: its example or why there is none, and the same for every variant of it.
Made = list[Example | Rejected]
Synthesizer = Callable[[Prompt], Flow[Made]]

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
    "srg": Entry(
        "forethought.synth.srg:srg",
        "reasoning along guidelines, several samples, rejection sampling (SRG-style)",
        paper="arXiv 2502.04040",
        needs="teacher",
    ),
    "rational": Entry(
        "forethought.synth.rational:rational",
        "the model's own rationale, led line by line, or (server, form=free) asked for by a prompt that fits the label (RATIONAL-style)",
        paper="arXiv 2503.05021",
    ),
    "policy": Entry(
        "forethought.synth.policy:policy",
        "reasoning that cites the policy's clause; a three-criterion score keeps the best (deliberative style)",
        paper="arXiv 2412.16339",
        needs="teacher",
    ),
}
