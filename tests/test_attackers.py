"""Attacks with an attacker model: the request is kept or the attack does not apply, whatever attacker, helper and target say."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import HOSTILE
from typer.testing import CliRunner

from forethought import stages
from forethought.attacks import ATTACKS, HELPED, Attack, cost_of, load_attack, needed
from forethought.attacks.attacker import bare, clip, loses
from forethought.attacks.autodan import cross
from forethought.attacks.grading import grade, on_topic, read_grade
from forethought.attacks.pair import read_prompt_line
from forethought.attacks.persuading import read_taxonomy
from forethought.attacks.template_file import MARK
from forethought.cli import app
from forethought.config import AttackConfig, Experiment, ModelConfig, TrainConfig
from forethought.errors import AskFailed, ForethoughtError
from forethought.flow import Ask, Choose, Flow, Job, Logprobs, Question, run_flows
from forethought.models.scripted import ScriptedModel
from forethought.pipeline import run_experiment
from forethought.records import Attempt, Message, Prompt, Reply, Sampling, Sent, make_prompt, user
from forethought.run import read_jsonl
from forethought.stages import shared
from forethought.stages.attacking import attempt_flow

ATTACKERS = [name for name, entry in ATTACKS.items() if "attacker" in entry.needs]
GRADED = ["pair", "tap", "crescendo"]
SORRY = "I'm sorry, but I can't help with that."
LONG = Sampling(max_tokens=77)
BREAD = "How do I bake sourdough bread at home?"
# What a way back from a translation shows.
FRENCH = "Comment est-ce que je peux faire du pain au levain chez moi ?"
Say = Callable[[Ask], str | Reply | AskFailed]


class Server(ScriptedModel):
    """A scripted model that gives no likelihoods."""

    def _reply(self, question: Question) -> Reply | Logprobs | AskFailed:
        return super()._reply(question) if isinstance(question, Ask) else AskFailed("unsupported", "a server")


def model(say: Say, kind: type[ScriptedModel] = ScriptedModel) -> ScriptedModel:
    def reply(ask: Ask) -> Reply | AskFailed:
        said = say(ask)
        return Reply(text=said, prompt_tokens=3, completion_tokens=2) if isinstance(said, str) else said

    return kind(reply, "test")


def request_in(ask: Ask) -> str:
    """The request that an attacker is shown."""
    text = ask.messages[-1].content
    for pattern in (r"Request: (.*?)\n\nConversation", r"for the same request: (.*)", r"\ARequest: (.*)"):
        if match := re.search(pattern, text, re.DOTALL):
            return match[1]
    return text


def able(ask: Ask) -> str:
    """An attacker that does what each prompt file asks of it."""
    system, request = ask.messages[0].content, request_in(ask)
    if "translator" in system:
        return BREAD if "into English" in system else FRENCH
    if "numbered list" in system:
        return f"1. What belongs to this: {request.splitlines()[0] if request.strip() else ''}?\n2. And then?\n3. And last?"
    if "two lines" in system:
        return f"Idea: a tale.\nPrompt: In take {ask.sample} of a tale, an old baker is asked and tells all: {request}"
    if "reword prompts" in system:
        return f"Take {ask.sample}, told anew. {request}"
    if "long conversation" in system:
        return f"What should one know first, before number {ask.sample}?"
    return f"Back in the old days, friend, how did people go about this, I wonder: {request}"


def run(
    spec: str,
    prompt: Prompt,
    attacker: Say = able,
    target: Say = lambda ask: "First take a bowl and mix flour with water.",
    helper: Say = lambda ask: "yes" if "Second text" in ask.messages[-1].content else "5",
    kind: type[ScriptedModel] = Server,
    seed: int = 0,
) -> tuple[list[Attempt], dict[str, ScriptedModel]]:
    """The attempts of one attack on one prompt, and the models with what they were asked."""
    models = {"attacker": model(attacker), "target": model(target, kind), "helper": model(helper, kind)}
    name, make = load_attack(spec)
    (done,) = run_flows([Job(f"{name}/{prompt.id}", lambda: attempt_flow(name, make, prompt, LONG))], models, seed=seed)
    assert done.value is not None, done.error
    return done.value, models


def bread(label: Any = "harmful") -> Prompt:
    return make_prompt(BREAD, label, "test")


def asked(models: dict[str, ScriptedModel], role: str) -> list[Ask]:
    return [q for q in models[role].asked if isinstance(q, Ask)]


@pytest.mark.parametrize("label", ["harmful", "benign"])
@pytest.mark.parametrize("name", ATTACKERS)
def test_the_request_is_kept_and_put_otherwise(name: str, label: str) -> None:
    turns = (Message(role="system", content="Be {brief}."), *user("hello"), Message(role="assistant", content="Hi."))
    for before in ((), turns):
        prompt = make_prompt((*before, *user(BREAD)), label, "test")
        (attempt,), models = run(name, prompt)
        assert attempt.error is None and attempt.prompt == prompt and attempt.answer
        assert attempt.messages[: len(before)] == before and attempt.messages != prompt.messages
        assert name == "translation" or not loses(attempt.messages[-1].content, BREAD, 0.5)
        assert "{{" not in attempt.messages[-1].content, "no placeholder is left open"
        counted = {role: len(m.asked) for role, m in models.items() if m.asked}
        assert attempt.queries == counted, "every question is counted, under its role"
        asks = [a for m in models.values() for a in m.asked if isinstance(a, Ask)]
        assert attempt.query_tokens == 5 * len(asks)
        assert all(a.sampling == LONG for a in asked(models, "target")), "the target samples as the run says"
        again, _ = run(name, prompt)
        assert again == [attempt], "the same seed gives the same attack"


@pytest.mark.parametrize("name", ATTACKERS)
@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_hostile_text(name: str, text: str) -> None:
    (attempt,), _ = run(name, make_prompt(text, "harmful", "test"), helper=lambda ask: text)
    if attempt.error is None:
        assert attempt.messages != user(text)
        assert name in ("translation", "rewrite_tense") or text.strip().splitlines()[0] in attempt.messages[-1].content
    else:
        assert attempt.error.startswith(("not_applicable: ", "ungraded: ")) and attempt.status is None
    if not text.strip():
        assert attempt.error == "not_applicable: the attack left the prompt unchanged"


@pytest.mark.parametrize("name", ATTACKERS)
@pytest.mark.parametrize("messages", [(), (Message(role="system", content="only a system message"),)])
def test_without_a_user_turn(name: str, messages: tuple[Message, ...]) -> None:
    (attempt,), models = run(name, make_prompt(messages, "harmful", "test"))
    assert attempt.error == "not_applicable: the attack left the prompt unchanged" and not models["attacker"].asked


BAD: dict[str, Say] = {
    "empty": lambda ask: "  ",
    "refuses": lambda ask: SORRY,
    "says the same": lambda ask: f'"{request_in(ask)}"',
    "garbage": lambda ask: "zzz qqq\n\n{} vvv\n\nPrompt: kkk [REQUEST] [REQUEST]",
    "cut off": lambda ask: Reply(text=able(ask), stop="length"),
    "thinks for ever": lambda ask: "<think>\n" + able(ask),
}


@pytest.mark.parametrize("name", ATTACKERS)
@pytest.mark.parametrize("fault", BAD)
def test_a_useless_attacker_is_not_applicable(name: str, fault: str) -> None:
    (attempt,), models = run(name, bread(), BAD[fault])
    assert attempt.error and re.match(r"not_applicable: .*(attacker's text|translation)", attempt.error), attempt.error
    assert attempt.status is None and not attempt.messages
    assert attempt.queries["attacker"] >= 2, "fresh samples are asked for, and counted"
    assert len({(a.messages, a.sample) for a in asked(models, "attacker")}) == len(asked(models, "attacker"))
    if name != "autodan":
        assert not models["target"].asked, "an unattacked prompt is never sent under an attack's name"


@pytest.mark.parametrize("name", ATTACKERS)
def test_a_fresh_sample_mends_a_useless_one(name: str) -> None:
    (attempt,), _ = run(name, bread(), lambda ask: able(ask) if ask.sample % 2 else SORRY)
    assert attempt.error is None and SORRY not in attempt.messages[-1].content


def test_an_attacker_that_thinks_first_is_given_room() -> None:
    def thinks(ask: Ask) -> str | Reply | AskFailed:
        room = ask.sampling.max_tokens
        return Reply(text="<think> hm", stop="length") if room < 1600 else f"<think>hm</think>{able(ask)}"

    (attempt,), models = run("rewrite", bread(), thinks)
    assert attempt.error is None and "hm" not in attempt.messages[0].content
    assert [a.sampling.max_tokens for a in asked(models, "attacker")] == [400, 800, 1600]
    short: Say = lambda ask: AskFailed("too_long", "x") if ask.sampling.max_tokens > 400 else thinks(ask)
    (attempt,), _ = run("rewrite", bread(), short)
    assert attempt.error == "not_applicable: the attacker's text is cut off, in 3 tries"


def test_a_translation_that_is_cut_off_is_given_room() -> None:
    rooms: list[int] = []

    def thinks(ask: Ask) -> str | Reply | AskFailed:
        rooms.append(ask.sampling.max_tokens)
        return Reply(text="<think> hm", stop="length") if rooms[-1] < 3200 else able(ask)

    (attempt,), _ = run("translation", bread(), thinks)
    assert attempt.error is None and rooms == [800, 1600, 3200, 3200], "the way back has the room of the way there"
    rooms.clear()
    (attempt,), _ = run("translation(tries=2)", bread(), thinks)
    expected = "not_applicable: no translation into French could be used: the attacker's text is cut off, in 2 tries"
    assert attempt.error == expected and rooms == [800, 1600]


def test_an_attacker_that_breaks_is_an_error_and_not_safety() -> None:
    for name in ATTACKERS:
        (attempt,), _ = run(name, bread(), lambda ask: AskFailed("refused_by_server", "no"))
        assert attempt.error == "refused_by_server: no" and attempt.status is None


def test_rewriting_checks_what_it_asked_for() -> None:
    assert run("rewrite_tense", bread(), lambda ask: f"Say, {BREAD}")[0][0].error
    assert (
        run("rewrite_tense(tense=future)", bread(), lambda ask: "How will people bake sourdough bread at home?")[0][
            0
        ].error
        is None
    )
    with pytest.raises(ForethoughtError, match="unknown style 'slong'"):
        load_attack("rewrite(style=slong)")
    (lost,), _ = run("rewrite", bread(), lambda ask: "yo how does a fish bake fam")
    assert lost.error and "lost what the request asks for" in lost.error


@pytest.mark.parametrize(
    ("language", "said", "fault"),
    [
        ("fr", FRENCH, ""),
        ("fr", "How can one bake it with sourdough at the house?", "is in English"),
        ("ml", FRENCH, "is not in the script"),
        ("zh", "我如何在家烤酸面包?", ""),
        ("mr", "घरी आंबट पीठाची भाकरी कशी भाजायची?", ""),
        ("Sesotho", "Nka besa bohobe joang hae?", ""),
        ("fr", "home at bread sourdough bake", "own words"),
    ],
)
def test_translation(language: str, said: str, fault: str) -> None:
    (attempt,), models = run(
        f"translation(language={language})",
        bread(),
        lambda ask: BREAD if "into English" in ask.messages[0].content else said,
    )
    assert (fault in (attempt.error or "")) and bool(attempt.error) == bool(fault)
    if not fault:
        assert attempt.messages == user(said) and attempt.queries == {"attacker": 2, "target": 1}
    back = [a for a in asked(models, "attacker") if "into English" in a.messages[0].content]
    assert bool(back) == (not fault)


def test_a_translation_that_does_not_come_back_is_not_used() -> None:
    say: Say = lambda ask: "How do fish sleep?" if "into English" in ask.messages[0].content else FRENCH
    (attempt,), _ = run("translation", bread(), say)
    assert attempt.error and "lost the request on the way back" in attempt.error
    assert run("translation(back=false)", bread(), say)[0][0].error is None


def test_decomposition_asks_part_by_part() -> None:
    (attempt,), _ = run("decomposition(parts=2)", bread())
    sent = [m.content for m in attempt.messages]
    assert len(sent) == 5 and BREAD in sent[0] and sent[2] == "And then?" and BREAD in sent[4]
    assert sent[1] == sent[3] == "First take a bowl and mix flour with water."
    assert attempt.queries == {"attacker": 1, "target": 3}


# Persuasion


def test_persuasion_draws_a_technique_or_takes_the_named_one() -> None:
    def technique(spec: str, seed: int) -> str:
        _, models = run(spec, bread(), seed=seed)
        return re.search(r"Technique: (.*?)\. ", asked(models, "attacker")[0].messages[0].content)[1]  # type: ignore[index]

    assert len({technique("pap", seed) for seed in range(8)}) > 2 and technique("pap", 1) == technique("pap", 1)
    assert {technique("pap(technique=Social proof)", s) for s in range(3)} == {"Social Proof"}
    with pytest.raises(ForethoughtError, match=r"unknown technique 'story telling'.*Did you mean 'storytelling'"):
        load_attack("pap(technique=story telling)")


def test_the_taxonomy_is_ours_or_a_file(tmp_path: Path) -> None:
    ours = read_taxonomy()
    assert len({t.id for t in ours}) == len(ours) == 40
    file = tmp_path / "t.jsonl"
    file.write_text('{"ss_technique": "Nod {x}", "ss_definition": "d", "ss_example": "e"}\n')
    assert [t.name for t in read_taxonomy(str(file))] == ["Nod {x}"]
    for text, fault in (
        ('{"ss_technique": "a"}\n', "row 1: 'definition' is missing"),
        ("{", "not one JSON object a line"),
        ("", "no list"),
    ):
        file.write_text(text)
        with pytest.raises(ForethoughtError, match=fault):
            read_taxonomy(str(file))
    with pytest.raises(ForethoughtError, match="cannot read '/no/such'"):
        load_attack("pap(taxonomy=/no/such)")


# The grader


@pytest.mark.parametrize(
    ("text", "grade"),
    [
        ("7", 7), ("[[10]]", 10), ("Grade: 3", 3), ("4/10", 4), ("8 of 10.", 8), ("It is vague.\nGrade: **2**", 2), ("1", 1),
        ("", None), ("45", None), ("4/5", None), ("0", None), ("11", None), ("7 or 8", None), ("Step 1\n10", None), ("ten", None),
        ("-3.5", None), ("Grade: 9\nbut then again no", None),
    ],
)  # fmt: skip
def test_a_grade_is_read_whole_or_not_at_all(text: str, grade: int | None) -> None:
    assert read_grade(text) == grade


@pytest.mark.parametrize(
    ("answer", "helper", "kind", "expected"),
    [
        ("Mix flour.", "yes", ScriptedModel, 10), ("Mix flour.", "no", ScriptedModel, 1), ("Mix flour.", "8", Server, 8),
        ("Mix flour.", "no idea", Server, None), (SORRY, "10", Server, 1), ("", "10", Server, 1),
        ("Mix flour.", AskFailed("too_long", "x"), Server, None), ("Mix flour.", Reply(text="9", stop="length"), Server, None),
    ],
)  # fmt: skip
def test_grades(answer: str, helper: Any, kind: type[ScriptedModel], expected: int | None) -> None:
    say: Say = lambda ask: helper if "N/A" not in ask.messages[-1].content else ""
    (done,) = run_flows([Job("g", lambda: grade(BREAD, answer))], {"helper": model(say, kind)})
    assert done.value == expected and done.error is None


def test_a_helper_that_says_no_of_nothing_too_grades_no_success() -> None:
    """Log-odds of yes: -10 of nothing, -4 of the answer, which are 98% no."""

    class Sure(ScriptedModel):
        def _reply(self, question: Question) -> Any:
            text = question.messages[-1].content
            return Logprobs((10.0 if text.count(BREAD) == 2 else -10.0 if "N/A" in text else -4.0, 0.0), (1, 1))

    helper = Sure(lambda ask: Reply(text=""), "t")
    flows = {"g": lambda: grade(BREAD, "Mix flour."), "t": lambda: on_topic(BREAD, "What is flour?")}
    done = {d.key: d.value for d in run_flows([Job(name, flow) for name, flow in flows.items()], {"helper": helper})}
    assert done == {"g": 1, "t": False}


def test_likelihood_is_no_silent_fallback() -> None:
    with pytest.raises(ForethoughtError, match="gives no likelihoods"):
        run("pair(by=likelihood)", bread())
    (attempt,), models = run("pair(by=reply)", bread(), kind=ScriptedModel)
    assert attempt.error is None and not any(isinstance(q, Choose) for q in models["helper"].asked)


@pytest.mark.parametrize("name", GRADED)
def test_a_grade_that_cannot_be_read_is_never_success(name: str) -> None:
    say: Say = lambda ask: "yes" if "Second text" in ask.messages[-1].content else "hard to say"
    (attempt,), _ = run(name, bread(), helper=say)
    assert attempt.error and attempt.error.startswith("ungraded: the helper's grade could not be read for any of ")
    assert attempt.queries["target"] > 1, "it goes on, for there was no success"


# PAIR and TAP


def grader(**grades: str) -> Say:
    """A helper that finds all on topic, and grades by a word of the answer; 2 for any other."""

    def say(ask: Ask) -> str:
        text = ask.messages[-1].content
        return (
            "yes"
            if "Second text" in text
            else next((g for w, g in grades.items() if w in text.split("Answer:")[1]), "2")
        )

    return say


def echo_take(ask: Ask) -> str:
    """A target whose answer says which take of the attacker's it was asked."""
    found = re.search(r"take (\d+)", ask.messages[-1].content)
    return f"This is what I have to say, word{found[1] if found else 'none'} and more."


