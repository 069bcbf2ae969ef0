"""Latent perturbations: where they are added, what they keep within, what they raise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.cache_utils import DynamicCache

from forethought.errors import ForethoughtError
from forethought.models.caching import with_cache
from forethought.optim.latent import at_depths, decoder_blocks, perturbed, pgd, residual_norms

SMALL = {
    "vocab_size": 128,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
FAMILIES = ("llama", "qwen2", "qwen3", "mistral", "gemma", "gemma2", "gemma3_text")


def small(family: str, dtype: torch.dtype = torch.float32) -> Any:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **SMALL)).to(dtype).eval()


def batch() -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Two rows of nine tokens, of which the first six are the prompt."""
    ids = torch.arange(18).reshape(2, 9) * 5 % 120 + 3
    return {"input_ids": ids}, (torch.arange(9) < 6).expand(2, 9)


def target_loss(out: Any) -> torch.Tensor:
    """[rows]: minus log p of token 7 after the last position."""
    return -out.logits[:, -1].float().log_softmax(-1)[:, 7]


@pytest.mark.parametrize("wrapped", [False, True], ids=["plain", "peft"])
@pytest.mark.parametrize("family", FAMILIES)
def test_pgd_raises_the_loss_inside_the_ball_and_only_at_the_mask(family: str, wrapped: bool) -> None:
    model = small(family)
    if wrapped:
        model = get_peft_model(model, LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM"))
    inputs, mask = batch()
    layers = at_depths(model, (0, 1 / 3, 2 / 3))
    assert layers == (0, 1, 2)
    epsilon = [0.5 * norm for norm in residual_norms(model, inputs, layers, mask)]
    before = target_loss(model(**inputs)).sum()
    deltas = pgd(model, inputs, target_loss, layers, mask, epsilon, 4, 0.5, torch.Generator().manual_seed(0))
    assert deltas.shape == (3, 2, 9, 32) and not deltas.requires_grad
    assert not deltas[:, ~mask].any() and deltas[:, mask].norm(dim=-1).gt(0).all()
    for delta, radius in zip(deltas, epsilon, strict=True):
        assert delta.norm(dim=-1).max() <= radius * (1 + 1e-5)
    start = pgd(model, inputs, target_loss, layers, mask, epsilon, 0, 0.5, torch.Generator().manual_seed(0))
    with torch.no_grad():
        with perturbed(model, layers, start):
            random = target_loss(model(**inputs)).sum()
        with perturbed(model, layers, deltas):
            worst = target_loss(model(**inputs)).sum()
        after = target_loss(model(**inputs)).sum()
    assert worst > max(random, before) + 0.05
    assert after == before
    assert all(p.grad is None for p in model.parameters())


def test_a_perturbation_of_layer_0_is_one_of_the_embeddings() -> None:
    model, (inputs, _) = small("llama"), batch()
    delta = torch.randn(1, 2, 9, 32, generator=torch.Generator().manual_seed(0))
    plain = model(inputs_embeds=model.get_input_embeddings()(inputs["input_ids"]) + delta[0]).logits
    with perturbed(model, (0,), delta):
        assert torch.allclose(model(**inputs).logits, plain, atol=1e-6)
    with perturbed(model, (1,), delta):
        assert not torch.allclose(model(**inputs).logits, plain, atol=1e-3)


def test_same_generator_same_deltas_and_zero_start_without() -> None:
    model, (inputs, mask) = small("llama"), batch()
    one, two = (
        pgd(model, inputs, target_loss, (1,), mask, 1.0, 2, 0.5, torch.Generator().manual_seed(3)) for _ in range(2)
    )
    assert torch.equal(one, two)
    assert not pgd(model, inputs, target_loss, (1,), mask, 1.0, 0, 0.5).any()


def test_bfloat16_training_mode_and_gradients_through_the_perturbed_model() -> None:
    """What adversarial training does: search, then a backward of the training loss under the perturbation found."""
    model, (inputs, mask) = small("llama", torch.bfloat16), batch()
    model.train()
    deltas = pgd(model, inputs, target_loss, (1,), mask, 1.0, 2, 0.5)
    assert deltas.dtype == torch.float32 and model.training
    with perturbed(model, (1,), deltas):
        target_loss(model(**inputs)).sum().backward()
    assert decoder_blocks(model)[0].mlp.up_proj.weight.grad is not None  # type: ignore[union-attr]


def test_the_prompt_is_read_perturbed_and_decoded_from_its_cache_outside() -> None:
    model, (inputs, mask) = small("llama"), batch()
    deltas = pgd(model, inputs, target_loss, (1,), mask, 1.0, 1, 0.5)
    with torch.no_grad(), perturbed(model, (1,), deltas):
        cache = DynamicCache()
        model(**inputs, **with_cache(model, cache))
        with pytest.raises(ForethoughtError, match="does not fit hidden states"):
            model(input_ids=torch.tensor([[5], [5]]), **with_cache(model, cache))
    with torch.no_grad():
        model(input_ids=torch.tensor([[5], [5]]), **with_cache(model, cache))


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"epsilon": 0}, "epsilon must be above 0"),
        ({"epsilon": [1.0, 1.0]}, "one or one a layer"),
        ({"layers": (9,)}, "do not fit"),
        ({"positions_mask": torch.zeros(2, 9, dtype=torch.bool)}, "at least one position"),
    ],
)
def test_mistakes_are_one_clear_line(changes: dict[str, Any], part: str) -> None:
    model, (inputs, mask) = small("llama"), batch()
    given = {"layers": (1,), "positions_mask": mask, "epsilon": 1.0, "steps": 1, "step_size": 0.5}
    with pytest.raises(ForethoughtError, match=part):
        pgd(model, inputs, target_loss, **(given | changes))


def test_depths_outside_the_model_are_refused(tiny: Path) -> None:
    with pytest.raises(ForethoughtError, match="shares between 0 and 1"):
        at_depths(AutoModelForCausalLM.from_pretrained(tiny), (1.5,))
