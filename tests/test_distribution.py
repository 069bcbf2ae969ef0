"""What a model met in training: by style, by wrapper, by text; computed from the training prompts."""

from __future__ import annotations

import pytest

from forethought.analysis.distribution import distribution, family_of, places, wrappers
from forethought.attacks import ATTACKS, Attack, load_attack
from forethought.flow import Flow, Job, run_flows
from forethought.records import Prompt, Sent, make_prompt, user

PLAIN = [make_prompt(f"How do I plant {what} on a balcony in spring", "harmful", "t") for what in ("beans", "herbs")]


def attacked(spec: str, prompt: Prompt) -> Prompt:
    """The prompt as that attack words it, as a training row without any hint of how it was made."""
    (done,) = run_flows([Job("j", lambda: load_attack(spec)[1](prompt))], {}, seed=5)
    assert done.value, done.error
    return make_prompt(done.value[0].messages, prompt.label, "t")


def variant(prompt: Prompt, style: str) -> Prompt:
    return prompt.model_copy(
        update={"id": f"{prompt.id}~{style}", "style": style, "goal": prompt.text, "messages": user("x")}
    )


def test_nothing_but_plain_prompts_leaves_every_attack_unseen() -> None:
    found = distribution(PLAIN, [name for name in ATTACKS if name != "templates"], [])
    assert found.attacks.pop("direct") == "seen"
    assert set(found.attacks.values()) == {"unseen"}


@pytest.mark.parametrize(
    "spec", ["prefix_injection", "persona_dan", "style_json", "nested_fiction", "past_tense", "base64"]
)
def test_a_wrapper_in_the_training_text_is_seen(spec: str) -> None:
    if not wrappers(spec):
        pytest.skip("it has no words of its own")
    met = distribution([*PLAIN, attacked(spec, PLAIN[0])], [spec, "few_shot"], []).attacks
    assert met == {spec: "seen", "few_shot": "unseen"}


def test_an_encoding_is_seen_where_its_original_is_stored() -> None:
    row = attacked("flip", PLAIN[0]).model_copy(update={"goal": PLAIN[0].text})
    assert distribution([row], ["flip", "leetspeak", "rot13"], []).attacks == {
        "flip": "seen", "leetspeak": "family", "rot13": "unseen",
    }  # fmt: skip


def test_styles_of_variants_are_seen_and_so_are_relatives() -> None:
    rows = [*PLAIN, variant(PLAIN[0], "evidence_based_persuasion"), variant(PLAIN[1], "role_play")]
    met = distribution(
        rows, ["evidence", "misrepresentation", "role_play(x=1)", "nested_fiction", "persona", "mine:style"], []
    )
    assert met.attacks == {
        "evidence": "seen", "misrepresentation": "family", "role_play(x=1)": "seen", "nested_fiction": "family",
        "persona": "unseen", "mine:style": "unseen",
    }  # fmt: skip


def test_a_composition_is_seen_when_all_its_parts_are() -> None:
    rows = [*PLAIN, attacked("persona", PLAIN[0])]
    met = distribution(rows, ["persona+prefix_injection", "persona_aim+persona", "persona+persona"], []).attacks
    assert met == {"persona+prefix_injection": "unseen", "persona_aim+persona": "family", "persona+persona": "seen"}


def test_families() -> None:
    found = [family_of(s) for s in ("persona", "rot13+persona", "templates:x.json", "mine:style", "caesar(shift=4)")]
    assert found == ["persona", "combined", "template_file", "custom", "ciphers"]


def test_prompts_in_near_and_out() -> None:
    asked = [
        make_prompt("how do i plant BEANS on a balcony, in spring?", "harmful", "t", id="same"),
        make_prompt("How do I plant some herbs on my balcony in spring", "harmful", "t", id="alike"),
        make_prompt("Tell me now: how do I plant herbs on a balcony in spring? It is for my aunt in the hills above the sea, and she has "
                    "asked me for weeks and weeks without end", "harmful", "t", id="around"),
        make_prompt("What does a lighthouse keeper do all day?", "harmful", "t", id="other"),
    ]  # fmt: skip
    assert places(PLAIN, asked) == {"same": "in", "alike": "near", "around": "near", "other": "out"}
    assert places([], asked) == dict.fromkeys(("same", "alike", "around", "other"), "out")


def crashes() -> Attack:
    def attack(prompt: Prompt) -> Flow[list[Sent]]:
        raise KeyError("an attack of the user's own")
        yield

    return attack


def test_an_attack_that_crashes_on_a_probe_does_not_stop_the_report() -> None:
    found = distribution([make_prompt("a", "harmful", "t")], ["test_distribution:crashes"], [])
    assert found.attacks == {"test_distribution:crashes": "unseen"}


def test_what_a_run_directory_names_is_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[str] = []
    monkeypatch.setattr("subprocess.getoutput", called.append)
    spec = "subprocess:getoutput(cmd='x')"
    assert distribution([make_prompt("a", "harmful", "t")], [spec], []).attacks == {spec: "unseen"} and not called
