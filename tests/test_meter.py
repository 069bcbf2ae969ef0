"""Budgets for paid servers: estimated from a pilot, kept over restarts, never exceeded; and servers that do not hold up local models."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from forethought import stages
from forethought.config import AttackConfig, Budget, ModelConfig
from forethought.errors import AskFailed, ForethoughtError
from forethought.flow import Ask, Done, Flow, Job, Logprobs, Question, run_flows
from forethought.models.meter import Meter, Metered
from forethought.models.scripted import ScriptedModel
from forethought.policy import load_policy
from forethought.records import Example, Reply, digest, make_prompt, user


def says(tokens: int) -> ScriptedModel:
    return ScriptedModel(lambda ask: Reply(text="ok", prompt_tokens=tokens - 1, completion_tokens=1), "t")


def ask(text: str) -> Flow[str]:
    reply = yield Ask("target", user(text))
    assert isinstance(reply, Reply)
    return reply.text


def jobs(n: int) -> list[Job[str]]:
    return [Job(str(i), lambda i=i: ask(f"prompt {i}")) for i in range(n)]  # type: ignore[misc]


def test_a_cap_stops_before_it_is_passed_and_is_kept_over_restarts(tmp_path: Path) -> None:
    path = tmp_path / "usage.json"
    done: list[Done[str]] = []
    running = run_flows(jobs(100), {"target": Metered(says(100), Meter(Budget(tokens=1000), path))}, active=3)
    with pytest.raises(ForethoughtError, match=r"the budget would be exceeded: .* of 1,000 tokens"):
        done.extend(running)
    assert 6 <= len(done) <= 9 and json.loads(path.read_text())["prompt_tokens"] <= 1000
    running = run_flows(jobs(5), {"target": Metered(says(100), Meter(Budget(tokens=1000), path))}, active=3)
    with pytest.raises(ForethoughtError, match="the budget would be exceeded"):
        list(running)
    more = Meter(Budget(tokens=5000), path)
    assert len(list(run_flows(jobs(5), {"target": Metered(says(100), more)}))) == 5


def test_money_counts_prices_for_reading_and_writing(tmp_path: Path) -> None:
    meter = Meter(Budget(money=1, price_in=1000, price_out=2000), tmp_path / "u.json")
    meter.add(Reply(text="x", prompt_tokens=100, completion_tokens=50))
    assert meter.money == pytest.approx(0.2)
    assert meter.estimate(1, 4) == "about 600 tokens, 0.80 of money"
    with pytest.raises(
        ForethoughtError, match=r"6 prompts would take about 900 tokens, 1\.20 of money.*the budget is 1 of money"
    ):
        meter.estimate(1, 6)


def test_a_server_that_does_not_count_cannot_be_capped(tmp_path: Path) -> None:
    silent = ScriptedModel(lambda ask: Reply(text="ok"), "t")
    with pytest.raises(ForethoughtError, match="does not say how many tokens"):
        list(run_flows(jobs(1), {"target": Metered(silent, Meter(Budget(tokens=9), tmp_path / "u.json"))}))


def test_synthesis_estimates_from_a_pilot_and_goes_on_where_it_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [
        "rye",
        "oat",
        "spelt",
        "corn",
        "wheat",
        "barley",
        "millet",
        "rice",
        "potato",
        "pumpkin",
        "walnut",
        "sesame",
        "onion",
        "olive",
    ]
    words += ["cheese"]
    places = ("in my kitchen", "over a campfire outside")
    prompts = [make_prompt(f"How do I bake {w} bread {p}?", "benign", "t") for w in words for p in places]

    def counting(model: ModelConfig) -> ScriptedModel:
        text = "Bread is baked in an oven, at 220 degrees, for about an hour."
        return ScriptedModel(lambda ask: Reply(text=text, prompt_tokens=90, completion_tokens=10), "t")

    monkeypatch.setattr("forethought.stages.shared.load", counting)
    target = ModelConfig(name="openai:m@http://localhost:1/v1")

    def run(tokens: int) -> list[Example]:
        made = stages.synth(
            tmp_path / "r", "refusal", prompts, load_policy("default"), target, budget=Budget(tokens=tokens)
        )
        return made.read("examples.jsonl", Example)

    with pytest.raises(ForethoughtError, match="30 prompts would take about 3,000 tokens, judging by the first 20"):
        run(2500)
    assert len(run(3001)) == 30
    assert json.loads((tmp_path / "r" / "usage.json").read_text())["asks"] == 30, "nothing was asked twice"


def test_two_roles_that_share_a_server_share_a_budget(tmp_path: Path) -> None:
    """The replies of one may come in when the other is looked at; each asks of its own would run into the cap at half of it."""
    shared, meter = says(10), Meter(Budget(tokens=2100), tmp_path / "u.json")

    def both(text: str) -> Flow[str]:
        for role in ("teacher", "helper"):
            reply = yield Ask(role, user(f"{role} {text}"))  # type: ignore[arg-type]
        assert isinstance(reply, Reply)
        return reply.text

    asked = [Job(str(i), lambda i=i: both(str(i))) for i in range(100)]  # type: ignore[misc]
    models = {"teacher": Metered(shared, meter), "helper": Metered(shared, meter)}
    done = list(run_flows(asked, models, active=4))
    assert len(done) == 100 and all(d.error is None for d in done) and (meter.asks, meter.open) == (200, 0)


def test_blind_decisions_are_within_the_budget_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "Bread is baked in an oven, at 220 degrees, for about an hour."
    said = ScriptedModel(lambda ask: Reply(text=text, prompt_tokens=90, completion_tokens=10), "t")
    reply = said._reply
    no_likelihoods = AskFailed("unsupported", "a server")
    said._reply = lambda q: reply(q) if isinstance(q, Ask) else no_likelihoods  # type: ignore[method-assign]
    monkeypatch.setattr("forethought.stages.shared.load", lambda model: said)
    server = ModelConfig(name="openai:m@http://localhost:1/v1")
    prompts = [make_prompt(f"How do I bake {w} bread?", "benign", "t") for w in ("rye", "oat", "spelt")]

    def run(tokens: int) -> int:
        made = stages.synth(
            tmp_path / "r", "refusal", prompts, load_policy("default"), server, server, blind=3, budget=Budget(tokens=tokens)
        )  # fmt: skip
        return int(json.loads((made.path / "usage.json").read_text())["asks"])

    with pytest.raises(ForethoughtError, match=r"the budget would be exceeded: [34]00 of 450 tokens"):
        run(450)
    assert run(5000) == 6, "what the blind asks took is counted"


class Slow:
    """A model that has its reply only after many steps that did not wait."""

    identity, pinned = "slow", True

    def __init__(self, steps: int) -> None:
        self.left, self.open = steps, list[int]()

    def fingerprint(self, question: Question) -> str:
        return repr(question)

    def submit(self, ticket: int, question: Question, seed: int) -> None:
        self.open.append(ticket)

    def step(self, block: bool = True) -> list[tuple[int, Reply | Logprobs | AskFailed]]:
        self.left -= 1
        if not block and self.left > 0:
            return []
        done, self.open = self.open, []
        return [(t, Reply(text="slow")) for t in done]

    def close(self) -> None: ...


def test_a_slow_server_does_not_hold_up_a_local_model() -> None:
    def mixed(i: int) -> Flow[str]:
        reply = yield Ask("teacher" if i == 0 else "target", user(str(i)))
        assert isinstance(reply, Reply)
        return reply.text

    starts = [Job(str(i), lambda i=i: mixed(i)) for i in range(20)]  # type: ignore[misc]
    order = [d.key for d in run_flows(starts, {"teacher": Slow(50), "target": says(1)}, active=2)]
    assert order[-1] == "0" and len(order) == 20


def test_what_is_in_flight_is_asked_once() -> None:
    model = Slow(0)
    asked: list[int] = []
    submit = model.submit
    model.submit = lambda ticket, question, seed: (asked.append(ticket), submit(ticket, question, seed))[1]  # type: ignore[method-assign]
    same = [Job(str(i), lambda: ask("the same")) for i in range(7)]
    assert [d.value for d in run_flows(same, {"target": model})] == ["slow"] * 7
    assert len(asked) == 1


def test_what_was_left_to_a_metered_server_is_known(tmp_path: Path) -> None:
    silent = says(10)
    assert Metered(silent, Meter(Budget(tokens=9), tmp_path / "u.json")).about is None
    silent.about = {"revision": None, "left to the server": ["temperature"]}  # type: ignore[attr-defined]
    assert Metered(silent, Meter(Budget(tokens=9), tmp_path / "u.json")).about == silent.about  # type: ignore[attr-defined]


def test_attacks_and_judges_are_within_a_budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Thirty asks of 100 tokens each; a run that met its cap goes on where it stopped, and its budget is no part of what it is."""

    def counting(model: ModelConfig) -> ScriptedModel:
        # No two answers alike, or the judge is asked once about both.
        return ScriptedModel(
            lambda ask: Reply(text=f"safe {digest(repr(ask))}", prompt_tokens=90, completion_tokens=10), "t"
        )

    monkeypatch.setattr("forethought.stages.shared.load", counting)
    server = ModelConfig(name="openai:m@http://localhost:1/v1")
    prompts = [make_prompt(f"How do I bake a loaf of {n} pounds?", "benign", "t") for n in range(15)]

    def attack(**cap: int) -> Path:
        config = AttackConfig(attacks=("direct", "persona"), budget=Budget(**cap) if cap else None)
        return stages.attack(tmp_path / "a", server, prompts, config).path

    def judge(**cap: int) -> Path:
        budget = Budget(**cap) if cap else None
        return stages.judge(tmp_path / "j", tmp_path / "a", ["llama_guard", "refusal"], server, budget=budget).path

    def asks(run: Path) -> int:
        return int(json.loads((run / "usage.json").read_text(encoding="utf-8"))["asks"])

    for stage in (attack, judge):
        with pytest.raises(ForethoughtError, match=r"the budget would be exceeded: 2,\d00 of 2,550 tokens"):
            stage(tokens=2550)
        assert asks(stage(tokens=3050)) == 30, "nothing was asked twice"
        assert stage().exists()
