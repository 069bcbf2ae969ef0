"""`sft`: supervised fine-tuning on prompt -> (thought, answer), LoRA or full; and `refusal`, which is sft on rows without a thought.

Rows are rendered and masked by `chat.py`, whose checks run before the first step. Logits are computed only where something is
trained, and rows are packed end to end wherever the model's attention allows it (`packing.py`).
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from forethought.config import TrainConfig
from forethought.errors import ForethoughtError
from forethought.records import Example
from forethought.run import Run
from forethought.train import Learn
from forethought.train.base import encode, encode_held, open_base, unadapted
from forethought.train.forward import IGNORED, trained_columns
from forethought.train.fused import token_losses
from forethought.train.loop import Element, Learner, fit, make_trainer
from forethought.train.packing import allow_packing, pack
from forethought.train.rows import by_decision, decision_at, hold_out, side_by_side


def sft(cost: Annotated[float, Field(gt=0)] = 1.0) -> Learn:
    """Returns the function that trains and writes `model/` and `losses.jsonl` into the run.

    `cost` says how many times worse it is to answer what should be refused than to refuse what should not: so much more do decisions
    to refuse weigh, which moves the line between the two by log(cost) nats in a model that has learnt what the odds are (Elkan 2001, The
    foundations of cost-sensitive learning). It needs thoughts, in which the decision is stated.
    """

    def train(examples: list[Example], model_name: str, config: TrainConfig, run: Run, seed: int) -> dict[str, Any]:
        if cost != 1 and not any(decision_at(e) is not None for e in examples):
            raise ForethoughtError(
                "cost needs thoughts that state their decision, and these rows have none. Leave it out."
            )
        return learn(examples, model_name, config, run, seed, cost)

    return train


def refusal() -> Learn:
    """Refusal training (RT), the reference of every comparison: `sft`, but data with a thought in it is an error, so that what is
    called RT is RT."""

    def train(examples: list[Example], model_name: str, config: TrainConfig, run: Run, seed: int) -> dict[str, Any]:
        thinking = sum(e.reasoning is not None for e in examples)
        if thinking:
            raise ForethoughtError(
                f"{thinking} of {len(examples)} rows have a thought, and refusal training has none. Use data made by "
                "'synth refusal', or method=sft."
            )
        return learn(examples, model_name, config, run, seed)

    return train


def learn(
    examples: list[Example], model_name: str, config: TrainConfig, run: Run, seed: int, cost: float = 1.0
) -> dict[str, Any]:
    """Fine-tune on `examples`. Returns rows, steps, trained tokens, seconds and mean losses (nats a token).

    With `pairing`, as in SCoT (arXiv 2501.19180), every row to be refused stands beside one that is not.
    Raises ForethoughtError where a rule of `chat.check_rows` is broken or the loss is not finite.
    """
    base = open_base(model_name, config.init)
    fitting, held_out = hold_out(examples, config.validation)
    dear = config.model_copy(update={"decision_weight": config.decision_weight * cost})
    data: list[Element]
    if config.pairing or cost != 1:
        sides = by_decision(fitting, "pairing" if config.pairing else "cost")
        refused, others = (encode(base, side, c, run) for side, c in zip(sides, (dear, config), strict=True))
        used = len(refused) + len(others)
    else:
        refused, others = [], encode(base, fitting, config, run)
        used = len(others)
    if config.pairing:
        data = list(side_by_side(refused, others, seed))
    else:
        data = [(row,) for row in (*refused, *others)]
    held = encode_held(base, held_out, config, run)
    trainer = make_trainer(TrainedOnly, base, data, config, run, seed, held=held)
    return fit(trainer, base, run, used=used)


class TrainedOnly(Learner):
    """Cross-entropy of trained tokens; logits are computed only at columns where some row of the batch is trained."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.model_accepts_loss_kwargs = True  # Count trained tokens over the whole accumulated batch.
        data: Any = self.train_dataset
        longest = max(len(row.ids) for element in data for row in element)
        self.packs = allow_packing(unadapted(self.model), longest)

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Weighted sum of the token losses over the number of trained tokens of the whole accumulated batch."""
        batch = pack(inputs) if self.packs else inputs
        columns, targets = trained_columns(batch["labels"])
        where = {name: batch[name] for name in ("position_ids", "row_lengths", "head_length") if name in batch}
        # Padding is on the right, so causal attention alone keeps it from every trained token: no mask is needed.
        outputs = model(input_ids=batch["input_ids"], logits_to_keep=columns, use_cache=False, **where)
        count = num_items_in_batch
        if count is None:
            count = (targets != IGNORED).sum()
        else:
            # Processes average their gradients, while the count is that of all of them together.
            count = count / self.accelerator.num_processes
        weights = batch["weights"][:, columns + 1] / count
        loss = token_losses(outputs.logits.flatten(0, 1), targets.clamp(min=0).flatten(), weights.flatten())
        return (loss, outputs) if return_outputs else loss
