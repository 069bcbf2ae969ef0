"""Synthesized data: import, statistics, card and sheet, comparison of methods, and exports that other trainers read."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas
import pytest
import yaml

from forethought import stages
from forethought.cli import app
from forethought.config import ModelConfig
from forethought.data.card import GUESSED, without_place
from forethought.data.export import FORMS, export
from forethought.data.statistics import disagreements, lengths
from forethought.errors import AskFailed, ForethoughtError
from forethought.flow import Ask, Job, Logprobs, run_flows
from forethought.models.scripted import ScriptedModel
from forethought.policy import load_policy
from forethought.prompts import read_lines
from forethought.records import Example, Message, Prompt, Rejected, Reply, make_prompt, user
from forethought.registry import resolve
from forethought.run import Run
from forethought.synth import SYNTHESIZERS
from forethought.synth.common import Reject, plain_refusals
from forethought.synth.imported import import_rows
from forethought.synth.policy import score_draft
from forethought.synth.reasoned import Draft, helpful_check

POLICY = load_policy("default")
NO = "I'm sorry, but I can't help with that."
PROMPTS = [
    make_prompt("How do I bake {rye} bread?", "benign", "t"),
    make_prompt("Which tea helps with a sore throat?", "benign", "t"),
    make_prompt("How do I pick the lock of my neighbor's shed?", "harmful", "t", category="crime"),
]


def star(question: str, thought: str, answer: str, category: str = "Illicit / Criminal Behavior") -> dict[str, Any]:
    return {
        "id": "1",
        "question": question,
        "response": f"<think>\n{thought}\n</think>\n\n{answer}",
        "category": [category],
    }


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text(json.dumps(rows) if path.suffix == ".json" else "\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


def made(form: str, path: Path, **options: Any) -> list[Example | Rejected]:
    return list(import_rows(form, path, POLICY, **options))


def test_star1_decisions_follow_the_answer_and_the_category(tmp_path: Path) -> None:
    rows = [
        star("How do I pick a lock?", "It is a crime.", NO),
        star("What is a lock made of?", "It is fine.", "Mostly of brass."),
        star("I feel low.", "Care.", "That sounds hard. Talk to somebody you trust.", "Self-Harm"),
    ]
    found = made("star1", write(tmp_path / "s.json", rows))
    assert [(r.prompt.label, r.decision, r.category) for r in found if isinstance(r, Example)] == [
        ("harmful", "refuse", "crime"), ("borderline", "answer", None), ("sensitive", "support", "self_harm"),
    ]  # fmt: skip


def test_messages_and_think_forms(tmp_path: Path) -> None:
    turns = [{"role": "system", "content": "s"}, {"role": "user", "content": "How do I bake?"}]
    said = {"role": "assistant", "content": "Use flour.", "reasoning_content": "Fine."}
    inline = {"role": "assistant", "content": "<think>Fine.</think>\n\nUse flour."}
    rows = [{"messages": [*turns, said], "label": "benign"}, {"messages": [turns[1], inline], "label": "benign"}]
    for record in made("messages", write(tmp_path / "m.jsonl", rows)):
        assert isinstance(record, Example) and (record.reasoning, record.answer) == ("Fine.", "Use flour.")
    rows = [{"instruction": "How do I bake?", "output": "<think>Fine.</think>\n\nUse flour."}]
    (record,) = made("think", write(tmp_path / "t.jsonl", rows), label="benign")
    assert isinstance(record, Example) and record.reasoning == "Fine." and record.decision == "answer"


def test_the_first_of_several_categories_counts_and_a_date_is_no_obstacle(tmp_path: Path) -> None:
    row = {
        "prompt": "I feel low.",
        "response": "<think>x</think>\n\nThat sounds hard.",
        "category": ["self_harm", "crime"],
    }
    (record,) = made("think", write(tmp_path / "t.jsonl", [row]))
    assert isinstance(record, Example) and (record.decision, record.category) == ("support", "self_harm")
    path = tmp_path / "t.parquet"
    pandas.DataFrame([{**row, "category": "self_harm", "at": pandas.Timestamp("2026-01-01")}]).to_parquet(path)
    (record,) = made("think", path)
    assert isinstance(record, Example) and record.decision == "support"


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"prompt": "Pick a lock", "response": "<think>x</think>\n\nSure, here it is.", "label": "harmful"}, "answer does not decline"),
        ({"prompt": "Bake", "response": f"<think>x</think>\n\n{NO}", "label": "benign"}, "answer declines what is to be answered"),
        ({"prompt": "Bake", "response": "Use flour.", "label": "benign"}, "no thought"),
        ({"prompt": "Bake", "response": "<think>x", "label": "benign"}, "the thought does not end"),
        ({"prompt": "Bake", "response": "So: <think>x</think> <think>y</think> Bake."}, "more than one thought, or words before it"),
        ({"prompt": "Bake", "response": "", "answer": "Flour", "label": "benign"}, "answer is empty"),
        ({"prompt": "Bake", "response": "<think>x</think>\n\n ", "label": "benign"}, "answer is empty"),
    ],
)  # fmt: skip
def test_rows_that_do_not_fit_are_rejected_with_a_reason(tmp_path: Path, row: dict[str, Any], reason: str) -> None:
    (record,) = made("think", write(tmp_path / "t.jsonl", [row]))
    assert isinstance(record, Rejected) and record.reason == reason


def test_a_thought_that_stands_twice_is_one(tmp_path: Path) -> None:
    said = {"role": "assistant", "content": "<think>So.</think>\n\nUse flour."}
    turns = [{"messages": [{"role": "user", "content": "Bake"}, {**said, "reasoning": t}]} for t in ("So.", "Else.")]
    same, other = made("messages", write(tmp_path / "m.jsonl", turns), label="benign")
    assert isinstance(same, Example) and (same.reasoning, same.answer) == ("So.", "Use flour.")
    assert isinstance(other, Rejected) and other.reason == "two thoughts"


def test_what_had_no_label_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        {"prompt": "How do I steal bread?", "response": "Wear a big coat."},
        {"prompt": "Pick a lock", "response": NO},
    ]
    path = write(tmp_path / "a.jsonl", rows)
    run = stages.import_data(tmp_path / "run", "answers", path, POLICY, target="scripted:echo")
    assert "2 rows had no label" in capsys.readouterr().err
    card = (run.path / "README.md").read_text(encoding="utf-8")
    assert "2 prompts had no label" in card and "with an answer" in card and "target" not in card
    assert [e.checks for e in run.read("examples.jsonl", Example)] == [(GUESSED,)] * 2
    run = stages.import_data(tmp_path / "all", "answers", path, POLICY, label="harmful", target="scripted:echo")
    assert "no label" not in capsys.readouterr().err + (run.path / "README.md").read_text(encoding="utf-8")
    assert [r.reason for r in run.read("rejected.jsonl", Rejected)] == ["answer does not decline"]


def test_rows_that_are_left_out_for_what_they_speak_of_are_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"prompt": text, "response": "Gently."} for text in ("Sex education for my kids?", "How do I bake?")]
    assert len(made("answers", write(tmp_path / "a.jsonl", rows), label="benign")) == 1
    assert "1 rows speak of minors" in capsys.readouterr().err


def test_a_comma_without_quotes_cuts_no_answer(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("prompt,response\nHow do I bake?,Heat the oven, then mix flour.\n", encoding="utf-8")
    with pytest.raises(ForethoughtError, match="row 1: more values than columns"):
        made("answers", path)


def test_a_refusal_set_without_thoughts_is_taken_as_it_is(tmp_path: Path) -> None:
    rows = [
        {"instruction": "Sum this up.", "input": "Rye is a grain.", "output": "A grain."},
        {"prompt": "", "question": "Pick a lock", "completion": NO, "label": "harmful"},
        {"prompt": "Bake", "response": "<think>So.</think>Use flour.", "label": "benign"},
    ]
    first, second, third = made("answers", write(tmp_path / "a.jsonl", rows), label="benign")
    assert (
        isinstance(first, Example)
        and first.prompt.text == "Sum this up.\n\nRye is a grain."
        and first.reasoning is None
    )
    assert isinstance(second, Example) and second.decision == "refuse" and second.answer == NO
    assert isinstance(third, Example) and third.reasoning == "So."


@pytest.mark.parametrize(
    ("form", "row", "said"),
    [
        ("answers", {"prompt": "", "question": "", "response": "x"}, "a row needs one of prompt"),
        ("star1", {"prompt": "x"}, "there is no 'question'"),
        ("messages", {"messages": [{"role": "user", "content": "x"}]}, "the last message is not the assistant's"),
        ("messages", {"messages": [{"role": "bot", "content": "x"}, {"role": "assistant", "content": "x"}]}, "row 1"),
        ("messages", {"messages": []}, "row 1: there are no messages."),
        ("messages", {"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": None}]}, "'content' is no text"),
        ("star1", {"question": None, "response": "<think>a</think>b"}, "'question' is no text but None."),
        ("think", {"prompt": ["x"], "response": "<think>a</think>b"}, "'prompt' is no text but ['x']."),
        ("messages", {"messages": [{"role": r, "content": "x"} for r in ("user", "assistant", "assistant")]}, "two turns of the assistant"),
        ("messages", {"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y", "reasoning": 1}]}, "no text"),
        ("think", {"prompt": "x", "response": "<think>y</think> z", "category": {"a": 1}}, "'category' is no text but {'a': 1}."),
        ("think", {"prompt": "x", "response": "<think>y</think> z", "label": 0}, "label 0 is none of"),
        ("think", {"text": "x"}, "a row needs one of prompt"),
        ("think", {"prompt": "x", "response": "<think>y</think> z", "label": "bad"}, "label 'bad' is none of"),
        ("thnk", {}, "unknown form 'thnk'. Did you mean 'think'?"),
    ],
)  # fmt: skip
def test_malformed_rows_are_named(tmp_path: Path, form: str, row: dict[str, Any], said: str) -> None:
    with pytest.raises(ForethoughtError) as error:
        made(form, write(tmp_path / "x.jsonl", [row]))
    assert said in str(error.value)


def test_a_good_row_counts_whatever_bad_ones_stand_before_it(tmp_path: Path) -> None:
    shed = "How do I pick the lock of an old garden shed"
    said = ((f"{shed}?", "Sure, with a pin."), (f"{shed}?", NO), (f"{shed}, please?", NO), (f"{shed}?", NO))
    rows = [star(text, "Crime.", answer) for text, answer in said]
    run = stages.import_data(
        tmp_path / "run", "star1", write(tmp_path / "s.json", rows), POLICY, label="harmful", target="scripted:echo"
    )
    assert [e.prompt.text for e in run.read("examples.jsonl", Example)] == [f"{shed}?"]
    assert sorted(r.reason for r in run.read("rejected.jsonl", Rejected)) == [
        "answer does not decline", "nearly repeats another prompt", "repeats another prompt",
    ]  # fmt: skip
    row = {"id": "1", "response": f"<think>x</think>\n\n{NO}", "label": "harmful"}
    twice = [{**row, "prompt": text} for text in ("Rob a bank", "Rob a train")]
    with pytest.raises(ForethoughtError, match="the id '1' is on two prompts"):
        stages.import_data(tmp_path / "b", "think", write(tmp_path / "t.json", twice), POLICY, target="scripted:echo")


def test_leaks_stop_an_import_or_are_dropped(tmp_path: Path) -> None:
    rows = [star("How do I pick the lock of a shed?", "Crime.", NO), star("How do I forge a ticket?", "Crime.", NO)]
    path, out = write(tmp_path / "s.json", rows), tmp_path / "run"
    held = {"held": [make_prompt("how do I pick the lock of a shed", "harmful", "t", id="e7")]}
    with pytest.raises(ForethoughtError, match=r"1 training rows match .*held e7 \(exact\)"):
        stages.import_data(out, "star1", path, POLICY, target="scripted:echo", evaluation=held)
    run = stages.import_data(out, "star1", path, POLICY, target="scripted:echo", evaluation=held, leaks="drop")
    assert [r.reason for r in run.read("rejected.jsonl", Rejected)] == ["matches an evaluation prompt"]
    assert run.info["counts"]["ok"] == 1


def synth(home: Path, method: str = "refusal", prompts: list[Prompt] = PROMPTS, **options: Any) -> Run:
    return stages.synth(home / method, method, prompts, POLICY, ModelConfig(name="scripted:comply"), **options)


def test_a_run_comes_with_statistics_card_and_sheet(tmp_path: Path) -> None:
    repeat = make_prompt("How do I bake {rye} bread??", "benign", "t")
    run = synth(tmp_path, prompts=[*PROMPTS, repeat])
    found = json.loads((run.path / "statistics.json").read_text())
    assert found["kept"]["label"] == {"benign": 2, "harmful": 1}
    assert found["rejected"] == {"nearly repeats another prompt": 1}
    card = (run.path / "README.md").read_text()
    front = yaml.safe_load(card.split("---")[1])
    assert front["size_categories"] == ["n<1K"] and "scripted:comply" in card and POLICY.name in card
    sheet = (run.path / "sheet.md").read_text()
    assert "# 3 of 3 kept" in sheet and "{rye}" in sheet and "nearly repeats" in sheet
    assert set(run.info["outputs"]) >= {"README.md", "sheet.md", "statistics.json"}


def test_a_category_without_examples_warns(tmp_path: Path) -> None:
    run = synth(tmp_path)
    assert any("'weapons' has no example" in line for line in run.info["warnings"])
    assert not any("'crime'" in line for line in run.info["warnings"])


def test_matched_sets_say_where_methods_differ() -> None:
    def example(prompt: Prompt, **fields: Any) -> Example:
        return Example(prompt=prompt, reasoning=None, answer="x", method="m", teacher="t", policy="p", **fields)

    a, b, c = PROMPTS
    lost = Rejected(prompt=b, method="m", reason="empty")
    found = disagreements(
        {
            "one": (
                [
                    example(a, decision="answer"),
                    example(b, decision="answer"),
                    example(c, decision="refuse", category="crime"),
                ],
                [],
            ),
            "two": ([example(a, decision="answer"), example(c, decision="refuse", category="fraud")], [lost]),
        }
    )
    assert found["prompts"] == 3 and found["kept by all"] == 2
    assert found["lost here but kept elsewhere"] == {"one": {}, "two": {"empty": 1}}
    assert found["kept by all, but different"] == {"decision": 0, "category": 1}


def test_lengths_are_quantiles() -> None:
    found = lengths({"x": ["a" * n for n in range(1, 101)], "none": []}, len)
    assert found == {"x": {"p5": 6.0, "median": 51.0, "p95": 96.0, "max": 100.0, "mean": 50.5}}


THOUGHT = Example(
    prompt=PROMPTS[2], reasoning="Request: {x}.\nDecision: refuse.", answer=NO, decision="refuse", method="m", teacher="t", policy="p"
)  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_exports_hold_the_thought(tmp_path: Path, form: str) -> None:
    files = export([THOUGHT, THOUGHT], form, tmp_path / form, card="# card")
    assert (tmp_path / form / "README.md").read_text() == "# card"
    if form == "parquet":
        import pyarrow.parquet as parquet

        rows = parquet.read_table(files[0]).to_pylist()
    else:
        rows = [json.loads(line) for line in files[0].read_text().splitlines()]
    assert len(rows) == 2 and "Decision: refuse." in json.dumps(rows[0])
    if form in ("messages", "parquet"):
        assert rows[0]["messages"][-1]["reasoning_content"] == THOUGHT.reasoning
    if form in ("trl", "llamafactory"):
        turn = (rows[0]["completion"] if form == "trl" else rows[0]["messages"])[-1]
        assert turn["content"] == f"<think>\n{THOUGHT.reasoning}\n</think>\n\n{NO}"
    if form == "jsonl":
        assert Example.model_validate(rows[0]) == THOUGHT
    with pytest.raises(ForethoughtError, match="not an empty folder"):
        export([THOUGHT], form, tmp_path / form)


def test_the_trl_export_trains_in_sfttrainer_on_the_tokens_that_we_train(tiny: Path, tmp_path: Path) -> None:
    from datasets import load_dataset
    from transformers import AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    from forethought.chat import encode_example

    files = export([THOUGHT] * 4, "trl", tmp_path / "trl")
    rows = load_dataset("json", data_files=str(files[0]), split="train", cache_dir=str(tmp_path / "cache"))
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    args = SFTConfig(
        output_dir=str(tmp_path / "out"), max_steps=1, per_device_train_batch_size=2, report_to=[], use_cpu=True, bf16=False,
        max_length=512, save_strategy="no", gradient_checkpointing=False, disable_tqdm=True,
    )  # fmt: skip
    trainer = SFTTrainer(model=str(tiny), args=args, train_dataset=rows, processing_class=tokenizer)
    ids = list(trainer.train_dataset[0]["input_ids"])
    ours = list(encode_example(tokenizer, THOUGHT.prompt.messages, THOUGHT.reasoning, THOUGHT.answer).ids)
    # The template may write a line end after the end of the turn, which ours leaves out.
    assert ids[: len(ours)] == ours and len(ids) - len(ours) <= 1
    assert trainer.train().global_step == 1


def cli(*words: object) -> int:
    return app(["data", *map(str, words)], standalone_mode=False) or 0


def test_data_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, two = synth(tmp_path), synth(tmp_path, "refusal(max_tokens=50)")
    cli("compare", one.path, two.path)
    said = capsys.readouterr().out
    assert "kept by all: 3" in said and "note" not in said
    cli("show", one.path)
    assert capsys.readouterr().out.startswith("3 examples\n  by decision: answer 2, refuse 1\n  by label: benign 2")
    (tmp_path / "half").mkdir()
    half = synth(tmp_path / "half", "refusal(max_tokens=49)", PROMPTS[1:])
    cli("compare", one.path, half.path)
    assert "2 of 3 are in all of them" in capsys.readouterr().out
    other = synth(tmp_path / "half", "refusal(max_tokens=48)", [make_prompt("Is rye a grass?", "benign", "t")])
    with pytest.raises(ForethoughtError, match="no prompt in common"):
        cli("compare", one.path, other.path)
    against = ("--model", "scripted:echo", "--evaluation")
    assert cli("check", "starter:train", *against, "starter:test") == 0
    assert "0 matches with evaluation prompts" in capsys.readouterr().out
    assert cli("check", one.path, *against, "starter:test") == 0
    leaked = tmp_path / "l.jsonl"
    leaked.write_text(json.dumps({"text": PROMPTS[0].text, "label": "benign"}))
    assert cli("check", one.path, *against, leaked) == 1
    cli("export", one.path, "--to", "messages", "--out", tmp_path / "e")
    assert (tmp_path / "e" / "train.jsonl").exists() and (tmp_path / "e" / "README.md").exists()


@pytest.mark.parametrize("method", ["srg", "rational", "policy"])
def test_answers_care_and_variants_are_alike_for_all_methods(tmp_path: Path, method: str) -> None:
    script = tmp_path / "t.yaml"
    script.write_text(yaml.safe_dump([{"when": "N/A", "say": "-"}, {"say": "to bake bread with a friend."}]))
    prompts = [
        make_prompt("I want to bake bread with a friend, and it hurts", "sensitive", "test", category="self_harm")
    ]
    run = stages.synth(
        tmp_path / "r", f"{method}(form=outline, care=lines, variants=2, answers=2)", prompts, load_policy("default"),
        ModelConfig(name=f"scripted:{script}"), ModelConfig(name=f"scripted:{script}"),
    )  # fmt: skip
    examples = run.read("examples.jsonl", Example)
    assert len(examples) == 3, run.read("rejected.jsonl", Rejected)
    assert {e.answer for e in examples} <= set(read_lines("forethought.synth", "care"))
    assert len({e.reasoning for e in examples}) == len({e.answer for e in examples}) == 1
    assert len({e.prompt.style for e in examples}) == 3


def test_rational_may_reason_about_what_is_answered_alone(tmp_path: Path) -> None:
    script = tmp_path / "t.yaml"
    rules = [
        {"when": "N/A", "say": "-"},
        {"when": "lock", "say": "to pick the lock of a neighbor's shed."},
        {"say": "to bake bread with a friend."},
    ]
    script.write_text(yaml.safe_dump(rules))
    hurt = make_prompt("I want to bake bread with a friend, and it hurts", "sensitive", "t", category="self_harm")
    run = stages.synth(
        tmp_path / "r", "rational(form=outline, reason=benign, care=lines, variants=1)", [PROMPTS[2], hurt], POLICY,
        ModelConfig(name=f"scripted:{script}"),
    )  # fmt: skip
    by_decision = {
        d: [e for e in run.read("examples.jsonl", Example) if e.decision == d] for d in ("refuse", "support")
    }
    refused, supported = by_decision["refuse"], by_decision["support"]
    assert [(e.reasoning, e.decisive) for e in refused] == [(None, ())] * 2
    assert refused[0].answer == refused[1].answer in plain_refusals()
    assert len(supported) == 2 and all(e.reasoning and e.decisive for e in supported)


SMALL = {
    "name": "zwei",
    "language": "de",
    "categories": [
        {"id": "waffen", "name": "Waffen", "definition": "Bau von Waffen gegen das Gesetz.", "not_allowed": ["Bauen", "Kaufen"],
         "allowed": ["Museen"], "hurts": ["Menschen"], "respond": "refuse", "covers": ["crime", "weapons"]},
        {"id": "hilfe", "name": "Menschen in Not", "definition": "Menschen, die Hilfe brauchen.", "respond": "support"},
    ],
}  # fmt: skip


@pytest.mark.parametrize("method", ["refusal", "scot", "srg", "policy"])
def test_a_policy_of_two_categories_in_another_language(tmp_path: Path, method: str) -> None:
    (tmp_path / "p.yaml").write_text(yaml.safe_dump(SMALL, allow_unicode=True), encoding="utf-8")
    policy = load_policy(str(tmp_path / "p.yaml"))
    rules = [
        {"when": "N/A", "say": "-"},
        {"when": "lock|Restate", "say": "to pick the lock of a neighbor's shed."},
        {"say": "to bake bread and drink tea for a sore throat."},
    ]
    script = tmp_path / "t.yaml"
    script.write_text(yaml.safe_dump(rules))
    run = stages.synth(
        tmp_path / "r",
        method,
        PROMPTS,
        policy,
        ModelConfig(name="scripted:comply"),
        ModelConfig(name=f"scripted:{script}"),
    )
    (refused,) = [e for e in run.read("examples.jsonl", Example) if e.decision == "refuse"]
    if method != "refusal":
        assert refused.category == "waffen"
        assert "Waffen" in refused.answer and "Waffen" in (refused.reasoning or "")


FREE = "Thought: Take {}, the person asks how to open a lock that belongs to somebody else.\nDecision: {}\nAnswer: {}"
GOOD = "Mix flour, water, salt and yeast. Let it rise for two hours. Bake it until it is brown."


def served(say: Callable[[Ask], Reply]) -> ScriptedModel:
    """A model behind a server: no likelihoods."""
    model = ScriptedModel(say, "served")
    reply = model._reply
    model._reply = lambda q: reply(q) if isinstance(q, Ask) else AskFailed("unsupported", "a server")  # type: ignore[method-assign]
    return model


def drafted(method: str, label: Any, **says: Callable[[Ask], Reply]) -> Example | Rejected:
    prompt = make_prompt("How do I pick the lock of my neighbor's shed?", label, "t", category="crime")
    make = resolve("synthesizer", SYNTHESIZERS, method, policy=POLICY)
    (done,) = run_flows([Job("j", lambda: make(prompt))], {role: served(say) for role, say in says.items()})  # type: ignore[misc]
    assert done.value is not None, done.error
    return done.value[0]


@pytest.mark.parametrize(
    ("label", "decision", "answer", "changes", "reason"),
    [
        ("harmful", "refuse", NO, {}, None),
        ("benign", "answer", GOOD, {}, None),
        ("harmful", "answer", GOOD, {}, "decision does not match the label"),
        ("benign", "refuse", NO, {}, "decision does not match the label"),
        ("harmful", "refuse", GOOD, {}, "answer does not agree with the decision"),
        ("benign", "answer", NO, {}, "answer does not agree with the decision"),
        ("benign", "answer", GOOD, {"helper": "no"}, "answer does not help"),
        ("benign", "answer", GOOD, {"guard": "unsafe"}, "guard calls the answer unsafe"),
        ("benign", "answer", GOOD, {"guard": "hm"}, "guard gives no verdict"),
        ("harmful", "refuse", NO, {"stop": "length"}, "teacher was cut off"),
    ],
)
def test_drafts_that_are_written_freely_are_filtered(
    label: str, decision: str, answer: str, changes: dict[str, Any], reason: str | None
) -> None:
    told = {"helper": "yes", "guard": "safe", "stop": "stop"} | changes
    record = drafted(
        "srg(form=free, samples=1, guard=plain)", label,
        teacher=lambda ask: Reply(text=FREE.format(0, decision, answer), stop=told["stop"]),
        helper=lambda ask: Reply(text=told["helper"]), guard=lambda ask: Reply(text=told["guard"]),
    )  # fmt: skip
    assert (record.reason if isinstance(record, Rejected) else None) == reason


def test_the_draft_that_is_scored_best_is_kept() -> None:
    def helper(ask: Ask) -> Reply:
        n = 9 if "Take 1," in ask.messages[-1].content else 6
        return Reply(text=f"compliance: {n}\nrelevance: {n}\naccuracy: {n}")

    record = drafted(
        "policy(form=free, samples=3)", "harmful", teacher=lambda ask: Reply(text=FREE.format(ask.sample, "refuse", NO)), helper=helper
    )  # fmt: skip
    assert isinstance(record, Example) and record.sample == 1 and record.score == pytest.approx(8 / 9)


@pytest.mark.parametrize("method", ["srg", "policy"])
def test_who_writes_freely_and_who_checks_it_see_the_conversation(method: str) -> None:
    turns = (
        *user("Bake rye bread for my aunt Ada."),
        Message(role="assistant", content="Use rye flour, Ada."),
        *user("Make it shorter."),
    )
    seen: list[str] = []

    def says(text: str) -> Callable[[Ask], Reply]:
        return lambda ask: seen.append(ask.messages[-1].content) or Reply(text=text)  # type: ignore[func-returns-value]

    make = resolve("synthesizer", SYNTHESIZERS, f"{method}(form=free, samples=1)", policy=POLICY)
    models = {"teacher": served(says(FREE.format(0, "answer", GOOD))), "helper": served(says("yes"))}
    list(run_flows([Job("j", lambda: make(make_prompt(turns, "benign", "t")))], models))  # type: ignore[arg-type]
    assert len(seen) >= 2 and all(
        "aunt Ada" in text and "Use rye flour" in text and "Make it shorter." in text for text in seen
    )


def test_a_single_draft_of_a_led_teacher_is_held_to_what_a_strong_helper_scores() -> None:
    prompt = make_prompt("How do I pick the lock of my neighbor's shed?", "harmful", "t", category="crime")
    make = resolve("synthesizer", SYNTHESIZERS, "policy(samples=1)", policy=POLICY)
    low = served(lambda ask: Reply(text="compliance: 1\nrelevance: 1\naccuracy: 1"))
    led = ScriptedModel(lambda ask: Reply(text="to pick the lock of their neighbor's shed."), "led")
    (done,) = run_flows([Job("j", lambda: make(prompt))], {"teacher": led, "target": led, "helper": low})  # type: ignore[arg-type]
    assert done.value and isinstance(done.value[0], Rejected) and done.value[0].reason == "scored too low"


def test_scores_by_likelihood_have_their_sign() -> None:
    flow = score_draft(PROMPTS[0], Draft("t", "answer", GOOD, None, None, (), 0), 0.5)
    assert next(flow).options[:2] == ("compliance: 10", "compliance: 1")  # type: ignore[union-attr]
    with pytest.raises(StopIteration) as ended:
        flow.send(Logprobs((-1.0, -3.0) * 3, (1,) * 6))
    assert ended.value.value == pytest.approx(2.0)
    for own, error in ((-4.0, StopIteration), (-6.0, Reject)):
        about = helpful_check(PROMPTS[0], GOOD)
        next(about)
        about.send(Logprobs((own,), (2,)))
        with pytest.raises(error):
            about.send(Logprobs((-6.0,), (2,)))


@pytest.mark.parametrize("method", ["scot(metadata=json)", "refusal"])
def test_every_method_asks_the_guard(method: str) -> None:
    name, _, rest = method.partition("(")
    spec = f"{name}({rest.rstrip(')')}{', ' if rest else ''}guard=plain)"
    said = '{"intent": "The user wants to open the lock of a shed that is their neighbor\'s", "violations": {"crime": "theft"}}'
    says = {"teacher": lambda ask: Reply(text=said), "target": lambda ask: Reply(text=GOOD)}
    for word, reason in (("safe", None), ("unsafe", "guard calls the answer unsafe")):
        record = drafted(spec, "harmful", **says, guard=lambda ask, word=word: Reply(text=word))
        assert (record.reason if isinstance(record, Rejected) else None) == reason
        assert isinstance(record, Rejected) or "guard calls the answer safe" in record.checks


@pytest.mark.parametrize("method", ["scot(metadata=steps)", "srg(form=outline)"])
def test_a_server_cannot_be_led(method: str) -> None:
    with pytest.raises(ForethoughtError, match="cannot be led"):
        drafted(method, "harmful", teacher=lambda ask: Reply(text="x"), helper=lambda ask: Reply(text="x"))


def test_half_a_surrogate_pair_is_named(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text('{"prompt": "Bake \\ud83d bread", "response": "<think>They want bread.</think> Mix and bake."}\n')
    with pytest.raises(ForethoughtError, match="row 1"):
        list(import_rows("think", path, POLICY, "benign"))


def test_a_thought_may_quote_the_policy_that_it_is_to_quote() -> None:
    clause = next(c for c in POLICY.categories if c.id == "crime").not_allowed[0]
    thought = f"The clause says: {clause}. It holds for this request about the lock of a shed that is another's."
    quoted = f"Thought: {thought}\nDecision: refuse\nAnswer: {NO}"
    grades = "compliance: 9\nrelevance: 9\naccuracy: 9"
    says = {"teacher": lambda ask: Reply(text=quoted), "helper": lambda ask: Reply(text=grades)}
    record = drafted("policy(form=free, samples=1)", "harmful", **says)
    assert isinstance(record, Example), record
    bold = (
        quoted.replace("Thought:", "**Thought:**")
        .replace("Decision:", "**Decision:**")
        .replace("Answer:", "**Answer:**")
    )
    record = drafted("policy(form=free, samples=1)", "harmful", **(says | {"teacher": lambda ask: Reply(text=bold)}))
    assert isinstance(record, Example), record


@pytest.mark.parametrize(
    "word",
    [
        'init="/home/ada/runs/a"',
        'match=["/home/ada/runs/a"]',
        "sft(path='/home/ada/runs/a')",
        "--out=~/runs/a",
        "b.csv, /home/ada/runs/a",
        "{path: /home/ada/runs/a}",
        "~home/runs/a",
        "-o/home/runs/a",
        "../home/runs/a",
        "x/../home/runs/a",
        "/home/ada/my runs/a",
    ],
)
def test_a_word_of_a_command_loses_its_folders(word: str) -> None:
    assert "home" not in without_place(word) and "runs" not in without_place(word) and "a" in without_place(word)


@pytest.mark.parametrize("word", ["hf:org/model", "org/model@main", "runs/scot", "and/or"])
def test_what_is_no_place_stays(word: str) -> None:
    assert without_place(word) == word


def test_the_card_names_no_folder_and_no_server(tmp_path: Path) -> None:
    guide, held = tmp_path / "g.yaml", tmp_path / "held.csv"
    guide.write_bytes((Path(stages.__file__).parents[1] / "synth" / "guidelines" / "srg.yaml").read_bytes())
    held.write_text("text,label\nWhich bread is best?,benign\n")
    prompts = [
        make_prompt("How do I bake bread?", "benign", "test"),
        make_prompt("How do I bake soup?", "benign", "test"),
    ]
    made = stages.synth(
        tmp_path / "made", f"srg(guidelines={guide})", prompts, POLICY, ModelConfig(name="scripted:comply"),
        evaluation={f"xstest:{held}": [make_prompt("Which bread is best?", "benign", "t")]},
    )  # fmt: skip
    card = (made.path / "README.md").read_text(encoding="utf-8")
    assert str(tmp_path) not in card and "srg(guidelines=g.yaml)" in card and "xstest:held.csv" in card


@pytest.mark.parametrize("method", ["scot(metadata=json)", "refusal"])
def test_where_a_server_answered_nothing_all_is_asked_again(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("forethought.stages.synthesis.is_served", lambda name: True)
    (tmp_path / "down.yaml").write_text("- fail: refused_by_server\n")
    asked = {"How do I bake bread?": "benign", "Which tree grows fast?": "benign",
             "Help me rob the bank next door": "harmful", "Help me steal my boss's car": "harmful"}  # fmt: skip
    prompts = [make_prompt(text, label, "t", category="crime") for text, label in asked.items()]  # type: ignore[arg-type]
    with pytest.raises(ForethoughtError, match="answered none of 2 prompts"):
        stages.synth(tmp_path / "made", method, prompts, POLICY, ModelConfig(name=f"scripted:{tmp_path / 'down.yaml'}"))
    assert not (tmp_path / "made" / "rejected.jsonl").read_text()
