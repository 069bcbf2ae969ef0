"""Budgets for paid servers: estimated from a pilot, kept over restarts, passed by no more than what is on its way; and servers that do not
hold up local models."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from forethought import stages
from forethought.config import AttackConfig, Budget, ModelConfig
from forethought.errors import AskFailed, ForethoughtError
from forethought.flow import Ask, Done, Flow, Job, Logprobs, Model, Question, run_flows
from forethought.models.cache import DiskCache
from forethought.models.meter import Meter, Metered
from forethought.models.openai import OpenAIModel
from forethought.models.scripted import ScriptedModel
from forethought.policy import load_policy
from forethought.records import Attempt, Example, Reply, digest, make_prompt, user
from forethought.run import Run
from forethought.stages.shared import execute


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
    meter = Meter(Budget(tokens=2100), tmp_path / "u.json")
    shared = Metered(says(10), meter)

    def both(text: str) -> Flow[str]:
        for role in ("teacher", "helper"):
            reply = yield Ask(role, user(f"{role} {text}"))  # type: ignore[arg-type]
        assert isinstance(reply, Reply)
        return reply.text

    asked = [Job(str(i), lambda i=i: both(str(i))) for i in range(100)]  # type: ignore[misc]
    done = list(run_flows(asked, {"teacher": shared, "helper": shared}, active=4))
    assert len(done) == 100 and all(d.error is None for d in done) and (meter.asks, meter.open) == (200, set())


def test_roles_with_equal_settings_share_one_wrapper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The driver waits for one model, and polls several."""
    seen: list[dict[str, Model]] = []

    def look(part: object, models: dict[str, Model], **_: object) -> list[Done[str]]:
        seen.append(models)
        return []

    monkeypatch.setattr("forethought.stages.shared.run_flows", look)
    loaded: dict[ModelConfig, Model] = {}
    monkeypatch.setattr("forethought.stages.shared.load", lambda model: loaded.setdefault(model, says(10)))
    server, other = (ModelConfig(name=f"openai:{name}@http://localhost:1/v1") for name in "mn")
    local = ModelConfig(name="scripted:x")
    run = Run(tmp_path / "r", {"started": "now", "command": "attack"})
    roles = {"target": server, "teacher": server.model_copy(), "helper": other, "judge": local}
    execute(run, "x", jobs(1), roles, lambda done: None, 1, 0, Budget(tokens=9), pilot=False)
    models = seen[0]
    assert isinstance(models["target"], Metered) and models["teacher"] is models["target"]
    assert isinstance(models["helper"], Metered) and models["helper"] is not models["target"]
    assert models["judge"] is loaded[local]


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

    with pytest.raises(ForethoughtError, match=r"the budget would be exceeded: 400 of 450 tokens"):
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
        with pytest.raises(ForethoughtError, match=r"the budget would be exceeded: 2,500 of 2,550 tokens"):
            stage(tokens=2550)
        assert asks(stage(tokens=3050)) == 30, "nothing was asked twice"
        assert stage().exists()


def attack_served(
    home: Path, monkeypatch: pytest.MonkeyPatch, count: int, cost: Callable[[int], int], stop: str = "stop"
) -> tuple[Callable[[int], list[Attempt]], list[int]]:
    """(attack with a budget of so many tokens, what each ask that came in has cost) of a server that works on eight asks at once."""
    seen: list[int] = []

    async def answer(request: httpx.Request) -> httpx.Response:
        seen.append(cost(len(seen)))
        usage = {"prompt_tokens": seen[-1] - 1, "completion_tokens": 1}
        await asyncio.sleep(0.002)
        said = {"message": {"content": f"bread {len(seen)}"}, "finish_reason": stop}
        return httpx.Response(200, json={"choices": [said], "usage": usage})

    def connect(name: str, *, concurrency: int, **_: object) -> OpenAIModel:
        model = OpenAIModel("m", "http://localhost:1/v1", concurrency=concurrency)
        model._client = httpx.AsyncClient(transport=httpx.MockTransport(answer))
        return model

    monkeypatch.setattr("forethought.stages.shared.load_model", connect)
    target = ModelConfig(name="openai:m@http://localhost:1/v1", concurrency=8)
    prompts = [make_prompt(f"How do I bake a loaf of {n} pounds?", "benign", "t") for n in range(count)]

    def attack(tokens: int) -> list[Attempt]:
        config = AttackConfig(attacks=("direct",), budget=Budget(tokens=tokens))
        try:
            return stages.attack(home / "a", target, prompts, config).read("attempts.jsonl", Attempt)
        finally:
            stages.unload()

    return attack, seen


def used(home: Path) -> tuple[int, int]:
    """(tokens, asks) that a run counted."""
    usage = json.loads((home / "a" / "usage.json").read_text(encoding="utf-8"))
    return usage["prompt_tokens"] + usage["completion_tokens"], usage["asks"]


