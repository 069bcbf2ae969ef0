"""The losses of the training methods against hand computations, where they may write, and what surrounds training: prompting, merging,
starting from an adapter, planning, and several processes."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
import yaml
from safetensors.torch import load_file
from test_train import config, examples, losses, mixed, run_in
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerControl, TrainerState

from forethought import pipeline, stages
from forethought.chat import Encoded, check_channels, opens_thought, render_prompt
from forethought.cli import app
from forethought.cli.train import _config
from forethought.config import ModelConfig, TrainConfig, find_launch, load_experiment, only
from forethought.errors import ForethoughtError
from forethought.models import deployment, load_model
from forethought.models.scripted import ScriptedModel, follow
from forethought.policy import load_policy
from forethought.records import Attempt, user
from forethought.registry import parse_spec, resolve
from forethought.run import keeping_finished, open_run, read_run
from forethought.stages import weights_of
from forethought.train import METHODS, lat, loop, r2d2
from forethought.train import base as base_of
from forethought.train.card import CARD, EMBEDDED, published
from forethought.train.circuit_breaker import Rerouting, circuit_breaker, distance, rerouting, schedule, thirds
from forethought.train.dpo import Preference, flip, preference, preferences
from forethought.train.elicit import elicit, encode_elicited
from forethought.train.forward import adversarial_terms, hidden, token_logprobs, unlikely
from forethought.train.plan import command, describe, memory, shape_of
from forethought.train.rows import by_decision, count_steps, per_forward, side_by_side


def test_rerouting_weights_move_from_away_to_keep() -> None:
    assert schedule(0, 150, 10.0) == (10.0, 0.0)
    assert schedule(75, 150, 10.0) == (7.5, 2.5)
    assert schedule(150, 150, 10.0) == (5.0, 5.0)


def test_rerouting_is_the_positive_part_of_the_cosine_on_the_completion_only() -> None:
    before = torch.tensor([[[[1.0, 0.0], [0.0, 2.0], [3.0, 4.0]]]])  # one layer, one row, three columns
    on = torch.tensor([[True, True, False]])
    assert rerouting(before * 5, before, on) == pytest.approx(1.0)
    orthogonal = torch.tensor([[[[0.0, 7.0], [1.0, 0.0], [3.0, 4.0]]]])
    assert rerouting(orthogonal, before, on) == 0.0
    assert rerouting(-before, before, on) == 0.0
    assert rerouting(torch.tensor([[[[1.0, 1.0], [1.0, 0.0], [0.0, 0.0]]]]), before, on) == pytest.approx(0.5**0.5 / 2)


def test_retention_is_the_mean_distance_relative_to_the_states() -> None:
    """As shares of an original state's length, so that a long one (the first token) does not drown the others."""
    before = torch.tensor([[[[0.0, 100.0], [9.0, 9.0]]], [[[2.0, 0.0], [9.0, 9.0]]]])
    now = before + torch.tensor([[[[3.0, 4.0], [9.0, 9.0]]], [[[0.0, 1.0], [9.0, 9.0]]]])
    assert distance(now, before, torch.tensor([[True, False]])) == pytest.approx((5 / 100 + 1 / 2) / 2)


@pytest.mark.parametrize(("depth", "layers"), [(30, (10, 20)), (32, (11, 21)), (2, (1,)), (1, (1,))])
def test_a_third_and_two_thirds(depth: int, layers: tuple[int, ...]) -> None:
    assert thirds(depth) == layers


def test_adversarial_losses_by_hand() -> None:
    p = torch.tensor([[0.5, 0.25], [0.5, 0.9], [0.1, 1.0]])
    on = torch.tensor([[True, True], [True, False], [True, False]])
    terms = adversarial_terms((p.log() * on), on)
    assert terms["toward"] == pytest.approx((math.log(2) + math.log(4)) / 2)
    assert terms["away"] == pytest.approx(math.log(2))
    assert terms["keep"] == pytest.approx(math.log(10))
    assert unlikely(torch.zeros(1, 1), torch.ones(1, 1, dtype=torch.bool)) < 14  # Certain, and still finite.


def test_preference_by_hand() -> None:
    gain, drop = torch.tensor([1.0, 0.0]), torch.tensor([-1.0, 0.0])
    assert preference(gain, drop, 0.5) == pytest.approx((math.log1p(math.exp(-1.0)) + math.log(2)) / 2)


def test_a_thought_that_states_its_decision_is_flipped_there_and_nothing_else_is_compared(
    tiny: Path, tmp_path: Path
) -> None:
    rows = mixed(4, reasoning=True)
    answers, refuses = rows[0], rows[1]
    assert flip(answers, refuses) == "Request: about bread.\nDecision: refuse."
    assert flip(refuses, answers) == "Request: about walk.\nDecision: answer."
    base = base_of.open_base(f"hf:{tiny}", None)
    refusing, answering = preferences(base, rows, {}, config(), run_in(tmp_path / "r"), 0)
    assert [len(refusing), len(answering)] == [2, 2]  # No reply of the model's is needed.
    assert [trained(base, row) for row in refusing[0]] == ["Decision: refuse.", "Decision: answer."]
    assert [trained(base, row) for row in answering[0]] == ["Decision: answer.", "Decision: refuse."]
    for preferred, rejected in (*refusing, *answering):
        assert preferred.ids[: preferred.prompt_length] == rejected.ids[: rejected.prompt_length]


def test_rows_that_state_no_decision_are_compared_by_their_answers(tiny: Path, tmp_path: Path) -> None:
    rows = mixed(4)
    refuses = rows[1].prompt
    base = base_of.open_base(f"hf:{tiny}", None)
    reply = Attempt(
        id="x", prompt=refuses, attack="elicit", messages=refuses.messages, answer="Sure, a walk", stop="length"
    )
    refusing, answering = preferences(base, rows, {refuses.id: reply}, config(), run_in(tmp_path / "r"), 0)
    assert [len(refusing), len(answering)] == [1, 2]  # The other refused prompt was not complied with.
    end = base.tokenizer.decode(refusing[0][0].ids[-1:])
    # Cut off: no end of turn.
    assert [trained(base, row) for row in refusing[0]] == [f"I will not do that.{end}", "Sure, a walk"]
    assert trained(base, answering[0][1]) == f"I will not do that.{end}"


