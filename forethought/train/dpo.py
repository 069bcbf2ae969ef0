"""`dpo`: direct preference optimization (Rafailov et al. 2023, arXiv 2305.18290, section 4) on decision-flipped pairs.

Preferred is the row; rejected is the same prompt with the opposite decision. The reference is the model before training. Ours: the pairs.

- A thought that states its decision is flipped there: its first part stays, the rest is that of a row which decides the other way, and only
  this rest is compared. With the answers compared too, the margin was won on them: a compliant answer is long and easily made less likely;
  a refusal is the same few words in every row, so that pushing it down where it was wrong took it away everywhere.
- Of a row without such a thought the answers are compared: a refusal where the row answers, the defended model's own compliant answer
  where it refuses.
- Pairs that prefer to refuse are as many as the others; the shorter side is repeated.

DPO and not GRPO: its pairs come from data that is already there, while GRPO would sample thousands of replies, and on a small model the
reward of a rule-based judge is soon gamed.
"""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

import torch
from pydantic import Field
from torch.nn.functional import logsigmoid

from forethought.chat import Encoded, encode_example
from forethought.config import TrainConfig
from forethought.flow import generator_for
from forethought.records import Attempt, Example
from forethought.run import Run
from forethought.train import Learn
from forethought.train.base import Base, encode_each, encode_held, needs_adapter, open_base, original
from forethought.train.elicit import elicit, encode_elicited
from forethought.train.forward import token_logprobs
from forethought.train.loop import Element, Learner, fit, make_trainer
from forethought.train.rows import by_decision, decision_at, hold_out, side_by_side


def dpo(
    beta: Annotated[float, Field(gt=0)] = 0.1,
    opening: str = "Sure, here is",
    max_tokens: Annotated[int, Field(ge=1)] = 64,
) -> Learn:
    """`beta` is how strongly the reference holds. `opening` begins the compliant answers, of at most `max_tokens`, that rows without a
    thought need."""

    def learn(examples: list[Example], model_name: str, config: TrainConfig, run: Run, seed: int) -> dict[str, Any]:
        base = open_base(model_name, config.init)
        needs_adapter("dpo", base, config)
        fitting, held = hold_out(examples, config.validation)
        refused, _ = by_decision(fitting, "dpo")
        plain = [e for e in refused if decision_at(e) is None]
        replies = elicit(plain, base, config, run, seed, opening, max_tokens) if plain else {}
        refusing, answering = preferences(base, fitting, replies, config, run, seed)
        data = [pair for both in side_by_side(refusing, answering, seed) for pair in both]
        rows = encode_held(base, held, config, run)
        trainer = make_trainer(Preference, base, data, config, run, seed, held=rows, beta=beta)
        used = len(refusing) + len(answering)
        return fit(trainer, base, run, used=used, spare=len(plain) - len(replies), elicited=len(replies))

    return learn


def preferences(
    base: Base, examples: list[Example], replies: dict[str, Attempt], config: TrainConfig, run: Run, seed: int
) -> tuple[list[Element], list[Element]]:
    """(preferred, rejected) rows of the prompts to be refused, and of the others. A prompt that needs a reply of the model's and has
    none is left out."""
    refused, others = by_decision(examples, "dpo")
    sides: tuple[list[Element], list[Element]] = ([], [])
    for example, row in encode_each(base, examples, config, run):
        refuses = example.decision == "refuse"
        opposite = generator_for(seed, "dpo", example.prompt.id).choice(others if refuses else refused)
        pair = _pair(base, example, row, opposite, replies.get(example.prompt.id), config.max_length)
        if pair is not None and len(pair[1].ids) <= config.max_length:
            sides[not refuses].append(pair)
    return sides


def _pair(
    base: Base, example: Example, row: Encoded, opposite: Example, reply: Attempt | None, longest: int
) -> tuple[Encoded, Encoded] | None:
    at, other = decision_at(example), decision_at(opposite)
    encode = partial(encode_example, base.tokenizer, example.prompt.messages)
    if at is not None and other is not None:
        own, flipped = (example.reasoning or "").strip(), flip(example, opposite)
        rejected = encode(flipped, opposite.answer, [flipped[at:]], rest=0.0)
        return encode(own, example.answer, [own[at:]], rest=0.0), rejected
    if example.decision != "refuse":
        return row, encode(example.reasoning, opposite.answer)
    return None if reply is None else (row, encode_elicited(base, reply, example.reasoning, longest))


def flip(example: Example, opposite: Example) -> str:
    """The thought of `example` up to where it states its decision, then that of `opposite` from there; both must state one."""
    own, other = ((e.reasoning or "").strip() for e in (example, opposite))
    return own[: decision_at(example)] + other[decision_at(opposite) :]


class Preference(Learner):
    """Elements are (preferred, rejected)."""

    compares = True

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