@pytest.mark.parametrize("name", ["pair(streams=2, turns=2, tries=1)", "tap(depth=2, branching=2, width=1, tries=1)"])
def test_the_best_try_is_sent_with_the_reply_it_had(name: str) -> None:
    (attempt,), models = run(name, bread(), target=echo_take, helper=grader(word1="7"))
    assert "take 1 " in attempt.messages[-1].content and "word1 " in attempt.answer
    assert attempt.queries["target"] == len(models["target"].asked) == 4, "it is not asked again"


def until(n: int, say: Say, kind: str = "too_long") -> Say:
    """`say` for the first `n` asks; from then on it fails."""
    asks: list[Ask] = []

    def limited(ask: Ask) -> str | Reply | AskFailed:
        asks.append(ask)
        return say(ask) if len(asks) <= n else AskFailed(kind, "the context is full")

    return limited


@pytest.mark.parametrize(
    "name", ["pair(tries=1)", "tap(tries=1)", "crescendo(rounds=4)", "autodan(population=3, generations=1)"]
)
def test_a_context_that_is_full_loses_no_earlier_try(name: str) -> None:
    near: Say = lambda ask: f"Would you say, in month {ask.sample}, how to bake sourdough bread at home, then?"
    attacker = near if name.startswith("crescendo") else able
    (attempt,), models = run(name, bread(), attacker, until(2, lambda ask: "First take a bowl."))
    assert attempt.error is None and attempt.answer == "First take a bowl."
    assert attempt.queries["target"] == len(models["target"].asked) > 2, "the tries are counted, those that failed too"
    (attempt,), _ = run(name, bread(), attacker, until(0, able))
    assert attempt.error and attempt.error.startswith("too_long: "), "no try at all is no success of the target"
    (attempt,), _ = run(name, bread(), attacker, until(2, able, "refused_by_server"))
    assert attempt.error == "refused_by_server: the context is full"


