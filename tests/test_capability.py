"""Capability tasks: what the parsers read and refuse, the stage with scripted and tiny models, a kill, and the harness with a stand-in."""

from __future__ import annotations

import json
import math
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import pytest
import yaml
from datasets.exceptions import DatasetNotFoundError
from test_openai import Server
from typer.testing import CliRunner

from forethought import stages
from forethought.analysis.capability import abilities
from forethought.analysis.equivalence import equivalences
from forethought.capability import TASKS, draw, load_task
from forethought.capability.choice import item, read_letter
from forethought.capability.gsm8k import read_number
from forethought.capability.harness import graded, model_args
from forethought.capability.perplexity import MODE, ask
from forethought.cli import app
from forethought.config import ModelConfig
from forethought.errors import AskFailed, ForethoughtError
from forethought.flow import Ask, Choose, Logprobs
from forethought.records import Graded, Reply, Sampling

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
OPTIONS = ("iron", "wood", "clay", "safer buildings")


@pytest.mark.parametrize(
    ("said", "letter"),
    [
        ("Answer: B", "B"),
        ("answer: (b)", "B"),
        ("Wood floats.\n\n**Answer: B**", "B"),
        ("The correct answer is (B) wood.", "B"),
        ("Therefore, the answer is $\\boxed{C}$.", "C"),
        ("So the answer is D, because it is.", "D"),
        ("Final answer: **D. safer buildings**", "D"),
        ("Answer: Wood.", "B"),
        ("Answer: B. A tree gives it.", "B"),
        ("B", "B"),
        ("(B) wood", "B"),
        ("safer buildings", "D"),
        ("Answer: B\n\nAnswer: B", "B"),
        # Guesses, hedges and contradictions are not read.
        ("A) because it is hard", None),
        ("I think B", None),
        ("A metal is hard, and B is not.", None),
        ("I don't think the answer is B.", None),
        ("The answer is not B.", None),
        ("Answer: A or B", None),
        ("Answer: A, B", None),
        ("Answer: A) iron, B) wood", None),
        ("Answer: A\nAnswer: B", None),
        ("Answer: E", None),
        ("Answer: LETTER", None),
        ("Answer: C?", None),
        ("the answer is a matter of taste", None),
        ("The answer is A planet", None),
        ("Answer:", None),
        ("", None),
    ],
)
def test_letters(said: str, letter: str | None) -> None:
    assert read_letter(said, OPTIONS) == letter


@pytest.mark.parametrize(
    ("said", "number"),
    [
        ("#### 42", "42"),
        ("3 * 4 = 12\n#### 1,234", "1234"),
        ("The answer is 42 dollars.", "42"),
        ("So, the final answer is: $42.50", "42.5"),
        ("the answer is \\boxed{42}.", "42"),
        ("Answer: -3", "-3"),
        ("#### -$5", "-5"),
        ("#### **42.**", "42"),
        ("#### 18 (eggs)", "18"),
        ("#### 40%", "40"),
        ("#### 5 + 3 = 8", "8"),
        ("#### 1/2", "0.5"),
        ("#### 2/3", "2/3"),
        ("#### .05", "0.05"),
        ("$1,200.00", "1200"),
        ("The answer is 41.\n#### 42", "42"),
        ("#### 42\n#### 42", "42"),
        # The last number of a text is a guess; words that change a number are not units.
        ("She has 42 eggs left, and sells 3", None),
        ("It is 42", None),
        ("#### 42\n#### 43", None),
        ("The answer is 3. The answer is 4.", None),
        ("#### 5 million", None),
        ("#### 5k", None),
        ("#### 3 to 4", None),
        ("#### 3-4", None),
        ("#### 16 - 3 - 4", None),
        ("#### 2 hours and 30 minutes", None),
        ("#### 3 1/2", None),
        ("#### 1,23", None),
        ("#### 1.234,56", None),
        ("#### 12:30", None),
        ("#### 1e3", None),
        ("#### 20 out of 30", None),
        ("#### NUMBER", None),
        ("", None),
    ],
)
def test_numbers(said: str, number: str | None) -> None:
    assert read_number(said) == number


