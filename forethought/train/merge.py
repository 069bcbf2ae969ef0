"""An adapter added into the weights it was trained on."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from forethought.chat import open_thoughts
from forethought.models.hf import copy_processor, load_weights, own_tokenizer
from forethought.run import Run, explain_disk
from forethought.train.rows import no_training


def merge_adapter(base: str, adapter: Path, dtype: str, run: Run, think: bool) -> dict[str, Any]:
    """Writes whole weights and tokenizer to the run's `model/`; with `think` its template opens the thought. Returns metrics of the
    shape that training has."""
    from peft import PeftModel

    started = time.monotonic()
    tokenizer, model = load_weights(base, dtype)
    tokenizer = own_tokenizer(adapter) or tokenizer
    if think:
        open_thoughts(tokenizer)
    merged = PeftModel.from_pretrained(model, str(adapter)).merge_and_unload()
    with explain_disk():
        merged.save_pretrained(run.path / "model")
        tokenizer.save_pretrained(run.path / "model")
        copy_processor(base, run.path / "model")
    return no_training() | {"seconds": round(time.monotonic() - started, 1)}
