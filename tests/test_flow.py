"""The driver and the reply cache."""

from __future__ import annotations

import itertools
import random
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from forethought.errors import AskFailed, ForethoughtError
from forethought.flow import Ask, Choose, Done, Flow, Job, Logprobs, Model, Rng, generator_for, run_flows
from forethought.models.cache import DiskCache
from forethought.models.scripted import ScriptedModel, follow
from forethought.records import Reply, Sampling, user

GREEDY = Sampling()
WARM = Sampling(temperature=1.0)


class Slow(ScriptedModel):
    """Answers one ask a step, the newest first; an ask that says `slow` only when nothing else is queued."""

    def step(self, block: bool = True) -> list[tuple[int, Reply | Logprobs | AskFailed]]:
        last = max(range(len(self._queue)), key=lambda i: ("slow" not in self._queue[i][1].messages[-1].content, i))
        ticket, question = self._queue[last]
        del self._queue[last]
        return [(ticket, self._reply(question))]


def echo(kind: type[ScriptedModel] = ScriptedModel, name: str = "echo") -> ScriptedModel:
    return kind(follow([{"say": "{text}"}]), name)


def run(jobs: list[Job[object]], model: Model, **options: object) -> dict[str, Done[object]]:
    return {d.key: d for d in run_flows(jobs, {"target": model}, **options)}  # type: ignore[arg-type]


def chat(*texts: str, sampling: Sampling = GREEDY) -> Callable[[], Flow[object]]:
    def flow() -> Flow[object]:
        said = []
        for text in texts:
            reply = yield Ask("target", user(text), sampling=sampling)
            assert isinstance(reply, Reply)
            said.append(reply.text)
        return said

    return flow


def test_no_barrier() -> None:
    jobs = [Job("a", chat("slow")), *[Job(f"b{i}", chat("x", "y", "z")) for i in range(5)]]
    order = [d.key for d in run_flows(jobs, {"target": echo(Slow)})]
    assert order[-1] == "a" and len(order) == 6


def test_jobs_start_lazily_and_active_is_bounded() -> None:
    started: list[int] = []
    most = 0

    def jobs() -> Iterator[Job[object]]:
        for i in itertools.count():
            started.append(i)
            yield Job(str(i), chat("x"))

    model = echo(Slow)
    running = run_flows(jobs(), {"target": model}, active=3)
    for _ in range(10):
        next(running)
        most = max(most, len(model._queue))
    running.close()
    assert most <= 3
    assert len(started) <= 13


def test_a_job_that_asks_nothing_ends_at_once() -> None:
    def flow() -> Flow[object]:
        return 7
        yield

    assert run([Job("a", flow)], echo())["a"].value == 7
    assert run([], echo()) == {}


def boom() -> Flow[object]:
    yield Ask("target", user("x"))
    raise ValueError("boom")


def boom_at_once() -> Flow[object]:
    raise ValueError("boom")


def garbage() -> Flow[object]:
    yield "not a question"  # type: ignore[misc]


def not_a_generator() -> Flow[object]:
    return [1]  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("flow", "error"),
    [
        (boom, "ValueError: boom"),
        (boom_at_once, "ValueError: boom"),
        (garbage, "yields Ask"),
        (not_a_generator, "AttributeError"),
    ],
)
def test_an_error_in_a_flow_is_its_own(flow: Callable[[], Flow[object]], error: str) -> None:
    done = run([Job("bad", flow), Job("good", chat("x"))], echo())
    assert error in (done["bad"].error or "") and done["bad"].value is None
    assert done["good"].value == ["x"]


def test_ask_failed_is_thrown_into_the_flow() -> None:
    model = ScriptedModel(follow([{"when": "bad", "fail": "too_long"}, {"say": "fine"}]), "m")

    def catches() -> Flow[object]:
        try:
            yield Ask("target", user("bad"))
        except AskFailed as error:
            reply = yield Ask("target", user("again"))
            assert isinstance(reply, Reply)
            return (error.kind, reply.text)
        return None

    done = run([Job("catches", catches), Job("not", chat("bad"))], model)
    assert done["catches"].value == ("too_long", "fine")
    assert done["not"].error == "too_long: the script says so"


def test_a_dead_server_stops_the_run_and_closes_the_flows() -> None:
    closed = []

    def flow() -> Flow[object]:
        try:
            yield Ask("target", user("wait"))
        finally:
            closed.append(True)

    model = ScriptedModel(follow([{"when": "die", "die": True}, {"say": "x"}]), "m")
    running = run_flows([Job("first", chat("x")), Job("open", flow), Job("dies", chat("die"))], {"target": model})
    with pytest.raises(ForethoughtError, match="down"):
        list(running)
    assert closed == [True]


def test_a_late_reply_of_a_stopped_run_is_dropped() -> None:
    model = echo(Slow)
    stopped = run_flows([Job("a", chat("x")), Job("b", chat("old"))], {"target": model})
    next(stopped)
    stopped.close()
    assert len(model._queue) == 1
    assert run([Job("c", chat("new"))], model)["c"].value == ["new"]


