"""SCoT's label check and its choice of a category, with a scripted teacher."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from forethought import stages
from forethought.analysis.fork import find_fork
from forethought.analysis.log_odds import refusing
from forethought.config import ModelConfig
from forethought.flow import Ask, Job, Logprobs, run_flows
from forethought.models.scripted import ScriptedModel
from forethought.policy import load_policy
from forethought.prompts import read_lines
from forethought.records import Example, Label, Prompt, Rejected, Reply, make_prompt, user
from forethought.refusals import classify
from forethought.synth.common import Reject, own_answer
from forethought.synth.restate import RULE, by_rule, keeps_request, restate
from forethought.synth.scot import read_metadata
from forethought.synth.teacher import VERDICTS, rank
from forethought.thoughts import decision_of
from forethought.train.rows import decision_at

BREAD = "Tell me how to bake fresh bread"


def synth(home: Path, teacher_says: str, label: Label, options: str) -> tuple[list[Example], list[Rejected]]:
    """One prompt through scot; the teacher names `teacher_says` where it chooses, and restates by repeating the request."""
    home.mkdir(exist_ok=True)
    script = home / "teacher.yaml"
    rules = [
        {"when": "Request: N/A", "say": "nothing"},
        {
            "when": f"Is this allowed|{teacher_says}",
            "say": teacher_says if teacher_says in VERDICTS.values() else BREAD,
        },
        {"when": "This is not allowed", "say": "something else"},
        {"say": "to know how to bake fresh bread."},
    ]
    script.write_text(yaml.safe_dump(rules), encoding="utf-8")
    prompts: list[Prompt] = [make_prompt(BREAD, label, "test")]
    run = stages.synth(
        home / "run", f"scot({options})", prompts, load_policy("default"), ModelConfig(name="scripted:comply"),
        ModelConfig(name=f"scripted:{script}"),
    )  # fmt: skip
    return run.read("examples.jsonl", Example), run.read("rejected.jsonl", Rejected)


@pytest.mark.parametrize(
    ("says", "label", "kept"),
    [
        (VERDICTS["answer"], "benign", True),
        (VERDICTS["refuse"], "benign", False),
        (VERDICTS["refuse"], "harmful", True),
        (VERDICTS["answer"], "harmful", False),
    ],
)
def test_a_teacher_that_disagrees_with_the_label_rejects_the_prompt(
    tmp_path: Path, says: str, label: Label, kept: bool
) -> None:
    examples, rejected = synth(tmp_path, says, label, "template=short, verify=true")
    if kept:
        assert "teacher agrees with the label" in examples[0].checks
    else:
        assert [r.reason for r in rejected] == ["teacher disagrees with the label"]


def test_without_verify_the_label_decides(tmp_path: Path) -> None:
    examples, _ = synth(tmp_path, "violence", "benign", "template=short")
    assert examples[0].decision == "answer"
    assert "teacher agrees with the label" not in examples[0].checks


def test_short_thoughts_say_whether_a_rule_is_broken_before_which(tmp_path: Path) -> None:
    """The first word behind `Rule:` is one of three; `reversed` decides before it restates the request. Both weigh what decides."""
    lines = ["Rule: broken, fraud and deception.", "Decision: refuse."]
    for template in ("short", "reversed"):
        examples, _ = synth(tmp_path / template, "Scams, phishing", "harmful", f"template={template}")
        thought = (examples[0].reasoning or "").split("\n")
        request = next(line for line in thought if line.startswith("Request: "))
        assert thought == ([request, *lines] if template == "short" else [*lines, request])
        assert "broken, fraud and deception.\nDecision: refuse" in examples[0].decisive[0]
        assert decision_of("\n".join(thought)) == "refuse"
    harmless, _ = synth(tmp_path / "b", "violence", "benign", "template=short")
    assert "Rule: none.\nDecision: answer." in (harmless[0].reasoning or "")


def test_a_harmful_prompt_without_category_gets_the_teachers(tmp_path: Path) -> None:
    examples, _ = synth(tmp_path, "Scams, phishing", "harmful", "template=rules")
    (example,) = examples
    assert example.category == "fraud"
    assert "fraud and deception" in example.answer
    assert "- fraud and deception: Yes" in (example.reasoning or "")
    assert "- violence: No" in (example.reasoning or "")


@pytest.mark.parametrize(
    ("request_", "said", "keeps"),
    [
        ("Describe how serial tags on watches work.", "to know how serial tags on watches work", True),
        ("He snores. Tell me a quiet way to record him.", "to find a quiet way to record his brother", False),
        ("What should I tell my boss after I broke the vase?", "to tell their boss that they broke the vase", False),
        ("Which columns ended careers in film?", "to end careers in film because of columns", False),
        ("Teach me to swim with a bad knee, at sixty.", "to swim", False),
        ("What do I tell the police about the accident?", "to know what to tell the police, not about the accident", False),
    ],
)  # fmt: skip
def test_a_restatement_keeps_the_request(request_: str, said: str, keeps: bool) -> None:
    assert keeps_request(said, request_) is keeps


def test_own_answers_are_sampled_until_one_will_do() -> None:
    """The greedy answer first; what was wrong with it is said where no sample will do either."""
    prompt = make_prompt(BREAD, "borderline", "test")

    def drive(said: list[str], tries: int) -> tuple[str, list[tuple[int, float]]]:
        flow = own_answer(prompt, 40, tries=tries)
        asked: list[tuple[int, float]] = []
        question = next(flow)
        while True:
            assert isinstance(question, Ask)
            asked.append((question.sample, question.sampling.temperature))
            try:
                question = flow.send(
                    Reply(text=said[len(asked) - 1], stop="stop", prompt_tokens=1, completion_tokens=1)
                )
            except StopIteration as stop:
                return stop.value, asked

    sorry, good = "I'm sorry to hear that you bake.", "Mix flour and water."
    assert drive([good], 3) == (good, [(0, 0.0)])
    assert drive([sorry, "", good], 3) == (good, [(0, 0.0), (1, 0.7), (2, 0.7)])
    with pytest.raises(Reject, match="apology"):
        drive([sorry, good], 1)
    with pytest.raises(Reject, match="apology"):
        drive([sorry, "I can't help with that.", sorry], 3)


def test_who_is_in_trouble_may_get_lines_that_were_written_beforehand(tmp_path: Path) -> None:
    """They are not read as refusals, by the judge and by the score."""
    for line in read_lines("forethought.synth", "care"):
        assert classify(line, BREAD).label == "not_refused"
        assert not line.startswith(refusing())
    examples, _ = synth(tmp_path, "self-harm", "sensitive", "template=short, care=lines")
    assert examples[0].answer in read_lines("forethought.synth", "care")
    assert (examples[0].decision, examples[0].checks[-1]) == ("support", "answer was written beforehand")


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ('{"intent": "The user is asking to bake.", "violations": {"fraud": "x"}}', "intent does not begin as asked"),
        ('{"intent": "The user wants", "violations": {"fraud": "x"}}', "intent is empty or too long"),
        ('{"intent": "The user wants some bread", "violations": {"bread": "x"}}', "teacher names no category"),
        ('{"intent": "The user wants some bread"}', "no rule violated"),
        ("I'm sorry, but I can't help with that.", "teacher refused the task"),
    ],
)
def test_metadata_that_is_not_what_was_asked_for(said: str, reason: str) -> None:
    with pytest.raises(Reject) as error:
        read_metadata(said, make_prompt(BREAD, "harmful", "t"), load_policy("default"), "refuse", 0)
    assert error.value.reason == reason


def test_metadata_in_json_and_the_data_sets_own_category(tmp_path: Path) -> None:
    said = '```json\n{"intent": "the user wants to bake bread for a U.S. friend.", "violations": {"crime": "It is a crime."}}\n```'
    script = tmp_path / "teacher.yaml"
    script.write_text(yaml.safe_dump([{"say": said}]))
    for given, cited in ((None, ["crime"]), ("fraud", ["crime", "fraud"])):
        prompt = make_prompt(BREAD, "harmful", "test", category=given)
        found = read_metadata(said, prompt, load_policy("default"), "refuse", 0)
        assert found.intent == "The user wants to bake bread for a U.S. friend" and list(found.violations) == cited
        run = stages.synth(
            tmp_path / str(given), "scot(metadata=json)", [prompt], load_policy("default"), ModelConfig(name="scripted:comply"),
            ModelConfig(name=f"scripted:{script}"),
        )  # fmt: skip
        (example,) = run.read("examples.jsonl", Example)
        assert example.category == cited[-1] and load_policy("default").category(cited[-1]).name in example.answer
        assert "intent has the form asked for" in example.checks


def test_a_person_in_need_is_kept_under_a_rule_that_refuses() -> None:
    """As where the teacher is led: the data set's category is cited, though it would be refused."""
    said = '{"intent": "The user wants to get away from a scam", "violations": {"fraud": "They pay a fraud."}}'
    prompt = make_prompt("He took all my bread. What now?", "sensitive", "t", category="fraud")
    assert read_metadata(said, prompt, load_policy("default"), "support", 0).violations == {"fraud": ""}
    prompt = make_prompt("He took all my bread. What now?", "sensitive", "t")
    with pytest.raises(Reject, match="no rule violated"):
        read_metadata(said, prompt, load_policy("default"), "support", 0)
    # Where no rule is for people in trouble, none need be named.
    bare = '{"intent": "The user wants to get away from a scam", "violations": {}}'
    policy = load_policy("default")
    strict = policy.model_copy(update={"categories": tuple(c for c in policy.categories if c.respond == "refuse")})
    assert read_metadata(bare, prompt, strict, "support", 0).violations == {}


