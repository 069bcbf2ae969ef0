"""`prompt`: no training. The base model is deployed with a system prompt of the policy and a safety chain-of-thought instruction.

The prompting baseline of SCoT's comparison (arXiv 2501.19180), in our words. The run it writes stands wherever a training run does.
"""

from __future__ import annotations

from typing import Any

from forethought.config import TrainConfig
from forethought.policy import Policy, as_clauses
from forethought.prompts import fill, read_prompt
from forethought.records import Example
from forethought.run import Run, write_text
from forethought.train import Learn
from forethought.train.rows import no_training

SYSTEM_FILE = "system.txt"


def prompt(policy: Policy) -> Learn:
    """Returns the function that writes `model/system.txt`, with which `load_model` deploys the run."""

    def learn(examples: list[Example], model_name: str, config: TrainConfig, run: Run, seed: int) -> dict[str, Any]:
        (run.path / "model").mkdir(exist_ok=True)
        write_text(run.path / "model" / SYSTEM_FILE, system_prompt(policy))
        return no_training()

    return learn


def system_prompt(policy: Policy) -> str:
    """The policy's rules, and how to think about them before answering."""
    rules = "\n\n".join(as_clauses(c) for c in policy.categories if c.respond != "answer")
    (turn,) = read_prompt("forethought.train", "safety_thought")
    return fill(turn.content, intro=policy.intro, rules=rules).strip()
