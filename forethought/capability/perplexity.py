"""Held-out perplexity on harmless requests: log-likelihood of given answers, each model under its own chat template.

What is measured is log p(answer | request, own thought): a model that thinks first is let think (greedily), and the answer is scored after
that thought, as it would be said; a model that does not think says it at once. Scored in the place of a thought an answer would be
unlikely for its form alone, and after an empty thought a trained model is asked what it has never seen. The price: a thought may make the
answer likelier by planning it, so a model that thinks and one that does not are not measured on the same text before the answer.
The end-of-turn token is not counted.
"""

from __future__ import annotations

from typing import Any

from forethought.capability import Item, Task, Way
from forethought.capability.reading import ours_or_copy
from forethought.chat import decision_point, split
from forethought.data.files import Row
from forethought.data.public import first_instance
from forethought.flow import Ask, Choose, Flow, Logprobs
from forethought.records import Graded, Reply, Sampling, digest, user

MODE = "nll_after_own_thought"
ASKED = ("prompt", "instruction", "question", "text")
ANSWERED = ("answer", "output", "response", "chosen", "completion")
PEEK = 16  # Tokens that show whether a model thinks first.


def perplexity(path: str = "", prompt: str = "", answer: str = "") -> Task:
    """Requests and reference answers from a JSON, JSONL, CSV or Parquet file; without a path, sixty of ours. `prompt` and `answer` name its
    columns; without them the usual names are looked for, and an `input` is added to an instruction."""

    def make(row: Row) -> Item:
        return _item(row, prompt, answer)

    def read() -> list[Item]:
        return ours_or_copy("perplexity", path, "benign", make)

    return Task(read, {MODE: Way(ask, True)})


def ask(item: Item, sampling: Sampling) -> Flow[Graded]:
    """The log-likelihood of the reference answer, after the model's own thought where it has one."""
    base = Graded(task="", mode="", id=item.id, question=item.question, gold=item.gold)
    messages = user(item.question)
    start = yield Ask("target", messages, sampling=Sampling(max_tokens=min(PEEK, sampling.max_tokens)))
    assert isinstance(start, Reply)
    prefix, spent = "", 0
    if split(start.text, start.opened).status not in ("no_think", "empty_answer") or start.opened:
        reply = yield Ask("target", messages, sampling=sampling)
        assert isinstance(reply, Reply)
        prefix, spent = decision_point(reply.text) or "", reply.completion_tokens
        if split(reply.text, reply.opened).status == "unclosed":
            error = f"no_answer: the thought did not end within {sampling.max_tokens} tokens"
            return base.model_copy(update={"raw": reply.text, "completion_tokens": spent, "error": error})
    found = yield Choose("target", messages, (item.gold,), prefix)
    assert isinstance(found, Logprobs)
    return base.model_copy(
        update={"logprobs": found.logprobs, "tokens": found.tokens, "raw": prefix, "completion_tokens": spent}
    )


def _item(row: Row, prompt: str, answer: str) -> Item:
    row = first_instance(row)
    asked = _text(row, (prompt,) if prompt else ASKED)
    if not prompt and "instruction" in row and str(row.get("input") or "").strip():
        asked = f"{asked}\n\n{str(row['input']).strip()}"
    said = _text(row, (answer,) if answer else ANSWERED)
    return Item(id=digest(asked, said), question=asked, gold=said)


def _text(row: dict[str, Any], names: tuple[str, ...]) -> str:
    text = next((row[name] for name in names if isinstance(row.get(name), str) and row[name].strip()), "")
    if not text:
        raise ValueError(f"it has no text in {' or '.join(names)}")
    return text.strip()