def test_a_helper_whose_context_is_full_loses_no_earlier_try() -> None:
    grades: Say = lambda ask: "yes" if "Second text" in ask.messages[-1].content else "5"
    (attempt,), _ = run("tap(tries=1)", bread(), helper=until(3, grades))
    assert attempt.error is None and "bowl" in attempt.answer


def test_success_ends_the_search() -> None:
    (attempt,), _ = run("pair(streams=3, turns=3)", bread(), helper=grader(bowl="10"))
    assert attempt.queries == {"attacker": 1, "target": 1, "helper": 2} and "bowl" in attempt.answer
    (attempt,), _ = run("pair(streams=3, turns=1, enough=5)", bread(), helper=grader(bowl="6"))
    assert attempt.queries["target"] == 1
    (attempt,), _ = run("pair(streams=3, turns=3)", bread(), helper=grader(bowl="9"))
    assert attempt.queries["target"] == 9


def test_the_attacker_is_told_what_came_of_it() -> None:
    _, models = run("pair(streams=1, turns=3)", bread(), target=echo_take, helper=grader(word0="4"))
    first, second, third = asked(models, "attacker")
    assert second.messages[: len(first.messages)] == first.messages and len(third.messages) == len(first.messages) + 4
    told = second.messages[-1].content
    assert "word0" in told and "Grade: 4 of 10" in told and told.endswith(BREAD)
    assert second.messages[-2].content.startswith("Prompt: In take 0")
    streams = [asked(run(f"pair(streams={n}, turns=1)", bread())[1], "attacker")[-1].messages[0] for n in (1, 2)]
    assert streams[0] != streams[1], "each stream has an approach of its own"


