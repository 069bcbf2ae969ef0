"""`openai:` against a real server process on loopback, its death included."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from conftest import HOSTILE

from forethought import stages
from forethought.analysis.rates import cells
from forethought.chat import split
from forethought.config import AttackConfig, Experiment, ModelConfig
from forethought.errors import AskFailed, ForethoughtError
from forethought.flow import Ask, Choose, Flow, Job, run_flows
from forethought.models import load_model
from forethought.models.openai import OpenAIModel, asked_to_wait, read_reply
from forethought.pipeline import run_experiment
from forethought.records import Attempt, Reply, Sampling, Verdict, make_prompt, user
from forethought.run import read_jsonl

BREAD = "<think>\nThey want bread.\n</think>\n\nBread needs time."
SERVER = Path(__file__).with_name("server.py")


class Server:
    """A running server.py; `kill` is kill -9."""

    def __init__(self, model: Path, log: Path, port: int = 0) -> None:
        self.log = log
        self.process = subprocess.Popen(
            [sys.executable, str(SERVER), str(model), str(log), str(port)], stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline())
        self.url = f"http://127.0.0.1:{self.port}/v1"

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()

    def requests(self) -> list[dict[str, Any]]:
        text = self.log.read_text(encoding="utf-8") if self.log.exists() else ""
        return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


@pytest.fixture(scope="module")
def server(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    running = Server(tiny, tmp_path_factory.mktemp("server") / "log.jsonl")
    yield running
    running.kill()


@pytest.fixture
def connect(server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., OpenAIModel]]:
    """Makes models of the server, quick to retry; closes them."""
    for key in ("FORETHOUGHT_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.delenv(key, raising=False)
    made = []

    def make(name: str, url: str = server.url, **options: Any) -> OpenAIModel:
        made.append(OpenAIModel(name, url, **{"backoff": 0.02, "tries": 3, **options}))
        return made[-1]

    yield make
    for model in made:
        model.close()


def ask(model: OpenAIModel, text: str = "How do I bake bread?", **fields: Any) -> Reply | str:
    """The reply, or the error of the flow that asked."""

    def flow() -> Flow[Any]:
        return (yield Ask("target", user(text), **fields))

    (done,) = run_flows([Job("a", flow)], {"target": model})
    return done.value if done.value is not None else str(done.error)


def test_a_reply_of_the_tiny_model(connect: Callable[..., OpenAIModel]) -> None:
    model = connect("tiny")
    first = ask(model, sampling=Sampling(max_tokens=4))
    assert isinstance(first, Reply) and first.text and 0 < first.completion_tokens <= 4 < first.prompt_tokens
    assert first.stop == ("length" if first.completion_tokens == 4 else "stop")
    assert ask(model, sampling=Sampling(max_tokens=4)) == first
    for text in HOSTILE.values():
        assert isinstance(ask(model, text), Reply)


@pytest.mark.parametrize(
    ("name", "raw", "reasoning", "answer", "status", "stop"),
    [
        ("reasoning", BREAD, "They want bread.", "Bread needs time.", "ok", "stop"),
        ("reasoning_content", BREAD, "They want bread.", "Bread needs time.", "ok", "stop"),
        ("cut", "<think>\nThey want", "They want", "", "unclosed", "length"),
        ("cut_to_nothing", "<think>\nThey want", "They want", "", "unclosed", "length"),
    ],
)  # fmt: skip
def test_reasoning_comes_back_in_tags(
    connect: Callable[..., OpenAIModel], name: str, raw: str, reasoning: str, answer: str, status: str, stop: str
) -> None:
    reply = ask(connect(name))
    assert isinstance(reply, Reply) and (reply.text, reply.stop) == (raw, stop)
    parts = split(reply.text)
    assert (parts.reasoning, parts.answer, parts.status) == (reasoning, answer, status)


def test_what_is_sent(connect: Callable[..., OpenAIModel]) -> None:
    sampling = Sampling(temperature=0.5, top_p=0.9, max_tokens=7)
    reply = ask(connect("echo", system="Be {brief}."), "{x} 🔥", prefix="Sure", sampling=sampling)
    assert isinstance(reply, Reply)
    body = json.loads(reply.text)
    assert [(m["role"], m["content"]) for m in body["messages"]] == [
        ("system", "Be {brief}."), ("user", "{x} 🔥"), ("assistant", "Sure"),
    ]  # fmt: skip
    assert (body["temperature"], body["top_p"], body["max_tokens"]) == (0.5, 0.9, 7)
    assert body["continue_final_message"] is True and body["add_generation_prompt"] is False and body["seed"] > 0
    plain = ask(connect("echo"))
    assert isinstance(plain, Reply) and "continue_final_message" not in plain.text
    assert [m["role"] for m in json.loads(plain.text)["messages"]] == ["user"]


def test_a_server_that_repeats_the_prefix(connect: Callable[..., OpenAIModel]) -> None:
    reply = ask(connect("prefix"), prefix="Sure, here")
    assert isinstance(reply, Reply) and reply.text == " and more"


def test_half_a_surrogate_pair_can_be_written(connect: Callable[..., OpenAIModel]) -> None:
    reply = ask(connect("surrogate"))
    assert isinstance(reply, Reply) and reply.text == "half ?" and reply.model_dump_json()


@pytest.mark.parametrize(
    ("name", "text", "error"),
    [
        ("long", "x" * 50_000, "too_long: HTTP 400: This model's maximum context length is 2048 tokens. Please shorten."),
        ("rejects", "x", "refused_by_server: HTTP 422: temperature is not supported"),
        ("moderated", "x", "refused_by_server: HTTP 403: This model requires moderation."),
        ("breaks", "x", "refused_by_server: HTTP 500 on each of"),
        ("filter", "x", "refused_by_server: content_filter"),
        ("garbage", "x", "bad_reply: JSONDecodeError"),
        ("empty", "x", "bad_reply: not a chat completion"),
    ],
)  # fmt: skip
def test_the_failure_of_one_ask(connect: Callable[..., OpenAIModel], name: str, text: str, error: str) -> None:
    assert str(ask(connect(name), text)).startswith(error)


def test_choose_is_unsupported(connect: Callable[..., OpenAIModel]) -> None:
    def flow() -> Flow[Any]:
        return (yield Choose("target", user("x"), ("a", "b")))

    (done,) = run_flows([Job("a", flow)], {"target": connect("tiny")})
    assert (done.error or "").startswith("unsupported: ")


def test_passing_failures_are_tried_again(connect: Callable[..., OpenAIModel], server: Server) -> None:
    before = len(server.requests())
    reply = ask(connect("flaky"), "try")
    assert isinstance(reply, Reply) and reply.text == "at last"
    assert [r["status"] for r in server.requests()[before:]] == [503, 530, 200]
    with pytest.raises(ForethoughtError, match=r"after 2 tries \(HTTP 530\)"):
        ask(connect("flaky", tries=2), "try harder")


def test_what_fails_while_others_are_answered_is_that_prompts_failure(connect: Callable[..., OpenAIModel]) -> None:
    """A relay that gives up on one long reply (524) each time: the server is there."""
    model = connect("picky", backoff=0.3)
    jobs = [Job("long", lambda: iter_ask("a long story"))]
    jobs += [Job(str(i), lambda i=i: iter_ask(str(i))) for i in range(20)]  # type: ignore[misc]
    done = {d.key: d for d in run_flows(jobs, {"target": model}, active=2)}
    assert str(done["long"].error).startswith("refused_by_server: HTTP 524 on each of 3 tries")
    assert all(done[str(i)].error is None for i in range(20))


def test_a_server_that_limits_the_rate_is_waited_for(
    connect: Callable[..., OpenAIModel], server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    before, started = len(server.requests()), time.monotonic()
    reply = ask(connect("limited", tries=2, backoff=0.0), "more tries than a server that is away gets")
    assert capsys.readouterr().err.count("limits the rate, and is waited for") == 1, "said once, however often"
    assert isinstance(reply, Reply) and reply.text == "at last"
    assert [r["status"] for r in server.requests()[before:]] == [429] * 4 + [200]
    assert time.monotonic() - started > 0.4, "it waits as long as it is told"
    with pytest.raises(ForethoughtError, match=r"let nothing through for 0 s \(HTTP 429: slow down\)"):
        ask(connect("limited", tries=2, patience=0.0), "too often")


@pytest.mark.parametrize(
    ("said", "seconds"), [({}, 0), ({"Retry-After": "7"}, 7), ({"Retry-After": "0.5"}, 0.5), ({"Retry-After": "3600"}, 120),
     ({"Retry-After": "-1"}, 0), ({"Retry-After": "nan"}, 0), ({"Retry-After": "Fri, 27 Nov 2026 21:00:00 GMT"}, 0)],
)  # fmt: skip
def test_how_long_a_server_asks_to_wait(said: dict[str, str], seconds: float) -> None:
    assert asked_to_wait(httpx.Response(429, headers=said)) == seconds


def test_models_that_know_the_most_tokens_by_their_newer_name(
    connect: Callable[..., OpenAIModel], server: Server
) -> None:
    before, model = len(server.requests()), connect("newer", concurrency=4)
    jobs = [Job(str(i), lambda i=i: iter_ask(str(i))) for i in range(8)]
    done = list(run_flows(jobs, {"target": model}))
    assert all("max_completion_tokens" in d.value.text for d in done), "those in flight are asked again too"
    assert Counter(r["status"] for r in server.requests()[before:])[400] <= 4


@pytest.mark.parametrize(
    ("name", "path", "said"),
    [
        ("none", "", "answered 404 for model 'none': The model `none` does not exist."),
        ("locked", "", "answered 401 for model 'locked': no key Check"),
        ("spent", "", "answered 402 for model 'spent': Insufficient Balance"),
        ("moved", "", "answered 308: it sends on to nowhere."),
        ("tiny", "/v2", "answered 404"),
        ("down", "", "no answer from"),
    ],
)
def test_what_stops_the_run(
    connect: Callable[..., OpenAIModel], server: Server, name: str, path: str, said: str
) -> None:
    with pytest.raises(ForethoughtError) as error:
        ask(connect(name, server.url + path))
    assert said in str(error.value) and "\n" not in str(error.value)


def test_nobody_listens(connect: Callable[..., OpenAIModel]) -> None:
    with pytest.raises(ForethoughtError, match=r"after 3 tries \(ConnectError"):
        ask(connect("tiny", "http://127.0.0.1:9/v1"))


def test_the_key(connect: Callable[..., OpenAIModel], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "other")
    monkeypatch.setenv("FORETHOUGHT_API_KEY", "sesame")
    reply = ask(connect("locked"))
    assert isinstance(reply, Reply) and reply.text == "open"


def test_concurrency_is_bounded_and_used(connect: Callable[..., OpenAIModel], server: Server) -> None:
    def flow(i: int) -> Flow[Any]:
        return (yield Ask("target", user(str(i))))

    before = len(server.requests())
    jobs = [Job(str(i), lambda i=i: flow(i)) for i in range(24)]
    done = list(run_flows(jobs, {"target": connect("slow", concurrency=4)}))
    assert len(done) == 24 and not any(d.error for d in done)
    assert 2 <= max(r["busy"] for r in server.requests()[before:]) <= 4


def test_a_run_goes_on_with_other_concurrency(server: Server, tmp_path: Path) -> None:
    prompts = [make_prompt(f"How do I bake bread {i}?", "benign", "test") for i in range(3)]
    ids = []
    for concurrency in (4, 8):
        model = ModelConfig(name=f"openai:slow@{server.url}", concurrency=concurrency)
        try:
            ids.append(
                stages.attack(tmp_path / "attack", model, prompts, AttackConfig(attacks=("direct",))).info["identity"]
            )
        finally:
            stages.unload()
    assert ids[0] == ids[1]


@pytest.mark.parametrize(("own", "more_than", "most"), [({}, 1, 2), ({"concurrency": 5}, 2, 7)])
def test_an_experiment_bounds_each_server_model(
    server: Server, tmp_path: Path, own: dict[str, int], more_than: int, most: int
) -> None:
    """The same model in two roles is one client where both have the same bound."""
    path, slow = tmp_path / "prompts.csv", f"openai:slow@{server.url}"
    path.write_text("text,label\n" + "".join(f"Tell me about bread {i},harmful\n" for i in range(12)))
    train = {"source": "starter", "split": "train", "take": {"benign": 12}}
    plan = Experiment.model_validate({
        "name": "many", "model": slow, "concurrency": 2,
        "data": {"train": train, "test": {"source": "csv", "path": str(path)}},
        "synth": {"plain": {"method": "refusal"}, "reasoned": {"method": "srg", "teacher": slow}},
        "targets": {"slow": {"name": slow, **own}},
        "attack": {"attacks": ["direct", "past_tense"], "attacker": slow},
        "judge": {"judges": ["harmbench"], "model": slow},
    })  # fmt: skip
    before = len(server.requests())
    run_experiment(plan, tmp_path / "runs", lambda line: None)
    busy = [r["busy"] for r in server.requests()[before:]]
    assert len(busy) >= 24
    assert more_than < max(busy) <= most


def test_closing_with_asks_in_flight_is_clean(connect: Callable[..., OpenAIModel]) -> None:
    model = OpenAIModel("down", connect("down")._url, backoff=5)
    running = run_flows([Job("a", lambda: iter_ask("x"))], {"target": model})
    thread = threading.Thread(target=lambda: model.submit(0, Ask("target", user("x")), 0))
    thread.start()
    thread.join()
    time.sleep(0.05)
    running.close()
    model.close()
    assert not model._thread.is_alive()


def iter_ask(text: str) -> Flow[Any]:
    return (yield Ask("target", user(text)))


@pytest.mark.parametrize("spec", ["openai:", "openai:model", "openai:model@localhost", "openai:m@http://[::/v1"])
def test_a_spec_that_cannot_be_read(spec: str) -> None:
    with pytest.raises(ForethoughtError, match="cannot read"):
        load_model(spec)


@pytest.mark.parametrize("payload", [{}, {"choices": [{}]}, {"choices": None}, {"error": "x"}, [], None])
def test_what_is_no_chat_completion(payload: Any) -> None:
    found = read_reply(payload)
    assert isinstance(found, AskFailed) and found.kind == "bad_reply"


def test_too_long_is_an_error_and_never_safe(
    connect: Callable[..., OpenAIModel], server: Server, tmp_path: Path
) -> None:
    model = ModelConfig(name=f"openai:long@{server.url}")
    prompts = [make_prompt(text, "harmful", "test") for text in ("short {x}", "y" * 50_000)]
    config = AttackConfig(attacks=("direct", "persona"))
    try:
        run = stages.attack(tmp_path / "attack", model, prompts, config)
    finally:
        stages.unload()
    attempts = run.read("attempts.jsonl", Attempt)
    failed = [a for a in attempts if a.error]
    assert len(attempts) == 4 and len(failed) == 2 and run.info["counts"]["failed"] == 2
    assert all(str(a.error).startswith("too_long") and a.status is None for a in failed)
    assert all("y" * 50_000 in a.messages[-1].content for a in failed), "nothing was cut"
    verdicts = stages.judge(tmp_path / "judge", run.path, ["refusal"]).read("verdicts.jsonl", Verdict)
    for cell in cells("m", attempts, verdicts):
        assert (cell.negative.hits, cell.negative.scored, cell.negative.unscored) == (1, 1, 1)
        assert cell.labels == {"refusal": 1, "error": 1}


def test_the_server_dies_in_mid_run(tiny: Path, tmp_path: Path) -> None:
    first = Server(tiny, tmp_path / "first.jsonl")
    target = ModelConfig(name=f"openai:tiny@{first.url}", system="Be brief.")
    prompts = [make_prompt(f"prompt {i}", "harmful", "test") for i in range(40)]
    config = AttackConfig(attacks=("direct",), sampling=Sampling(max_tokens=4))

    def attack(home: Path) -> list[Attempt]:
        stages.LOADED[target.name, target.system] = OpenAIModel(
            "tiny", first.url, system=target.system, concurrency=3, tries=3, backoff=0.02
        )
        try:
            return stages.attack(home / "attack", target, prompts, config).read("attempts.jsonl", Attempt)
        finally:
            stages.unload()

    def kill_after(count: int) -> None:
        while len(first.requests()) < count and first.process.poll() is None:
            time.sleep(0.002)
        first.kill()

    killer = threading.Thread(target=kill_after, args=(8,))
    killer.start()
    with pytest.raises(ForethoughtError, match="it goes on where it stopped"):
        attack(tmp_path)
    killer.join()
    kept = list(read_jsonl(tmp_path / "attack" / "attempts.jsonl", Attempt))
    assert 0 < len(kept) < len(prompts) and not any(a.error for a in kept), "an outage is never recorded as an answer"

    again = Server(tiny, tmp_path / "again.jsonl", first.port)
    try:
        attempts = attack(tmp_path)
        asked = [r["body"]["messages"][-1]["content"] for r in again.requests()]
        assert sorted(asked) == sorted({p.text for p in prompts} - {a.prompt.text for a in kept})
        assert [a.prompt.id for a in attempts] == [p.id for p in prompts] and not any(a.error for a in attempts)
        assert {a.id: a for a in kept}.items() <= {a.id: a for a in attempts}.items()
        assert attack(tmp_path) == attempts and len(again.requests()) == len(asked)
        assert all(r["body"]["messages"][0] == {"role": "system", "content": "Be brief."} for r in again.requests())
    finally:
        again.kill()


def test_a_synthesis_killed_in_mid_run_repeats_no_ask_that_was_answered(tiny: Path, tmp_path: Path) -> None:
    """kill -9 of our side: only what was in flight, or had come in that instant and was not yet stored, is asked a second time."""
    server, at_once = Server(tiny, tmp_path / "log.jsonl"), 3
    words = [sys.executable, "-m", "forethought", "synth", "refusal", "--data", "starter:train", "--take", "benign=30",
             "--model", f"openai:slow@{server.url}", "--concurrency", str(at_once), "--out", str(tmp_path / "runs" / "r")]  # fmt: skip
    try:
        first = subprocess.Popen(words, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        while len(server.requests()) < 12:
            assert first.poll() is None, "it ended before it could be killed"
            time.sleep(0.005)
        first.kill()
        first.wait()
        assert not (tmp_path / "runs" / "r" / "statistics.json").exists()
        assert subprocess.run(words, capture_output=True, timeout=60).returncode == 0
        asked = Counter(r["body"]["messages"][-1]["content"] for r in server.requests())
        assert len(asked) == 30
        assert sum(asked.values()) - len(asked) <= 2 * at_once
    finally:
        server.kill()


def test_what_a_parser_takes_for_a_thought_after_a_prefix_is_the_answer(connect: Callable[..., OpenAIModel]) -> None:
    model = connect("all_is_thought")
    for prefix in ("Sure, ", "<think>\n\n</think>\n\n"):
        reply = ask(model, prefix=prefix)
        assert isinstance(reply, Reply) and reply.text == "here is bread."
    inside = ask(model, prefix="<think>\nThey ")
    assert isinstance(inside, Reply) and inside.text.startswith("<think>")


def test_a_server_whose_template_opens_the_thought(connect: Callable[..., OpenAIModel]) -> None:
    whole, cut = (ask(connect(name, think=True)) for name in ("opened", "opened_cut"))
    assert isinstance(whole, Reply) and isinstance(cut, Reply)
    assert split(whole.text, whole.opened).answer == "Bread needs time."
    assert split(cut.text, cut.opened).status == "unclosed"
    # Where a parser or the model itself has set the tags there is none to add; a prefix stands in the template's place.
    for other in (ask(connect("reasoning", think=True)), ask(connect("opened", think=True), prefix="Sure, ")):
        assert isinstance(other, Reply) and not other.opened


def test_a_server_without_a_system_role_gets_it_folded_in(connect: Callable[..., OpenAIModel]) -> None:
    model = connect("no_system", system="Be kind.")
    for _ in range(2):
        reply = ask(model)
        assert isinstance(reply, Reply)
        assert json.loads(reply.text)["messages"] == [{"role": "user", "content": "Be kind.\n\nHow do I bake bread?"}]


def test_a_server_that_breaks_on_everything_is_one_that_is_down(connect: Callable[..., OpenAIModel]) -> None:
    model = connect("breaks", tries=1)
    jobs = [Job(str(i), lambda i=i: iter_ask(str(i))) for i in range(40)]
    done: list[Any] = []
    with pytest.raises(ForethoughtError, match=r"no answer from .*HTTP 500"):
        done.extend(run_flows(jobs, {"target": model}))
    assert len(done) <= 10 and all("refused_by_server" in str(d.error) for d in done)


def test_a_key_with_a_stray_end(connect: Callable[..., OpenAIModel], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORETHOUGHT_API_KEY", "sesame\r\n")
    assert isinstance(ask(connect("locked")), Reply)
    monkeypatch.setenv("FORETHOUGHT_API_KEY", "ses\rame")
    with pytest.raises(ForethoughtError, match="stray character") as said:
        ask(connect("locked"))
    assert "ame" not in str(said.value).partition("Check")[0]
    monkeypatch.setenv("FORETHOUGHT_API_KEY", "sés")
    with pytest.raises(ForethoughtError, match="Check FORETHOUGHT_API_KEY") as said:
        connect("locked")
    assert "sés" not in str(said.value)


def test_folding_holds_for_requests_that_were_under_way(connect: Callable[..., OpenAIModel]) -> None:
    model = connect("no_system", system="Be kind.", concurrency=4)
    done = list(run_flows([Job(str(i), lambda i=i: iter_ask(str(i))) for i in range(8)], {"target": model}))
    assert all(isinstance(d.value, Reply) for d in done)


def test_the_key_of_openai_goes_to_openai_alone(
    connect: Callable[..., OpenAIModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sesame")
    with pytest.raises(ForethoughtError, match="answered 401"):
        ask(connect("locked"))
    assert OpenAIModel("x", "https://api.openai.com/v1")._client.headers["Authorization"] == "Bearer sesame"


def test_what_a_model_does_not_take_is_left_to_the_server(
    connect: Callable[..., OpenAIModel], capsys: pytest.CaptureFixture[str]
) -> None:
    model = connect("thinker", concurrency=4)
    done = list(run_flows([Job(str(i), lambda i=i: iter_ask(str(i))) for i in range(8)], {"target": model}))
    assert all(isinstance(d.value, Reply) for d in done), [d.error for d in done]
    sent = json.loads(done[-1].value.text)  # type: ignore[union-attr]
    assert not {"temperature", "top_p", "seed"} & sent.keys() and "max_tokens" in sent
    assert model.about["left to the server"] == ["seed", "temperature", "top_p"]
    assert capsys.readouterr().err.count("is left to the server") == 3
    narrow = ask(connect("thinker"), sampling=Sampling(temperature=1.0, top_p=0.5))
    assert "top_p" in str(narrow), "a nucleus that was asked for is not given up"


def test_each_server_has_its_own_key(connect: Callable[..., OpenAIModel], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORETHOUGHT_API_KEY", "other")
    monkeypatch.setenv("FORETHOUGHT_API_KEY_127_0_0_1", "sesame")
    assert isinstance(ask(connect("locked")), Reply)
    monkeypatch.setenv("OPENAI_API_KEY", "theirs")
    assert OpenAIModel("x", "https://api.openai.com/v1")._client.headers["Authorization"] == "Bearer theirs"
    assert OpenAIModel("x", "http://api.openai.com/v1")._client.headers["Authorization"] == "Bearer other"


def test_no_two_hosts_share_a_key(connect: Callable[..., OpenAIModel], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORETHOUGHT_API_KEY_API_TOGETHER_XYZ", "dots")
    monkeypatch.setenv("FORETHOUGHT_API_KEY_MY__SERVER_EXAMPLE_COM", "dash")
    monkeypatch.setenv("FORETHOUGHT_API_KEY_MY___VLLM", "underscore")
    monkeypatch.setenv("FORETHOUGHT_API_KEY_XN____AP__IPA_TOGETHER_XYZ", "dashes")

    def sent(host: str) -> str | None:
        return connect("x", f"https://{host}/v1")._client.headers.get("Authorization")

    assert sent("api.together.xyz") == sent("API.Together.xyz") == "Bearer dots"
    assert sent("my-server.example.com") == "Bearer dash" and sent("my_vllm") == "Bearer underscore"
    # Its i has no dot, and its capital is I.
    assert sent("apı.together.xyz") == "Bearer dashes"
    others = (
        "my.server.example.com",
        "my_server.example.com",
        "my.vllm",
        "my-.vllm",
        "xn_.ap-ipa.together.xyz",
        "xn._ap-ipa.together.xyz",
    )
    assert [sent(host) for host in others] == [None] * 6


@pytest.mark.parametrize(
    ("host", "old", "new"),
    [
        ("api.my-example.com", "API_MY_EXAMPLE_COM", "API_MY__EXAMPLE_COM"),
        ("my_vllm", "MY_VLLM", "MY___VLLM"),
        ("apı.together.xyz", "API_TOGETHER_XYZ", "XN____AP__IPA_TOGETHER_XYZ"),
    ],
)
def test_a_key_by_its_former_name_is_not_passed_over(
    connect: Callable[..., OpenAIModel], monkeypatch: pytest.MonkeyPatch, host: str, old: str, new: str
) -> None:
    monkeypatch.setenv("FORETHOUGHT_API_KEY", "general")
    monkeypatch.setenv(f"FORETHOUGHT_API_KEY_{old}", "own")
    with pytest.raises(ForethoughtError, match=rf"_{old} is not read for .* into FORETHOUGHT_API_KEY_{new}\.$"):
        connect("x", f"https://{host}/v1")
    monkeypatch.setenv(f"FORETHOUGHT_API_KEY_{new}", "its own")
    assert connect("x", f"https://{host}/v1")._client.headers["Authorization"] == "Bearer its own"


def test_a_host_whose_name_would_not_be_its_own_has_the_general_key(
    connect: Callable[..., OpenAIModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORETHOUGHT_API_KEY", "general")
    assert connect("x", "http://[2001:db8::1]/v1")._client.headers["Authorization"] == "Bearer general"
    monkeypatch.setenv("FORETHOUGHT_API_KEY_2001_DB8__1", "own")
    with pytest.raises(ForethoughtError, match=r"that host's key is FORETHOUGHT_API_KEY\.$"):
        connect("x", "http://[2001:db8::1]/v1")


def refuses(model: OpenAIModel, said: Callable[[dict[str, Any]], str]) -> list[dict[str, Any]]:
    """Put a server behind a model that refuses a request with what `said` makes of it, where it is anything; the requests it gets."""
    bodies: list[dict[str, Any]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        bodies.append(json.loads(request.content))
        if text := said(bodies[-1]):
            return httpx.Response(400, json={"error": {"message": text}})
        return httpx.Response(200, json={"choices": [{"message": {"content": "ok"}}]})

    model._client = httpx.AsyncClient(transport=httpx.MockTransport(answer))
    return bodies


@pytest.mark.parametrize(
    "text",
    [
        "`temperature` is deprecated for this model.",
        "invalid temperature: only 1 is allowed for this model",
        "temperature: only (1.0) is permitted",
        "temperature: only the default (1) is allowed",
        "only `1` is allowed for temperature",
        "Only the value 1 is permitted for temperature",
        "This model does not support temperature.",
        "Temperature is not supported with this model",
        "`temperature` may only be set to 1 when thinking is enabled.",
        "Unsupported value: 'temperature' does not support 0.0 with this model. Only the default (1) value is supported.",
    ],
)  # fmt: skip
def test_ways_to_say_that_a_temperature_is_not_taken(connect: Callable[..., OpenAIModel], text: str) -> None:
    model = connect("x")
    bodies = refuses(model, lambda body: text if "temperature" in body else "")
    assert isinstance(ask(model), Reply) and isinstance(ask(model, "again"), Reply)
    assert ["temperature" in b for b in bodies] == [True, False, False]
    assert model.about["left to the server"] == ["temperature"]


@pytest.mark.parametrize(
    "text",
    [
        "temperature: only values between 0 and 1 are allowed",
        "temperature: Only 0.0 to 1.0 is allowed",
        "temperature: only 0..1 is allowed",
        "body.temperature.x is not supported",
    ],
)
def test_a_temperature_out_of_bounds_is_not_given_up(connect: Callable[..., OpenAIModel], text: str) -> None:
    model = connect("x")
    bodies = refuses(model, lambda body: text)
    assert text in str(ask(model, sampling=Sampling(temperature=1.5)))
    assert len(bodies) == 1 and not model.about


def test_a_setting_is_left_out_for_good_only_where_that_helped(connect: Callable[..., OpenAIModel]) -> None:
    """A refusal that merely quotes the prompt says nothing of the model."""
    model = connect("x")
    bodies = refuses(model, lambda b: "unexpected words: temperature" if "odd" in b["messages"][0]["content"] else "")
    assert "unexpected words" in str(ask(model, "odd")) and isinstance(ask(model, "even"), Reply)
    assert ["temperature" in b for b in bodies] == [True, False, True] and not model.about
