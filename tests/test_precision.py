"""bfloat16 where the CPU has kernels for it, float32 where it has not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from test_train import config
from transformers import AutoModelForCausalLM

from forethought.models import precision
from forethought.models.hf import load_hf
from forethought.models.packed import pack_linears
from forethought.models.precision import computed_in
from forethought.train.base import load_trained, open_base
from forethought.train.loop import make_arguments
from forethought.train.plan import describe


@pytest.fixture
def old_cpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(precision, "has_bfloat16", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    computed_in.cache_clear()
    yield
    computed_in.cache_clear()


def test_without_kernels_float32_is_computed_in_and_said_once(
    old_cpu: None, tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked, plain = load_hf(str(tiny), dtype="bfloat16"), load_hf(str(tiny))
    assert {p.dtype for p in asked.model.parameters()} == {torch.float32}
    assert asked.identity == plain.identity  # The same replies: kept ones may be used.
    load_hf(str(tiny), dtype="bfloat16")
    assert capsys.readouterr().err.count("no kernels for bfloat16") == 1


def test_training_too(old_cpu: None, tiny: Path, tmp_path: Path) -> None:
    base = open_base(f"hf:{tiny}", None)
    for rank in (0, 4):
        asked = config(dtype="bfloat16", lora_rank=rank)
        assert {p.dtype for p in load_trained(base, asked).parameters()} == {torch.float32}
        assert not make_arguments(8, 1, asked, tmp_path, 0).bf16
    told = "\n".join(describe(f"hf:{tiny}", config(dtype="bfloat16"), 8))
    assert "on this machine, in float32:" in told


def test_with_kernels_it_is_what_was_asked_for(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "has_bfloat16", lambda: True)
    computed_in.cache_clear()
    asked = config(dtype="bfloat16", lora_rank=4)
    try:
        assert {p.dtype for p in load_trained(open_base(f"hf:{tiny}", None), asked).parameters()} == {torch.bfloat16}
        assert "on this machine" not in "\n".join(describe(f"hf:{tiny}", asked, 8))
    finally:
        computed_in.cache_clear()


def test_weights_that_no_kernel_takes_are_not_laid_out(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("forethought.models.packed.has_bfloat16", lambda: False)
    half = AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.bfloat16)
    assert pack_linears(half, 64) == 64
    assert all("forward" not in vars(m) for m in half.modules())
