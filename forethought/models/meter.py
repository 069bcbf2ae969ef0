"""A cap on what servers may cost, in tokens or money, over all roles of a run and all its restarts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from forethought.config import Budget
from forethought.errors import AskFailed, ForethoughtError
from forethought.flow import Logprobs, Model, Question
from forethought.records import Found, Reply
from forethought.run import write_json


class Meter:
    """Tokens that servers have read and written for a run, kept in its `usage.json`; replies from the cache cost nothing."""

    def __init__(self, budget: Budget, path: Path) -> None:
        # `open` asks are on their way, of all roles: what answers one role may bring the replies of another that shares its server.
        self.budget, self.path, self.open = budget, path, 0
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

    def add(self, reply: Reply) -> None:
        if not reply.prompt_tokens and not reply.completion_tokens:
            raise ForethoughtError(
                "the server does not say how many tokens it used, so a budget cannot be kept. Leave the budget out."
            )
        self.read += reply.prompt_tokens
        self.written += reply.completion_tokens
        self.asks += 1

    def save(self) -> None:
        counts = {"prompt_tokens": self.read, "completion_tokens": self.written, "asks": self.asks}
        write_json(self.path, counts | {"money": round(self.money, 6)})

    def check(self, more: float = 0.0) -> None:
        """Raise ForethoughtError where `more` asks of the usual size would go beyond the budget."""
        growth = 1 + more / self.asks if self.asks else 1.0
        for spent, cap, unit in (
            (self.tokens, self.budget.tokens, "tokens"),
            (self.money, self.budget.money, "of money"),
        ):
            if cap is not None and spent * growth >= cap:
                raise ForethoughtError(
                    f"the budget would be exceeded: {spent:,.6g} of {cap:,.6g} {unit} spent on {self.asks} asks. Raise the budget and "
                    "repeat the same command: what was done is kept."
                )

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
    """A model whose replies count towards a meter."""

    def __init__(self, model: Model, meter: Meter) -> None:
        self._model, self._meter = model, meter
        self.identity, self.pinned = model.identity, model.pinned

    @property
    def about(self) -> Any:
        """What the model says of itself, for run.json."""
        return getattr(self._model, "about", None)

    def fingerprint(self, question: Question) -> str:
        return self._model.fingerprint(question)

    def submit(self, ticket: int, question: Question, seed: int) -> None:
        self._meter.check(self._meter.open + 1)
        self._meter.open += 1
        self._model.submit(ticket, question, seed)

    def step(self, block: bool = True) -> Sequence[tuple[int, Reply | Logprobs | Found | AskFailed]]:
        replies = self._model.step(block)
        self._meter.open -= len(replies)
        for _, reply in replies:
            if isinstance(reply, Reply):
                self._meter.add(reply)
        if replies:
            self._meter.save()
        return replies

    def close(self) -> None:
        self._model.close()
