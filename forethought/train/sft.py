"""`sft`: supervised fine-tuning on prompt -> (thought, answer), LoRA or full; and `refusal`, which is sft on rows without a thought.

Rows are rendered and masked by `chat.py`, whose checks run before the first step. Logits are computed only where something is
trained. Rows are padded, not packed: those of a step are of similar length, so padding is a few percent, and on CPU the block mask
that keeps packed rows apart costs more than it saves.
"""

from __future__ import annotations

from typing import Any

from torch.nn.functional import cross_entropy

from forethought.config import TrainConfig
from forethought.errors import ForethoughtError
from forethought.records import Example
from forethought.run import Run
from forethought.train import Learn
from forethought.train.base import encode, encode_held, open_base
from forethought.train.forward import IGNORED, trained_columns
from forethought.train.loop import Element, Learner, fit, make_trainer
from forethought.train.rows import by_decision, hold_out, side_by_side


def sft() -> Learn:
    """Returns the function that trains and writes `model/` and `losses.jsonl` into the run."""
    return learn


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


def learn(examples: list[Example], model_name: str, config: TrainConfig, run: Run, seed: int) -> dict[str, Any]:
    """Fine-tune on `examples`. Returns rows, steps, trained tokens, seconds and mean losses (nats a token).

    With `pairing`, as in SCoT (arXiv 2501.19180), every row to be refused stands beside one that is not.
    Raises ForethoughtError where a rule of `chat.check_rows` is broken or the loss is not finite.
    """
    base = open_base(model_name, config.init)
    fitting, held_out = hold_out(examples, config.validation)
    data: list[Element]
    if config.pairing:
        refused, others = (encode(base, side, config, run) for side in by_decision(fitting, "pairing"))
        data, used = list(side_by_side(refused, others, seed)), len(refused) + len(others)
    else:
        data = [(row,) for row in encode(base, fitting, config, run)]
        used = len(data)
    held = encode_held(base, held_out, config, run)
    return fit(make_trainer(TrainedOnly, base, data, config, run, seed, held=held), base, run, used=used)


class TrainedOnly(Learner):
    """Cross-entropy of trained tokens; logits are computed only at columns where some row of the batch is trained."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.model_accepts_loss_kwargs = True  # Count trained tokens over the whole accumulated batch.

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Weighted sum of the token losses over the number of trained tokens of the whole accumulated batch."""
        ids, labels = inputs["input_ids"], inputs["labels"]
        columns, targets = trained_columns(labels)
        # Padding is on the right, so causal attention alone keeps it from every trained token: no mask is needed.
        outputs = model(input_ids=ids, logits_to_keep=columns, use_cache=False)
        each = cross_entropy(
            outputs.logits.float().flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="none"
        )
        total = (each * inputs["weights"][:, columns + 1].flatten()).sum()
        if num_items_in_batch is None:
            loss = total / (targets != IGNORED).sum()
        else:
            # Processes average their gradients, while the count is that of all of them together.
            loss = total / num_items_in_batch * self.accelerator.num_processes
        return (loss, outputs) if return_outputs else loss
