"""The fast training loop gives the numbers of the plain one: fused LoRA layers, token losses, and rows packed end to end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, CohereConfig, GptOssConfig, MistralConfig
from transformers.models.cohere import modeling_cohere
from transformers.models.gemma.modeling_gemma import GemmaRMSNorm
from transformers.models.llama import modeling_llama

from forethought.chat import Encoded
from forethought.train.forward import logprobs_of, trained_columns
from forethought.train.fused import fuse_adapters, fuse_norms, fused_rotary, token_losses
from forethought.train.loop import collate
from forethought.train.packing import allow_packing, pack

IDS = torch.tensor([[5, 9, 2, 7, 3, 8]])


def adapted(tiny: Path, dtype: str = "float32", dropout: float = 0.0) -> Any:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(tiny, dtype=getattr(torch, dtype))
    lora = LoraConfig(r=4, lora_alpha=8, lora_dropout=dropout, target_modules="all-linear", task_type="CAUSAL_LM")
    made = get_peft_model(model, lora)
    for name, parameter in made.named_parameters():
        if "lora_B" in name:  # B starts at zero, and with it A would get no gradient.
            torch.nn.init.normal_(parameter, std=0.02)
    return made.train()


def gradients(model: Any) -> dict[str, torch.Tensor]:
    model.zero_grad()
    model(input_ids=IDS, labels=IDS).loss.backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(("dtype", "near"), [("float32", 1e-5), ("bfloat16", 0.1)])
def test_fused_layers_give_the_outputs_and_gradients_of_peft(tiny: Path, dtype: str, near: float) -> None:
    plain, fused = adapted(tiny, dtype), adapted(tiny, dtype)
    assert fuse_adapters(fused) > 0
    assert fuse_norms(fused) == 2 * fused.config.num_hidden_layers + 1
    said, wanted = plain(IDS).logits.float(), gradients(plain)
    with fused_rotary(fused) as turned:
        assert turned
        assert torch.allclose(said, fused(IDS).logits.float(), atol=near)
        found = gradients(fused)
    assert wanted.keys() == found.keys()
    for name, gradient in wanted.items():
        assert torch.linalg.vector_norm(found[name] - gradient) <= near * torch.linalg.vector_norm(gradient), name


def test_fused_layers_stand_aside(tiny: Path) -> None:
    """With the adapter off it is the base model; with dropout, and under autocast, peft's numbers."""
    model = adapted(tiny)
    with model.disable_adapter():
        base = model(IDS).logits
    fuse_adapters(model)
    with model.disable_adapter():
        assert torch.equal(model(IDS).logits, base)
    assert not torch.equal(model(IDS).logits, base)
    with torch.autocast("cpu", torch.bfloat16):
        assert (model(IDS).logits - adapted(tiny)(IDS).logits).abs().max() < 0.1
    noisy = adapted(tiny, dropout=0.5)
    fuse_adapters(noisy)
    torch.manual_seed(1)
    one, two = noisy(IDS).logits, noisy(IDS).logits
    assert not torch.equal(one, two)


def test_norms_have_the_gradients_of_their_weights(tiny: Path) -> None:
    """As when all weights are trained."""
    plain, fused = (AutoModelForCausalLM.from_pretrained(tiny) for _ in range(2))
    assert fuse_norms(fused) > 0
    wanted, found = gradients(plain), gradients(fused)
    for name in (n for n in wanted if "norm" in n):
        assert torch.allclose(found[name], wanted[name], atol=1e-5), name


def test_other_families_keep_their_norms_and_rotary_positions() -> None:
    """Gemma scales by 1 + weight; Cohere turns neighbours, not halves."""
    norm = GemmaRMSNorm(8)
    norm.variance_epsilon = norm.eps
    assert fuse_norms(torch.nn.ModuleList([norm])) == 0
    layout = CohereConfig(
        hidden_size=32, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2, vocab_size=16
    )
    before = modeling_cohere.apply_rotary_pos_emb
    with fused_rotary(AutoModelForCausalLM.from_config(layout)) as turned:
        assert not turned
        assert modeling_cohere.apply_rotary_pos_emb is before


def test_a_family_with_positions_of_another_shape_stands_aside() -> None:
    """GPT-OSS has cosines of half the width."""
    layout = GptOssConfig(
        hidden_size=32, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1, head_dim=16,
        vocab_size=16, num_local_experts=2,
    )  # fmt: skip
    with fused_rotary(AutoModelForCausalLM.from_config(layout)) as turned:
        assert not turned


