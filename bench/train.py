"""Training on the same rows: ours beside TRL's SFTTrainer with its defaults and tuned, LoRA and full, float32; how cost grows; the ceiling.

"Tuned" is what somebody who knows would set on CPU: float32, no gradient checkpointing, batches of similar length.
"""

from __future__ import annotations

import contextlib
import io
import random
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

from bench.common import alone, best_matmul_rate, save
from bench.static import load_plain

RATE, RANK = 5e-4, 32


def examples(n: int) -> list[Any]:
    """n training rows with thoughts of 10 to 60 words and answers of 10 to 120, made of the starter prompts' own words."""
    from forethought.config import DataConfig
    from forethought.data import load_prompts
    from forethought.records import Example

    prompts, rng = load_prompts(DataConfig(split="train")), random.Random(0)
    words = sorted({w for p in prompts for w in p.text.split() if w.isalpha()})

    def said(least: int, most: int) -> str:
        return " ".join(rng.choices(words, k=rng.randint(least, most))).capitalize() + "."

    rows = []
    for i in range(n):
        prompt = prompts[i % len(prompts)]
        prompt = prompt.model_copy(update={"id": f"{prompt.id}-{i}"})
        rows.append(
            Example(prompt=prompt, reasoning=said(10, 60), answer=said(10, 120), decision="answer", method="bench", teacher="bench",
                    policy="none")
        )  # fmt: skip
    return rows


def ours(n: int, batch: int, lora: bool, dtype: str = "float32", once: bool = True) -> dict[str, Any]:
    """`once`: what the rows of a step begin with alike is read once, as it is outside this benchmark."""
    from forethought.config import TrainConfig
    from forethought.run import open_run
    from forethought.train import packing, sft

    if not once:
        packing._alike = lambda inputs: 0

    config = TrainConfig.model_validate(
        {
            "data": "x", "epochs": 1, "batch_size": batch, "lora_rank": RANK if lora else 0, "learning_rate": RATE, "validation": 0,
            "warmup": 0, "save_steps": 10_000, "dtype": dtype,
        }
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
        metrics = sft.learn(examples(n), "smollm2", config, open_run(Path(folder) / "r", "train", {}, {}), 0)
    return _rated(n, float(metrics["seconds"]), float(metrics["train_loss"]), int(metrics["steps"]))


def encoded(n: int) -> list[Any]:
    from forethought.chat import check_rows, stop_ids

    tokenizer, _, _ = load_plain()
    return check_rows(
        tokenizer,
        ((e.prompt.messages, e.reasoning, e.answer, e.decisive) for e in examples(n)),
        stop_ids(tokenizer),
        1024,
    )


def _rated(n: int, seconds: float, loss: float, steps: int) -> dict[str, Any]:
    tokens = sum(len(r.ids) for r in encoded(n))
    return {
        "rows": n, "tokens": tokens, "steps": steps, "seconds": round(seconds, 2), "rate": round(tokens / seconds, 1),
        "loss": round(loss, 4),
    }  # fmt: skip


def trl(n: int, batch: int, lora: bool, tuned: bool) -> dict[str, Any]:
    """The same ids and labels, batch size, learning rate and schedule; the optimizer step sees 8 rows at a time in both."""
    from datasets import Dataset
    from peft import LoraConfig
    from trl import SFTConfig, SFTTrainer

    tokenizer, model, _ = load_plain()
    rows = encoded(n)
    data = Dataset.from_list(
        [
            {"input_ids": list(r.ids), "labels": [t if on else -100 for t, on in zip(r.ids, r.mask, strict=True)]}
            for r in rows
        ]
    )
    settings: dict[str, Any] = (
        {"bf16": False, "gradient_checkpointing": False, "train_sampling_strategy": "group_by_length"} if tuned else {}
    )
    adapter = LoraConfig(r=RANK, lora_alpha=RANK, target_modules="all-linear", task_type="CAUSAL_LM") if lora else None
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        arguments = SFTConfig(
            output_dir=folder, num_train_epochs=1, per_device_train_batch_size=min(8, batch),
            gradient_accumulation_steps=max(1, batch // 8), learning_rate=RATE, lr_scheduler_type="cosine", warmup_steps=0,
            weight_decay=0.0, logging_steps=1, save_strategy="no", report_to="none", disable_tqdm=True, seed=0, use_cpu=True,
            max_length=1024, **settings,
        )  # fmt: skip
        with contextlib.redirect_stdout(io.StringIO()):
            trainer = SFTTrainer(
                model=model, args=arguments, train_dataset=data, processing_class=tokenizer, peft_config=adapter
            )
            started = time.perf_counter()
            trainer.train()
            seconds = time.perf_counter() - started
    losses = [h["loss"] for h in trainer.state.log_history if "loss" in h]
    return _rated(n, seconds, sum(losses) / len(losses), trainer.state.global_step)


def ceiling(lora: bool) -> dict[str, Any]:
    """Tokens a second if only the weights' products took time: 2N forward, 2N for the gradient of what goes in, 2N for that of the
    weights, which LoRA does not need."""
    _, model, _ = load_plain()
    count = sum(p.numel() for p in model.parameters())
    rate = best_matmul_rate()
    return {"gflops": round(rate / 1e9, 1), "rate": round(rate / ((4 if lora else 6) * count), 1)}


def main(quick: bool) -> None:
    n, batch = (32, 16) if quick else (64, 16)
    result: dict[str, Any] = {"batch": batch}
    for name, lora in (("LoRA", True), ("full", False)):
        contenders: dict[str, Any] = {
            "ours": alone(ours, n, batch, lora),
            "ours, each row reads its system prompt": alone(ours, n, batch, lora, "float32", False),
            **({"ours, bfloat16 base": alone(ours, n, batch, lora, "bfloat16")} if lora else {}),
            "TRL tuned": alone(trl, n, batch, lora, True),
            "TRL defaults": alone(trl, n, batch, lora, False),
            "ceiling": alone(ceiling, lora),
        }
        own = contenders["ours"]["rate"]
        print(f"train {name}: ours {own} tokens/s, loss {contenders['ours']['loss']}")
        for other in list(contenders)[1:]:
            loss = contenders[other].get("loss", "-")
            print(
                f"  {other}: {contenders[other]['rate']} tokens/s, loss {loss} (ours {own / contenders[other]['rate']:.2f}x)"
            )
        result[name] = contenders
    result["rows"] = {str(k): alone(ours, n * k // 4, batch, True) for k in (1, 2, 4)}
    result["batches"] = {str(b): alone(ours, n, b, True) for b in ((8,) if quick else (8, 32))}
    for key, runs in (("rows", result["rows"]), ("batch", result["batches"])):
        print(f"train, by {key}: " + ", ".join(f"{k}: {r['seconds']} s, {r['rate']} tokens/s" for k, r in runs.items()))
    save("train", result, quick)