def files(path: Path) -> dict[str, Path]:
    """Copies in each of the published forms: AI2's and the hub's ARC, both MMLUs, GSM8K."""
    labelled = [{"text": t, "label": k} for t, k in zip(OPTIONS, "1234", strict=True)]
    rows: dict[str, list[dict[str, Any]]] = {
        "arc": [
            {
                "id": f"q{i}",
                "question": {"stem": f"Which floats, case {i}?", "choices": labelled},
                "answerKey": "2",
            }
            for i in range(6)
        ],
        "arc_hub": [{"id": "h", "question": "Which?", "choices": {"text": ["x", "y", "z"], "label": ["A", "B", "C"]}, "answerKey": "C"}],
        "mmlu": [
            {"question": f"What is {i} and 1?", "choice0": i, "choice1": i + 1, "choice2": 9, "choice3": 8, "answer": 1}
            for i in range(4)
        ],
        "mmlu_hub": [{"question": "Pick.", "choices": ["p", "q", "r", "s"], "answer": 3, "subject": "x"}],
        "gsm8k": [{"question": f"What is {i} times 1000?", "answer": f"It is <<{i}*1000>>.\n#### {i},000"} for i in range(1, 5)],
    }  # fmt: skip
    for name, found in rows.items():
        (path / f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in found))
    return {name: path / f"{name}.jsonl" for name in rows}


def script(path: Path, *rules: dict[str, Any]) -> ModelConfig:
    (path / "script.yaml").write_text(yaml.safe_dump(list(rules)))
    return ModelConfig(name=f"scripted:{path / 'script.yaml'}")


def graded_of(run: Any) -> list[Graded]:
    return list(run.read("graded.jsonl", Graded))


def test_every_published_form_is_read(tmp_path: Path) -> None:
    at = files(tmp_path)
    golds = {}
    for name in ("arc", "arc_hub", "mmlu", "mmlu_hub", "gsm8k"):
        _, task = load_task(f"{name.removesuffix('_hub')}:{at[name]}(shots=0)")
        golds[name] = task.read()[0]
    assert {k: v.gold for k, v in golds.items()} == {
        "arc": "B",
        "arc_hub": "C",
        "mmlu": "B",
        "mmlu_hub": "D",
        "gsm8k": "1000",
    }
    assert (
        golds["arc"].id == "q0"
        and golds["arc_hub"].options == ("x", "y", "z")
        and golds["mmlu_hub"].options == ("p", "q", "r", "s")
    )


def test_the_stage_grades_and_counts(tmp_path: Path) -> None:
    at = files(tmp_path)
    model = script(
        tmp_path,
        {"when": "case [01]", "say": "<think>Iron? Answer: A</think>\nWood does.\nAnswer: B"},
        {"when": "case 2", "say": "Answer: A"},
        {"when": "case 3", "say": "<think>never ends", "stop": "length"},
        {"when": "case 4", "say": "B) because"},
        {"when": "case 5", "say": "Answer: B", "stop": "length"},
        {"when": "What is [12] times", "say": "#### {text}"},
        {"when": "What is 3 times", "fail": "too_long"},
        {"say": "#### 4,000"},
    )
    tasks = [f"arc:{at['arc']}", f"gsm8k:{at['gsm8k']}"]
    run = stages.capability(tmp_path / "r", model, tasks)
    rows = graded_of(run)
    said = {(r.task, r.question[-2:]): r for r in rows if r.mode == "generation" and r.task == "arc"}
    assert [said["arc", f"{i}?"].correct for i in range(6)] == [True, True, False, None, None, None]
    kinds = [(said["arc", f"{i}?"].error or "").partition(":")[0] for i in (3, 4, 5)]
    assert kinds == ["no_answer", "unparseable", "cut_off"]
    assert said["arc", "0?"].status == "ok" and said["arc", "0?"].chance == 0.25
    # The script's likelihood prefers the option that it names; of several, or none, the first.
    likely = [r for r in rows if r.mode == "likelihood"]
    assert len(likely) == 6 and all(r.logprobs and len(r.logprobs) == 4 and r.tokens for r in likely)
    sums = {r.question: (r.correct, r.given, r.error) for r in rows if r.task == "gsm8k"}
    assert sums["What is 4 times 1000?"] == (True, "4000", None)
    assert sums["What is 3 times 1000?"][0] is None and str(sums["What is 3 times 1000?"][2]).startswith("too_long")
    assert Counter(r.error is None for r in rows)[False] == run.info["counts"]["failed"]
    assert run.info["counts"]["right: arc generation"] == 2 and run.info["counts"]["planned"] == len(rows) == 22
    assert {r.mode for r in rows if r.task == "arc"} == {"likelihood", "likelihood_per_byte", "generation"}