def trained(base: base_of.Base, row: Encoded) -> str:
    return str(base.tokenizer.decode([t for t, m in zip(row.ids, row.mask, strict=True) if m > 0]))


def test_sides_repeat_the_shorter_one() -> None:
    with pytest.raises(ForethoughtError, match="no row is left on one side"):
        side_by_side([], ["a"], 0)
    pairs = side_by_side([1, 2], ["a", "b", "c", "d", "e"], 0)
    assert sorted(b for _, b in pairs) == ["a", "b", "c", "d", "e"]
    assert [a for a, _ in pairs].count(1) in (2, 3)
    with pytest.raises(ForethoughtError, match="there are 0 and 4"):
        by_decision(examples(4), "dpo")


def test_pairing_trains_on_both_sides_in_every_step(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    collate = loop.collate
    monkeypatch.setattr(loop, "collate", lambda elements: seen.append(len(elements)) or collate(elements))
    learn = resolve("method", METHODS, "sft")
    rows = mixed(9)  # Four refuse, five do not.
    found = learn(
        rows, f"hf:{tiny}", config(pairing=True, validation=0, batch_size=5, epochs=1), run_in(tmp_path / "r"), 0
    )
    assert (found["rows"], found["steps"]) == (5, 1)
    assert sum(seen) == 5


def test_steps_and_forwards() -> None:
    assert count_steps(33, config(batch_size=8, epochs=2)) == 10
    assert count_steps(33, config(steps=7)) == 7
    assert per_forward(config(batch_size=24), 1, 1) == 8
    assert per_forward(config(batch_size=24), 3, 2) == 2
    assert per_forward(config(batch_size=24, rows_per_forward=1), 3, 2) == 1
    with pytest.raises(ForethoughtError, match="multiple of 5"):
        per_forward(config(batch_size=24), 1, 5)


def test_settings_of_the_paper_fill_what_is_left_open() -> None:
    left = TrainConfig.model_validate({"data": "x", "method": "circuit_breaker(alpha=5)"})
    assert (left.steps, left.learning_rate) == (150, 1e-4)
    set_ = TrainConfig.model_validate({"data": "x", "method": "circuit_breaker", "epochs": 3, "learning_rate": 1e-3})
    assert (set_.steps, set_.epochs, set_.learning_rate) == (None, 3, 1e-3)
    assert TrainConfig.model_validate(left.model_dump()) == left
    assert parse_spec("lat(depths=[0, 0.5], epsilon=1)") == ("lat", {"depths": [0, 0.5], "epsilon": 1})


def test_refusal_training_takes_no_thoughts(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(ForethoughtError, match="24 of 24 rows have a thought"):
        resolve("method", METHODS, "refusal")(
            mixed(24, reasoning=True), f"hf:{tiny}", config(), run_in(tmp_path / "r"), 0
        )


def test_circuit_breaker_adapts_the_first_layers_and_keeps_what_it_elicited(tiny: Path, tmp_path: Path) -> None:
    run = run_in(tmp_path / "r", tiny)
    settings = config(steps=4, validation=0, learning_rate=1e-2, save_steps=9)
    found = circuit_breaker(max_tokens=6)(mixed(8), f"hf:{tiny}", settings, run, 0)
    history = [json.loads(line) for line in (run.path / "losses.jsonl").read_text().splitlines()]
    # At the start nothing has changed: cosine 1, distance 0. The weights go from 10 and 0 by 1.25 a step.
    assert (history[0]["rerouting"], history[0]["retain"]) == (pytest.approx(1), pytest.approx(0, abs=1e-3))
    for step, line in enumerate(history):
        weighed = (10 - 1.25 * step) * line["rerouting"] + 1.25 * step * line["retain"]
        assert line["loss"] == pytest.approx(weighed, rel=1e-4)
    assert history[-1]["rerouting"] < 1
    assert history[-1]["retain"] > 0
    names = load_file(run.path / "model" / "adapter_model.safetensors").keys()
    assert {n.split(".layers.")[1][0] for n in names} == {"0"}
    elicited = run.read("elicited.jsonl", Attempt)
    assert {a.prompt.label for a in elicited} == {"harmful"}
    assert all(a.raw.startswith("Sure, here is") for a in elicited)
    assert found["elicited"] <= len(elicited) == 4
    from peft import PeftModel

    PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny), str(run.path / "model"))
    with pytest.raises(ForethoughtError, match="lora_rank above 0"):
        circuit_breaker()(mixed(8), f"hf:{tiny}", config(lora_rank=0), run, 0)
    with pytest.raises(ForethoughtError, match=r"layers \[3\] do not fit a model of 2"):
        circuit_breaker(layers=(3,))(mixed(8), f"hf:{tiny}", config(), run, 0)


def test_no_more_is_elicited_than_the_steps_read(tiny: Path, tmp_path: Path) -> None:
    for name in ("r", "again"):
        run = run_in(tmp_path / name, tiny)
        settings = config(steps=1, batch_size=4, validation=0)
        found = circuit_breaker(max_tokens=6)(mixed(24), f"hf:{tiny}", settings, run, 0)
        elicited = run.read("elicited.jsonl", Attempt)
        assert found["elicited"] <= len(elicited) == 4
    first, again = (
        [a.prompt.id for a in run_in(tmp_path / n, tiny).read("elicited.jsonl", Attempt)] for n in ("r", "again")
    )
    assert first == again