def test_missing_role() -> None:
    with pytest.raises(ForethoughtError, match="role 'target'"):
        list(run_flows([Job("a", chat("x"))], {"judge": echo()}))


def test_rng_depends_on_seed_and_key_only() -> None:
    def flow() -> Flow[object]:
        yield Ask("target", user("x"))
        rng = yield Rng()
        assert isinstance(rng, random.Random)
        return rng.random()

    def draw(keys: str, seed: int) -> dict[str, object]:
        return {k: d.value for k, d in run([Job(k, flow) for k in keys], echo(Slow), seed=seed).items()}

    assert draw("abc", 1) == draw("cab", 1)
    assert draw("abc", 1)["a"] == generator_for(1, "a").random()
    assert len({*draw("abc", 1).values(), *draw("abc", 2).values()}) == 6


def test_each_rng_of_a_flow_is_a_stream_of_its_own() -> None:
    def flow() -> Flow[object]:
        found = []
        for ask in (Rng(), Rng(), Rng(), Rng(stream="style"), Rng(stream="style")):
            rng = yield ask
            assert isinstance(rng, random.Random)
            found.append(rng.random())
        return tuple(found)

    first, again = (run([Job("a", flow)], echo(), seed=1)["a"].value for _ in range(2))
    assert isinstance(first, tuple) and first == again and len(set(first)) == 4
    assert first[0] == generator_for(1, "a").random(), "the first depends on seed and key only"
    assert first[3] == first[4] == generator_for(1, "a", "style").random(), (
        "a named one on its name too, and not on what came before"
    )


def test_choose_goes_through_and_is_cached(tmp_path: Path) -> None:
    def flow() -> Flow[object]:
        found = yield Choose("target", user("pick b"), (" a", " b"))
        return found

    cache = DiskCache(tmp_path / "c")
    model = echo()
    first = run([Job("a", flow)], model, cache=cache)["a"].value
    assert isinstance(first, Logprobs) and first.logprobs[1] > first.logprobs[0]
    assert run([Job("b", flow)], model, cache=cache)["b"].value == first
    assert len(model.asked) == 1
    cache.close()


def keys_of(cache: DiskCache) -> int:
    return int(cache._db.execute("select count(*) from replies").fetchone()[0])


@pytest.mark.parametrize(
    ("change", "asks"),
    [
        ({}, 1),
        ({"model": "other"}, 2),
        ({"prefix": "Sure"}, 2),
        ({"sample": 1}, 2),
        ({"sampling": Sampling(max_tokens=5)}, 2),
        ({"system": "Be brief."}, 2),
        ({"text": "y"}, 2),
        ({"role": "judge"}, 1),
    ],
)
def test_what_the_cache_key_depends_on(tmp_path: Path, change: dict[str, object], asks: int) -> None:
    def flow(role: str = "target", text: str = "x", **fields: object) -> Flow[object]:
        return (yield Ask(role, user(text), **fields))  # type: ignore[arg-type]

    total = 0
    cache = DiskCache(tmp_path / "c")
    for options in ({}, change):
        fields = {k: v for k, v in options.items() if k not in ("model", "system")}
        model = ScriptedModel(follow([{"say": "s"}]), str(options.get("model", "m")), options.get("system"))  # type: ignore[arg-type]
        list(run_flows([Job("k", lambda: flow(**fields))], {"target": model, "judge": model}, cache=cache))  # type: ignore[arg-type]
        total += len(model.asked)
    assert total == asks == keys_of(cache)
    cache.close()


@pytest.mark.parametrize(("sampling", "other_seed"), [(Sampling(), 0), (WARM, 2)])
def test_repeats_are_counted_and_replayed(tmp_path: Path, sampling: Sampling, other_seed: int) -> None:
    said = itertools.count()
    seeds = []

    class Numbered(ScriptedModel):
        def submit(self, ticket: int, question: Ask | Choose, seed: int) -> None:
            seeds.append(seed)
            super().submit(ticket, question, seed)

    model = Numbered(lambda ask: Reply(text=str(next(said))), "m")
    cache = DiskCache(tmp_path / "c")
    flow = chat("x", "x", sampling=sampling)
    first = run([Job("a", flow)], model, cache=cache)["a"].value
    assert first == ["0", "1"] and keys_of(cache) == 2
    assert len(set(seeds)) == (1 if sampling.temperature == 0 else 2)
    assert run([Job("a", flow)], model, cache=cache)["a"].value == first, "resuming is replaying"
    assert len(seeds) == 2
    run([Job("a", flow)], model, cache=cache, seed=5)
    assert len(seeds) == 2 + other_seed, "greedy replies are shared between seeds, sampled ones are not"
    run([Job("b", flow)], model, cache=cache)
    assert len(seeds) == 2 + 2 * other_seed
    cache.close()


def test_a_failed_ask_is_not_cached(tmp_path: Path) -> None:
    model = ScriptedModel(follow([{"fail": "bad_reply"}]), "m")
    cache = DiskCache(tmp_path / "c")
    for _ in range(2):
        run([Job("a", chat("x"))], model, cache=cache)
    assert len(model.asked) == 2 and keys_of(cache) == 0
    cache.close()


