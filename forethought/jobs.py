"""Parts of a whole in several processes at once, each part as soon as what it is made from is there, in a process of its own.

The parts of an experiment share no state but files, so running them side by side changes nothing but the time: two processes of one
thread get more done on two cores than one of two, and where there are GPUs each process has one. As with `make -j`, what runs when a
part fails is finished, and nothing new begins.
"""

from __future__ import annotations

import io
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing import connection
from typing import Any, NamedTuple, TextIO, TypeVar

from forethought.errors import ForethoughtError

R = TypeVar("R")
Say = Callable[[str], None]
# (kind, name), as in ("train", "scot").
Part = tuple[str, str]


class Running(NamedTuple):
    """A part in its process, at work on the slot's share of the machine; its end of the pipe brings the result."""

    part: Part
    slot: int
    process: Any
    result: connection.Connection


def work_off(
    parts: Mapping[Part, Sequence[Part]], work: Callable[[Part, Say], R], jobs: int, say: Say
) -> dict[Part, R]:
    """What `work(part, say)` returns for each part, at most `jobs` at once. `parts` says for each which parts come before it; in their own
    order they can be done one after the other. With several jobs `work` and what it returns go through pickle, and say prints.

    Raises ForethoughtError with what the first part to fail said.
    """
    if jobs == 1:
        return {part: work(part, say) for part in parts}
    waiting, running, done, failed = dict(parts), list[Running](), dict[Part, R](), list[str]()
    shares = _shares(jobs)
    gpus = sorted({share["CUDA_VISIBLE_DEVICES"] for share in shares if "CUDA_VISIBLE_DEVICES" in share})
    on = f" on GPUs {', '.join(gpus)}" if gpus else ""
    say(f"{len(parts)} parts, {jobs} at once, each with OMP_NUM_THREADS={shares[0]['OMP_NUM_THREADS']}{on}")
    try:
        while running or (waiting and not failed):
            free = [slot for slot in range(jobs) if slot not in {r.slot for r in running}]
            ready = [] if failed else [p for p, before in waiting.items() if all(b in done for b in before)]
            for part, slot in zip(ready, free, strict=False):
                del waiting[part]
                running.append(_start(part, slot, work, shares[slot]))
            ended = connection.wait([r.result for r in running])
            for r in [r for r in running if r.result in ended]:
                running.remove(r)
                ok, found = _result(r)
                if ok:
                    done[r.part] = found
                else:
                    failed.append(f"{' '.join(r.part)}: {found}")
                    say(f"{failed[-1]}{' What runs is finished first.' if running else ''}")
    finally:
        for r in running:
            r.process.terminate()
        for r in running:
            r.process.join()
    if failed:
        raise ForethoughtError(failed[0])
    return done


def _shares(jobs: int) -> list[dict[str, str]]:
    """What each slot's processes find in their environment: their share of the cores, and a GPU, in turn, where there are any."""
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, cores // jobs))
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpus = named.split(",") if named else [str(i) for i in range(torch.cuda.device_count())]
    return [
        {"OMP_NUM_THREADS": threads} | ({"CUDA_VISIBLE_DEVICES": gpus[slot % len(gpus)]} if gpus else {})
        for slot in range(jobs)
    ]


def _start(part: Part, slot: int, work: Callable[[Part, Say], Any], share: dict[str, str]) -> Running:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(theirs, part, work))
    with _environment(share):
        process.start()
    theirs.close()
    return Running(part, slot, process, ours)


def _result(r: Running) -> tuple[bool, Any]:
    """(whether it is one, the result or what went wrong)."""
    try:
        found: tuple[bool, Any] = r.result.recv()
    except EOFError:
        r.process.join()
        code = r.process.exitcode
        if code == -getattr(signal, "SIGKILL", 9):
            return (
                False,
                "its process was killed, perhaps for memory. Run the same command again with fewer jobs: it goes on.",
            )
        return False, f"its process ended with exit code {code}, as said above. What was done is kept."
    r.process.join()
    return found


def _child(pipe: connection.Connection, part: Part, work: Callable[[Part, Say], Any]) -> None:
    """One part, in its own process. Its lines say which it is; it ends with its parent."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop_once)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    tag = " ".join(part)
    sys.stdout, sys.stderr = Tagged(sys.stdout, tag), Tagged(sys.stderr, tag)
    try:
        pipe.send((True, work(part, print)))
    except ForethoughtError as error:
        pipe.send((False, str(error)))
    except MemoryError:
        pipe.send((False, "out of memory. Use a smaller model or batch, or fewer jobs."))
    except KeyboardInterrupt:
        os._exit(130)  # No traceback: the parent says that it was stopped.


def _stop_once(number: int, frame: Any) -> None:
    """Ctrl-C reaches parent and children alike, and the parent then stops its children: once is enough."""
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_IGN)
    raise KeyboardInterrupt


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os.kill(os.getpid(), signal.SIGTERM)


class Tagged(io.TextIOBase):
    """A stream whose lines begin with what they are about; no terminal, so that progress comes in lines."""

    def __init__(self, to: TextIO, tag: str) -> None:
        self.to, self.tag, self.begun = to, tag, ""

    def write(self, text: str) -> int:
        *lines, self.begun = (self.begun + text).split("\n")
        self.to.write("".join(f"[{self.tag}] {line}\n" for line in lines))
        self.to.flush()
        return len(text)

    def flush(self) -> None:
        self.to.flush()


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