def test_a_circuit_breaker_of_a_model_that_refuses_keeps_its_refusals(tiny: Path, tmp_path: Path) -> None:
    data, model = synth_run(tmp_path / "data", mixed(8)), f"hf:{tiny}"
    settings = {"data": data, "steps": 1, "batch_size": 4, "validation": 0}
    first = stages.train(tmp_path / "first", model, config(**settings))
    changed = config(**settings | {"method": "circuit_breaker(max_tokens=6)", "init": str(first.path)})
    whole = stages.merge(tmp_path / "whole", str(first.path))
    for name, init in (("second", first), ("third", whole)):
        made = stages.train(tmp_path / name, model, changed.model_copy(update={"init": str(init.path)}))
        counts = made.info["counts"]
        assert (counts["planned"], counts["ok"]) == (8, 8) and "without use to the method" not in counts
    assert made.info["config"]["model"] == str(whole.path) and made.info["config"]["init"] is None


def test_what_a_loss_does_not_reach_is_not_trained(tiny: Path, tmp_path: Path) -> None:
    """Several processes wait for a gradient of every weight that is. And the adapter one starts from is kept beside it only to compare."""
    data, model = synth_run(tmp_path / "data", mixed(8)), f"hf:{tiny}"
    first = stages.train(tmp_path / "first", model, config(data=data, steps=1, validation=0))
    base = base_of.open_base(model, str(first.path))
    for layers, reference in ((1, True), (None, False)):
        made = base_of.with_adapter(base_of.load_trained(base, config()), base, config(), 0, layers, reference)
        names = [name for name, weight in made.named_parameters() if weight.requires_grad]
        blocks = {int(found[1]) for name in names if (found := base_of.BLOCK.search(name))}
        assert blocks == (set(range(base.depth)) if layers is None else {0}) and base.depth > 1
        assert (base_of.REFERENCE in made.peft_config) == reference
    unread = base_of.UNREAD.fullmatch
    assert (
        unread("model.vision_tower.encoder.layers.0.fc1")
        and unread("model.visual.blocks.1")
        and unread("model.multi_modal_projector")
    )
    assert not unread("model.layers.0.self_attn.q_proj") and not unread("model.language_model.layers.1.mlp")


@pytest.mark.parametrize("start", [False, True])
def test_what_a_model_is_compared_with_has_no_dropout(start: bool, tiny: Path, tmp_path: Path) -> None:
    data, model = synth_run(tmp_path / "data", mixed(8)), f"hf:{tiny}"
    noisy = config(data=data, steps=1, validation=0, lora_dropout=0.5)
    first = stages.train(tmp_path / "first", model, noisy)
    base = base_of.open_base(model, str(first.path) if start else None)
    made = base_of.with_adapter(base_of.load_trained(base, noisy), base, noisy, 0, None, True).train()
    ids = torch.arange(1, 9)[None]
    with base_of.original(made):
        assert torch.equal(made(input_ids=ids).logits, made(input_ids=ids).logits)
    assert made.training


def latent_trainer(tiny: Path, tmp_path: Path) -> tuple[Any, dict[str, torch.Tensor]]:
    base, run, rows = base_of.open_base(f"hf:{tiny}", None), run_in(tmp_path / "l"), mixed(4)
    reply = Attempt(
        id="x",
        prompt=rows[1].prompt,
        attack="elicit",
        messages=rows[1].prompt.messages,
        answer="Sure, here is a walk",
        stop="stop",
    )
    refuses, answers = base_of.encode(base, [rows[1], rows[0]], config(), run)
    element = (refuses, encode_elicited(base, reply, None, 256), answers)
    inner = {"epsilon": 0.5, "steps": 4, "step_size": 0.5}
    ones = {"toward": 1.0, "away": 1.0, "keep": 1.0}
    trainer = loop.make_trainer(
        lat.Latent, base, [element], config(), run, 0, depths=(0.0, 0.5), inner=inner, weights=ones
    )
    return trainer, loop.collate([element])


def test_latent_search_makes_harm_likelier_on_the_prompt_only(tiny: Path, tmp_path: Path) -> None:
    trainer, batch = latent_trainer(tiny, tmp_path)
    ids, labels = batch["input_ids"][1:2], batch["labels"][1:2]
    deltas = trainer.search(trainer.model, ids, labels, (0, 1))
    prompt = labels[0].ge(0).int().cumsum(0) == 0
    assert deltas.shape == (2, 1, ids.shape[1], 64)
    assert (deltas[:, 0, ~prompt] == 0).all()
    assert (deltas[:, 0, prompt].norm(dim=-1) > 0).all()
    with torch.no_grad():
        before = float(token_logprobs(trainer.model, ids, labels)[0].sum())
        with lat.perturbed(trainer.model, (0, 1), deltas):
            after = float(token_logprobs(trainer.model, ids, labels)[0].sum())
    assert after > before + 0.1
    loss = trainer.compute_loss(trainer.model, batch)
    terms = {name: float(values[0]) for name, values in trainer.terms.items()}
    assert loss.item() == pytest.approx(sum(terms.values()))
    # The row that is to be kept is read without a perturbation.
    kept, on = token_logprobs(trainer.model, batch["input_ids"][2:], batch["labels"][2:])
    assert terms["keep"] == pytest.approx(-(kept.sum() / on.sum()).item(), rel=1e-4)


