"""Training methods: one file each, one line in METHODS. A factory returns `(examples, model, config, run, seed) -> metrics`.

What a method's paper sets, where the configuration leaves it open, is in `config.METHOD_DEFAULTS`. A method that `needs` the policy is
given it by name.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from forethought.config import TrainConfig
from forethought.records import Example
from forethought.registry import Entry
from forethought.run import Run

Learn = Callable[[list[Example], str, TrainConfig, Run, int], dict[str, Any]]

METHODS: dict[str, Entry] = {
    "sft": Entry(
        "forethought.train.sft:sft",
        "supervised fine-tuning on prompt -> (thought, answer), loss on thought and answer only; LoRA, or full with lora_rank=0",
    ),
    "refusal": Entry(
        "forethought.train.sft:refusal",
        "refusal training (RT), the reference: sft that takes only data without a thought, as `synth refusal` makes it",
    ),
    "circuit_breaker": Entry(
        "forethought.train.circuit_breaker:circuit_breaker",
        "representation rerouting: harmful completions lose their hidden states, benign rows keep theirs",
        paper="arXiv 2406.04313",
    ),
    "lat": Entry(
        "forethought.train.lat:lat",
        "targeted latent adversarial training: refuse under the worst small change of the residual stream",
        paper="arXiv 2407.15549",
    ),
    "r2d2": Entry(
        "forethought.train.r2d2:r2d2",
        "adversarial training against a pool of GCG suffixes that is searched on while training",
        paper="arXiv 2402.04249",
    ),
    "dpo": Entry(
        "forethought.train.dpo:dpo",
        "preference for the row over the same prompt with the opposite decision; best after sft (init=RUN)",
        paper="arXiv 2305.18290",
    ),
    "prompt": Entry(
        "forethought.train.prompt:prompt",
        "no training: the policy and a safety chain-of-thought instruction as the system prompt the base model is deployed with",
        needs="policy",
    ),
}
