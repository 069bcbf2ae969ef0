"""Supervised fine-tuning: two steps on a tiny model, masks, resume after a kill, and what stops it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from forethought.chat import Encoded, check_rows, encode_example, stop_ids
from forethought.config import TrainConfig
from forethought.errors import ForethoughtError
from forethought.models import load_model
from forethought.records import Example, make_prompt, user
from forethought.registry import resolve
from forethought.run import Run, open_run
from forethought.train import METHODS as TABLE
from forethought.train import loop, sft, watch
from forethought.train import rows as sides
from forethought.train.base import load_trained, open_base, with_adapter

WORDS = ("bread", "walk", "letter", "garden", "river", "window", "music", "table", "story", "coffee")


def examples(n: int = 24, reasoning: bool = True) -> list[Example]:
    rows = []
    for i in range(n):
        prompt = make_prompt(f"Tell me about {WORDS[i % 10]} number {i}", "benign", "test", topic=f"t{i % 7}")
        thought = f"Request: about {WORDS[i % 10]}.\nDecision: answer." if reasoning else None
        rows.append(
            Example(prompt=prompt, reasoning=thought, answer=f"It is about {WORDS[i % 10]}.", decision="answer", method="test",
                    teacher="test", policy="none")
        )  # fmt: skip
    return rows


def config(**changes: Any) -> TrainConfig:
    base = {
        "data": "x",
        "epochs": 1,
        "batch_size": 4,
        "lora_rank": 4,
        "max_length": 256,
        "validation": 0.2,
        "save_steps": 2,
    }
    return TrainConfig.model_validate(base | changes)


def mixed(n: int = 24, reasoning: bool = False) -> list[Example]:
    """Half of the rows refuse, in the words of the other half's answers so that a random model has something to lose."""
    rows = []
    for i, example in enumerate(examples(n, reasoning)):
        if i % 2:
            prompt = example.prompt.model_copy(update={"label": "harmful"})
            thought = example.reasoning and example.reasoning.replace("answer", "refuse")
            example = example.model_copy(
                update={"prompt": prompt, "reasoning": thought, "answer": "I will not do that.", "decision": "refuse"}
            )
        decisive = (f"Decision: {example.decision}.",) if reasoning else ()
        rows.append(example.model_copy(update={"decisive": decisive}))
    return rows


def test_the_loss_of_rows_held_out_does_not_depend_on_how_many_are_read_at_once(tiny: Path, tmp_path: Path) -> None:
    """Rows of very different lengths: the mean is over tokens, not over means of forwards."""
    rows = [e.model_copy(update={"answer": f"{e.answer} " * (1 + 6 * (i % 3))}) for i, e in enumerate(examples(24))]
    found = {}
    for at_once in (1, 2, 4):
        run = open_run(tmp_path / str(at_once), "train", {}, {})
        settings = config(steps=1, learning_rate=1e-12, rows_per_forward=at_once)
        found[at_once] = sft.learn(rows, f"hf:{tiny}", settings, run, 0)["validation_loss"]
    assert found[1] == pytest.approx(found[4], rel=1e-5)
    assert found[2] == pytest.approx(found[4], rel=1e-5)
    for at_once in (1, 2):
        assert losses(tmp_path / str(at_once)) == pytest.approx(losses(tmp_path / "4"), rel=1e-5)


def bare_trainer(model: Any, rows: list[Any], folder: Path) -> Any:
    """The trainer of sft over encoded rows, around a model that is there already."""
    arguments = loop.make_arguments(len(rows), 1, config(), folder, 0)
    data = [(row,) for row in rows]
    return sft.TrainedOnly(
        options={}, rows=4, model=model, args=arguments, train_dataset=data, data_collator=loop.collate
    )


def weights(run: Path) -> bytes:
    return (run / "model" / "adapter_model.safetensors").read_bytes()


def run_in(path: Path, tiny: object = None) -> Run:
    return open_run(path, "train", {"model": f"hf:{tiny}"}, {})


def test_two_steps_lower_the_loss_and_serve_in_plain_peft(tiny: Path, tmp_path: Path) -> None:
    run = run_in(tmp_path / "run", tiny)
    metrics = sft.learn(examples(), f"hf:{tiny}", config(epochs=4, learning_rate=5e-3), run, 0)
    losses = [json.loads(line)["loss"] for line in (run.path / "losses.jsonl").read_text().splitlines()]
    assert metrics["steps"] == len(losses) >= 16
    assert losses[-1] < losses[0] - 0.5
    assert metrics["rows"] + metrics["held_out"] == 24
    assert math.isfinite(metrics["validation_loss"])
    from peft import PeftModel

    base = AutoModelForCausalLM.from_pretrained(tiny)
    plain = PeftModel.from_pretrained(base, str(run.path / "model")).merge_and_unload()
    ours = load_model(str(run.path))
    for name, weight in plain.state_dict().items():
        assert torch.equal(weight, ours.model.state_dict()[name]), name  # type: ignore[attr-defined]