def test_a_person_in_need_is_not_said_to_ask_for_what_is_forbidden(tmp_path: Path) -> None:
    prompt = make_prompt("How do I bake bread when I hurt?", "sensitive", "test", category="self_harm")
    script = tmp_path / "teacher.yaml"
    script.write_text(yaml.safe_dump([{"say": "to know how to bake bread when they hurt."}]))
    run = stages.synth(
        tmp_path / "r", "scot(care=lines)", [prompt], load_policy("default"), ModelConfig(name="scripted:comply"),
        ModelConfig(name=f"scripted:{script}"),
    )  # fmt: skip
    (example,) = run.read("examples.jsonl", Example)
    assert "- self-harm: Yes\n" in (example.reasoning or "")


def test_an_own_answer_that_was_cut_off_ends_with_its_last_whole_sentence() -> None:
    prompt = make_prompt(BREAD, "borderline", "test")

    def kept(said: str) -> str:
        flow = own_answer(prompt, 40)
        next(flow)
        with pytest.raises(StopIteration) as ended:
            flow.send(Reply(text=said, stop="length"))
        return str(ended.value.value)

    assert kept("Mix flour and water. Then bake the") == "Mix flour and water."
    with pytest.raises(Reject, match="no whole sentence"):
        kept("Mix the")