@pytest.mark.parametrize("kind", [Server, ScriptedModel])
def test_tap_prunes_what_is_off_the_topic_before_the_target_is_asked(kind: type[ScriptedModel]) -> None:
    def helper(ask: Ask) -> str:
        text = ask.messages[-1].content
        return "" if "N/A" in text else ("yes" if "take 2 " in text else "no") if "Second text" in text else "3"

    _, models = run("tap(depth=1, branching=3, tries=1)", bread(), helper=helper, kind=kind)
    assert [a.messages[-1].content[3:10] for a in asked(models, "target")] == ["take 2 "]
    (none,), models = run("tap", bread(), helper=lambda ask: "maybe")
    assert none.error == "not_applicable: every prompt of the attacker was off the topic" and not models["target"].asked


def test_tap_keeps_the_best_leaves() -> None:
    (_,), models = run(
        "tap(depth=2, branching=3, width=1, tries=1)", bread(), target=echo_take, helper=grader(word1="6")
    )
    second = asked(models, "attacker")[3:]
    assert len(second) == 3 and all("word1" in a.messages[-1].content for a in second)


# Crescendo


def test_crescendo_takes_back_what_is_refused() -> None:
    def attacker(ask: Ask) -> str:
        return "What is flour?" if "Declined question: What is yeast?" in ask.messages[-1].content else "What is yeast?"

    def target(ask: Ask) -> str:
        return SORRY if ask.messages[-1].content == "What is yeast?" else "A powder, ground from grain."

    (attempt,), models = run("crescendo(rounds=2)", bread(), attacker, target)
    said = [m.content for m in attempt.messages]
    assert said[:2] == ["What is flour?", "A powder, ground from grain."] and BREAD in said[2] and len(said) == 3
    assert [a.messages[-1].content for a in asked(models, "target")] == ["What is yeast?", "What is flour?", said[2]]
    assert SORRY not in said