def test_full_training_saves_a_whole_model(tiny: Path, tmp_path: Path) -> None:
    run = run_in(tmp_path / "run")
    sft.learn(examples(8), f"hf:{tiny}", config(lora_rank=0, validation=0), run, 0)
    before = AutoModelForCausalLM.from_pretrained(tiny).state_dict()
    after = AutoModelForCausalLM.from_pretrained(run.path / "model").state_dict()
    assert any(not torch.equal(before[k], after[k]) for k in before)


def test_loss_is_the_mean_over_trained_tokens(tiny: Path, tmp_path: Path) -> None:
    """The Trainer's loss equals a plain forward over each row alone, with prompt and padding left out."""
    model = AutoModelForCausalLM.from_pretrained(tiny).eval()
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny)
    rows = check_rows(
        tokenizer, [(e.prompt.messages, e.reasoning, e.answer) for e in examples(5)], stop_ids(tokenizer), 256
    )
    total, count = 0.0, 0
    for row in rows:
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([row.ids])).logits[0].log_softmax(-1)
        for i in range(1, len(row.ids)):
            if row.mask[i]:
                total -= float(logits[i - 1, row.ids[i]])
                count += 1
    trainer = bare_trainer(model, rows, tmp_path)
    batch = loop.collate([(r,) for r in rows])
    with torch.no_grad():
        assert float(trainer.compute_loss(model, batch)) == pytest.approx(total / count, rel=1e-5)
    assert (batch["labels"] != loop.IGNORED).sum() == sum(sum(r.mask) for r in rows) == count


def test_decision_tokens_weigh_more(tiny: Path, tmp_path: Path) -> None:
    """Exactly the tokens of the decisive texts get the weight, and the loss is their weighted sum over the trained count."""
    from transformers import AutoTokenizer

    tokenizer, messages = AutoTokenizer.from_pretrained(tiny), user("answer me")
    decisive = ("Decision: answer", "answer is")
    row = encode_example(tokenizer, messages, "Request: answer.\nDecision: answer.", "answer is here", decisive, 8.0)
    heavy = tokenizer.decode([t for t, w in zip(row.ids, row.mask, strict=True) if w == 8.0])
    assert "".join(heavy.split()) == "Decision:answeransweris"
    assert set(row.mask) == {0.0, 1.0, 8.0}
    model = AutoModelForCausalLM.from_pretrained(tiny).eval()
    trainer = bare_trainer(model, [row], tmp_path)
    batch = loop.collate([(row,)])
    with torch.no_grad():
        each = -model(input_ids=torch.tensor([row.ids])).logits[0].log_softmax(-1)
        total = sum(w * float(each[i - 1, row.ids[i]]) for i, w in enumerate(row.mask) if w)
        loss = float(trainer.compute_loss(model, batch))
    assert loss == pytest.approx(total / sum(w > 0 for w in row.mask), rel=1e-5)
    with pytest.raises(ForethoughtError, match="decisive text"):
        encode_example(tokenizer, messages, "a", "b", ("nowhere",), 8.0)