def test_asks_that_turn_dear_pass_the_cap_by_what_was_on_its_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    attack, seen = attack_served(tmp_path, monkeypatch, 200, lambda n: 10 if n < 20 else 1000)
    with pytest.raises(ForethoughtError, match="the budget is used up"):
        attack(5000)
    assert 5000 <= sum(seen) <= 5000 + 8 * 1000 and used(tmp_path) == (sum(seen), len(seen)), "all is waited for"
    assert len(attack(10**6)) == len(seen) == 200, "and kept"


def test_a_cap_is_made_use_of_and_nothing_paid_for_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    attack, seen = attack_served(tmp_path, monkeypatch, 600, lambda n: 100)
    with pytest.raises(ForethoughtError, match="would be exceeded: 29,900 of 30,000 tokens"):
        attack(30_000)
    assert used(tmp_path) == (29_900, 299) and len(seen) == 299
    attempts = attack(100_000)
    assert len(attempts) == len(seen) == 600 and not any(a.error for a in attempts)
    assert used(tmp_path) == (60_000, 600)


def test_what_a_filter_cut_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    attack, seen = attack_served(tmp_path, monkeypatch, 60, lambda n: 100, "content_filter")
    with pytest.raises(ForethoughtError, match="would be exceeded: 2,900 of 3,000 tokens"):
        attack(3000)
    assert used(tmp_path) == (sum(seen), len(seen)) == (2900, 29)


def test_money_needs_prices_beside_tokens_too() -> None:
    for tokens in (None, 1000):
        with pytest.raises(ValueError, match="money with prices"):
            Budget(tokens=tokens, money=5)
    assert Budget(tokens=1000, money=5, price_out=1).money == 5


def test_a_run_that_ends_at_its_cap_ends_well(tmp_path: Path) -> None:
    """Nothing waits: no reason to stop."""
    shared = Metered(says(10), Meter(Budget(tokens=41), tmp_path / "u.json"))

    def one(role: str) -> Flow[str]:
        reply = yield Ask(role, user(f"for {role}"))  # type: ignore[arg-type]
        assert isinstance(reply, Reply)
        return reply.text

    roles = ("teacher", "helper", "guard", "judge")
    asked = [Job(role, lambda role=role: one(role)) for role in roles]  # type: ignore[misc]
    assert len(list(run_flows(asked, dict.fromkeys(roles, shared)))) == 4


def test_a_model_is_handed_what_it_works_on(tmp_path: Path) -> None:
    model = Slow(0)
    most: list[int] = []
    submit = model.submit
    model.submit = lambda ticket, question, seed: (submit(ticket, question, seed), most.append(len(model.open)))[0]  # type: ignore[func-returns-value,method-assign]
    reply = Reply(text="slow", prompt_tokens=1)
    step = model.step
    model.step = lambda block=True: [(ticket, reply) for ticket, _ in step(block)]  # type: ignore[method-assign]
    shared = Meter(Budget(tokens=10**6), tmp_path / "u.json")
    assert len(list(run_flows(jobs(50), {"target": Metered(model, shared, 3)}))) == 50
    assert max(most) == 3 and len(most) == 50


class Dead(Slow):
    def step(self, block: bool = True) -> list[tuple[int, Reply | Logprobs | AskFailed]]:
        raise ForethoughtError("the server is down")


def test_what_others_bring_is_kept_where_one_model_stops_the_run() -> None:
    def one(role: str) -> Flow[str]:
        reply = yield Ask(role, user("x"))  # type: ignore[arg-type]
        assert isinstance(reply, Reply)
        return reply.text

    for roles in (("target", "judge"), ("judge", "target")):
        done: list[Done[str]] = []
        starts = [Job(role, lambda role=role: one(role)) for role in roles]  # type: ignore[misc]
        with pytest.raises(ForethoughtError, match="is down"):
            done.extend(run_flows(starts, {"target": says(10), "judge": Dead(0)}))
        assert [d.key for d in done] == ["target"]


def test_nothing_new_is_asked_once_a_server_has_failed(tmp_path: Path) -> None:
    """What has come in is in the cache, and the same command goes on from there."""

    def one(*roles: str) -> Flow[str]:
        for role in roles:
            reply = yield Ask(role, user(f"for {role}"))  # type: ignore[arg-type]
        assert isinstance(reply, Reply)
        return reply.text

    def run(judge: Model, paid: ScriptedModel) -> list[str]:
        cache = DiskCache(tmp_path / "c.sqlite")
        starts = [Job("judged", lambda: one("judge")), Job("long", lambda: one("target", "teacher"))]
        try:
            return [d.key for d in run_flows(starts, {"target": paid, "teacher": paid, "judge": judge}, cache=cache)]
        finally:
            cache.close()

    first, again = says(10), says(10)
    with pytest.raises(ForethoughtError, match="is down"):
        run(Dead(0), first)
    assert sorted(run(says(10), again)) == ["judged", "long"]
    assert [[q.messages[-1].content for q in model.asked] for model in (first, again)] == [
        ["for target"],
        ["for teacher"],
    ]