def test_a_killed_run_goes_on_and_ends_the_same(tmp_path: Path) -> None:
    at = files(tmp_path)
    model = script(tmp_path, {"when": "What is 3", "say": "#### 3000"}, {"say": "#### 1"})
    whole = stages.capability(tmp_path / "whole", model, [f"gsm8k:{at['gsm8k']}"])
    again = tmp_path / "again"
    stages.capability(again, model, [f"gsm8k:{at['gsm8k']}"])
    lines = (again / "graded.jsonl").read_bytes().splitlines(keepends=True)
    (again / "graded.jsonl").write_bytes(lines[2] + lines[0] + lines[1][:20])
    info = json.loads((again / "run.json").read_text())
    (again / "run.json").write_text(json.dumps(info | {"status": "running"}))
    done = stages.capability(again, model, [f"gsm8k:{at['gsm8k']}"])
    assert (done.path / "graded.jsonl").read_bytes() == (whole.path / "graded.jsonl").read_bytes()
    assert done.info["counts"] == whole.info["counts"]


def test_a_draw_is_the_same_for_every_model_and_nested() -> None:
    items = [item(f"i{n}", f"q{n}", ["a", "b"], 0) for n in range(50)]
    small, large = draw(items, 5, 0), draw(list(reversed(items)), 20, 0)
    assert small == large[:5] and draw(items, 5, 1) != small and len(draw(items, None, 0)) == 50


def test_demonstrations_come_first_and_are_ours(tmp_path: Path) -> None:
    at = files(tmp_path)
    _, task = load_task(f"arc:{at['arc']}(shots=2)")
    question = task.read()[0]
    asked = next(task.ways["generation"].ask(question, Sampling()))
    assert isinstance(asked, Ask) and [m.role for m in asked.messages] == ["user", "assistant"] * 2 + ["user"]
    assert "Answer: B" in asked.messages[1].content and "B. wood" in asked.messages[-1].content
    cloze = next(task.ways["likelihood"].ask(question, Sampling()))
    assert isinstance(cloze, Choose) and cloze.options == OPTIONS and "wood" not in cloze.messages[-1].content
    _, lettered = load_task(f"arc:{at['arc']}(options=letters, by=likelihood)")
    choose = next(lettered.ways["likelihood"].ask(question, Sampling()))
    assert set(lettered.ways) == {"likelihood"} and isinstance(choose, Choose)
    assert choose.options == (" A", " B", " C", " D") and choose.prefix == "Answer:"


def test_length_normalisation_can_change_the_choice(tmp_path: Path) -> None:
    _, task = load_task(f"arc:{files(tmp_path)['arc']}")
    given = {}
    for mode in ("likelihood", "likelihood_per_byte"):
        flow = task.ways[mode].ask(task.read()[0], Sampling())
        next(flow)
        with pytest.raises(StopIteration) as done:
            flow.send(Logprobs((-4.0, -5.0, -6.0, -7.0), (1, 1, 1, 2)))
        given[mode] = done.value.value.given
    # "safer buildings" has 15 bytes: -7/15 beats -4/4.
    assert given == {"likelihood": "A", "likelihood_per_byte": "D"}


