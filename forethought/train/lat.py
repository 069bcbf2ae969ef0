"""`lat`: targeted latent adversarial training (Sheshadri et al. 2024, arXiv 2407.15549, section 3).

An inner search changes the residual stream on the prompt, inside an L2 ball and at chosen layers, so that the harmful completion becomes
likely. Under that change the model is trained towards the row that refuses and away from the completion, and on the other rows without it.
Known: the losses, layers spread over the depth, 16 inner steps. Ours: the harmful completions are the defended model's own;
the radius is a share of the residual stream's norm at each layer, which fits any model; plain PGD inside (the paper: Adam).
"""

from __future__ import annotations

from typing import Annotated, Any

import torch
from pydantic import Field

from forethought.config import TrainConfig
from forethought.errors import ForethoughtError
from forethought.optim.latent import at_depths, perturbed, pgd, residual_norms
from forethought.records import Example
from forethought.run import Run
from forethought.train import Learn
from forethought.train.base import encode, encode_each, encode_held, open_base
from forethought.train.elicit import elicit, encode_elicited
from forethought.train.forward import (
    IGNORED,
    adversarial_terms,
    logprobs_of,
    mean_logprob,
    token_logprobs,
    trained_columns,
)
from forethought.train.launch import sharded
from forethought.train.loop import Element, Learner, fit, make_trainer
from forethought.train.rows import by_decision, hold_out, side_by_side

Share = Annotated[float, Field(ge=0)]


def lat(
    depths: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 0.95),
    epsilon: Annotated[float, Field(gt=0)] = 0.3,
    inner_steps: Annotated[int, Field(ge=1)] = 16,
    step_size: Annotated[float, Field(gt=0)] = 0.2,
    toward: Share = 0.5,
    away: Share = 0.5,
    keep: Share = 1.5,
    opening: str = "Sure, here is",
    max_tokens: Annotated[int, Field(ge=1)] = 64,
) -> Learn:
    """`depths` are shares of the depth, 0 the embeddings; `epsilon` the radius as a share of the residual stream's norm, `step_size` an
    inner step as a share of that radius. `toward`, `away` and `keep` weigh the losses on refusals, harmful completions and all other rows.
    `opening` begins the harmful completions, of at most `max_tokens`."""

    def learn(examples: list[Example], model_name: str, config: TrainConfig, run: Run, seed: int) -> dict[str, Any]:
        if sharded():
            raise ForethoughtError(
                "lat reads the model below what splits its weights. Start it with multi_gpu.yaml, or without a launcher."
            )
        base = open_base(model_name, config.init)
        fitting, held = hold_out(examples, config.validation)
        refused, others = by_decision(fitting, "lat")
        replies = elicit(refused, base, config, run, seed, opening, max_tokens)
        attacked = [
            (row, encode_elicited(base, replies[e.prompt.id], None, config.max_length))
            for e, row in encode_each(base, refused, config, run)
            if e.prompt.id in replies
        ]
        kept = encode(base, others, config, run)
        data: list[Element] = [(*pair, row) for pair, row in side_by_side(attacked, kept, seed)]
        weights = {"toward": toward, "away": away, "keep": keep}
        inner = {"epsilon": epsilon, "steps": inner_steps, "step_size": step_size}
        trainer = make_trainer(
            Latent, base, data, config, run, seed, held=encode_held(base, held, config, run), depths=depths,
            inner=inner, weights=weights,
        )  # fmt: skip
        layers = list(at_depths(trainer.model, depths))
        used, spare = len(attacked) + len(kept), len(refused) - len(replies)
        return fit(trainer, base, run, used=used, spare=spare, elicited=len(replies), layers=layers)

    return learn


class Latent(Learner):
    """Elements are (row that refuses, harmful completion of the same prompt, another row)."""

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        ids, labels = inputs["input_ids"], inputs["labels"]
        third = len(ids) // 3
        bare = self.bare(model)
        layers = at_depths(bare, self.options["depths"])
        deltas = self.search(bare, ids[third : 2 * third], labels[third : 2 * third], layers)
        # Both completions of a prompt are read under its perturbation, the other rows under none: one forward for all.
        with perturbed(bare, layers, torch.cat([deltas, deltas, torch.zeros_like(deltas)], dim=1)):
            logprobs, on = token_logprobs(model, ids, labels)
        terms = adversarial_terms(logprobs, on)
        self.note(**terms)
        loss = sum(self.options["weights"][name] * term for name, term in terms.items())
        return (loss, None) if return_outputs else loss

    def search(self, model: Any, ids: torch.Tensor, labels: torch.Tensor, layers: tuple[int, ...]) -> torch.Tensor:
        """The perturbation on the prompts under which the harmful completions are likeliest: [layers, rows, columns, width]."""
        inner, training = self.options["inner"], model.training
        trained = labels != IGNORED
        prompts = trained.long().cumsum(-1) == 0
        columns, targets = trained_columns(labels)
        model.eval()
        norms = residual_norms(model, {"input_ids": ids, "logits_to_keep": 1, "use_cache": False}, layers, prompts)

        def likelihood(output: Any) -> torch.Tensor:
            return mean_logprob(logprobs_of(output.logits, targets), targets != IGNORED)

        found = pgd(
            model,
            {"input_ids": ids, "logits_to_keep": columns, "use_cache": False},
            likelihood,
            layers,
            prompts,
            [inner["epsilon"] * norm for norm in norms],
            inner["steps"],
            inner["step_size"],
        )
        model.train(training)
        return found
