"""`openai:` any OpenAI-compatible chat server: vLLM, SGLang, llama.cpp, transformers serve, commercial ones.

Requests run in one background event loop with bounded concurrency; a request that fails for a passing reason is tried again with
back-off. A server that stays away stops the run, so that no outage is ever recorded as thousands of answers.
"""

from __future__ import annotations

import asyncio
import os
import queue
import random
import re
import sys
import threading
import time
from collections.abc import Set
from typing import Any

import httpx

from forethought.chat import CLOSE, OPEN, fold_system, with_system
from forethought.errors import AskFailed, ForethoughtError
from forethought.flow import Ask, Logprobs, Question
from forethought.models.meter import Charged
from forethought.records import Message, Reply, digest

# What may pass; every status from 500 on may too (proxies before a server that is down have numbers of their own).
PASSING = {408, 409, 425}
# The key, the credit, the model's name or the URL, so no matter which prompt it was.
UNUSABLE = {401, 402, 403, 404}
LIMITED = 429
# Requests in a row that a server may break on, every time, before it is taken for one that is down.
BROKEN = 10
# Seconds that a server may ask for between two tries.
LONGEST_WAIT = 120.0
# OpenAI's newer models take this in place of `max_tokens`, which other servers know alone.
NEWER_MOST = "max_completion_tokens"
# How a host is written in the name of its key.
MARKS = str.maketrans({".": "_", "-": "__", "_": "___"})
Outcome = Reply | AskFailed | ForethoughtError


