"""`circuit_breaker`: representation rerouting (Zou et al. 2024, arXiv 2406.04313, section 3).

On harmful completions the adapted hidden states are turned away from the original ones (ReLU of their cosine); on all other rows they stay
(L2 distance). The weights move from the first to the second over the run. Original states are those of the same model with its adapter off.
Known: losses, schedule, layers, alpha, learning rate, steps. Ours: the harmful completions are the defended model's own, and the
rows to keep are those of the training data that do not refuse, so that no evaluation set is among them. Rerouting does not teach to refuse:
from a model that already does (`init=RUN`) the rows that refuse are kept as well [ours].

The distance is a share of the state's own length [ours]. In SmolLM2 states are 150 to 240 long, and that of the first token 23,000: the
plain distance then keeps the other loss from ever starting, and its cosine stays at 0.9999 (docs/training.md).

At the first step both losses stand at an extreme, so that their gradient is nothing but rounding error; Adam scales that up, and a step
or two later the run is under way.
"""

from __future__ import annotations

from typing import Annotated, Any

import torch
from pydantic import Field

from forethought.config import TrainConfig
from forethought.errors import ForethoughtError
from forethought.records import Example
from forethought.run import Run
from forethought.train import Learn
from forethought.train.base import encode, encode_held, needs_adapter, open_base, original
from forethought.train.elicit import elicit, encode_elicited
from forethought.train.forward import IGNORED, hidden
from forethought.train.loop import Learner, fit, make_trainer
from forethought.train.rows import by_decision, hold_out, side_by_side


def circuit_breaker(
    alpha: Annotated[float, Field(gt=0)] = 10.0,
    layers: tuple[int, ...] | None = None,
    opening: str = "Sure, here is",
    max_tokens: Annotated[int, Field(ge=1)] = 64,
) -> Learn:
    """`layers` are counts of blocks after which states are compared (default: a third and two thirds of the depth); adapters go on the
    blocks before the last of them. `opening` begins the harmful completions, of at most `max_tokens`."""

    def learn(examples: list[Example], model_name: str, config: TrainConfig, run: Run, seed: int) -> dict[str, Any]:
        base = open_base(model_name, config.init)
        needs_adapter("circuit_breaker", base, config)
        chosen = layers or thirds(base.depth)
        if not all(1 <= layer <= base.depth for layer in chosen):
            raise ForethoughtError(f"layers {list(chosen)} do not fit a model of {base.depth} blocks.")
        fitting, held = hold_out(examples, config.validation)
        refused, others = by_decision(fitting, "circuit_breaker")
        replies = elicit(refused, base, config, run, seed, opening, max_tokens)
        harmful = [encode_elicited(base, reply, None, config.max_length) for reply in replies.values()]
        kept = encode(base, fitting if config.init else others, config, run)
        data = side_by_side(harmful, kept, seed)
        trainer = make_trainer(
            Rerouting, base, data, config, run, seed, held=encode_held(base, held, config, run), layers=max(chosen),
            alpha=alpha, layers_compared=chosen,
        )  # fmt: skip
        used, spare = (len(kept), 0) if config.init else (len(harmful) + len(kept), len(refused) - len(harmful))
        return fit(trainer, base, run, used=used, spare=spare, elicited=len(harmful), layers=list(chosen))

    return learn


class Rerouting(Learner):
    """Elements are (harmful completion, row to keep)."""

    compares = True

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        ids, layers = inputs["input_ids"], self.options["layers_compared"]
        harmful = len(ids) // 2
        now = hidden(model, ids, layers)
        with original(self.bare(model)):
            before = hidden(model, ids, layers)
        reroute = rerouting(now[:, :harmful], before[:, :harmful], inputs["labels"][:harmful] != IGNORED)
        retain = distance(now[:, harmful:], before[:, harmful:], inputs["real"][harmful:])
        away, keep = schedule(self.state.global_step, self.state.max_steps, self.options["alpha"])
        self.note(rerouting=reroute, retain=retain)
        loss = away * reroute + keep * retain
        return (loss, None) if return_outputs else loss


def thirds(depth: int) -> tuple[int, ...]:
    """A third and two thirds of the depth."""
    return tuple(sorted({max(1, round(depth / 3)), max(1, round(2 * depth / 3))}))


def schedule(step: int, steps: int, alpha: float) -> tuple[float, float]:
    """(weight of rerouting, weight of retention) at a step: alpha(1 - t/2T) and alpha t/2T."""
    share = step / (2 * steps)
    return alpha * (1 - share), alpha * share


def rerouting(now: torch.Tensor, before: torch.Tensor, on: torch.Tensor) -> torch.Tensor:
    """Mean ReLU of the cosine over layers and the positions `on`; states are [layers, rows, columns, width]."""
    return torch.cosine_similarity(now, before, dim=-1).relu()[:, on].mean()


def distance(now: torch.Tensor, before: torch.Tensor, on: torch.Tensor) -> torch.Tensor:
    """Mean L2 distance over layers and the positions `on`, as shares of the original state's length."""
    moved, length = (torch.linalg.vector_norm(x[:, on], dim=-1) for x in (now - before, before))
    share: torch.Tensor = (moved / length.clamp(min=1e-6)).mean()
    return share
