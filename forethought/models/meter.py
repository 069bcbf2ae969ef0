"""A cap on what servers may cost, in tokens or money, over all roles of a run and all its restarts."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from forethought.config import Budget
from forethought.errors import AskFailed, ForethoughtError
from forethought.flow import Logprobs, Model, Question
from forethought.records import Found, Reply
from forethought.run import write_json


class Charged(AskFailed):
    """A failure that a server counts like a reply: its filter cut what it had written."""

    def __init__(self, kind: str, message: str, prompt_tokens: int, completion_tokens: int) -> None:
        super().__init__(kind, message)
        self.prompt_tokens, self.completion_tokens = prompt_tokens, completion_tokens


class Meter:
    """Tokens that servers have read and written for a run, kept in its `usage.json`; replies from the cache cost nothing."""

    def __init__(self, budget: Budget, path: Path) -> None:
        self.budget, self.path = budget, path
        # Asks that are on their way, to all servers.
        self.open: set[int] = set()
        found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        self.read, self.written, self.asks = (
            int(found.get(k, 0)) for k in ("prompt_tokens", "completion_tokens", "asks")
        )

    @property
    def tokens(self) -> int:
        return self.read + self.written

    @property
    def money(self) -> float:
        return (self.read * self.budget.price_in + self.written * self.budget.price_out) / 1e6

    def add(self, reply: Reply | Charged) -> None:
        if not reply.prompt_tokens and not reply.completion_tokens:
            if isinstance(reply, Charged):
                return
            raise ForethoughtError(
                "the server does not say how many tokens it used, so a budget cannot be kept. Leave the budget out."
            )
        self.read += reply.prompt_tokens
        self.written += reply.completion_tokens
        self.asks += 1

    def save(self) -> None:
        counts = {"prompt_tokens": self.read, "completion_tokens": self.written, "asks": self.asks}
        write_json(self.path, counts | {"money": round(self.money, 6)})

    def met(self) -> ForethoughtError | None:
        """What to say where one more ask beside those on their way, at what an ask has cost so far, would meet a cap."""
        for spent, cap, unit in (
            (self.tokens, self.budget.tokens, "tokens"),
            (self.money, self.budget.money, "of money"),
        ):
            if cap is not None and self.asks and spent * (self.asks + len(self.open) + 1) >= cap * self.asks:
                return ForethoughtError(
                    f"the budget {'would be exceeded' if spent < cap else 'is used up'}: {spent:,.6g} of {cap:,.6g} {unit} spent on "
                    f"{self.asks} asks. Raise the budget and repeat the same command: what was done is kept."
                )
        return None

    def estimate(self, done: int, total: int) -> str:
        """What `total` prompts will cost if they cost what the first `done` did, in words. Raises ForethoughtError beyond the budget."""
        share = total / max(done, 1)
        tokens, money = self.tokens * share, self.money * share
        said = f"about {tokens:,.0f} tokens" + (
            f", {money:,.2f} of money" if self.budget.price_in or self.budget.price_out else ""
        )
        for needed, cap, unit in ((tokens, self.budget.tokens, "tokens"), (money, self.budget.money, "of money")):
            if cap is not None and needed > cap:
                raise ForethoughtError(
                    f"{total} prompts would take {said}, judging by the first {done}, and the budget is {cap:,.6g} {unit}. Raise the "
                    "budget or take fewer prompts; what was done is kept."
                )
        return said


class Metered:
    """A model whose replies count towards a meter, one for all roles that share it. It is handed at most `at_once` asks, what it works on,
    since those that it has are paid for: once the cap is met they are waited for, and only then the run is stopped."""

    def __init__(self, model: Model, meter: Meter, at_once: int = 32) -> None:
        self._model, self._meter, self._at_once = model, meter, at_once
        self.waiting: deque[tuple[int, Question, int]] = deque()
        self.open: set[int] = set()
        self.identity, self.pinned = model.identity, model.pinned

    @property
    def about(self) -> Any:
        """What the model says of itself, for run.json."""
        return getattr(self._model, "about", None)

    def fingerprint(self, question: Question) -> str:
        return self._model.fingerprint(question)

    def submit(self, ticket: int, question: Question, seed: int) -> None:
        self.waiting.append((ticket, question, seed))
        self._hand_over()

    def step(self, block: bool = True) -> Sequence[tuple[int, Reply | Logprobs | Found | AskFailed]]:
        self._hand_over()
        if not self.open:
            # Where other servers still have asks, these may cost less than is thought.
            if self.waiting and not self._meter.open and (met := self._meter.met()):
                raise met
            return []
        replies = self._model.step(block)
        for tickets in (self.open, self._meter.open):
            tickets.difference_update(ticket for ticket, _ in replies)
        for _, reply in replies:
            if isinstance(reply, Reply | Charged):
                self._meter.add(reply)
        if replies:
            self._meter.save()
            self._hand_over()
        return replies

    def _hand_over(self) -> None:
        while self.waiting and len(self.open) < self._at_once and not self._meter.met():
            ticket, question, seed = self.waiting.popleft()
            self.open.add(ticket)
            self._meter.open.add(ticket)
            self._model.submit(ticket, question, seed)

    def close(self) -> None:
        self._model.close()