class OpenAIModel:
    """A remote model. `concurrency` requests in flight; `tries` per request with exponential back-off up to 30 s, or as long as the server
    asks for (`Retry-After`). Where it limits the rate, no try counts until it has let nothing through for `patience` seconds."""

    def __init__(
        self,
        model: str,
        url: str,
        *,
        system: str | None = None,
        think: bool = False,
        concurrency: int = 32,
        tries: int = 5,
        timeout: float = 600.0,
        backoff: float = 1.0,
        patience: float = 600.0,
    ) -> None:
        self.identity = f"openai:{model}@{url}{' thinking' if think else ''}"
        self.pinned = False
        self._model, self._url, self._system, self._think = model, url.rstrip("/"), system, think
        self._tries, self._backoff = tries, backoff
        self._patience, self._heard, self._warned = patience, 0.0, False
        # When the latest of the requests that were answered was sent.
        self._served, self._broken = 0.0, 0
        self._most, self._fold = "max_tokens", False
        self._done: queue.Queue[tuple[int, Outcome]] = queue.Queue()
        # What this server was found not to take, and what run.json says of it.
        self._left_out: set[str] = set()
        self.about: dict[str, Any] = {}
        key = _key(httpx.URL(url))
        self._withheld = bool(os.environ.get("OPENAI_API_KEY")) and not key
        try:
            self._client = httpx.AsyncClient(
                timeout=httpx.Timeout(timeout, connect=10.0),
                limits=httpx.Limits(max_connections=concurrency, max_keepalive_connections=concurrency),
                headers={"Authorization": f"Bearer {key}"} if key else {},
                trust_env=True,
            )
        except (ImportError, ValueError) as error:
            # Without its words, which may hold the key.
            raise ForethoughtError(
                f"no connection to {url} can be set up ({type(error).__name__}). "
                "Check FORETHOUGHT_API_KEY, and the proxy in HTTPS_PROXY or ALL_PROXY."
            ) from None
        self._loop = asyncio.new_event_loop()
        self._slots = asyncio.Semaphore(concurrency)
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def fingerprint(self, question: Question) -> str:
        return digest([m.model_dump() for m in with_system(question.messages, self._system)], question.prefix)

    def submit(self, ticket: int, question: Question, seed: int) -> None:
        asyncio.run_coroutine_threadsafe(self._answer(ticket, question, seed), self._loop)

    def step(self, block: bool = True) -> list[tuple[int, Reply | Logprobs | AskFailed]]:
        if not block and self._done.empty():
            return []
        found = [self._done.get()]
        while not self._done.empty():
            found.append(self._done.get_nowait())
        replies: list[tuple[int, Reply | Logprobs | AskFailed]] = []
        down: ForethoughtError | None = None
        for ticket, outcome in found:
            if isinstance(outcome, ForethoughtError):
                down = outcome
            else:
                replies.append((ticket, outcome))
        if down is not None and not replies:
            raise down
        if down is not None:
            # What came in before the server died is handed over first.
            self._done.put((-1, down))
        return replies

    def close(self) -> None:
        async def stop() -> None:
            # Only our own: the tasks that a request makes to connect end with it.
            tasks = [task for task in asyncio.all_tasks() if task.get_name() == "ask"]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._client.aclose()

        asyncio.run_coroutine_threadsafe(stop(), self._loop).result(timeout=10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=10)
        self._loop.close()

    async def _answer(self, ticket: int, question: Question, seed: int) -> None:
        if task := asyncio.current_task():
            task.set_name("ask")
        try:
            async with self._slots:
                outcome = await self._request(question, seed)
        except (AskFailed, ForethoughtError) as error:
            outcome = error
        except Exception as error:
            outcome = AskFailed("bad_reply", f"{type(error).__name__}: {error}")
        self._done.put((ticket, outcome))

    async def _request(self, question: Question, seed: int) -> Outcome:
        if not isinstance(question, Ask):
            return AskFailed(
                "unsupported", "a chat server gives no log-probability of fixed text; use a local model for this"
            )
        problem, pause, started, troubled = "", 0.0, time.monotonic(), 0.0
        waits = failed = 0
        # Only where the request succeeds without them, the server does not take these.
        without: set[str] = set()
        while failed < self._tries:
            if waits:
                own = min(30.0, self._backoff * 2 ** min(waits - 1, 8)) * (0.5 + random.random())
                await asyncio.sleep(max(own, pause))
            waits, pause, body = waits + 1, 0.0, self._body(question, seed, without)
            sent = time.monotonic()
            try:
                response = await self._client.post(f"{self._url}/chat/completions", json=body)
            except httpx.LocalProtocolError:
                raise ForethoughtError(
                    f"a request to {self._url} cannot be written. "
                    "Check FORETHOUGHT_API_KEY: is there a stray character in it?"
                ) from None
            except httpx.TransportError as error:
                problem, failed = f"{type(error).__name__} {error}".strip(), failed + 1
                continue
            status = response.status_code
            if status == LIMITED:
                problem, pause = f"HTTP {status}: {_message(response)}", asked_to_wait(response)
                failed += time.monotonic() - max(started, self._heard) > self._patience
                self._say_limited()
                continue
            if status in PASSING or status >= 500:
                troubled = troubled or time.monotonic()
                problem, pause, failed = f"HTTP {status}", asked_to_wait(response), failed + 1
                continue
            self._heard, self._served, self._broken = time.monotonic(), max(self._served, sent), 0
            if status == 400 and NEWER_MOST not in body and NEWER_MOST in _message(response):
                self._most = NEWER_MOST
                continue
            if (
                status == 400
                and body["messages"][0]["role"] == "system"
                and "system role" in _message(response).lower()
            ):
                # Gemma's template has none.
                self._fold = True
                continue
            if status in (400, 422) and (field := _untaken(_message(response), body)):
                without.add(field)
                continue
            text = "" if status < 300 else _message(response)
            if 300 <= status < 400:
                to = response.headers.get("Location", "nowhere")
                raise ForethoughtError(
                    f"{self._url} answered {status}: it sends on to {to}. Write the URL that it means."
                )
            # A relay's filter of what comes in (OpenRouter's) answers 403 too, and is about this prompt.
            if status in UNUSABLE and not (status == 403 and "flagged" in text.lower()):
                raise ForethoughtError(
                    f"{self._url} answered {status} for model '{self._model}': {text} "
                    "Check the model's name, the URL, FORETHOUGHT_API_KEY and the credit that it has."
                    + (" OPENAI_API_KEY goes to OpenAI alone, over https." if self._withheld else "")
                )
            if status >= 400:
                long = (
                    "context length" in text.lower() or "maximum context" in text.lower() or "too long" in text.lower()
                )
                return AskFailed("too_long" if long else "refused_by_server", f"HTTP {status}: {text}")
            reply = read_reply(response.json(), question.prefix, self._think)
            for field in without if isinstance(reply, Reply) else ():
                self._leave_out(field)
            return reply
        self._broken += 1
        breaks = problem == "HTTP 500" and self._broken <= BROKEN
        if breaks or (problem.startswith("HTTP 5") and self._served > troubled):
            # The server is there, and breaks on this request each time: one bad row must not stop every restart (which asks it once
            # more). What was sent before the trouble began and is answered after says nothing of that: a server that is shut down
            # finishes its work.
            return AskFailed("refused_by_server", f"{problem} on each of {self._tries} tries")
        again = "repeat the same command: it goes on where it stopped."
        if problem.startswith(f"HTTP {LIMITED}"):
            raise ForethoughtError(
                f"{self._url} limits the rate and let nothing through for {self._patience:.0f} s ({problem}). Later, {again}"
            )
        raise ForethoughtError(
            f"no answer from {self._url} after {self._tries} tries ({problem}). Start the server again and {again}"
        )

    def _leave_out(self, field: str) -> None:
        """Models that think take no temperature, and some no top_p beside it or no seed: then the server samples as it does by itself."""
        if field not in self._left_out:
            self._left_out.add(field)
            self.about = {"revision": None, "left to the server": sorted(self._left_out)}
            sys.stderr.write(
                f"note: {self._url} does not take '{field}' for '{self._model}', which is left to the server.\n"
            )

    def _say_limited(self) -> None:
        """Once: otherwise only the falling rate would show why the run is slow."""
        if not self._warned:
            self._warned = True
            sys.stderr.write(f"note: {self._url} limits the rate, and is waited for.\n")

    def _body(self, ask: Ask, seed: int, without: Set[str]) -> dict[str, Any]:
        messages = with_system(ask.messages, self._system)
        messages = fold_system(messages) if self._fold else messages
        if ask.prefix:
            messages = (*messages, Message(role="assistant", content=ask.prefix))
        body: dict[str, Any] = {
            "model": self._model,
            "messages": [m.model_dump() for m in messages],
            "temperature": ask.sampling.temperature,
            "top_p": ask.sampling.top_p,
            self._most: ask.sampling.max_tokens,
            "seed": seed % 2**31,
        }
        body = {key: value for key, value in body.items() if key not in self._left_out | without}
        if ask.prefix:
            # vLLM and SGLang: go on with the assistant's words instead of opening a new turn.
            body |= {"continue_final_message": True, "add_generation_prompt": False}
        return body