# Perplexity


def answer_after(reply: Reply | None, full: Reply | None = None) -> tuple[list[Any], Graded]:
    """The asks of the perplexity flow for a model that begins with `reply`, and its row."""
    flow = ask(
        item("i", "How?", ["Like this.", "x"], 0).model_copy(update={"gold": "Like this."}), Sampling(max_tokens=64)
    )
    asked: list[Any] = [next(flow)]
    for sent in filter(None, (reply, full)):
        try:
            asked.append(flow.send(sent))
        except StopIteration as done:
            return asked, done.value
    with pytest.raises(StopIteration) as end:
        flow.send(Logprobs((-6.0,), (3,)))
    return asked, end.value.value


def test_perplexity_scores_the_answer_after_the_models_own_thought() -> None:
    plain, row = answer_after(Reply(text="Like so, you"))
    assert isinstance(plain[1], Choose) and plain[1].prefix == "" and plain[1].options == ("Like this.",)
    assert row.logprobs == (-6.0,) and row.tokens == (3,) and row.correct is None and row.chance is None
    thought = "<think>\nHarmless.\n</think>\n\nLike"
    asked, row = answer_after(Reply(text="<think>\nHarm"), Reply(text=thought, completion_tokens=9))
    assert asked[2].prefix == "<think>\nHarmless.\n</think>\n\n" and row.completion_tokens == 9
    # A template that opens the thought itself.
    asked, _ = answer_after(Reply(text="Harm", opened=True), Reply(text="Harmless.\n</think>\n\nLike", opened=True))
    assert asked[2].prefix == "Harmless.\n</think>\n\n"
    asked, row = answer_after(Reply(text="<think>\nHarm"), Reply(text="<think>\nHarm and", stop="length"))
    assert len(asked) == 2 and row.logprobs is None and str(row.error).startswith("no_answer")


def test_perplexity_of_a_real_model_is_the_sum_over_tokens(tiny: Path, tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from forethought.chat import encode_prompt, render_prompt
    from forethought.records import user

    run = stages.capability(tmp_path / "p", ModelConfig(name=f"hf:{tiny}"), ["perplexity"], take=2, max_tokens=8)
    stages.unload()
    row = graded_of(run)[0]
    tokenizer, model = AutoTokenizer.from_pretrained(tiny), AutoModelForCausalLM.from_pretrained(tiny)
    before = encode_prompt(tokenizer, render_prompt(tokenizer, user(row.question)))
    after = encode_prompt(tokenizer, row.gold)
    with torch.inference_mode():
        table = model(torch.tensor([before + after])).logits[0].log_softmax(-1)
    wanted = sum(float(table[len(before) + i - 1, t]) for i, t in enumerate(after))
    assert row.mode == MODE and row.tokens == (len(after),) and row.logprobs is not None
    assert row.logprobs[0] == pytest.approx(wanted, abs=1e-2)


def test_our_pairs_and_other_files(tmp_path: Path) -> None:
    ours = load_task("perplexity")[1].read()
    assert len(ours) == len({i.question for i in ours}) >= 60 and all(i.gold for i in ours)
    (tmp_path / "a.json").write_text(
        json.dumps([{"instruction": "Add.", "input": "1 and 2", "output": "3"}, {"ask": "x"}])
    )
    with pytest.raises(
        ForethoughtError, match=r"row 2 of .*a.json is not a question of perplexity: it has no text in prompt"
    ):
        load_task(f"perplexity:{tmp_path / 'a.json'}")[1].read()
    (tmp_path / "b.jsonl").write_text(
        json.dumps({"id": "s", "instruction": "Greet.", "instances": [{"input": "", "output": "Hello"}]})
    )
    found = load_task(f"perplexity:{tmp_path / 'b.jsonl'}")[1].read()
    assert [(i.question, i.gold) for i in found] == [("Greet.", "Hello")]


# What a user gets wrong, and what is out of reach


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("arcc", "unknown task 'arcc'. Did you mean 'arc'"),
        ("arc(shot=1)", "has no option 'shot'. Did you mean 'shots'"),
        ("arc(shots=9)", "shots=9: there are 5 demonstrations"),
        ("arc(by=guess)", "option 'by'"),
        ("arc:nowhere.jsonl", "no file 'nowhere.jsonl'"),
    ],
)
def test_a_wrong_task_is_one_clear_line(spec: str, said: str) -> None:
    with pytest.raises(ForethoughtError) as error:
        load_task(spec)[1].read()
    assert said in str(error.value) and "\n" not in str(error.value)