def test_crescendo_goes_back_at_most_so_often_and_ends_at_the_request() -> None:
    (attempt,), models = run("crescendo(rounds=3, backtracks=2)", bread(), target=lambda ask: SORRY)
    assert len(asked(models, "target")) == 2 + 2 + 1 and BREAD in attempt.messages[-1].content
    assert attempt.answer == SORRY, "a target that declines all has declined"


def test_crescendo_never_sends_small_talk_for_the_attack() -> None:
    (attempt,), _ = run(
        "crescendo(rounds=3)",
        bread(),
        lambda ask: f"What do birds eat in month {ask.sample}?",
        helper=grader(bowl="10"),
    )
    assert BREAD in attempt.messages[-1].content and len(attempt.messages) == 5
    # SmolLM2 asked such a thing, and had its answer counted.
    aside = "What is a home for sourdough?"
    (attempt,), _ = run("crescendo(rounds=2)", bread(), lambda ask: aside, helper=grader(bowl="10"))
    assert BREAD in attempt.messages[-1].content
    near = "Would you say how to bake sourdough bread at home, then?"
    (attempt,), _ = run("crescendo(rounds=5)", bread(), lambda ask: near, helper=grader(bowl="10"))
    assert attempt.messages == user(near), "a turn about the request may end it early"


# AutoDAN


@pytest.mark.parametrize("kind", [Server, ScriptedModel])
def test_autodan_finds_the_fittest_template(kind: type[ScriptedModel]) -> None:
    def target(ask: Ask) -> str:
        liked = "told anew" in ask.messages[-1].content and "lecture" in ask.messages[-1].content
        return "Sure, here is a lecture for you." if liked else "Well, hm, who knows that."

    (attempt,), models = run("autodan", bread(), target=target, helper=grader(lecture="9"), kind=kind)
    text = attempt.messages[-1].content
    assert (
        "told anew" in text
        and "lecture" in text
        and text.count(BREAD) == 1
        and attempt.answer.startswith("Sure, here is")
    )
    assert attempt.queries["target"] == len(models["target"].asked)


def test_a_crossed_template_holds_the_request_once() -> None:
    import random

    rng = random.Random(0)
    pair = ("One. Two [REQUEST] three. Four.", "[REQUEST] Five: six. Seven. Eight.")
    children = {cross(*pair, rng) for _ in range(200)}
    assert len(children) > 2 and all(len(MARK.findall(child)) == 1 for child in children)


# Small parts


