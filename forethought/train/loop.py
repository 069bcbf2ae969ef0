"""What every method that trains shares, on transformers' Trainer: rows to batches, checkpoints and resume, and what a run leaves behind.

A method is a `Learner` with a `compute_loss`. An element of its data is a tuple of encoded rows (one row, or those that a step sets side by
side). A killed run goes on from its last whole checkpoint and ends with the losses of an uninterrupted one.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_pt_utils import get_length_grouped_indices

from forethought.chat import Encoded
from forethought.config import TrainConfig
from forethought.errors import ForethoughtError
from forethought.models.hf import copy_processor, quiet
from forethought.models.precision import INSTEAD, computed_in
from forethought.run import Run, explain_disk
from forethought.train.base import REFERENCE, Base, load_trained, with_adapter
from forethought.train.forward import IGNORED, nats_a_token
from forethought.train.fused import fuse_adapters, fuse_norms, fused_rotary
from forethought.train.launch import is_first, processes, sharded, wait
from forethought.train.rows import count_steps, per_forward
from forethought.train.watch import Watch, explain_memory, last_whole_checkpoint

Element = tuple[Encoded, ...]


def make_trainer(
    kind: type[Learner],
    base: Base,
    data: Sequence[Element],
    config: TrainConfig,
    run: Run,
    seed: int,
    *,
    held: Sequence[Element] = (),
    layers: int | None = None,
    width: int | None = None,
    **options: Any,
) -> Any:
    """A trainer of `kind` over `data`. `layers` keeps the adapter to the first so many blocks; `width` is the rows that an element becomes,
    where that is more than it has; `options` go to `kind`."""
    # DeepSpeed shards weights while they load, and knows that it should from the arguments: these come first.
    arguments = make_arguments(len(data), width or len(data[0]), config, run.path / "checkpoints", seed)
    with quiet():
        model = with_adapter(load_trained(base, config), base, config, seed, layers, kind.compares)
    if (
        config.dtype == "float32"
        and not torch.cuda.is_available()
        and torch.cpu._is_amx_tile_supported()
        and is_first()
    ):
        run.log("this CPU has matrix units for bfloat16: dtype=bfloat16 trains about twice as fast")
    if computed_in(config.dtype) != config.dtype and is_first():
        run.log(INSTEAD)
    if not sharded():  # A fused layer reads its parts' weights, which are elsewhere then.
        fuse_adapters(model)
        fuse_norms(model)
    trainer = kind(
        model=model,
        args=arguments,
        train_dataset=list(data),
        eval_dataset=list(held) or None,
        data_collator=collate,
        callbacks=[Watch()],
        options=options,
        rows=config.batch_size,
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def make_arguments(elements: int, width: int, config: TrainConfig, out: Path, seed: int) -> TrainingArguments:
    """Arguments for `elements` tuples of `width` rows."""
    per_process = per_forward(config, width, processes())
    on_gpu = torch.cuda.is_available()
    steps = count_steps(elements, config)
    half = computed_in(config.dtype) == "bfloat16" and (on_gpu or config.lora_rank == 0)
    # A launcher's own word would outvote the configuration's.
    os.environ["ACCELERATE_MIXED_PRECISION"] = "bf16" if half else "no"
    arguments = TrainingArguments(
        output_dir=str(out),
        per_device_train_batch_size=per_process,
        per_device_eval_batch_size=per_process,
        gradient_accumulation_steps=config.batch_size // processes() // per_process,
        max_steps=steps,
        learning_rate=config.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=math.ceil(config.warmup * steps),
        weight_decay=config.weight_decay,
        bf16=half,
        use_cpu=not on_gpu,
        remove_unused_columns=False,
        logging_steps=1,
        logging_nan_inf_filter=False,
        # Of a long run a fiftieth at a time: a checkpoint of whole weights takes minutes.
        save_steps=config.save_steps or max(20, math.ceil(steps / 50)),
        save_total_limit=2,
        dataloader_pin_memory=on_gpu,
        ddp_find_unused_parameters=False,
        disable_tqdm=True,
        report_to="none",
        seed=seed,
        **_recompute() if config.gradient_checkpointing else {},
    )
    if arguments.n_gpu > 1:
        arguments._n_gpu = 1  # Several GPUs are the launcher's business; DataParallel would split what must not be.
    return arguments


def _recompute() -> dict[str, Any]:
    """Arguments that recompute activations, by the name that the installed transformers has for it."""
    known = TrainingArguments.__dataclass_fields__
    name = next(n for n in ("activation_checkpointing", "gradient_checkpointing") if n in known)
    return {name: True, f"{name}_kwargs": {"use_reentrant": False}}


def collate(elements: Sequence[Element]) -> dict[str, torch.Tensor]:
    """`input_ids`, `labels`, `weights` and `real` [rows, longest], right-padded: the first rows of all elements, then the second ones, ...

    Padding is masked by position, never by id: its id may be that of the end of turn.
    """
    rows = [row for column in zip(*elements, strict=True) for row in column]
    width = max(len(row.ids) for row in rows)
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    labels = torch.full((len(rows), width), IGNORED)
    weights, real = torch.zeros(len(rows), width), torch.zeros(len(rows), width, dtype=torch.bool)
    for i, row in enumerate(rows):
        tokens, mask = torch.tensor(row.ids), torch.tensor(row.mask)
        if not (mask > 0).any():
            raise ForethoughtError("a row has no trained token, so there is nothing to learn from it. Remove it.")
        ids[i, : len(tokens)] = tokens
        labels[i, : len(tokens)][mask > 0] = tokens[mask > 0]
        weights[i, : len(tokens)] = mask
        real[i, : len(tokens)] = True
    return {"input_ids": ids, "labels": labels, "weights": weights, "real": real}


def _mean_tokens(data: Any) -> float:
    """Tokens with a loss in an element, on average."""
    return sum(sum(m > 0 for m in row.mask) for element in data for row in element) / len(data)


class Drawn(torch.utils.data.Sampler[int]):
    """Elements in an order drawn by (seed, epoch): the same for any number of processes.

    Rows by themselves come as drawn, whatever their lengths. Refusals are short: steps of rows of similar length would hold one decision
    each, and in them the first token of a refusal weighs twice what that of an answer does. Elements that set rows of both decisions side
    by side are put into steps of similar length, which need less padding.
    """

    def __init__(self, elements: Sequence[Element], rows: int, seed: int) -> None:
        self.lengths = [sum(len(row.ids) for row in element) for element in elements]
        self.alone = all(len(element) == 1 for element in elements)
        self.rows, self.seed, self.epoch = rows, seed, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        if self.alone:
            return iter(torch.randperm(len(self), generator=generator).tolist())
        return iter(get_length_grouped_indices(self.lengths, self.rows, generator=generator))  # type: ignore[no-untyped-call]


class InOrder(TrainerCallback):
    """Tells the sampler its epoch: what accelerate puts around it where several processes resume does not hand that on."""

    def __init__(self, drawn: Drawn) -> None:
        self.drawn = drawn

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.drawn.set_epoch(int((state.epoch or 0.0) + 1e-6))


class Learner(Trainer):
    """A Trainer that logs the terms of its loss, and whose steps do not depend on how many processes share them. `compares` is set where
    the loss looks at the model as it was at the start."""

    compares = False

    def __init__(self, options: dict[str, Any], rows: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        # A loss is the mean of its forward. Left to what the model's forward accepts, those of a step would be added up and not averaged.
        self.model_accepts_loss_kwargs = False
        self.options, self.rows, self.terms = options, rows, dict[str, list[torch.Tensor]]()
        data: Any = self.train_dataset
        self.order = Drawn(data, rows, self.args.seed)
        self.add_callback(InOrder(self.order))

    def bare(self, model: Any) -> Any:
        """The model without what a launcher wraps around it."""
        return self.accelerator.unwrap_model(model)

    def note(self, **terms: torch.Tensor) -> None:
        """Terms of this forward's loss; their means go into the log."""
        for name, value in terms.items():
            self.terms.setdefault(name, []).append(value.detach().float())

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs:
            for name, values in self.terms.items():
                logs[name] = float(self.accelerator.gather(torch.stack(values).mean()).mean())
            self.terms.clear()
        super().log(logs, start_time)

    def prediction_step(self, model: Any, inputs: Any, prediction_loss_only: bool, ignore_keys: Any = None) -> Any:
        """Rows held out are read as they are, whatever a method does to those it trains on: nats a token, alike for all methods.

        The Trainer weighs what this returns by rows, so it is the sum of a row, on average, over the tokens of any row: the mean over
        tokens, however many rows are read at once.
        """
        with torch.no_grad():
            given = self._prepare_inputs(inputs)
            mean = nats_a_token(model, given["input_ids"], given["labels"])
            tokens = (given["labels"] != IGNORED).sum() / len(given["labels"])
            return mean * tokens / self.held_tokens, None, None

    @cached_property
    def held_tokens(self) -> float:
        """Tokens with a loss in a row held out, on average."""
        return _mean_tokens(self.eval_dataset)

    def trained_tokens(self) -> float:
        """Tokens with a loss in an element of what is trained on, on average."""
        return _mean_tokens(self.train_dataset)

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        return self.order

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        super()._save(output_dir, state_dict=state_dict)
        # The frozen reference is no part of what is trained.
        shutil.rmtree(Path(str(output_dir or self.args.output_dir)) / REFERENCE, ignore_errors=True)


