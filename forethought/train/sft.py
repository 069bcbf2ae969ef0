"""`sft`: supervised fine-tuning on prompt -> (thought, answer), on transformers' Trainer, LoRA or full.

Rows are rendered and masked by `chat.py`, whose checks run before the first step. Logits are computed only where something is
trained. A killed run goes on from its last whole checkpoint and ends with the losses of an uninterrupted one.
"""

from __future__ import annotations

import json
import math
import shutil
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import cross_entropy
from transformers import (
    PreTrainedModel,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from forethought.chat import Encoded, check_rows, stop_ids
from forethought.config import TrainConfig
from forethought.errors import ForethoughtError
from forethought.models import locate_weights
from forethought.models.hf import load_weights
from forethought.progress import Progress
from forethought.records import Example, digest
from forethought.run import Run, explain_disk

IGNORED = -100
ROWS_PER_FORWARD = 8
Learn = Callable[[list[Example], str, TrainConfig, Run, int], dict[str, Any]]


def sft() -> Learn:
    """Returns the function that trains and writes `model/` and `losses.jsonl` into the run."""
    return learn


def learn(examples: list[Example], model_name: str, config: TrainConfig, run: Run, seed: int) -> dict[str, Any]:
    """Fine-tune on `examples`. Returns rows, steps, trained tokens, seconds and mean losses (nats a token).

    Raises ForethoughtError where a rule of `chat.check_rows` is broken or the loss is not finite.
    """
    source, adapter = locate_weights(model_name)
    if adapter is not None:
        raise ForethoughtError(f"'{model_name}' is an adapter. Train from its base model, or merge it first.")
    tokenizer, model = load_weights(source, config.dtype)
    stops = stop_ids(tokenizer, model.generation_config.eos_token_id if model.generation_config else None)
    fitting, held_out = hold_out(examples, config.validation)
    rows = check_rows(tokenizer, map(_row, fitting), stops, config.max_length, config.decision_weight)
    if len(rows) < len(fitting):
        run.log(f"{len(fitting) - len(rows)} of {len(fitting)} rows are longer than max_length and are left out")
    unseen = check_rows(tokenizer, map(_row, held_out), stops, config.max_length) if held_out else []
    torch.manual_seed(seed)
    model = with_adapter(model, config)
    trainer = make_trainer(model, rows, unseen, config, run.path / "checkpoints", seed)
    started = time.monotonic()
    with explain_disk(), warnings.catch_warnings():
        # The Trainer's own use of a name that transformers is about to rename.
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*")
        trainer.train(resume_from_checkpoint=last_whole_checkpoint(run.path / "checkpoints"))
    seconds = time.monotonic() - started
    history = [h for h in trainer.state.log_history if "loss" in h]
    validation = trainer.evaluate()["eval_loss"] if unseen else None
    with explain_disk():
        model.save_pretrained(run.path / "model")
        tokenizer.save_pretrained(run.path / "model")
        (run.path / "losses.jsonl").write_text(
            "".join(json.dumps(h, sort_keys=True) + "\n" for h in history), encoding="utf-8"
        )
    shutil.rmtree(run.path / "checkpoints", ignore_errors=True)
    return {
        "rows": len(rows),
        "held_out": len(unseen),
        "steps": trainer.state.global_step,
        "trained_tokens": int(sum(len(r.ids) - r.prompt_length for r in rows) * config.epochs),
        "seconds": round(seconds, 1),
        "train_loss": sum(h["loss"] for h in history) / len(history),
        "final_loss": history[-1]["loss"],
        "validation_loss": validation,
    }


def _row(example: Example) -> tuple[Any, str | None, str, tuple[str, ...]]:
    return example.prompt.messages, example.reasoning, example.answer, example.decisive


def hold_out(examples: list[Example], share: float) -> tuple[list[Example], list[Example]]:
    """(training, validation) rows; whole topics are held out, so that look-alikes stay together."""

    def held(example: Example) -> bool:
        return int(digest(example.prompt.topic or example.prompt.id, length=8), 16) / 16**8 < share

    return [e for e in examples if not held(e)], [e for e in examples if held(e)]


def with_adapter(model: PreTrainedModel, config: TrainConfig) -> Any:
    """The model with LoRA on every linear layer; itself where `lora_rank` is 0."""
    if config.lora_rank == 0:
        return model
    from peft import LoraConfig, get_peft_model

    lora = LoraConfig(
        r=config.lora_rank,
        lora_alpha=config.lora_alpha,
        lora_dropout=config.lora_dropout,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    return get_peft_model(model, lora)


def make_trainer(
    model: Any, rows: list[Encoded], unseen: list[Encoded], config: TrainConfig, out: Path, seed: int
) -> Trainer:
    """A Trainer over encoded rows: batches of similar length, right-padded, loss per trained token."""
    per_forward = max(n for n in range(1, ROWS_PER_FORWARD + 1) if config.batch_size % n == 0)
    accumulate = config.batch_size // per_forward
    steps = max(1, math.ceil(math.ceil(len(rows) / per_forward) / accumulate * config.epochs))
    on_gpu = torch.cuda.is_available()
    arguments = TrainingArguments(
        output_dir=str(out),
        per_device_train_batch_size=per_forward,
        per_device_eval_batch_size=per_forward,
        gradient_accumulation_steps=accumulate,
        num_train_epochs=config.epochs,
        learning_rate=config.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=math.ceil(config.warmup * steps),
        weight_decay=config.weight_decay,
        bf16=config.dtype == "bfloat16" and on_gpu,
        use_cpu=not on_gpu,
        train_sampling_strategy="group_by_length",
        remove_unused_columns=False,
        logging_steps=1,
        save_steps=config.save_steps,
        save_total_limit=2,
        dataloader_pin_memory=on_gpu,
        disable_tqdm=True,
        report_to="none",
        seed=seed,
    )
    data, held = ([{"input_ids": r.ids, "mask": r.mask} for r in part] for part in (rows, unseen))
    trainer = TrainedOnly(
        model=model,
        args=arguments,
        train_dataset=data,
        eval_dataset=held or None,
        data_collator=collate,
        callbacks=[Watch()],
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def collate(features: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """`input_ids`, `labels` and `weights` [rows, longest], right-padded. Padding is masked by position, never by id: its id may be
    that of the end of turn."""
    width = max(len(f["input_ids"]) for f in features)
    ids = torch.zeros(len(features), width, dtype=torch.long)
    labels = torch.full((len(features), width), IGNORED)
    weights = torch.zeros(len(features), width)
    for i, feature in enumerate(features):
        tokens, mask = torch.tensor(feature["input_ids"]), torch.tensor(feature["mask"])
        ids[i, : len(tokens)] = tokens
        labels[i, : len(tokens)][mask > 0] = tokens[mask > 0]
        weights[i, : len(tokens)] = mask
    return {"input_ids": ids, "labels": labels, "weights": weights}


class TrainedOnly(Trainer):
    """A Trainer that computes logits only at columns where some row of the batch is trained."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.model_accepts_loss_kwargs = True  # Count trained tokens over the whole accumulated batch.

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Weighted sum of the token losses over the number of trained tokens of the whole accumulated batch."""
        ids, labels = inputs["input_ids"], inputs["labels"]
        columns = (labels[:, 1:] != IGNORED).any(0).nonzero().squeeze(1)
        # Padding is on the right, so causal attention alone keeps it from every trained token: no mask is needed.
        outputs = model(input_ids=ids, logits_to_keep=columns, use_cache=False)
        targets = labels[:, columns + 1]
        each = cross_entropy(
            outputs.logits.float().flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="none"
        )
        total = (each * inputs["weights"][:, columns + 1].flatten()).sum()
        loss = total / (num_items_in_batch if num_items_in_batch is not None else (targets != IGNORED).sum())
        return (loss, outputs) if return_outputs else loss

    def prediction_step(self, model: Any, inputs: Any, prediction_loss_only: bool, ignore_keys: Any = None) -> Any:
        with torch.no_grad():
            return self.compute_loss(model, self._prepare_inputs(inputs)).detach(), None, None


class Watch(TrainerCallback):
    """Shows progress, and stops on a loss that is not finite."""

    def __init__(self) -> None:
        self.bar: Progress | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.bar = Progress("train", state.max_steps, "steps", state.global_step)

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        logs = kwargs.get("logs") or {}
        if "loss" not in logs:
            return
        if not math.isfinite(logs["loss"]) or not math.isfinite(logs.get("grad_norm", 0.0)):
            raise ForethoughtError(
                f"the loss is not finite at step {state.global_step}. Lower learning_rate; "
                f"the last checkpoint is kept in {args.output_dir}."
            )
        if self.bar is not None:
            self.bar.advance(state.global_step - self.bar.done, f"loss {logs['loss']:.3f}")

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self.bar is not None:
            self.bar.end()


def last_whole_checkpoint(folder: Path) -> str | None:
    """The newest checkpoint that was written completely; torn ones, which a kill leaves, are removed."""
    found = sorted(folder.glob("checkpoint-*"), key=lambda p: int(p.name.rpartition("-")[2]), reverse=True)
    for path in found:
        try:
            json.loads((path / "trainer_state.json").read_text(encoding="utf-8"))
            torch.load(path / "optimizer.pt", map_location="cpu", weights_only=True)
            if (
                any(path.glob("*.safetensors"))
                and (path / "scheduler.pt").exists()
                and any(path.glob("rng_state*.pth"))
            ):
                return str(path)
        except (OSError, ValueError, RuntimeError, EOFError):
            pass
        shutil.rmtree(path)
    return None
