"""Training methods: one file each, one line in METHODS. A factory returns `(examples, model, config, run, seed) -> metrics`."""

from __future__ import annotations

from forethought.registry import Entry

METHODS: dict[str, Entry] = {
    "sft": Entry(
        "forethought.train.sft:sft",
        "supervised fine-tuning on prompt -> (thought, answer), loss on thought and answer only; LoRA, or full with lora_rank=0",
    ),
}