def test_cache_round_trip(tmp_path: Path) -> None:
    rows = [
        ("a", Reply(text="a\x00b {x} 👩‍🚀 כן", opened=True, stop="length", prompt_tokens=3, completion_tokens=4)),
        ("b", Logprobs((-0.5, -1e-9), (1, 2))),
        ("c", Reply(text="")),
    ]
    cache = DiskCache(tmp_path / "deep" / "c.sqlite")
    cache.put(rows)
    cache.put([])
    cache.put([("a", Reply(text="a second reply to one key is dropped"))])
    cache.close()
    again = DiskCache(tmp_path / "deep" / "c.sqlite")
    assert [again.get(k) for k, _ in rows] == [v for _, v in rows]
    assert again.get("none") is None
    again.close()


WRITER = """
import sys, itertools
from pathlib import Path
from forethought.models.cache import DiskCache
from forethought.records import Reply
cache = DiskCache(Path(sys.argv[1]))
for i in itertools.count():
    cache.put([(f"{i}-{j}", Reply(text="x" * 500)) for j in range(5)])
    print(i, flush=True)
"""


def test_a_killed_writer_loses_nothing_it_reported(tmp_path: Path) -> None:
    path = tmp_path / "c"
    with subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        seen = [int(next(writer.stdout)) for _ in range(50)]
        writer.send_signal(signal.SIGKILL)
        seen += [int(line) for line in writer.stdout if line.endswith("\n")]
    cache = DiskCache(path)
    assert all(cache.get(f"{i}-{j}") == Reply(text="x" * 500) for i in seen for j in range(5))
    assert keys_of(cache) % 5 == 0, "a put is kept whole or not at all"
    cache.put([("more", Reply(text="y"))])
    cache.close()


def test_a_full_disk_and_a_broken_cache_are_clear(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path / "full")
    cache.put([("kept", Reply(text="x"))])
    cache._db.execute(f"pragma max_page_count={cache._db.execute('pragma page_count').fetchone()[0]}")
    with pytest.raises(ForethoughtError, match=r"full.*Free some space"):
        cache.put((str(i), Reply(text="x" * 5000)) for i in range(100))
    assert cache.get("kept") and cache.get("0") is None
    cache.close()

    broken = tmp_path / "broken"
    broken.write_text("not a database " * 100)
    with pytest.raises(ForethoughtError, match="Remove it"):
        DiskCache(broken)
    (tmp_path / "file").write_text("x")
    with pytest.raises(ForethoughtError, match="cannot write"):
        DiskCache(tmp_path / "file" / "c")


def test_a_cache_that_breaks_while_read_is_clear(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path / "c")
    cache.close()
    with sqlite3.connect(tmp_path / "c") as db:
        db.execute("drop table replies")
    db.close()
    cache = DiskCache(tmp_path / "c")
    cache._db.execute("drop table replies")
    with pytest.raises(ForethoughtError, match="cannot be read"):
        cache.get("x")
    cache.close()


def test_a_cache_that_another_process_is_just_making_is_waited_for(tmp_path: Path) -> None:
    """Going into write-ahead mode does not wait for a lock by itself."""
    other = sqlite3.connect(tmp_path / "c", check_same_thread=False)
    other.execute("create table t (x)")
    other.commit()
    other.execute("begin immediate")
    other.execute("insert into t values (1)")
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        sqlite3.connect(tmp_path / "c", timeout=0).execute("pragma journal_mode=wal")
    threading.Timer(0.3, other.commit).start()
    cache = DiskCache(tmp_path / "c")
    cache.put([("k", Reply(text="hello", stop="stop", prompt_tokens=1, completion_tokens=1))])
    assert cache.get("k") is not None


@pytest.mark.parametrize(("pinned", "asks"), [(True, 1), (False, 2)])
def test_replies_of_unknown_weights_are_kept_for_their_run_alone(tmp_path: Path, pinned: bool, asks: int) -> None:
    model, cache = echo(), DiskCache(tmp_path / "c")
    model.pinned = pinned
    for salt in ("one run", "another", "one run"):
        run([Job("a", chat("x"))], model, cache=cache, salt=salt)
    assert len(model.asked) == asks
    cache.close()


def test_a_cache_that_cannot_be_used_now_is_not_to_be_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    DiskCache(tmp_path / "c").close()
    holder = sqlite3.connect(tmp_path / "c", isolation_level=None)
    holder.execute("pragma locking_mode=exclusive")
    holder.execute("begin exclusive")
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda path, timeout: connect(path, timeout=0))
    monkeypatch.setattr("forethought.models.cache.time.sleep", lambda seconds: None)
    with pytest.raises(ForethoughtError, match="it need not be removed"):
        DiskCache(tmp_path / "c")
    holder.close()
    (tmp_path / "d").write_text("no database at all, but long enough to be looked at as one. " * 20)
    with pytest.raises(ForethoughtError, match="Remove it to start afresh"):
        DiskCache(tmp_path / "d")
