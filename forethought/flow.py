"""Flows: generators that yield asks and receive replies, and the driver that runs thousands of them at once.

An author writes straight-line code; the driver hands every ask to its role's model as soon as it is yielded and sends the
reply back as soon as it is there. No barrier, no waiting for the slowest. See docs/design.md, Shape.
"""

from __future__ import annotations

import itertools
import random
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, Protocol, TypeVar

from forethought.errors import AskFailed, ForethoughtError
from forethought.records import Found, Messages, Reply, Sampling, digest

T = TypeVar("T")
RoleName = Literal["target", "teacher", "attacker", "judge", "guard", "helper"]


@dataclass(frozen=True)
class Ask:
    """Ask a role's model to go on after `messages` and the assistant text `prefix`. Sent back: a Reply."""

    role: RoleName
    messages: Messages
    prefix: str = ""
    sample: int = 0
    sampling: Sampling = Sampling()


@dataclass(frozen=True)
class Choose:
    """Ask for log p(option | messages, prefix) of each option, summed over its tokens. Sent back: Logprobs."""

    role: RoleName
    messages: Messages
    options: tuple[str, ...]
    prefix: str = ""


@dataclass(frozen=True)
class Search:
    """Ask for a search over the weights of a role's model, which must be loaded here. Sent back: Found.

    `run(model, seed)` is given the loaded model (its `model`, `tokenizer` and `system`) and does the work; `name` says what it does, every
    setting included, and stands for it in the cache. A model without weights at hand raises AskFailed (`not_applicable`).
    """

    role: RoleName
    messages: Messages
    name: str
    run: Callable[[Any, int], Found]
    prefix: str = ""


@dataclass(frozen=True)
class Rng:
    """Ask for a random generator of this flow's own, seeded by (run seed, flow, prompt id, sample) and how many the flow has had, so
    that two parts of a flow do not draw alike. A part that is to draw the same whatever was drawn before it names its `stream`, which
    then counts in place of the number. Sent back: random.Random."""

    stream: str | None = None


@dataclass(frozen=True)
class Logprobs:
    """One summed log-probability (nats) and token count an option, in the order asked."""

    logprobs: tuple[float, ...]
    tokens: tuple[int, ...]


Question = Ask | Choose
# Tickets are never used twice, so that a late reply to a run that was stopped cannot pass for another question's.
TICKETS = itertools.count()
# Twice what a local model works on at once. More flows only march in step, so that none ends for long.
ACTIVE = 128
Flow = Generator[Ask | Choose | Search | Rng, "Reply | Logprobs | Found | random.Random", T]


class Model(Protocol):
    """A backend. `submit` queues an ask; `step` does some work and returns what is finished, in any order; with `block=False` it does not
    wait for others (a server) to work.

    `identity` and `fingerprint` together must pin the reply: they are the cache key. `pinned` says whether `identity` names the
    weights themselves, which a server's name does not. A failure of one ask is returned as AskFailed; a failure that concerns all
    asks (a dead server) is raised as ForethoughtError. A model whose weights are at hand has `search`, which is `submit` for a Search.
    """

    identity: str
    pinned: bool

    def fingerprint(self, question: Question) -> str: ...
    def submit(self, ticket: int, question: Question, seed: int) -> None: ...
    def step(self, block: bool = True) -> Sequence[tuple[int, Reply | Logprobs | Found | AskFailed]]: ...
    def close(self) -> None: ...


class Cache(Protocol):
    """Replies by key, kept on disk."""

    def get(self, key: str) -> Reply | Logprobs | Found | None: ...
    def put(self, rows: Iterable[tuple[str, Reply | Logprobs | Found]]) -> None: ...


@dataclass(frozen=True)
class Job(Generic[T]):
    """A flow to run. `key` names it within the run: (flow, prompt id, sample). Jobs with the same `draws` draw alike: they are samples of
    one flow, which differ only in what they ask for."""

    key: str
    start: Callable[[], Flow[T]]
    draws: str = ""

    @property
    def drawn(self) -> str:
        return self.draws or self.key


@dataclass(frozen=True)
class Done(Generic[T]):
    """A finished job: its value, or the error that ended it."""

    key: str
    value: T | None = None
    error: str | None = None


@dataclass
class _Live(Generic[T]):
    job: Job[T]
    flow: Flow[T]
    asked: Counter[str] = field(default_factory=Counter)
    generators: int = 0


def generator_for(seed: int, *parts: str) -> random.Random:
    """The one way to make randomness from (run seed, flow, prompt id, sample)."""
    return random.Random(int(digest(seed, *parts), 16))


def run_flows(
    jobs: Iterable[Job[T]],
    models: Mapping[str, Model],
    *,
    seed: int = 0,
    cache: Cache | None = None,
    active: int = ACTIVE,
    salt: str = "",
    heard: Callable[[int], None] = lambda replies: None,
) -> Iterator[Done[T]]:
    """Run jobs with at most `active` flows alive; yield each as it ends. Errors inside a flow become `Done.error`.

    `heard` is told how many replies each step of the models brought, since long flows end late. `salt` goes into the cache keys of models
    that are not pinned (a server may change its weights under the same name). Jobs are started lazily, so `jobs` may be a long generator.
    ForethoughtError (a dead server, an unknown role) is not caught: it stops the run, and what was yielded before is kept by the caller.
    """
    driver = _Driver[T](models, seed, cache, salt, heard)
    source = iter(jobs)
    try:
        while True:
            for job in itertools.islice(source, active - driver.alive):
                yield from driver.start(job)
            if not driver.alive:
                # All that was started has ended; there may be more to start.
                more = next(source, None)
                if more is None:
                    return
                yield from driver.start(more)
                continue
            yield from driver.step()
    finally:
        driver.close()