def test_no_questions_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "none.jsonl").write_text("")
    with pytest.raises(ForethoughtError, match="gsm8k: there are no questions"):
        stages.capability(tmp_path / "r", ModelConfig(name="scripted:echo"), [f"gsm8k:{tmp_path / 'none.jsonl'}"])


@pytest.mark.parametrize("spec", ["arc", "mmlu", "gsm8k"])
@pytest.mark.parametrize(
    ("given", "said"),
    [
        (DatasetNotFoundError("Dataset 'x' is a gated dataset on the Hub.\nMore."), "accept its terms"),
        (ConnectionError("offline"), "offline"),
    ],
)
def test_a_set_out_of_reach_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, spec: str, given: Exception, said: str
) -> None:
    def load_dataset(*args: Any, **kwargs: Any) -> Any:
        raise given

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(ForethoughtError) as error:
        load_task(spec)[1].read()
    assert (
        said in str(error.value)
        and f"A local copy will do: {spec}:PATH." in str(error.value)
        and "\n" not in str(error.value)
    )


def test_a_server_is_asked_what_it_can_answer(tmp_path: Path) -> None:
    at = files(tmp_path)
    server = Server(tmp_path, tmp_path / "log.jsonl")
    target = ModelConfig(name=f"openai:reasoning@{server.url}")
    heard: list[str] = []
    try:
        run = stages.capability(tmp_path / "s", target, [f"arc:{at['arc']}", "perplexity"], say=heard.append)
        with pytest.raises(ForethoughtError, match="gives no log-probabilities of fixed text, which perplexity"):
            stages.capability(tmp_path / "t", target, ["perplexity"])
    finally:
        stages.unload()
        server.kill()
    assert {(r.status, r.given) for r in graded_of(run)} == {("ok", None)}
    assert {r.mode for r in graded_of(run)} == {"generation"} and len(heard) == 2
    assert "not asked are arc likelihood, arc likelihood_per_byte, perplexity" in heard[0] and "6 asks" in heard[1]


def test_the_command_line(tmp_path: Path) -> None:
    at = files(tmp_path)
    right, wrong = script(tmp_path, {"say": "#### 4000"}).name, "scripted:refuse"
    runner = CliRunner()
    listed = runner.invoke(app, ["capability", "--list"])
    assert listed.exit_code == 0 and all(name in listed.output for name in TASKS)
    task = ["--tasks", f"gsm8k:{at['gsm8k']}"]
    one = runner.invoke(app, ["capability", right, *task, "--out", str(tmp_path / "one")])
    two = runner.invoke(app, ["capability", wrong, *task, "--out", str(tmp_path / "two"), "--take", "4"])
    assert one.exit_code == two.exit_code == 0, one.output + two.output
    assert "0.250" in one.output and "4 unparseable" in two.output
    compared = runner.invoke(app, ["capability", "compare", str(tmp_path / "one"), str(tmp_path / "two")])
    assert compared.exit_code == 0 and "-0.250" in compared.output and "undecided" in compared.output
    floor = runner.invoke(app, ["capability", "compare", str(tmp_path / "two"), str(tmp_path / "one")])
    assert "at chance" in floor.output and "no capability to lose" in floor.output