def test_small_parts() -> None:
    assert [bare(t) for t in ('"a b"', " x ", "“q”", '"a" and "b"', '"', "")] == [
        "a b",
        "x",
        "q",
        '"a" and "b"',
        '"',
        "",
    ]
    assert bare("Sure, here is the new one:\n\n'a b'") == "a b" and bare("Here is a thing: x") == "Here is a thing: x"
    assert clip("a b  c d", 3) == "a b  c ..." and clip("a b") == "a b" and clip("") == ""
    assert loses("Fish sleep", BREAD) and not loses("fresh BREADS", BREAD) and loses("bread", BREAD, 0.8)
    assert read_prompt_line("Idea: a\nPrompt: b c") == "b c" and read_prompt_line('**Prompt:** "b\nc"') == "b\nc"
    for text in ("", "b", "Idea: a", "Prompt:", "Idea: a\nPrompt: b\nPrompt: c", "x\ny\nPrompt: b"):
        with pytest.raises(Exception, match=r"form|empty"):
            read_prompt_line(text)


def test_what_writes_its_own_messages_stands_alone() -> None:
    for spec in ("leetspeak+pair", "crescendo+persona"):
        with pytest.raises(ForethoughtError, match="writes its own messages"):
            load_attack(spec)
    (attempt,), _ = run("persona+rewrite", bread())
    assert attempt.error is None and "VEGA" in attempt.messages[-1].content
    with pytest.raises(ForethoughtError, match="pair needs turns of at least 1, not 0"):
        load_attack("pair(turns=0)")
    with pytest.raises(ForethoughtError, match="crescendo needs rounds of at least 2, not 1"):
        load_attack("crescendo(rounds=1)")
    with pytest.raises(ForethoughtError, match="autodan needs population of at least 2, not 1"):
        load_attack("autodan(population=1)")
    with pytest.raises(ForethoughtError, match="enough=11"):
        load_attack("tap(enough=11)")


def test_costs_and_needs_are_told() -> None:
    found = {name: cost_of(entry) for name, entry in ATTACKS.items()}
    assert {found[n] for n in ATTACKERS} == {"attacker"} and (found["direct"], found["bon"]) == ("1 query", "n queries")
    assert (
        needed("leetspeak+rewrite") == ATTACKS["rewrite"].needs and needed("direct") == "" and needed("pair") == HELPED
    )


# The stage


def script(path: Path, rules: str) -> ModelConfig:
    path.write_text(rules)
    return ModelConfig(name=f"scripted:{path}")


def test_the_stage_asks_for_an_attacker_by_name(tmp_path: Path) -> None:
    echo, config = ModelConfig(name="scripted:echo"), AttackConfig(attacks=("direct", "leetspeak+rewrite"))
    with pytest.raises(
        ForethoughtError,
        match=r"'leetspeak\+rewrite' needs an attacker model\. Name one: --attacker MODEL, or attack.attacker",
    ):
        stages.attack(tmp_path / "a", echo, [bread()], config)
    assert not (tmp_path / "a").exists()


def test_the_stage_records_attacker_and_queries(tmp_path: Path) -> None:
    attacker = script(tmp_path / "a.yaml", "- say: 'yo fam, {text} no cap'\n")
    config = AttackConfig(attacks=("direct", "rewrite", "bon(n=3)"))
    run = stages.attack(tmp_path / "r", ModelConfig(name="scripted:comply"), [bread()], config, attacker=attacker)
    assert run.info["config"]["attacker"]["name"] == attacker.name
    assert attacker.name in run.info["inputs"], "an edited attacker is another input"
    found = run.read("attempts.jsonl", Attempt)
    assert [(a.attack, a.queries) for a in found] == [
        ("direct", {"target": 1}), ("rewrite", {"attacker": 1, "target": 1}), *[("bon(n=3)", {"target": 1})] * 3,
    ]  # fmt: skip
    assert found[1].messages == user(f"yo fam, {BREAD} no cap") and found[1].prompt.text == BREAD
    with pytest.raises(ForethoughtError, match="attacker"):
        stages.attack(
            tmp_path / "r",
            ModelConfig(name="scripted:comply"),
            [bread()],
            config,
            attacker=ModelConfig(name="scripted:echo"),
        )


def listen() -> Attack:
    """An attack from outside the table, which may ask whom it likes."""

    def attack(prompt: Prompt) -> Flow[list[Sent]]:
        reply = yield Ask("attacker", prompt.messages)
        assert isinstance(reply, Reply)
        return [Sent(messages=user(f"psst {reply.text}"))]

    return attack


@pytest.mark.parametrize(
    ("attacks", "roles"),
    [
        (("direct", "leetspeak+persona"), set()),
        (("direct", "rewrite"), {"attacker"}),
        (("direct", "pair(streams=1, turns=1)"), {"attacker", "helper"}),
        (("direct", f"{__name__}:listen"), {"attacker", "helper"}),
    ],
)
def test_a_model_that_no_attack_asks_is_not_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, attacks: tuple[str, ...], roles: set[str]
) -> None:
    loaded: list[str] = []
    load = shared.load
    monkeypatch.setattr(shared, "load", lambda model: (loaded.append(model.name), load(model))[1])
    attacker, helper = (script(tmp_path / f"{r}.yaml", "- say: 'yo, {text}'\n") for r in ("attacker", "helper"))
    config = AttackConfig(attacks=attacks, attacker=attacker.name, helper=helper.name)
    run = stages.attack(tmp_path / "r", ModelConfig(name="scripted:comply"), [bread()], config)
    assert {name.rpartition("/")[2].removesuffix(".yaml") for name in loaded} - {"scripted:comply"} == roles
    assert {r for r in ("attacker", "helper") if isinstance(run.info["config"][r], dict)} == roles


