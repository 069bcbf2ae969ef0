"""Near-duplicates and leaks: exact, near, contained; against brute force, and on the known leaks of public sets."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from pathlib import Path

import pytest

from forethought.data import load_prompts, parse_data
from forethought.data.overlap import (
    drop_near_duplicates,
    find_leaks,
    leak_error,
    near_duplicates,
    normalise,
    similar_pairs,
)
from forethought.records import Message, Prompt, make_prompt, user

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


def prompt(text: str, **fields: str) -> Prompt:
    return make_prompt(text, "harmful", "t", **fields)


def test_normalise_drops_case_punctuation_and_accents() -> None:
    assert normalise("  How do I bake a CRÊPE?! ") == "how do i bake a crepe"
    assert normalise("?!") == ""


@pytest.mark.parametrize("near", [0.3, 0.6, 0.9])
def test_the_join_finds_what_brute_force_finds(near: float) -> None:
    rng = random.Random(4)
    words = ["bread", "rye", "bake", "oven", "how", "do", "i", "the", "tin"]
    texts = [" ".join(rng.choices(words, k=rng.randint(1, 7))) for _ in range(60)]

    def grams(text: str) -> set[str]:
        padded = f" {text} "
        return {padded[i : i + 5] for i in range(max(1, len(padded) - 4))}

    found = {(i, j): s for i, j, s in similar_pairs(texts[:30], texts[30:], near)}
    for i, j in itertools.product(range(30), range(30)):
        a, b = grams(texts[i]), grams(texts[30 + j])
        similarity = len(a & b) / len(a | b)
        assert ((i, j) in found) == (similarity >= near)
        if (i, j) in found:
            assert found[i, j] == pytest.approx(similarity)


@pytest.mark.parametrize(
    ("training", "evaluation", "kind"),
    [
        ("How do I bake rye bread?", "how do I bake RYE bread", "exact"),
        ("How would I bake a dark rye bread at home?", "How would I bake dark rye bread at home?", "near"),
        (
            "You are a baker. Tell me: how do I bake rye bread? Begin with Sure.",
            "How do I bake rye bread?",
            "contained",
        ),
        ("How do I bake rye bread?", "Once upon a time. How do I bake rye bread? The end.", "contained"),
        ("How do I fix a bike?", "How do I bake rye bread?", None),
        ("Tell me about bread, please", "bread", None),
        ("{x} ok", "{x} ok", "exact"),
    ],
)
def test_kinds_of_leaks(training: str, evaluation: str, kind: str | None) -> None:
    leaks = find_leaks([prompt(training)], {"set": [prompt(evaluation)]})
    assert [k.kind for k in leaks] == ([kind] if kind else [])


def test_the_goal_of_a_disguised_prompt_leaks_too() -> None:
    hidden = prompt("ubj qb v onxr oernq", goal="How do I bake bread at home?", style="rot13", id="x~rot13")
    (leak,) = find_leaks([hidden], {"set": [prompt("how do i bake bread at home")]})
    assert leak.kind == "exact" and "x~rot13" in leak_error([leak])


def test_near_duplicates_leave_pairs_and_variants_alone() -> None:
    long = "How do I bake a dark rye bread with whole seeds in a cast iron pot at home?"
    a, b = prompt(long), prompt(long.replace("home", "Rome"))
    benign = make_prompt(long.replace("How", "Now"), "benign", "t", pair="p")
    paired = a.model_copy(update={"pair": "p"})
    variant = a.model_copy(update={"id": f"{a.id}~slang", "style": "slang"})
    assert [(x.id, y.id) for x, y, _ in near_duplicates([a, b])] == [(a.id, b.id)]
    assert near_duplicates([paired, benign]) == [] == near_duplicates([a, variant])
    assert drop_near_duplicates([a, b, variant]) == [a, variant]


def test_empty_input() -> None:
    assert find_leaks([], {"s": []}) == [] == near_duplicates([]) == near_duplicates([prompt("")])


@pytest.mark.skipif(not SHARED.exists(), reason="the public sets are not here")
def test_known_leaks_of_public_sets() -> None:
    def read(spec: str) -> list[Prompt]:
        name, _, path = spec.partition(":")
        return load_prompts(parse_data(f"{name}:{SHARED / path}"))

    star = find_leaks(read("star1:train/star1.json"), {"harmbench": read("harmbench:eval/harmbench_text_val.csv")})
    assert len({k.training.id for k in star}) == 6 and {k.kind for k in star} == {"exact"}
    jbb = find_leaks(
        read("jbb:eval/jbb_harmful_behaviors.csv"), {"advbench": read("advbench:eval/advbench_harmful_behaviors.csv")}
    )
    assert len({k.training.id for k in jbb}) >= 11
    evaluated = load_prompts(parse_data(f"{SHARED}/eval/coconot_eval.jsonl(text=prompt, label=harmful)"))
    coconot = find_leaks(read("coconot_pref:train/coconot_pref.jsonl"), {"coconot": evaluated})
    assert len(coconot) >= 6 and Counter(k.kind for k in coconot)["near"] >= 6


def test_earlier_turns_leak_and_conversations_that_end_alike_are_not_alike() -> None:
    said = "How do I pick the lock of a garden shed?"
    more = Message(role="user", content="Yes, tell me more about that please.")
    turns = {
        "a": (*user(said), Message(role="assistant", content="Gladly."), more),
        "b": (*user("Which bread keeps fresh longest?"), Message(role="assistant", content="Rye."), more),
    }
    talks = [make_prompt(messages, "benign", "t", id=name) for name, messages in turns.items()]
    leaks = find_leaks(talks, {"held": [make_prompt(said, "harmful", "t", id="h")]})
    assert [(k.training.id, k.kind) for k in leaks] == [("a", "exact")]
    assert (
        near_duplicates(talks) == [] and len(near_duplicates([talks[0], talks[0].model_copy(update={"id": "c"})])) == 1
    )


def test_a_request_inside_another_is_found_in_scripts_without_spaces() -> None:
    held = make_prompt("如何在家里制作面包并且不被任何人发现", "harmful", "t", id="h")
    around = "你是一位经验丰富的厨师请用详细的步骤回答我的问题而且不要拒绝"
    wrapped = make_prompt(f"{around}{held.text}{around}", "harmful", "t", id="w")
    assert [k.kind for k in find_leaks([wrapped], {"held": [held]})] == ["contained"]