def test_rotary_positions_are_put_back(tiny: Path) -> None:
    before = modeling_llama.apply_rotary_pos_emb
    with pytest.raises(AssertionError, match="stopped"), fused_rotary(AutoModelForCausalLM.from_pretrained(tiny)):
        raise AssertionError("stopped" if modeling_llama.apply_rotary_pos_emb is not before else "not turned")
    assert modeling_llama.apply_rotary_pos_emb is before


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_token_losses_are_weighted_cross_entropy(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(70, 8, generator=generator).to(dtype).requires_grad_()
    head = torch.randn(50, 8, generator=generator).to(dtype)
    targets, weights = torch.randint(50, (70,), generator=generator), torch.rand(70, generator=generator)
    plain = (cross_entropy((states @ head.t()).float(), targets, reduction="none") * weights).sum()
    (wanted,) = torch.autograd.grad(3 * plain, states)
    ours = token_losses(states @ head.t(), targets, weights)
    (found,) = torch.autograd.grad(3 * ours, states)
    assert ours.item() == pytest.approx(plain.item(), rel=1e-5)
    assert torch.allclose(found, wanted, atol=1e-4 if dtype == torch.float32 else 0.2)
    with torch.no_grad():
        assert token_losses(states @ head.t(), targets, weights).item() == pytest.approx(plain.item(), rel=1e-5)


def test_packed_rows_read_as_if_alone(tiny: Path) -> None:
    """Logits of each row, packed between others, are those of the row by itself; and another neighbour changes nothing."""
    model = AutoModelForCausalLM.from_pretrained(tiny)
    rows = [Encoded(tuple(ids), tuple([1.0] * len(ids)), 0) for ids in ([5, 9, 2, 7], [3, 8], [6, 4, 1, 9, 9, 2])]
    alone = [model(torch.tensor([row.ids])).logits[0] for row in rows]
    assert allow_packing(model, 6)
    batch = pack(collate([(row,) for row in rows]))
    assert batch["row_lengths"] == [4, 2, 6]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 3, 0, 1, 0, 1, 2, 3, 4, 5]]
    where = {name: batch[name] for name in ("input_ids", "position_ids", "row_lengths")}
    logits = model(**where, use_cache=False).logits[0]
    assert torch.allclose(logits, torch.cat(alone), atol=1e-5)
    changed = where["input_ids"].clone()
    changed[0, :4] = 11
    other = model(**{**where, "input_ids": changed}, use_cache=False).logits[0]
    assert torch.equal(other[4:], logits[4:])
    assert not torch.equal(other[:4], logits[:4])
    assert torch.allclose(model(torch.tensor([rows[0].ids])).logits[0], alone[0], atol=1e-6)


@pytest.mark.parametrize(
    ("rows", "head"),
    [
        (([5, 9, 2, 7, 3, 8], [5, 9, 2, 4], [5, 9, 2, 7, 3, 1, 1]), 2),
        (([5, 9, 2, 7, 3, 8], [6, 9, 2, 7, 3, 8]), 0),
        (([5, 9, 2, 7, 3, 8], [5, 9, 2, 7, 3, 8]), 3),  # Alike to the end: the fifth token is trained.
        (([5, 9, 2, 7, 3, 8],), 0),
    ],
)
def test_what_rows_begin_with_is_read_once(tiny: Path, rows: tuple[list[int], ...], head: int) -> None:
    """Losses of the trained tokens, and the gradient of every weight, are those of the rows one by one."""
    model = AutoModelForCausalLM.from_pretrained(tiny)
    encoded = [
        Encoded(tuple(r), tuple([0.0] * min(4, len(r) - 1) + [1.0] * (len(r) - min(4, len(r) - 1))), 0) for r in rows
    ]

    def losses(batch: dict[str, Any]) -> torch.Tensor:
        columns, targets = trained_columns(batch["labels"])
        where = {k: batch[k] for k in ("position_ids", "row_lengths", "head_length") if k in batch}
        logits = model(input_ids=batch["input_ids"], logits_to_keep=columns, use_cache=False, **where).logits
        return -logprobs_of(logits, targets).sum()

    alone = torch.stack([losses(collate([(row,)])) for row in encoded]).sum()
    wanted = torch.autograd.grad(alone, list(model.parameters()))
    assert allow_packing(model, 7)
    batch = pack(collate([(row,) for row in encoded]))
    assert batch["head_length"] == head
    assert batch["input_ids"].shape[1] == head + sum(len(r) - head for r in rows)
    together = losses(batch)
    assert together.item() == pytest.approx(alone.item(), rel=1e-5)
    for found, grad in zip(torch.autograd.grad(together, list(model.parameters())), wanted, strict=True):
        assert torch.allclose(found, grad, atol=1e-5)


def test_rows_beyond_a_window_are_not_packed() -> None:
    """A window without a list of layer types, as Mistral's first models have: packed only where every row is within it."""
    layout = MistralConfig(
        hidden_size=32, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1, vocab_size=16,
        sliding_window=4,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(layout)
    assert not allow_packing(model, 5)
    assert allow_packing(model, 4)


def test_models_with_windows_are_not_packed(tiny: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny)
    model.config.layer_types = ["sliding_attention", "full_attention"]
    before = model.config._attn_implementation
    assert not allow_packing(model, 4)
    assert model.config._attn_implementation == before