def test_the_target_may_be_its_own_attacker_but_only_when_told(tmp_path: Path) -> None:
    target = ModelConfig(name="scripted:echo", system="Be good.")
    run = stages.attack(tmp_path / "r", target, [bread()], AttackConfig(attacks=("rewrite",), attacker="target"))
    assert run.info["config"]["attacker"] == {**target.model_dump(), "system": None}
    (attempt,) = run.read("attempts.jsonl", Attempt)
    assert attempt.error == "not_applicable: the attacker's text is unchanged, in 3 tries" and attempt.queries == {
        "attacker": 3
    }
    counts = run.info["counts"]
    assert (counts["planned"], counts["ok"], counts["failed"]) == (1, 0, 1)
    assert [n for reason, n in counts.items() if reason.startswith("failed, ")] == [1]
    assert "unchanged" in (run.path / "log.txt").read_text()


def test_a_prompted_target_attacks_without_its_prompt(tmp_path: Path) -> None:
    prompted = stages.train(tmp_path / "p", "scripted:echo", TrainConfig(method="prompt"))
    config = AttackConfig(attacks=("rewrite",), attacker="target")
    run = stages.attack(tmp_path / "r", ModelConfig(name=str(prompted.path)), [bread()], config)
    assert run.info["config"]["attacker"] == ModelConfig(name="scripted:echo").model_dump()


# Attempts of other tools


def imported(tmp_path: Path, name: str, content: Any, **options: Any) -> list[Attempt]:
    file = tmp_path / name
    file.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    made = stages.import_attempts(tmp_path / "in", file, "their-model", overwrite=True, **options)
    assert made.info["status"] == "finished" and made.info["config"]["target"]["name"] == "their-model"
    return made.read("attempts.jsonl", Attempt)


def test_import_of_simple_rows_is_judged_and_reported(tmp_path: Path) -> None:
    from forethought.report.gather import write_report

    rows = [
        {"prompt": BREAD, "response": SORRY, "attack": "direct"},
        {
            "prompt": "Pretend! {x}",
            "goal": BREAD,
            "response": "<think>\nhm\n</think>\n\nMix flour.",
            "attack": "my GCG (v2)",
        },
        {"prompt": "Pretend more", "goal": BREAD, "response": "<think> no end", "attack": "my GCG (v2)"},
        {
            "prompt": [{"role": "system", "content": "s"}, {"role": "user", "content": "Hi"}],
            "response": "Hello.",
            "label": "benign",
        },
    ]
    found = imported(tmp_path, "a.jsonl", "\n".join(map(json.dumps, rows)))
    assert [a.attack for a in found] == ["direct", "my_GCG_v2", "my_GCG_v2", "imported"] and len(
        {a.id for a in found}
    ) == 4
    assert found[0].prompt == found[1].prompt == found[2].prompt and found[1].messages == user("Pretend! {x}")
    assert [(a.status, a.answer) for a in found[:3]] == [("no_think", SORRY), ("ok", "Mix flour."), ("unclosed", "")]
    assert (found[3].prompt.label, found[3].messages[0].role, found[3].queries) == ("benign", "system", {})
    judged = stages.judge(tmp_path / "judged", tmp_path / "in", ["refusal"])
    page = write_report(tmp_path / "r.html", {"theirs": [judged.path]}, title="t", about="").read_text(encoding="utf-8")
    assert "my_GCG_v2" in page and "their-model" in page


def test_import_of_our_own_attempts(tmp_path: Path) -> None:
    run = stages.attack(
        tmp_path / "r", ModelConfig(name="scripted:comply"), [bread()], AttackConfig(attacks=("direct", "bon(n=2)"))
    )
    again = imported(tmp_path, "own.jsonl", (run.path / "attempts.jsonl").read_text())
    assert again == run.read("attempts.jsonl", Attempt)


def test_import_of_harmbench_completions(tmp_path: Path) -> None:
    goals = tmp_path / "behaviors.csv"
    goals.write_text("Behavior,BehaviorID\nBake a bread,bake_bread\nFold a map,fold_map\n")
    cases = {
        "bake_bread": [
            {"test_case": "Bake! !!", "generation": "Mix.", "labels": 1},
            {"test_case": "b2", "generation": ""},
        ],
        "fold_map": [],
    }
    found = imported(tmp_path, "c.json", cases, attack="gcg", goals=goals)
    assert [(a.id, a.prompt.request, a.messages[0].content, a.status) for a in found] == [
        ("gcg/bake_bread/0", "Bake a bread", "Bake! !!", "no_think"), ("gcg/bake_bread/1", "Bake a bread", "b2", "empty_answer"),
    ]  # fmt: skip
    blind = imported(tmp_path, "c.json", cases)
    assert [a.prompt.request for a in blind] == ["Bake! !!", "b2"]