def fit(trainer: Any, base: Base, run: Run, *, used: int, spare: int = 0, **extra: Any) -> dict[str, Any]:
    """Train from the last whole checkpoint to the end; write `model/` and `losses.jsonl`. Returns rows, steps, trained tokens, seconds and
    losses, and what `extra` adds. `used` examples are in the rows trained on, which may repeat them, and `spare` ones the method has no
    use for. The validation loss is that of the rows held out, in nats a token, for every method.

    Raises ForethoughtError where the loss is not finite or memory runs out; the last checkpoint is then still there.
    """
    folder, started = run.path / "checkpoints", time.monotonic()
    checkpoint = last_whole_checkpoint(folder)
    with explain_disk(), explain_memory(folder), quiet(), fused_rotary(trainer.bare(trainer.model)):
        trainer.train(resume_from_checkpoint=checkpoint)
        held = trainer.eval_dataset
        validation = trainer.evaluate()["eval_loss"] if held else None
        trainer.save_model(str(run.path / "model"))
    history = [h for h in trainer.state.log_history if "loss" in h]
    if is_first():
        with explain_disk():
            base.tokenizer.save_pretrained(run.path / "model")
            if (run.path / "model" / "config.json").exists():  # Whole weights.
                copy_processor(base.source, run.path / "model")
            (run.path / "model" / "training_args.bin").unlink(missing_ok=True)  # A pickle, with paths of this machine.
            (run.path / "losses.jsonl").write_text(
                "".join(json.dumps(h, sort_keys=True) + "\n" for h in history), encoding="utf-8"
            )
    wait()
    data: list[Element] = trainer.train_dataset
    return {
        "rows": len(data),
        "used": used,
        "spare": spare,
        "held_out": len(held or ()),
        "steps": trainer.state.global_step,
        "trained_tokens": round(trainer.trained_tokens() * trainer.state.global_step * trainer.rows),
        "seconds": round(time.monotonic() - started, 1),
        "train_loss": sum(h["loss"] for h in history) / len(history),
        "final_loss": history[-1]["loss"],
        "validation_loss": validation,
        **extra,
    }
