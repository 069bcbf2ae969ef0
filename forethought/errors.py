"""Errors that a user can act on, and the failures of a single ask."""

from __future__ import annotations

import difflib
import shlex
import sys
from collections.abc import Iterable

NO_ROOM = "out of memory. Use dtype bfloat16, a smaller model or a smaller batch; what was done is kept."


class ForethoughtError(Exception):
    """A mistake or a condition the user can mend. The command line prints it as one line, without a traceback."""


class AskFailed(Exception):
    """One ask got no usable reply. Raised inside the flow that asked, which may catch it.

    `kind` is one of `too_long` (the prompt does not fit the model), `bad_prompt` (the chat template cannot render it),
    `refused_by_server` (the server rejected this request), `bad_reply` (the server's reply could not be read), `unsupported` (this
    model cannot do it), `search_failed` (a search over the weights broke off), `not_applicable` (an attack has nothing to do on this
    prompt, its attacker wrote nothing of use, or it needs weights that are not at hand), `ungraded` (not one reply could be graded inside
    an attack) or `bad_rewrite` (a request rewritten in a style could not be used).
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(f"{kind}: {message}")
        self.kind = kind
        self.message = message


def is_out_of_memory(error: Exception) -> bool:
    """Whether memory ran out, on a GPU (torch says so in a RuntimeError) or on the machine."""
    words = ("out of memory", "not enough memory", "can't allocate memory")
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(word in str(error).lower() for word in words)
    )


def is_unanswered(error: str | None) -> bool:
    """Whether a kept error says that a server gave no answer of use. Where all say so, the fault is the server's or in how it was asked."""
    return (error or "").startswith(("refused_by_server", "bad_reply"))


def is_broken(error: str | None) -> bool:
    """Whether a kept error says that a server broke on a request each time: it may have been down, and is asked once more on resuming."""
    return is_unanswered(error) and "HTTP 5" in (error or "")


def first_line(error: BaseException) -> str:
    """What an error says, in one line; its kind where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def pip(words: str) -> str:
    """The command that installs `words` where this program runs: its environment need not be the active one."""
    return f"{shlex.quote(sys.executable)} -m pip install {words}"


def nearest(name: str, known: Iterable[str]) -> str:
    """` Did you mean 'x'?` or the list of known names: the end of every unknown-name error."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1)
    if close:
        return f" Did you mean '{close[0]}'?"
    return f" Known: {', '.join(known)}." if known else ""