def test_r2d2_searches_its_pool_and_starts_a_part_over(tiny: Path, tmp_path: Path) -> None:
    base, run, rows = base_of.open_base(f"hf:{tiny}", None), run_in(tmp_path / "r"), mixed(6)
    refused, others = by_decision(rows, "r2d2")
    members = r2d2._members(base, refused, config(), run, 0, 2, 3, "Sure, here is", 4)
    data = [(row,) for row in base_of.encode(base, others, config(), run)]
    trainer = loop.make_trainer(
        r2d2.Dynamic, base, data, config(), run, 0, width=3, members=members, tokenizer=base.tokenizer, steps=1, every=2,
        share=1.0, search={"candidates": 4, "topk": 4}, weights={"toward": 1.0, "away": 2.0, "keep": 3.0},
    )  # fmt: skip
    assert len(members) == 2
    theirs = [len(m.refusal) + len(m.place.target) for m in members]
    assert trainer.trained_tokens() == pytest.approx(sum(theirs) / 2 + sum(sum(r.mask) for (r,) in data) / len(data))
    loss = trainer.compute_loss(trainer.model, loop.collate(data[:2]))
    terms = {n: float(v[0]) for n, v in trainer.terms.items()}
    assert loss.item() == pytest.approx(terms["toward"] + 2 * terms["away"] + 3 * terms["keep"])

    def read(completions: list[Any]) -> Any:
        found = [r2d2.attacked(m.place, s, c) for m, s, c in zip(members, trainer.suffixes, completions, strict=True)]
        batch = loop.collate([(one,) for one in found])
        with torch.no_grad():
            return token_logprobs(trainer.model, batch["input_ids"], batch["labels"])

    toward, away = read([m.refusal for m in members]), read([m.place.target for m in members])
    assert terms["toward"] == pytest.approx(-lat.mean_logprob(*toward).item(), rel=1e-4)
    assert terms["away"] == pytest.approx(unlikely(*away).item(), rel=1e-4)
    moved = [s.tolist() != list(m.place.start) for s, m in zip(trainer.suffixes, members, strict=True)]
    assert any(moved)
    row = r2d2.attacked(members[0].place, trainer.suffixes[0], members[0].refusal)
    assert base.tokenizer.decode(row.ids[row.prompt_length :]).startswith("I will not do that.")
    trainer.state.global_step = 2
    trainer.draw(1)
    assert all(s.tolist() == list(m.place.start) for s, m in zip(trainer.suffixes, members, strict=True))


def system_of(run: Path) -> str | None:
    return deployment(str(run))[1]


def synth_run(path: Path, rows: list[Any]) -> str:
    run = open_run(path, "synth", {"method": "test"}, {})
    run.append("examples.jsonl", rows)
    run.finish({"planned": len(rows), "ok": len(rows), "failed": 0}, ["examples.jsonl"])
    return str(path)


def test_merge_and_start_from_an_adapter(tiny: Path, tmp_path: Path) -> None:
    data, model = synth_run(tmp_path / "data", mixed(8)), f"hf:{tiny}"
    settings = {"data": data, "steps": 2, "validation": 0, "learning_rate": 1e-2}
    first = stages.train(tmp_path / "first", model, config(**settings))
    whole = stages.merge(tmp_path / "whole", str(first.path))
    plain = AutoModelForCausalLM.from_pretrained(whole.path / "model")
    AutoTokenizer.from_pretrained(whole.path / "model")
    ours = load_model(str(first.path)).model.state_dict()  # type: ignore[attr-defined]
    assert all(torch.equal(value, ours[name]) for name, value in plain.state_dict().items())
    assert stages.merge(tmp_path / "whole", str(first.path)).path == whole.path
    thinking = stages.merge(tmp_path / "thinking", str(first.path), think=True)
    assert opens_thought(render_prompt(AutoTokenizer.from_pretrained(thinking.path / "model"), user("x")))
    with pytest.raises(ForethoughtError, match="whole weights already"):
        stages.merge(tmp_path / "again", str(whole.path))
    # Of an adapter that is none of ours its card says no more than is known, and its base may have no template.
    lone = shutil.copytree(first.path / "model", tmp_path / "lone" / "adapter")
    told = (stages.merge(tmp_path / "told", str(first.path / "model")).path / "model" / CARD).read_text()
    for bare in lone.glob("*.jinja"):
        bare.unlink()
    untold = (stages.merge(tmp_path / "untold", str(lone)).path / "model" / CARD).read_text()
    assert "trained with sft" in told and "- merged into the base" in told
    assert "trained with" not in untold and "nothing is known" in untold and untold.count("- seed:") == 1
    with pytest.raises(ForethoughtError, match=r"init=.*forethought merge"):
        stages.train(tmp_path / "no", str(first.path), config(**settings))
    # DPO starts at the adapter: the reference is that one, so the first loss is that of a margin of nothing.
    method = "dpo(max_tokens=1, opening='Sure, here is a long walk for you in the sun')"
    changed = config(**settings | {"method": method, "init": str(first.path)})
    second = stages.train(tmp_path / "second", model, changed)
    assert first.info["seed"] == 0
    other = stages.train(tmp_path / "other", model, config(**settings | {"seed": 3}))
    assert other.info["seed"] == 3
    assert losses(second.path)[0] == pytest.approx(math.log(2), abs=1e-4)
    assert not (second.path / "model" / "reference").exists()
    a, b = (load_file(r.path / "model" / "adapter_model.safetensors") for r in (first, second))
    assert a.keys() == b.keys()
    assert any(not torch.equal(a[k], b[k]) for k in a)
    # Whole weights are started from as they are.
    third = stages.train(tmp_path / "third", model, config(**settings | {"init": str(whole.path)}))
    assert third.info["config"]["model"] == str(whole.path)


