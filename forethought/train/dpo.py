"""`dpo`: direct preference optimization (Rafailov et al. 2023, arXiv 2305.18290, section 4) on decision-flipped pairs.

Preferred is the row; rejected is the same prompt with the opposite decision: a refusal where the row answers, the defended model's own
compliant answer where it refuses. A thought is flipped where it states its decision: its first part stays, the rest is that of a row
which decides the other way. So what differs is the decision, and not the form. The reference is the model before training. Ours: the pairs.
DPO and not GRPO: its pairs come from data that is already there, while GRPO would sample thousands of replies, and on a small model the
reward of a rule-based judge is soon gamed.
"""

from __future__ import annotations

from typing import Annotated, Any

import torch
from pydantic import Field
from torch.nn.functional import logsigmoid

from forethought.chat import encode_example
from forethought.config import TrainConfig
from forethought.flow import generator_for
from forethought.records import Attempt, Example
from forethought.run import Run
from forethought.train import Learn
from forethought.train.base import Base, encode_each, encode_held, needs_adapter, open_base, original
from forethought.train.elicit import elicit, encode_elicited
from forethought.train.forward import token_logprobs
from forethought.train.loop import Element, Learner, fit, make_trainer
from forethought.train.rows import by_decision, hold_out


def dpo(
    beta: Annotated[float, Field(gt=0)] = 0.1,
    opening: str = "Sure, here is",
    max_tokens: Annotated[int, Field(ge=1)] = 64,
) -> Learn:
    """`beta` is how strongly the reference holds. `opening` begins the compliant answers, of at most `max_tokens`."""

    def learn(examples: list[Example], model_name: str, config: TrainConfig, run: Run, seed: int) -> dict[str, Any]:
        base = open_base(model_name, config.init)
        needs_adapter("dpo", base, config)
        fitting, held = hold_out(examples, config.validation)
        refused, _ = by_decision(fitting, "dpo")
        replies = elicit(refused, base, config, run, seed, opening, max_tokens)
        data = preferences(base, fitting, replies, config, run, seed)
        rows = encode_held(base, held, config, run)
        trainer = make_trainer(Preference, base, data, config, run, seed, held=rows, beta=beta)
        return fit(trainer, base, run, used=len(data), spare=len(refused) - len(replies), elicited=len(replies))

    return learn


def preferences(
    base: Base, examples: list[Example], replies: dict[str, Attempt], config: TrainConfig, run: Run, seed: int
) -> list[Element]:
    """(preferred, rejected) rows; a prompt that the model did not comply with has no rejected row and is left out."""
    refused, others = by_decision(examples, "dpo")
    pairs: list[Element] = []
    for example, preferred in encode_each(base, examples, config, run):
        refuses = example.decision == "refuse"
        if refuses and example.prompt.id not in replies:
            continue
        other = generator_for(seed, "dpo", example.prompt.id).choice(others if refuses else refused)
        thought, messages = flip(example, other), example.prompt.messages
        rejected = (
            encode_elicited(base, replies[example.prompt.id], thought, config.max_length)
            if refuses
            else encode_example(base.tokenizer, messages, thought, other.answer)
        )
        if len(rejected.ids) <= config.max_length:
            pairs.append((preferred, rejected))
    return pairs


def flip(example: Example, other: Example) -> str | None:
    """The thought of `example` up to where it states its decision, then that of `other` from there; as it is where neither states one."""
    starts = [_decision_at(e) for e in (example, other)]
    if example.reasoning is None or other.reasoning is None or None in starts:
        return example.reasoning
    return example.reasoning[: starts[0]] + other.reasoning[starts[1] :]


def _decision_at(example: Example) -> int | None:
    found = [at for text in example.decisive if (at := (example.reasoning or "").find(text)) >= 0]
    return min(found, default=None)


class Preference(Learner):
    """Elements are (preferred, rejected)."""

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        ids, labels = inputs["input_ids"], inputs["labels"]
        now = token_logprobs(model, ids, labels)[0].sum(-1)
        with original(self.bare(model)):
            before = token_logprobs(model, ids, labels)[0].sum(-1)
        gain, drop = (now - before).chunk(2)
        self.note(preferred=gain.mean(), rejected=drop.mean(), accuracy=(gain > drop).float().mean())
        loss = preference(gain, drop, self.options["beta"])
        return (loss, None) if return_outputs else loss


def preference(gain: torch.Tensor, drop: torch.Tensor, beta: float) -> torch.Tensor:
    """Mean of -log sigmoid of beta times the margin; both are log-ratios to the reference, in nats, one a pair."""
    return -logsigmoid(beta * (gain - drop)).mean()
