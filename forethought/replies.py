"""Asking a model that may itself think first: what counts is what it says."""

from __future__ import annotations

from forethought.chat import split
from forethought.flow import Ask, Flow
from forethought.records import Reply


def reply_of(ask: Ask) -> Flow[Reply]:
    """A reply without the model's own thought; of a thought that never ends nothing is left, and `stop` is `length`."""
    reply = yield ask
    assert isinstance(reply, Reply)
    parts = split(reply.text, reply.opened)
    if parts.status == "unclosed":
        return reply.model_copy(update={"text": "", "stop": "length"})
    return reply.model_copy(update={"text": parts.answer})