class _Driver(Generic[T]):
    """Flows that wait for replies, by the cache key of what they asked: who asks what is already in flight waits for the same reply."""

    def __init__(
        self, models: Mapping[str, Model], seed: int, cache: Cache | None, salt: str, heard: Callable[[int], None]
    ) -> None:
        self.models, self.seed, self.cache, self.salt, self.heard = models, seed, cache, salt, heard
        self.waiting: dict[str, list[_Live[T]]] = {}
        self.tickets: dict[int, tuple[str, Model]] = {}
        self.asked: Counter[Model] = Counter()
        self.alive = 0

    def start(self, job: Job[T]) -> Iterator[Done[T]]:
        try:
            live = _Live(job, job.start())
        except ForethoughtError:
            raise
        except Exception as error:
            yield Done(job.key, error=_describe(error))
            return
        self.alive += 1
        yield from self.advance(live, None)

    def advance(self, live: _Live[T], value: object) -> Iterator[Done[T]]:
        """Hand `value` to a flow and let it run until it must wait, or ends."""
        while True:
            try:
                question = live.flow.throw(value) if isinstance(value, AskFailed) else live.flow.send(value)  # type: ignore[arg-type]
                found = self._answer(live, question)
            except ForethoughtError:
                raise
            except StopIteration as stop:
                done: Done[T] = Done(live.job.key, value=stop.value)
            except Exception as error:
                done = Done(live.job.key, error=_describe(error))
            else:
                if found is None:
                    return
                value = found
                continue
            self.alive -= 1
            yield done
            return

    def _answer(
        self, live: _Live[T], question: Question | Search | Rng
    ) -> Reply | Logprobs | Found | AskFailed | random.Random | None:
        """What is known at once, or None where the flow has to wait for its reply."""
        if isinstance(question, Rng):
            if question.stream is not None:
                return generator_for(self.seed, live.job.drawn, question.stream)
            before, live.generators = live.generators, live.generators + 1
            return generator_for(self.seed, live.job.drawn, *([str(before)] if before else []))
        if not isinstance(question, Ask | Choose | Search):
            live.flow.close()
            raise TypeError(f"a flow yields Ask, Choose, Search or Rng, not {question!r}"[:180])
        model = self.models.get(question.role)
        if model is None:
            raise ForethoughtError(
                f"this needs a model for the role '{question.role}'. Name one: {question.role}=MODEL."
            )
        submit = getattr(model, "search" if isinstance(question, Search) else "submit", None)
        if submit is None:
            return AskFailed("not_applicable", f"needs weights, and those of '{model.identity}' are not at hand")
        try:
            key, row_seed = _cache_key(live, model, question, self.seed, self.salt)
        except AskFailed as failure:
            return failure
        hit = self.cache.get(key) if self.cache is not None else None
        if hit is not None:
            return hit
        if key in self.waiting:
            self.waiting[key].append(live)
            return None
        ticket = next(TICKETS)
        self.waiting[key] = [live]
        self.tickets[ticket] = (key, model)
        self.asked[model] += 1
        submit(ticket, question, row_seed)
        return None

    def step(self) -> Iterator[Done[T]]:
        """Let every model that is asked something work once. One alone may be waited for; of several none holds up the others."""
        asked = [model for model, count in self.asked.items() if count]
        replies: list[tuple[int, Reply | Logprobs | Found | AskFailed]] = []
        stop: ForethoughtError | None = None
        for model in asked:
            try:
                replies += [r for r in model.step(block=len(asked) == 1) if r[0] in self.tickets]
            except ForethoughtError as error:
                # What the others bring may have been paid for, and is kept first.
                stop = stop or error
        self.heard(len(replies))
        if not replies and len(asked) > 1:
            time.sleep(0.001)
        found = [(*self.tickets.pop(ticket), reply) for ticket, reply in replies]
        self.asked.subtract(model for _, model, _ in found)
        keyed = [(key, reply) for key, _, reply in found]
        if self.cache is not None:
            self.cache.put((k, r) for k, r in keyed if not isinstance(r, AskFailed))
            if stop is not None:
                # The same command replays them; what the flows would ask next would be paid for and lost.
                raise stop
        for key, reply in keyed:
            for live in self.waiting.pop(key):
                yield from self.advance(live, reply)
        # Without a cache what a flow has brought to its end is all that is kept.
        if stop is not None:
            raise stop

    def close(self) -> None:
        for lives in self.waiting.values():
            for live in lives:
                live.flow.close()


def _cache_key(live: _Live[T], model: Model, question: Question | Search, seed: int, salt: str) -> tuple[str, int]:
    """The cache key of a question, and the seed of its row's sampling generator.

    Greedy replies do not depend on the run's seed, so they are shared between runs; sampled ones are keyed by the seed.
    """
    prompt = model.fingerprint(question)  # type: ignore[arg-type]
    identity = model.identity if model.pinned else digest(model.identity, salt)
    if isinstance(question, Choose):
        return digest("choose-2", identity, prompt, question.options, length=40), 0
    if isinstance(question, Search):
        row_seed = int(digest(seed, live.job.drawn, prompt, question.name), 16) % 2**63
        return digest("search", identity, prompt, question.name, row_seed, length=40), row_seed
    repeat = live.asked[prompt]
    live.asked[prompt] += 1
    base = ("ask", identity, prompt, question.sampling.model_dump(), question.sample, repeat)
    if question.sampling.temperature == 0:
        return digest(*base, length=40), 0
    row_seed = int(digest(seed, live.job.drawn, prompt, question.sample, repeat), 16) % 2**63
    return digest(*base, row_seed, length=40), row_seed


def _describe(error: Exception) -> str:
    return str(error) if isinstance(error, AskFailed) else f"{type(error).__name__}: {error}"
