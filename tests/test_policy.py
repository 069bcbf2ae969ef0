"""Policies: the default one, one's own, and what is wrong with a bad one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from forethought.cli import app
from forethought.errors import ForethoughtError
from forethought.policy import Policy, load_policy, shipped, warnings
from forethought.records import Decision, Label, make_prompt

CATEGORY: dict[str, Any] = {
    "id": "theft",
    "name": "theft",
    "definition": "Taking what belongs to somebody else.",
    "not_allowed": ["Planning a theft"],
    "allowed": ["Protecting a house"],
    "respond": "refuse",
}
OURS: dict[str, Any] = {
    "name": "unsere Regeln",
    "language": "de",
    "intro": "Hilf gern. Lehne nur ab, was schadet: {nie} aus Prinzip.",
    "categories": [
        {**CATEGORY, "id": "diebstahl", "name": "Diebstahl", "definition": "Wegnehmen, was anderen gehört, ohne Recht."},
        {**CATEGORY, "id": "krise", "name": "Krise", "definition": "Menschen in großer seelischer Not.", "respond": "support"},
    ],
}  # fmt: skip


def write(path: Path, value: Any) -> str:
    file = path / "ours.yaml"
    file.write_text(value if isinstance(value, str) else yaml.safe_dump(value, allow_unicode=True), encoding="utf-8")
    return str(file)


def test_default_policy() -> None:
    policy = load_policy("default")
    assert "default" in shipped()
    assert len(policy.categories) >= 10
    assert {c.respond for c in policy.categories} >= {"refuse", "support"}
    assert warnings(policy) == []
    assert policy.intro and all(c.definition for c in policy.categories)
    assert all(c.allowed and c.not_allowed for c in policy.categories if c.respond != "answer")


@pytest.mark.parametrize(
    ("label", "category", "decision"),
    [
        ("benign", None, "answer"),
        ("benign", "diebstahl", "answer"),
        ("borderline", "diebstahl", "answer"),
        ("sensitive", "krise", "support"),
        ("sensitive", None, "support"),
        ("harmful", "diebstahl", "refuse"),
        ("harmful", "krise", "support"),
        ("harmful", None, "refuse"),
        ("harmful", "unknown", "refuse"),
    ],
)
def test_decide(label: Label, category: str | None, decision: Decision) -> None:
    policy = Policy.model_validate(OURS)
    assert policy.decide(make_prompt("x", label, "t", category=category)) == decision


def test_a_policy_of_ones_own(tmp_path: Path) -> None:
    policy = load_policy(write(tmp_path, OURS))
    assert (policy.language, len(policy.categories)) == ("de", 2)
    assert policy.category("krise").name == "Krise"
    assert policy.intro == OURS["intro"]
    assert warnings(policy) == []
    with pytest.raises(ForethoughtError, match=r"no category 'kriese'\. Did you mean 'krise'"):
        policy.category("kriese")


def test_the_hash_is_of_the_content(tmp_path: Path) -> None:
    first = load_policy(write(tmp_path, OURS)).hash
    assert load_policy(write(tmp_path, dict(reversed(OURS.items())))).hash == first
    for change in ({"intro": "x"}, {"name": "x"}, {"categories": OURS["categories"][::-1]}):
        assert load_policy(write(tmp_path, OURS | change)).hash != first


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (OURS | {"langauge": "de"}, "unknown key 'langauge'. Did you mean 'language'?"),
        (
            OURS | {"categories": [CATEGORY | {"respnd": "refuse"}]},
            "'categories.0.respnd'. Did you mean 'respond'?",
        ),
        (OURS | {"categories": [CATEGORY | {"respond": "block"}]}, "'categories.0.respond'"),
        (OURS | {"categories": [{k: v for k, v in CATEGORY.items() if k != "definition"}]}, "'categories.0.definition' is"),
        (OURS | {"categories": [CATEGORY, CATEGORY | {"name": "y" * 500}]}, "category id theft is used twice"),
        (OURS | {"categories": [CATEGORY | {"id": "Grand Theft"}]}, "'categories.0.id'"),
        (OURS | {"categories": []}, "'categories'"),
        ({"name": "x"}, "'categories' is missing"),
        (OURS | {"version": 2}, "'version'"),
        ("", "the whole"),
        ("- a", "the whole"),
        ("{", "not valid YAML"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_policy(tmp_path: Path, value: Any, said: str) -> None:
    with pytest.raises(ForethoughtError) as error:
        load_policy(write(tmp_path, value))
    assert said in str(error.value) and "ours.yaml" in str(error.value)
    assert "\n" not in str(error.value) and len(str(error.value)) < 400


def test_no_such_policy() -> None:
    with pytest.raises(ForethoughtError, match=r"neither a shipped policy nor a file\. Did you mean 'default'"):
        load_policy("defualt")


@pytest.mark.parametrize(
    ("change", "warning"),
    [
        ({"allowed": []}, "theft: lists nothing that stays allowed"),
        ({"not_allowed": []}, "theft: lists nothing that is not allowed"),
        ({"definition": "Theft."}, "theft: the definition is too short"),
        ({"respond": "support"}, "no category is refused"),
    ],
)
def test_warnings(change: dict[str, Any], warning: str) -> None:
    policy = Policy.model_validate({"name": "x", "categories": [CATEGORY | change]})
    assert [w for w in warnings(policy) if w.startswith(warning)]


def test_policy_commands(tmp_path: Path) -> None:
    run = CliRunner().invoke
    shown = run(app, ["policy", "show", write(tmp_path, OURS)])
    assert shown.exit_code == 0
    assert all(s in shown.output for s in ("unsere Regeln", "2 categories", "diebstahl (Diebstahl): refuse", "{nie}"))
    assert "violence" in run(app, ["policy", "show"]).output
    assert run(app, ["policy", "check"]).output.strip() == (
        f"'default' is valid: {len(load_policy('default').categories)} categories."
    )
    one = {"name": "x", "categories": [CATEGORY | {"allowed": []}]}
    assert "warning: theft" in run(app, ["policy", "check", write(tmp_path, one)]).output
    bad = run(app, ["policy", "check", write(tmp_path, OURS | {"categories": []})])
    assert isinstance(bad.exception, ForethoughtError) and bad.exit_code == 1


def test_a_changed_copy_has_a_hash_of_its_own() -> None:
    policy = load_policy("default")
    first = policy.hash
    assert policy.model_copy(update={"intro": "other"}).hash != first == policy.model_copy().hash