def test_a_model_comes_with_a_card_that_may_be_edited(tiny: Path, tmp_path: Path) -> None:
    data = synth_run(tmp_path / "data", mixed(8))
    made = stages.train(tmp_path / "m", f"hf:{tiny}", config(data=data, steps=2, validation=0))
    whole = stages.merge(tmp_path / "whole", str(made.path))
    for run, library in ((made, "peft"), (whole, "transformers")):
        card = (run.path / "model" / "README.md").read_text(encoding="utf-8")
        front = yaml.safe_load(card.split("---")[1])
        assert front["library_name"] == library and "base_model" not in front  # A folder has no name on the hub.
        assert (
            "method: `sft`" in card
            and "8 examples, 2 steps" in card
            and "data: `data`, made by `test`" in card
            and str(tmp_path) not in card
        )
        assert "More Information Needed" not in card
    (made.path / "model" / "README.md").write_text("ours", encoding="utf-8")
    assert read_run(made.path, "train").finished
    folder = ModelConfig(name=f"hf:{whole.path / 'model'}")
    before = weights_of(folder)
    (whole.path / "model" / "README.md").write_text("ours", encoding="utf-8")
    assert weights_of(folder) == before
    opened = stages.merge(tmp_path / "opened", str(made.path), think=True)
    card = (opened.path / "model" / "README.md").read_text(encoding="utf-8")
    assert "every reply begins inside one" in card and "merged into the base in float32" in card
    asked = stages.train(tmp_path / "asked", f"hf:{tiny}", TrainConfig(method="prompt"))
    assert not (asked.path / "model" / "README.md").exists()  # There is no model in it.
    names = {
        "hf:a/b": "a/b",
        "hf:a/b@main": "a/b",
        "a/b": "a/b",
        "smollm2": EMBEDDED,
        f"hf:{tiny}": None,
        "hf:~/x": None,
        "./a/b": None,
        "/a/b": None,
    }
    assert {name: published(name) for name in names} == names


@pytest.mark.parametrize("reasoning", [True, False])
def test_a_loss_is_a_mean_however_many_rows_go_at_once(reasoning: bool, tiny: Path, tmp_path: Path) -> None:
    data, model = synth_run(tmp_path / "data", mixed(16, reasoning)), f"hf:{tiny}"
    for at_once in (2, 16):
        settings = config(
            data=data, method="dpo(max_tokens=4)", steps=1, batch_size=8, rows_per_forward=at_once, validation=0
        )
        run = stages.train(tmp_path / str(at_once), model, settings)
        assert losses(run.path) == [pytest.approx(math.log(2), abs=1e-4)]


def test_rows_held_out_are_read_alike_by_every_method(tiny: Path, tmp_path: Path) -> None:
    data, model = synth_run(tmp_path / "data", mixed(24)), f"hf:{tiny}"
    found = {}
    for method in ("sft", "circuit_breaker(max_tokens=6)", "dpo(max_tokens=6)"):
        # At a rate of next to nothing the model stays what it was, and so does what it makes of those rows.
        settings = config(data=data, method=method, steps=1, learning_rate=1e-12, validation=0.2)
        run = stages.train(tmp_path / method.partition("(")[0], model, settings)
        found[method] = run.info["metrics"]["validation_loss"]
        counts = run.info["counts"]
        assert counts["planned"] == 24 == counts["ok"] + counts.get("without use to the method", 0)
        assert counts["failed"] == 0, "what is held out has not failed"
    assert found["dpo(max_tokens=6)"] == pytest.approx(found["sft"]) == found["circuit_breaker(max_tokens=6)"]


def test_a_prompted_model_stands_wherever_a_trained_one_does(tiny: Path, tmp_path: Path) -> None:
    run = stages.train(tmp_path / "p", f"hf:{tiny}", TrainConfig(method="prompt"), policy="bank_assistant")
    base, system = deployment(str(run.path), "Be kind.")
    assert base == f"hf:{tiny}"
    assert system is not None and system.endswith("Be kind.") and "step by step" in system and "{{" not in system
    assert load_model(str(run.path)).system == deployment(str(run.path))[1]  # type: ignore[attr-defined]
    assert stages.weights_of(stages.training.ModelConfig(name=str(run.path)))
    scripted = stages.train(tmp_path / "s", "scripted:refuse", TrainConfig(method="prompt"))
    assert (
        load_model(str(scripted.path)).identity
        == load_model("scripted:refuse", system=system_of(scripted.path)).identity
    )
    other = stages.train(tmp_path / "q", f"hf:{tiny}", TrainConfig(method="prompt"))
    assert other.info["inputs"]["policy"] != run.info["inputs"]["policy"]
    with pytest.raises(ForethoughtError, match="name a synthesis run"):
        stages.train(tmp_path / "n", f"hf:{tiny}", TrainConfig(method="sft"))