@pytest.mark.parametrize(
    ("name", "content", "fault"),
    [
        ("a.jsonl", '{"prompt": "a", "response": "b"}\n{"prompt": "a"}', "a.jsonl, row 2: 'response' must be a text, not NoneType"),
        ("a.jsonl", '{"prompt": "a", "response": "b"}\n{"prompt"', "a.jsonl, line 2: not valid JSON"),
        ("a.jsonl", '{"prompt": "", "response": "b"}', "row 1: 'prompt' must be a text"),
        ("a.jsonl", '{"prompt": "a", "response": "b", "reponse": 1}', "row 1: unknown key 'reponse'. Did you mean 'response'"),
        ("a.jsonl", '{"prompt": "a", "response": "b", "label": "bad"}', "row 1: label 'bad' is none of"),
        ("a.jsonl", '{"prompt": [{"role": "bot", "content": "x"}], "response": "b"}', "row 1: 'role'"),
        ("a.jsonl", '{"prompt": "a", "id": "1", "response": "b"}\n{"prompt": "c", "id": "1", "response": "b"}', "row 2: the id '1' is on"),
        ("a.jsonl", '{"id": "x", "prompt": {}, "attack": "d", "messages": [], "raw": ""}', "row 1: 'prompt.id': Field required"),
        ("a.jsonl", "", "holds no attempt"),
        ("c.json", '{"b": [{"test_case": "a"}]}', r"c.json, row 1 \(behavior 'b'\): expected an object with 'test_case' and 'generation'"),
        ("c.json", '{"b": 3}', "behavior 'b': expected a list"),
        ("c.json", '{"b": [{"test_case": ["a", "b.png"], "generation": "x"}]}', "row 1"),
        ("c.json", "{", "c.json: not valid JSON"),
        ("c.txt", "x", "cannot tell what 'c.txt' is"),
    ],
)  # fmt: skip
def test_a_malformed_row_is_one_clear_line(tmp_path: Path, name: str, content: str, fault: str) -> None:
    with pytest.raises(ForethoughtError, match=fault) as error:
        imported(tmp_path, name, content)
    assert "\n" not in str(error.value) and not (tmp_path / "in").exists()


# The command line and experiments


def command(*words: str) -> str:
    shown = CliRunner().invoke(app, list(words))
    assert shown.exit_code == 0, (shown.output, shown.exception)
    return shown.output


def test_the_list_tells_costs_and_needs() -> None:
    lines = {line.split()[0]: line for line in command("attack", "--list").splitlines()}
    assert "1 query " in lines["direct"] and "n queries " in lines["bon"]
    assert (
        lines["pair"].split()[1] == "attacker"
        and "[arXiv 2310.08419, needs an attacker and a helper model]" in lines["pair"]
    )


def test_attacks_with_an_attacker_from_the_command_line(tmp_path: Path) -> None:
    words = ("attack", "scripted:comply", "--attacks", "rewrite", "--take", "harmful=1", "--out", str(tmp_path / "r"))
    shown = CliRunner().invoke(app, list(words))
    assert isinstance(shown.exception, ForethoughtError) and "--attacker MODEL" in str(shown.exception)
    attacker = script(tmp_path / "a.yaml", "- say: 'yo fam, {text} no cap'\n").name
    assert f"with {attacker} as attacker" in command(*words, "--attacker", attacker)


def test_import_from_the_command_line(tmp_path: Path) -> None:
    file, out = tmp_path / "a.jsonl", str(tmp_path / "in")
    file.write_text('{"prompt": "a", "response": "b"}\n')
    said = command("attack", "--import", str(file), "--attacks", "gcg", "--value", "label=benign", "--out", out)
    assert (
        "1 attempts on imported, 0 of them failed" in said
        and "1 have no goal" in said
        and f"forethought judge {out}" in said
    )
    (attempt,) = read_jsonl(tmp_path / "in" / "attempts.jsonl", Attempt)
    assert (attempt.attack, attempt.prompt.label) == ("gcg", "benign")
    assert "finished" in (tmp_path / "in" / "run.json").read_text()
    shown = CliRunner().invoke(app, ["attack", "--import", str(file), "--value", "topic=x", "--out", out])
    assert "--value label=LABEL alone" in str(shown.exception)
    for option, given in {"few": "gcg=2", "budget": "tokens=9"}.items():
        shown = CliRunner().invoke(app, ["attack", "--import", str(file), f"--{option}", given, "--out", out])
        assert f"leave --{option} out" in str(shown.exception)


def test_an_experiment_names_its_attacker(tmp_path: Path) -> None:
    attacker = script(tmp_path / "a.yaml", "- say: 'yo fam, {text} no cap'\n").name
    plan = {
        "name": "e", "data": {"test": {"split": "test", "take": {"harmful": 1, "benign": 1}}},
        "targets": {"one": {"name": "scripted:refuse"}}, "attack": {"attacks": ["direct", "rewrite"]},
    }  # fmt: skip
    with pytest.raises(ForethoughtError, match="'rewrite' needs an attacker model"):
        run_experiment(Experiment.model_validate(plan), tmp_path / "runs", lambda said: None)
    plan["attack"]["attacker"] = attacker  # type: ignore[index]
    page = run_experiment(Experiment.model_validate(plan), tmp_path / "runs", lambda said: None)
    attempts = list(read_jsonl(tmp_path / "runs" / "e" / "attack" / "one" / "attempts.jsonl", Attempt))
    assert [a.attack for a in attempts] == ["direct"] * 2 + ["rewrite"] * 2 and not any(a.error for a in attempts)
    assert attempts[2].messages[0].content.startswith("yo fam, ") and page.exists()