def read_reply(payload: dict[str, Any], prefix: str = "", think: bool = False) -> Reply | AskFailed:
    """A Reply from a chat completion. Reasoning that the server parsed off comes back in think tags, so that all models look alike.

    vLLM calls it `reasoning`, others `reasoning_content`; a thought cut off gives no content, and stays an unclosed thought. With `think`
    the server's template opens the thought, which a reply without any tag then goes on with.
    """
    usage = (payload.get("usage") if isinstance(payload, dict) else None) or {}
    read, written = usage.get("prompt_tokens") or 0, usage.get("completion_tokens") or 0
    try:
        choice = payload["choices"][0]
        message, stop = choice["message"], choice.get("finish_reason")
    except (KeyError, IndexError, TypeError):
        return Charged("bad_reply", f"not a chat completion: {str(payload)[:200]}", read, written)
    if stop == "content_filter":
        return Charged("refused_by_server", "content_filter: the server's own filter cut the reply", read, written)
    content = message.get("content")
    reasoning = message.get("reasoning") or message.get("reasoning_content")
    parsed = any(message.get(field) is not None for field in ("reasoning", "reasoning_content"))
    if reasoning and content is None and stop != "length" and prefix and prefix.rfind(OPEN) <= prefix.rfind(CLOSE):
        # vLLM's parsers take all for a thought where no `</think>` comes; but after this prefix none is open, and the turn has ended.
        content, reasoning = reasoning, None
    text = content or ""
    if reasoning:
        # Others than vLLM give "" where the thought was cut off.
        cut = not content and (content is None or stop == "length")
        text = f"{OPEN}\n{reasoning}" + ("" if cut else f"\n{CLOSE}\n\n{text}")
    elif prefix and text.startswith(prefix):
        text = text[len(prefix) :]
    return Reply(
        # A token cut in half can leave half a surrogate pair, which no file can hold.
        text=text.encode("utf-8", "replace").decode("utf-8"),
        stop="length" if stop == "length" else "stop",
        prompt_tokens=read,
        completion_tokens=written,
        # A prefix stands in place of what the template would have opened.
        opened=think and not parsed and not prefix and not text.lstrip().startswith(OPEN),
    )