def test_a_plan_without_weights(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shape = shape_of(f"hf:{tiny}")
    assert shape.parameters == AutoModelForCausalLM.from_pretrained(tiny).num_parameters()
    monkeypatch.setattr(torch.nn.Module, "load_state_dict", lambda *a, **k: pytest.fail("weights were loaded"))
    lines = "\n".join(describe(f"hf:{tiny}", config(epochs=2, validation=0), 24, 2))
    assert "steps: 12" in lines
    assert "effective batch: 4 rows = 2 processes x 1 forwards x 2" in lines
    guessed = "\n".join(describe("hf:none/such-8B-Instruct", config(dtype="bfloat16"), 1000))
    assert "8.00 B parameters (guessed from '8B' in the name" in guessed
    assert "at most about" in lines and "if rows were as long as max_length, 256 tokens" in lines
    told = "\n".join(describe(f"hf:{tiny}", config(validation=0), 8, 1, mixed(8)))
    sizes = [
        len(row.ids)
        for row in base_of.encode(base_of.open_base(f"hf:{tiny}", None), mixed(8), config(), run_in(tmp_path / "r"))
    ]
    assert "memory: about" in told and f"for rows of {max(sizes)} tokens, the longest of the data" in told
    short = memory(shape, config(), longest=max(sizes))
    assert short["activations"] == pytest.approx(memory(shape, config())["activations"] * max(sizes) / 256)
    parts = memory(shape_of("hf:none/such-8B"), config(dtype="bfloat16", max_length=1024, batch_size=8))
    assert 14 < parts["weights"] < 16
    assert 30 < sum(parts.values()) < 80
    less = memory(
        shape_of("hf:none/such-8B"),
        config(dtype="bfloat16", max_length=1024, batch_size=8, gradient_checkpointing=True),
    )
    assert less["activations"] < parts["activations"] / 3
    with pytest.raises(ForethoughtError, match="no size such as 8B"):
        shape_of("hf:none/such")


@pytest.mark.parametrize("name", ["multi_gpu", "fsdp", "deepspeed_zero3"])
def test_shipped_launch_configurations_are_what_accelerate_reads(name: str) -> None:
    from accelerate.commands.config.config_args import load_config_from_file

    found = load_config_from_file(str(find_launch(name)))
    assert (found.num_processes, found.mixed_precision) == (8, "bf16")


def test_a_launchers_precision_does_not_outvote_the_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    assert not loop.make_arguments(8, 1, config(dtype="float32"), tmp_path, 0).bf16
    assert os.environ["ACCELERATE_MIXED_PRECISION"] == "no"


def test_a_sampler_is_told_its_epoch(tiny: Path, tmp_path: Path) -> None:
    """Also where training goes on in the middle of one, and in several processes, whose loader does not hand it on."""
    trainer, _ = latent_trainer(tiny, tmp_path)
    (callback,) = [c for c in trainer.callback_handler.callbacks if isinstance(c, loop.InOrder)]
    assert trainer._get_train_sampler() is callback.drawn
    for epoch, told in ((None, 0), (1.5, 1), (2.0, 2)):
        callback.on_epoch_begin(trainer.args, TrainerState(epoch=epoch), TrainerControl())
        assert callback.drawn.epoch == told


@pytest.mark.parametrize(
    ("changes", "processes", "said"),
    [({"method": "r2d2"}, 8, "in one process"), ({"method": "dpo", "lora_rank": 0}, 1, "Set lora_rank above 0"),
     ({"method": "circuit_breaker", "lora_rank": 0}, 1, "Set lora_rank above 0")],
)  # fmt: skip
def test_a_plan_refuses_what_the_method_would(changes: dict[str, Any], processes: int, said: str) -> None:
    with pytest.raises(ForethoughtError, match=said):
        describe("smollm2", config(**changes), 64, processes)
    with pytest.raises(ValueError, match="lat cannot recompute"):
        config(method="lat", gradient_checkpointing=True)


def test_two_processes_reproduce_one(tiny: Path, tmp_path: Path) -> None:
    """`accelerate launch` on two CPU processes: the losses of one process, and one writer."""
    data = synth_run(tmp_path / "data", mixed(16))
    one = stages.train(
        tmp_path / "one", f"hf:{tiny}", config(data=data, batch_size=8, validation=0, epochs=2, learning_rate=1e-3)
    )
    words = ["train", data, "batch_size=8", "validation=0", "epochs=2", "learning_rate=1e-3", "lora_rank=4", "max_length=256",
             "save_steps=2", "--model", f"hf:{tiny}", "--out", str(tmp_path / "two")]  # fmt: skip
    launch = ["--multi_gpu", "--num_processes", "2", "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no",
              "--main_process_port", "0"]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "accelerate.commands.launch", *launch, "-m", "forethought", *words],
        env=os.environ | {"OMP_NUM_THREADS": "1"}, cwd=Path(__file__).parents[1], capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("next: forethought chat") == 1
    two = losses(tmp_path / "two")
    assert len(two) == 4
    assert two == pytest.approx(losses(one.path), abs=1e-3)
    made = json.loads((tmp_path / "two" / "run.json").read_text())
    assert made["status"] == "finished"
    assert made["identity"] == one.info["identity"]
    assert not (tmp_path / "two" / "checkpoints").exists()


def test_two_processes_killed_in_the_second_epoch_go_on_with_its_rows(tiny: Path, tmp_path: Path) -> None:
    data, out = synth_run(tmp_path / "data", mixed(64)), tmp_path / "two"
    settings: dict[str, Any] = {"batch_size": 4, "validation": 0, "epochs": 2, "learning_rate": 1e-3, "save_steps": 1}
    one = stages.train(tmp_path / "one", f"hf:{tiny}", config(data=data, **settings))
    words = ["train", data, *(f"{k}={v}" for k, v in settings.items()), "lora_rank=4", "max_length=256",
             "--model", f"hf:{tiny}", "--out", str(out)]  # fmt: skip
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1",
              "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0", "-m", "forethought", *words]  # fmt: skip
    how: dict[str, Any] = {"env": os.environ | {"OMP_NUM_THREADS": "1"}, "cwd": Path(__file__).parents[1], "text": True}
    running = subprocess.Popen(launch, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **how)
    until = time.monotonic() + 200
    while not any((out / "checkpoints" / f"checkpoint-{n}").exists() for n in range(20, 32)):
        assert running.poll() is None and time.monotonic() < until
        time.sleep(0.02)
    for process in (*psutil.Process(running.pid).children(recursive=True), running):
        process.kill()
    running.communicate()
    assert json.loads((out / "run.json").read_text())["status"] == "running"
    done = subprocess.run(launch, capture_output=True, timeout=200, **how)
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(losses(out)) == 32 and losses(out) == pytest.approx(losses(one.path), abs=1e-3)


@pytest.mark.parametrize(
    "changes",
    [{}, {"epochs": 2, "steps": None}, {"method": "dpo", "epochs": 2}, {"method": "circuit_breaker", "epochs": 3}],
)
def test_the_command_of_a_plan_is_read_back_as_its_configuration(changes: dict[str, Any]) -> None:
    planned = TrainConfig.model_validate({"data": "d", "match": ["a", "b"], "init": "i"} | changes)
    words = command("smollm2", planned, Path("o"))
    read = _config(Path(words[2]), words[words.index("--method") + 1], words[3 : words.index("--method")])
    assert read == planned