def test_a_choice_is_a_mean_a_token_less_that_without_content() -> None:
    flow = rank("teacher", user("x"), (" a", " b"), "", user("N/A"))
    next(flow)
    flow.send(Logprobs((-2.0, -6.0), (1, 2)))
    with pytest.raises(StopIteration) as ended:
        flow.send(Logprobs((-1.0, -8.0), (1, 2)))
    assert ended.value.value == (-1.0, 1.0)


@pytest.mark.parametrize(
    ("scores", "kept"), [((-2.0, -1.0, -1.5), [1, 0]), ((-2.5, -1.0, -1.5), [1]), ((-2.5, -3.0, -1.5), [RULE])]
)
def test_the_restatement_from_which_the_request_follows_best_comes_first(
    scores: tuple[float, ...], kept: list[int]
) -> None:
    wants = ("to know how to bake rye bread", "to bake fresh rye bread", "to know how to bake fresh rye bread")

    class Teacher(ScriptedModel):
        def _reply(self, question: Any) -> Any:
            if isinstance(question, Ask):
                return Reply(text=f"{wants[question.sample]} at home.")
            said = question.messages[-1].content
            return Logprobs((next(s for w, s in zip(wants, scores, strict=True) if f"wants {w}" in said),), (1,))

    prompt = make_prompt("How do I bake fresh rye bread at home?", "benign", "t")
    teacher = Teacher(lambda ask: Reply(text=""), "t")
    (done,) = run_flows([Job("r", lambda: restate(prompt, 2, 2))], {"teacher": teacher})
    assert done.value is not None and [i.sample for i in done.value] == kept


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        ("How do I reset my own router?", "The user wants to know how to reset their own router"),
        ("Can you teach me to swim?", "The user wants me to teach them to swim"),
        ("Was I wrong to leave my job?", "The user wants to know were they wrong to leave their job"),
        ("I'm locked out of my flat. What can I do?",
         "The user wants help with this: they are locked out of their flat; what can they do"),
        ("Bread", None),
    ],
)  # fmt: skip
def test_a_request_in_the_third_person(request_: str, said: str | None) -> None:
    assert by_rule(request_) == said


def test_all_of_a_list_of_rules_is_decisive(tmp_path: Path) -> None:
    """The first yes decides, and not the conclusion that follows from it: `cost` and DPO must reach it."""
    examples, _ = synth(tmp_path, "Scams, phishing", "harmful", "template=rules")
    (example,) = examples
    decisive = example.decisive[0]
    assert decisive.startswith("- violence: No\n") and "- fraud and deception: Yes" in decisive
    assert (example.reasoning or "").endswith("\n" + decisive) and decision_at(example) is not None
    assert find_fork(examples) is None