def load_openai(spec: str, system: str | None = None, concurrency: int = 32, think: bool = False) -> OpenAIModel:
    """`MODEL@URL`, the URL ending in /v1, with `think` of a model whose template opens the thought. Where its
    key is read from: `_key`."""
    model, _, url = spec.rpartition("@")
    try:
        known = httpx.URL(url).scheme in ("http", "https")
    except httpx.InvalidURL:
        known = False
    if not model or not known:
        raise ForethoughtError(
            f"cannot read 'openai:{spec}'. Write openai:MODEL@URL, for example openai:my-model@http://localhost:8000/v1"
        )
    return OpenAIModel(model, url, system=system, think=think, concurrency=concurrency)


def _key(url: httpx.URL) -> str:
    """The key of a server: its own (`FORETHOUGHT_API_KEY_API_EXAMPLE_COM`); OpenAI's, which goes to OpenAI alone, since the URL may stand
    in a file that somebody else has written; or the one for all."""
    # As it is looked up (`xn--...`), each mark in its own way: no two hosts may share a key. So one in which marks adjoin (`a_.b` would
    # read like `a--b`), and an IPv6 address, have none of their own.
    host = url.raw_host.decode("ascii")
    plain = re.fullmatch(r"[a-z\d]+(?:(?:[._]|-+)[a-z\d]+)*", host)
    own = f"FORETHOUGHT_API_KEY_{host.translate(MARKS).upper()}" if plain else ""
    # As it was written once. The general key must not go in its place unseen.
    old = "FORETHOUGHT_API_KEY_" + re.sub(r"\W", "_", url.host).upper()
    if os.environ.get(old) and own not in os.environ:
        raise ForethoughtError(
            f"{old} is not read for {host}, since other hosts would be written like that too. "
            + (f"Put the key of {host} into {own}." if own else "Unset it: that host's key is FORETHOUGHT_API_KEY.")
        )
    theirs = url.scheme == "https" and host.endswith("api.openai.com")
    names = (own, *(["OPENAI_API_KEY"] if theirs else []), "FORETHOUGHT_API_KEY")
    return next(filter(None, map(os.environ.get, names)), "").strip()


def _untaken(message: str, body: dict[str, Any]) -> str | None:
    """The sampling setting that a refusal of a request is about; a narrower nucleus than all is not given up."""
    # "only 1 is allowed" is no bound ("only 0 to 1 is allowed"), which is for the user to keep.
    refused = (
        r"support|both|unknown|unrecogni|unexpected|deprecated|not (?:allowed|permitted)|extra"
        r"|only be set to|only (?:the )?(?:default |value ){0,2}[`'\"(]*\w*(?:\.\w+)?[`'\")]* ?is (?:allowed|permitted)"
    )
    if not re.search(refused, message, re.IGNORECASE):
        return None
    named = (
        f
        for f in ("top_p", "temperature", "seed")
        if f in body and re.search(rf"(?<![\w.]){f}(?!\w|\.\w)", message, re.IGNORECASE)
    )
    field = next(named, None)
    return None if field == "top_p" and body["top_p"] != 1.0 else field


def _message(response: httpx.Response) -> str:
    try:
        body = response.json()
    except ValueError:
        body = None
    # Google's servers put it in a list.
    body = body[0] if isinstance(body, list) and body else body
    error = body.get("error", response.text) if isinstance(body, dict) else response.text
    text = error.get("message", str(error)) if isinstance(error, dict) else str(error)
    return " ".join(text.split())[:300]


def asked_to_wait(response: httpx.Response) -> float:
    """Seconds that the server asks for in `Retry-After`, at most LONGEST_WAIT; 0 where it names none (a date is not read)."""
    try:
        seconds = float(response.headers.get("Retry-After", ""))
    except ValueError:
        return 0.0
    return min(seconds, LONGEST_WAIT) if seconds > 0 else 0.0