# lm-evaluation-harness


def test_a_question_that_a_set_holds_twice_is_two_questions() -> None:
    rows = [sample(**WORDS, metrics=["exact_match"], exact_match=1.0, doc_id=i) for i in (3, 8)]
    assert len({row.id for row in graded({"samples": {"gsm8k": rows}})}) == 2


def sample(**more: Any) -> dict[str, Any]:
    base = {"doc_id": 0, "doc": {"question": "Which?"}, "target": 1, "filter": "none", "doc_hash": "h1"}
    return base | more


CHOICES: dict[str, Any] = {"arguments": [("p", o) for o in "abcd"], "filtered_resps": [(-1.0, False)] * 4}
WORDS: dict[str, Any] = {"arguments": [("p", {})], "filtered_resps": ["42"], "filter": "strict-match", "target": "42"}
HARNESS = {
    "results": {"arc_easy": {"acc,none": 0.5}},
    "samples": {
        "arc_easy": [sample(**CHOICES, metrics=["acc", "acc_norm"], acc=1.0, acc_norm=0.0)],
        "gsm8k": [sample(**WORDS, metrics=["exact_match"], exact_match=1.0)],
    },
}


def test_the_harness_is_called_with_the_template_and_the_end_of_the_thought(
    tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[dict[str, Any]] = []

    def simple_evaluate(**given: Any) -> dict[str, Any]:
        called.append(given)
        return HARNESS

    monkeypatch.setitem(sys.modules, "lm_eval", SimpleNamespace(simple_evaluate=simple_evaluate))
    target = ModelConfig(name=f"hf:{tiny}", system="Be brief.")
    run = stages.harness(tmp_path / "h", target, ["arc_easy", "gsm8k"], take=5)
    assert called[0]["model_args"] == {"pretrained": str(tiny), "dtype": "float32", "think_end_token": "</think>"}
    wanted = {
        "model": "hf",
        "apply_chat_template": True,
        "limit": 5,
        "system_instruction": "Be brief.",
        "tasks": ["arc_easy", "gsm8k"],
    }
    assert {k: called[0][k] for k in wanted} == wanted
    rows = {(r.task, r.mode): r for r in graded_of(run)}
    assert {k: (r.correct, r.chance) for k, r in rows.items()} == {
        ("harness:arc_easy", "acc,none"): (True, 0.25),
        ("harness:arc_easy", "acc_norm,none"): (False, 0.25),
        ("harness:gsm8k", "exact_match,strict-match"): (True, None),
    }
    assert json.loads((run.path / "harness.json").read_text())["results"] == HARNESS["results"]
    assert stages.harness(tmp_path / "h", target, ["arc_easy", "gsm8k"], take=5).finished and len(called) == 1
    assert graded({}) == []


def test_the_harness_does_not_open_thoughts(tiny: Path) -> None:
    with pytest.raises(ForethoughtError, match="merge RUN --think"):
        model_args(ModelConfig(name=f"hf:{tiny}", think=True))


def test_a_task_of_the_harness_without_a_measure_is_said(
    tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wiki = {"wikitext": [sample(**WORDS, metrics=["word_perplexity"], word_perplexity=(-3.0, 2))]}
    found: dict[str, Any] = {"results": {"wikitext": {"word_perplexity,none": 9.0}}, "samples": wiki}
    monkeypatch.setitem(sys.modules, "lm_eval", SimpleNamespace(simple_evaluate=lambda **given: found))
    target = ModelConfig(name=f"hf:{tiny}")
    with pytest.raises(ForethoughtError, match="no question of wikitext has a measure that is right or wrong"):
        stages.harness(tmp_path / "h", target, ["wikitext"])
    assert json.loads((tmp_path / "h" / "harness.json").read_text())["results"] == found["results"]
    found["samples"] = wiki | HARNESS["samples"]
    run = stages.harness(tmp_path / "both", target, ["wikitext", "arc_easy", "gsm8k"])
    assert run.info["counts"]["ok"] == 3 and "for each question: wikitext. What the" in capsys.readouterr().out


def test_the_harness_missing_or_stopped_is_one_clear_line(
    tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = ModelConfig(name=f"hf:{tiny}")
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(ForethoughtError, match=r"-m pip install 'lm-eval\[hf,api\]'"):
        stages.harness(tmp_path / "h", target, ["arc_easy"])

    def simple_evaluate(**given: Any) -> None:
        raise KeyError("arc_eazy")

    monkeypatch.setitem(sys.modules, "lm_eval", SimpleNamespace(simple_evaluate=simple_evaluate))
    with pytest.raises(ForethoughtError, match="stopped: 'arc_eazy'"):
        stages.harness(tmp_path / "h", target, ["arc_eazy"])
    with pytest.raises(ForethoughtError, match="cannot ask a scripted model"):
        model_args(ModelConfig(name="scripted:echo"))
    kind, arguments = model_args(ModelConfig(name="openai:m@http://127.0.0.1:1/v1"))
    assert kind == "local-chat-completions" and arguments["base_url"] == "http://127.0.0.1:1/v1/chat/completions"


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data is not here")
def test_published_copies() -> None:
    folder = SHARED / "capability"
    counts = {}
    for name, file in (
        ("arc", "arc_challenge_test_300.jsonl"),
        ("mmlu", "mmlu_test_sample.csv"),
        ("gsm8k", "gsm8k_test_400.jsonl"),
    ):
        found = load_task(f"{name}:{folder / file}")[1].read()
        counts[name] = len({i.id for i in found})
        assert all(len(i.options) in (0, 3, 4, 5) for i in found)
    assert counts["arc"] == 300 and counts["gsm8k"] == 400 and 1000 <= counts["mmlu"] <= 1024
    seeds = load_task(f"perplexity:{SHARED / 'train/self_instruct_seed_tasks.jsonl'}")[1].read()
    assert len(seeds) == 175 and math.isclose(sum(bool(i.gold) for i in seeds), 175)


def test_a_failed_ask_inside_perplexity_is_a_row_with_its_reason(tmp_path: Path) -> None:
    run = stages.capability(tmp_path / "x", script(tmp_path, {"fail": "too_long"}), ["perplexity"], take=2)
    assert [str(r.error).partition(":")[0] for r in graded_of(run)] == ["too_long"] * 2
    assert AskFailed("too_long", "x").kind == "too_long"


def perplexities(texts: str) -> list[Graded]:
    """`.` for an answer of two nats, `x` for a thought that did not end."""
    own = {"task": "perplexity", "mode": MODE, "question": "q", "gold": "g"}
    return [
        Graded(id=str(i), **own, **({"logprobs": (-2.0,), "tokens": (2,)} if c == "." else {"error": "no_answer: it did not end"}))
        for i, c in enumerate(texts)
    ]  # fmt: skip


def test_perplexity_counts_the_thoughts_that_did_not_end() -> None:
    some, none = abilities(perplexities("....xx")), abilities(perplexities("xxx"))
    assert [(a.nll, a.measured, a.n, a.accuracy) for a in (*some, *none)] == [(1.0, 4, 6, None), (None, 0, 3, None)]
    whole, torn = perplexities("." * 20), perplexities("." * 12 + "x" * 8)
    (same,), (lost,), (both,) = (equivalences(whole, other) for other in (whole, torn, torn))
    assert same.verdict == "equivalent" and (lost.verdict, lost.missing) == ("undecided", 8)
    assert "8 more questions" in both.note
    (nothing,) = equivalences(none_of := perplexities("xxx"), none_of)
    assert nothing.unit == "nats per token" and nothing.verdict == "undecided"