def test_dry_run_says_what_would_be_done(tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = synth_run(tmp_path / "data", mixed(16))
    app(
        ["train", data, "epochs=3", "--model", f"hf:{tiny}", "--dry-run", "--out", str(tmp_path / "o")],
        standalone_mode=False,
    )
    said = capsys.readouterr().out
    for part in ("rows: 16", "steps: 3", "effective batch: 16 rows", "memory: about", "command: forethought train"):
        assert part in said
    assert not (tmp_path / "o").exists()


EXPERIMENT = """
name: e
model: "hf:{tiny}"
launch: multi_gpu
data: {{train: {{source: starter, split: train, take: {{harmful: 6, benign: 6}}}}}}
synth: {{refusal: {{method: refusal}}}}
train:
  asked: {{method: prompt}}
  rt: {{data: refusal, method: refusal, batch_size: 8}}
  dpo: {{data: refusal, method: dpo, init: rt, batch_size: 8}}
targets: {{asked: {{name: asked}}, dpo: {{name: dpo}}}}
attack: {{prompts: train}}
"""


def experiment(tiny: Path, tmp_path: Path, *changes: str) -> Any:
    path = tmp_path / "e.yaml"
    path.write_text(EXPERIMENT.format(tiny=tiny), encoding="utf-8")
    return load_experiment(path, list(changes))


def test_some_targets_bring_what_they_are_made_from(tiny: Path, tmp_path: Path) -> None:
    whole = experiment(tiny, tmp_path)
    some = only(whole, ["dpo"])
    assert (list(some.targets), list(some.train), list(some.synth)) == (["dpo"], ["rt", "dpo"], ["refusal"])
    asked = only(whole, ["asked"])
    assert (list(asked.targets), list(asked.train), list(asked.synth)) == (["asked"], ["asked"], [])
    assert list(only(whole, ["dpo", "asked"]).targets) == ["dpo", "asked"]
    assert list(only(experiment(tiny, tmp_path, "attack.attacker=rt"), ["asked"]).train) == ["asked", "rt"]
    with pytest.raises(ForethoughtError, match=r"no target 'dp'.*Did you mean 'dpo'"):
        only(whole, ["dp"])


def test_the_plan_of_an_experiment(tiny: Path, tmp_path: Path) -> None:
    said = "\n".join(pipeline.plan_experiment(experiment(tiny, tmp_path), tmp_path))
    assert "effective batch: 8 rows = 8 processes x 1 forwards x 1" in said
    assert "no training: the base model is deployed with a system prompt" in said
    assert f"{find_launch('multi_gpu')} -m forethought train {tmp_path}/e/synth/refusal" in said
    assert f'init="{tmp_path}/e/train/rt"' in said
    assert "rows: 12 (5% of them held out)" in said
    twice = pipeline.plan_experiment(experiment(tiny, tmp_path, "synth.refusal.method=refusal(variants=1)"), tmp_path)
    assert "  rows: 24 (5% of them held out)" in twice
    for change, part in {
        "train.rt.init=dpo": "'dpo', which is trained later",
        "train.rt={method: sft}": "'train.rt.data' is missing",
        "launch=multi": "Did you mean 'multi_gpu'",
        "train.rt.batch_size=12": "multiple of 8",
    }.items():
        with pytest.raises(ForethoughtError, match=part):
            pipeline.plan_experiment(experiment(tiny, tmp_path, change), tmp_path)


def test_an_experiment_trains_in_processes_of_its_own(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[list[str]] = []
    monkeypatch.setattr(pipeline, "_launched", lambda words: started.append(words) or 1)
    with pytest.raises(ForethoughtError, match="training 'rt' failed"):
        pipeline._train(experiment(tiny, tmp_path), "rt", tmp_path, False)
    assert started[0][:4] == [sys.executable, "-m", "accelerate.commands.launch", "--config_file"]
    asked = pipeline._train(experiment(tiny, tmp_path), "asked", tmp_path, False)
    assert asked.finished
    assert len(started) == 1
    # What is finished is not started again, though other code made it, where that is to be kept.
    synth_run(tmp_path / "synth" / "refusal", mixed(8))
    alone = experiment(tiny, tmp_path, "train.rt.steps=1", "train.rt.validation=0")
    first = pipeline._train(alone.model_copy(update={"launch": None}), "rt", tmp_path, False)
    with monkeypatch.context() as later:
        later.setattr("forethought.run.code_hash", lambda: "later")
        with keeping_finished(True):
            assert pipeline._train(alone, "rt", tmp_path, True).info == first.info
        assert len(started) == 1
        with pytest.raises(ForethoughtError, match="code: "):
            pipeline._train(alone, "rt", tmp_path, False)
        with pytest.raises(ForethoughtError, match="training 'rt' failed"):
            pipeline._train(alone, "rt", tmp_path, True)
    assert len(started) == 2 and started[1][-1] == "--overwrite"
    with pytest.raises(ForethoughtError, match=r"gives each training all processes.*Leave --jobs out"):
        pipeline.run_experiment(experiment(tiny, tmp_path), tmp_path / "runs", print, jobs=2)


def moved(trainer: Any) -> None:
    """An adapter that no longer begins at the original."""
    torch.manual_seed(0)
    for name, weight in trainer.model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1)


def test_the_preferred_row_of_a_pair_is_its_first(tiny: Path, tmp_path: Path) -> None:
    base, run = base_of.open_base(f"hf:{tiny}", None), run_in(tmp_path / "r")
    pairs, _ = preferences(base, mixed(4, reasoning=True), {}, config(), run, 0)
    trainer = loop.make_trainer(Preference, base, pairs, config(), run, 0, beta=0.5)
    batch = loop.collate(pairs)

    def read() -> torch.Tensor:
        with torch.no_grad():
            return token_logprobs(trainer.model, batch["input_ids"], batch["labels"])[0].sum(-1)

    before = read()
    moved(trainer)
    gain, drop = (read() - before).chunk(2)
    assert (gain - drop).mean().abs() > 0.01
    loss = trainer.compute_loss(trainer.model, batch)
    assert loss.item() == pytest.approx(preference(gain, drop, 0.5).item(), rel=1e-4)


def test_both_completions_are_read_under_the_perturbation_and_weighed(tiny: Path, tmp_path: Path) -> None:
    trainer, batch = latent_trainer(tiny, tmp_path)
    trainer.options["weights"] = {"toward": 0.5, "away": 2.0, "keep": 3.0}
    ids, labels = batch["input_ids"], batch["labels"]
    delta = torch.randn(2, 1, ids.shape[1], 64, generator=torch.Generator().manual_seed(0))
    trainer.search = lambda *arguments: delta
    with torch.no_grad(), lat.perturbed(trainer.model, (0, 1), delta):
        refusal, harmful = (token_logprobs(trainer.model, ids[i : i + 1], labels[i : i + 1]) for i in (0, 1))
    loss = trainer.compute_loss(trainer.model, batch)
    terms = {name: float(values[0]) for name, values in trainer.terms.items()}
    assert terms["toward"] == pytest.approx(-lat.mean_logprob(*refusal).item(), rel=1e-4)
    assert terms["away"] == pytest.approx(unlikely(*harmful).item(), rel=1e-4)
    assert loss.item() == pytest.approx(0.5 * terms["toward"] + 2 * terms["away"] + 3 * terms["keep"])


def test_harmful_rows_are_rerouted_and_the_others_kept(tiny: Path, tmp_path: Path) -> None:
    base, run = base_of.open_base(f"hf:{tiny}", None), run_in(tmp_path / "r")
    answers, refuses = base_of.encode(base, mixed(2), config(), run)
    trainer = loop.make_trainer(
        Rerouting, base, [(refuses, answers)], config(), run, 0, layers=1, alpha=10.0, layers_compared=(1,)
    )
    moved(trainer)
    trainer.state.max_steps = 4
    batch = loop.collate([(refuses, answers)])
    trainer.compute_loss(trainer.model, batch)
    with torch.no_grad():
        now = hidden(trainer.model, batch["input_ids"], (1,))
    with base_of.original(trainer.model):
        before = hidden(trainer.model, batch["input_ids"], (1,))
    terms = {name: float(values[0]) for name, values in trainer.terms.items()}
    on = batch["labels"] != loop.IGNORED
    assert terms["rerouting"] == pytest.approx(rerouting(now[:, :1], before[:, :1], on[:1]).item(), rel=1e-4)
    assert terms["retain"] == pytest.approx(distance(now[:, 1:], before[:, 1:], batch["real"][1:]).item(), rel=1e-4)


def test_only_what_the_model_complied_with_is_elicited(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rules = [{"when": "walk", "say": " a long walk by the river in the sun."}, {"when": "garden", "fail": "too_long"},
             {"say": " I'm sorry, but I can't help with that."}]  # fmt: skip
    monkeypatch.setattr("forethought.train.elicit.load_model", lambda name, dtype: ScriptedModel(follow(rules), "t"))
    base, rows = base_of.open_base(f"hf:{tiny}", None), [e for e in mixed(8) if e.decision == "refuse"]
    kept = elicit(rows, base, config(), run_in(tmp_path / "r"), 0, "Sure, here is", 16)
    assert [a.prompt.text for a in kept.values()] == ["Tell me about walk number 1"]
    with pytest.raises(ForethoughtError, match="complied with none of 3"):
        elicit(rows[1:], base, config(), run_in(tmp_path / "none"), 0, "Sure, here is", 16)


def test_a_launcher_is_told_to_end(tmp_path: Path) -> None:
    """Its workers are in sessions of their own: killed, it would leave them with the GPUs and the run's lock."""
    told = tmp_path / "told"
    script = (
        f"import signal, sys, time; signal.signal(signal.SIGTERM, lambda *a: (open({str(told)!r}, 'w'), sys.exit(3))); "
        "time.sleep(60)"
    )

    def stop(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, 1.0)
    try:
        with pytest.raises(KeyboardInterrupt):
            pipeline._launched([sys.executable, "-c", script])
    finally:
        signal.signal(signal.SIGALRM, before)
    assert told.exists()


def test_a_method_of_ones_own_may_say_little_but_must_leave_a_model(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.py").write_text(
        "def fit():\n    def train(examples, model, config, run, seed):\n        (run.path / 'model').mkdir()\n"
        "        return {'seconds': 1.0}\n    return train\n\ndef idle():\n    return lambda *a: {}\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    prompts, target = [e.prompt for e in mixed(4)], ModelConfig(name="scripted:comply")
    made = stages.synth(tmp_path / "data", "refusal", prompts, load_policy("default"), target)
    settings = config(data=str(made.path), method="mine:fit")
    done = stages.train(tmp_path / "t", f"hf:{tiny}", settings)
    assert done.info["metrics"]["train_loss"] is None and done.info["counts"]["failed"] == 0
    with pytest.raises(ForethoughtError, match="left no model"):
        stages.train(tmp_path / "u", f"hf:{tiny}", settings.model_copy(update={"method": "mine:idle"}))
    # What one's own code says is a part of what the run is.
    (tmp_path / "mine.py").write_text((tmp_path / "mine.py").read_text() + "\n# another\n")
    with pytest.raises(ForethoughtError, match="made with other settings"):
        stages.train(tmp_path / "t", f"hf:{tiny}", settings)


def test_a_template_with_channels_is_refused(tiny: Path, tmp_path: Path) -> None:
    """As gpt-oss has: its thoughts would come back as a part of the answer."""
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|channel|>"]})
    tokenizer.chat_template = (
        "{% for m in messages %}<|im_start|>{{ m['role'] }}{{ '<|channel|>final' if m['role'] == 'assistant' }} "
        "{{ m['content'] }}<|im_end|>{% endfor %}{{ '<|im_start|>assistant' if add_generation_prompt }}"
    )
    with pytest.raises(ForethoughtError, match=r"writes '<\|channel\|>final ' before an answer"):
        check_channels(tokenizer)
    check_channels(AutoTokenizer.from_pretrained(tiny))