def test_decisions_to_refuse_weigh_what_the_other_mistake_costs(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    make = sft.make_trainer
    monkeypatch.setattr(
        sft, "make_trainer", lambda cls, base, data, *a, **k: seen.append(data) or make(cls, base, data, *a, **k)
    )
    rows, settings = mixed(reasoning=True), config(steps=1, decision_weight=4)
    for name, method in (("even", sft.sft()), ("dear", sft.sft(cost=2.5))):
        method(rows, f"hf:{tiny}", settings, open_run(tmp_path / name, "train", {}, {}), 0)
    even, dear = seen
    assert len(even) == len(dear)
    tokenizer = open_base(f"hf:{tiny}", None).tokenizer
    for data, weight in ((even, 4.0), (dear, 10.0)):
        for (row,) in data:
            refuses = "Decision:refuse" in "".join(tokenizer.decode(row.ids).split())
            assert max(row.mask) == (weight if refuses else 4.0)
    with pytest.raises(ForethoughtError, match="cost needs thoughts"):
        sft.sft(cost=2)(mixed(), f"hf:{tiny}", settings, open_run(tmp_path / "none", "train", {}, {}), 0)


def kill_at(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stands for kill -9: the process is gone after that step, with nothing tidied up."""

    def on_step_end(self: Any, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == step:
            raise KeyboardInterrupt

    monkeypatch.setattr(watch.Watch, "on_step_end", on_step_end)


def count_steps_done(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The steps that are really done, as they are done."""
    done: list[int] = []
    monkeypatch.setattr(
        watch.Watch, "on_step_end", lambda self, args, state, control, **kw: done.append(state.global_step)
    )
    return done


def losses(run: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (run / "losses.jsonl").read_text().splitlines()]


METHODS = {
    "sft": {},
    "circuit_breaker(max_tokens=6)": {},
    "lat(max_tokens=6, inner_steps=2)": {},
    "r2d2(length=3, gcg_steps=1, candidates=4, topk=4, max_tokens=4, reset_every=3)": {"batch_size": 2},
    "dpo(max_tokens=6)": {},
}


@pytest.mark.parametrize("method", METHODS)
def test_resume_ends_with_the_losses_of_an_uninterrupted_run(
    method: str, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learn = resolve("method", TABLE, method)
    settings = config(method=method, steps=7, lora_dropout=0.1, learning_rate=1e-3, **METHODS[method])
    whole = learn(mixed(), f"hf:{tiny}", settings, run_in(tmp_path / "whole"), 0)
    run = run_in(tmp_path / "cut")
    with monkeypatch.context() as patch:
        kill_at(5, patch)
        with pytest.raises(KeyboardInterrupt):
            learn(mixed(), f"hf:{tiny}", settings, run, 0)
    # The kill tore the newest checkpoint apart, so the one before it has to serve.
    newest = max((run.path / "checkpoints").glob("checkpoint-*"), key=lambda p: int(p.name.split("-")[1]))
    (newest / "trainer_state.json").write_text("{torn")
    done = count_steps_done(monkeypatch)
    resumed = learn(mixed(), f"hf:{tiny}", settings, run, 0)
    assert done == [3, 4, 5, 6, 7]  # The checkpoint of step 4 was torn, so it went on from step 2.
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")
    assert resumed["validation_loss"] == whole["validation_loss"] > 0, "rows held out are read, and not lost"
    assert whole["used"] + whole["spare"] + whole["held_out"] == len(mixed()) and whole["held_out"]
    assert weights(tmp_path / "cut") == weights(tmp_path / "whole")


def test_divergence_stops_with_one_line(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(ForethoughtError, match="not finite"):
        sft.learn(
            examples(), f"hf:{tiny}", config(learning_rate=1e30, epochs=4, lora_rank=0), run_in(tmp_path / "r"), 0
        )


def test_recomputed_activations_give_the_same_losses(tiny: Path, tmp_path: Path) -> None:
    for name, recompute in (("kept", False), ("again", True)):
        settings = config(steps=3, validation=0, save_steps=9, learning_rate=1e-2, gradient_checkpointing=recompute)
        sft.learn(examples(8), f"hf:{tiny}", settings, run_in(tmp_path / name), 0)
    assert losses(tmp_path / "again") == pytest.approx(losses(tmp_path / "kept"), rel=1e-5)


def test_no_memory_stops_with_one_line_and_keeps_the_checkpoint(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, compute = run_in(tmp_path / "r"), sft.TrainedOnly.compute_loss

    def compute_loss(self: Any, *args: Any, **kwargs: Any) -> Any:
        if self.state.global_step == 3:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return compute(self, *args, **kwargs)

    monkeypatch.setattr(sft.TrainedOnly, "compute_loss", compute_loss)
    with pytest.raises(ForethoughtError, match=r"out of memory\. Lower rows_per_forward"):
        sft.learn(examples(), f"hf:{tiny}", config(), run, 0)
    assert (run.path / "checkpoints" / "checkpoint-2" / "trainer_state.json").exists()


def test_refusals_do_not_have_steps_to_themselves() -> None:
    """Refusals are shorter than answers: by length, steps would hold one decision each, and their tokens weigh as few tokens do."""

    def row(length: int) -> Encoded:
        return Encoded((1,) * length, (0.0,) * 10 + (1.0,) * (length - 10), 10)

    elements: list[loop.Element] = [(row(20 if i % 3 == 0 else 60),) for i in range(1200)]
    drawn = loop.Drawn(elements, 8, seed=0)
    order = list(drawn)
    assert sorted(order) == list(range(1200)) and list(drawn) == order
    refusals = [sum(i % 3 == 0 for i in order[at : at + 8]) for at in range(0, 1200, 8)]
    assert refusals.count(0) + refusals.count(8) < 15  # 6 by chance
    drawn.set_epoch(1)
    assert list(drawn) != order
    # Rows side by side hold both decisions as they are, and steps of similar length pad less.
    pairs: list[loop.Element] = [(row(20), row(20 + i % 40)) for i in range(1200)]
    order = list(loop.Drawn(pairs, 8, seed=0))
    assert sum(len({len(pairs[i][1].ids) for i in order[at : at + 8]}) < 5 for at in range(0, 1200, 8)) > 100


def test_a_row_without_a_trained_token_is_an_error() -> None:
    with pytest.raises(ForethoughtError, match="no trained token"):
        loop.collate([(Encoded((1, 2, 3), (0.0, 0.0, 0.0), 3),)])


@pytest.mark.parametrize(
    ("rows", "changes", "part"),
    [([], {}, "empty"), (examples(12), {"max_length": 12}, "longer than max_length")],
)
def test_unusable_data_stops_before_the_first_step(
    rows: list[Example], changes: dict[str, Any], part: str, tiny: Path, tmp_path: Path
) -> None:
    with pytest.raises(ForethoughtError, match=part):
        sft.learn(rows, f"hf:{tiny}", config(validation=0, **changes), run_in(tmp_path / "r"), 0)


def test_hold_out_keeps_topics_together() -> None:
    kept, held = sides.hold_out(examples(70), 0.3)
    assert kept
    assert held
    assert not {e.prompt.topic for e in kept} & {e.prompt.topic for e in held}


def test_hold_out_keeps_the_wordings_of_a_prompt_together() -> None:
    prompts = [make_prompt(f"Bake {i}", "benign", "t", id=f"p{i}") for i in range(60)]
    prompts += [p.model_copy(update={"id": f"{p.id}~slang", "style": "slang"}) for p in prompts]
    plain = examples(1)[0]
    kept, held = sides.hold_out([plain.model_copy(update={"prompt": p}) for p in prompts], 0.3)
    assert held and not {e.prompt.base for e in kept} & {e.prompt.base for e in held}


@pytest.mark.parametrize("method", ["lat", "dpo(max_tokens=4)", "circuit_breaker", "r2d2"])
@pytest.mark.parametrize("ignored", [{"pairing": True}, {"decision_weight": 8}])
def test_what_a_method_does_not_heed_it_refuses(method: str, ignored: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"has a loss of its own, in which (pairing|decision_weight) has no part"):
        config(method=method, **ignored)
    assert config(method="refusal", **ignored)


def test_same_seed_same_weights(tiny: Path, tmp_path: Path) -> None:
    files = []
    for name in ("a", "b"):
        run = run_in(tmp_path / name)
        sft.learn(examples(8), f"hf:{tiny}", config(validation=0), run, 3)
        files.append((run.path / "model" / "adapter_model.safetensors").read_bytes())
    assert files[0] == files[1]


def test_another_seed_is_another_training(tiny: Path) -> None:
    elements: list[loop.Element] = [(Encoded((1, 2), (0.0, 1.0), 1),)] * 64
    assert list(loop.Drawn(elements, 8, 0)) != list(loop.Drawn(elements, 8, 1))
    assert sides.side_by_side(range(30), range(30), 0) != sides.side_by_side(range(30), range(30), 1)
    base = open_base(f"hf:{tiny}", None)
    a, b = (with_adapter(load_trained(base, config()), base, config(), seed).state_dict() for seed in (0, 1))
    assert not any(torch.equal(a[k], b[k]) for k in a if "lora_A" in k)


def test_settings_reach_the_optimizer_and_the_adapter(tiny: Path, tmp_path: Path) -> None:
    asked = config(steps=40, warmup=0.25, weight_decay=0.3, learning_rate=2e-3, lora_alpha=8, lora_dropout=0.5)
    found = loop.make_arguments(64, 1, asked, tmp_path, 7)
    assert (found.max_steps, found.warmup_steps, found.weight_decay, found.learning_rate) == (40, 10, 0.3, 2e-3)
    assert (found.seed, found.lr_scheduler_type) == (7, "cosine")
    base = open_base(f"hf:{tiny}", None)
    lora = with_adapter(load_trained(base, asked), base, asked, 0).peft_config["default"]
    assert (lora.r, lora.lora_alpha, lora.lora_dropout) == (4, 8, 0.5)
