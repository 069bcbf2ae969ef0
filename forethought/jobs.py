"""Parts of a whole in several processes at once, each part as soon as what it is made from is there, in a process of its own.

The parts of an experiment share no state but files, so running them side by side changes nothing but the time. Each process has its
share of the cores, and a GPU where there are any. As with `make -j`, what runs when a part fails is finished, and nothing new begins.
"""

from __future__ import annotations

import io
import multiprocessing
import os
import pickle
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing import connection
from pathlib import Path
from typing import Any, NamedTuple, TextIO, TypeVar

from forethought.errors import NO_ROOM, ForethoughtError, is_out_of_memory
from forethought.run import code_hash

R = TypeVar("R")
Say = Callable[[str], None]
# Seconds that a process has to end by itself, and the exit code of one that did.
PATIENCE, STOPPED = 30, 130
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
    shares = _shares(min(jobs, len(parts)))
    gpus = sorted({share["CUDA_VISIBLE_DEVICES"] for share in shares if "CUDA_VISIBLE_DEVICES" in share})
    on = f" on GPUs {', '.join(gpus)}" if gpus else ""
    say(f"{len(parts)} parts, {len(shares)} at once, each with OMP_NUM_THREADS={shares[0]['OMP_NUM_THREADS']}{on}")
    with tempfile.NamedTemporaryFile(prefix="forethought-", delete=False) as file:
        pickle.dump((code_hash(), work), file)
    task = Path(file.name)
    try:
        while running or (waiting and not failed):
            free = [slot for slot in range(len(shares)) if slot not in {r.slot for r in running}]
            ready = [] if failed else [p for p, before in waiting.items() if all(b in done for b in before)]
            for part, slot in zip(ready, free, strict=False):
                del waiting[part]
                running.append(_start(part, slot, task, shares[slot]))
            ended = connection.wait([end for r in running for end in (r.result, r.process.sentinel)])
            for r in [r for r in running if r.result in ended or r.process.sentinel in ended]:
                running.remove(r)
                ok, found = _result(r)
                if ok:
                    done[r.part] = found
                else:
                    failed.append(f"{' '.join(r.part)}: {found}")
                    say(f"{failed[-1]}{' What runs is finished first.' if running else ''}")
    finally:
        _end(running)
        task.unlink()
    if failed:
        raise ForethoughtError(failed[0])
    return done


def _end(running: Sequence[Running]) -> None:
    for r in running:
        r.process.terminate()
    for r in running:
        r.process.join(PATIENCE)
        r.process.kill()


def _shares(jobs: int) -> list[dict[str, str]]:
    """What each slot's processes find in their environment: their share of the cores, and a GPU, in turn, where there are any."""
    import torch

    cores = _cores()
    threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, cores // jobs))
    named = [x.strip() for x in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if x.strip()]
    gpus = [] if "-1" in named else named or [str(i) for i in range(torch.cuda.device_count())]
    return [
        {"OMP_NUM_THREADS": threads} | ({"CUDA_VISIBLE_DEVICES": gpus[slot % len(gpus)]} if gpus else {})
        for slot in range(jobs)
    ]


def _cores(limit: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """The cores that this process may use, a container's quota included."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = limit.read_text().split()
    except (OSError, ValueError):
        return cores
    return cores if quota == "max" else max(1, min(cores, int(quota) // int(period)))


def _start(part: Part, slot: int, task: Path, share: dict[str, str]) -> Running:
    """The work is in a file: a pipe holds 64 KiB, and where a process dies before it reads on, writing more would wait for ever."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(theirs, part, str(task)))
    # Ctrl-C waits until the process can be told what to do on it.
    with _environment(share), _signals(blocked=True):
        process.start()
    theirs.close()
    return Running(part, slot, process, ours)


def _result(r: Running) -> tuple[bool, Any]:
    """(whether it is one, the result or what went wrong)."""
    try:
        found: tuple[bool, Any] = r.result.recv() if r.result.poll() else (False, "")
    except EOFError:
        found = False, ""
    r.process.join()
    if found != (False, ""):
        return found
    code = r.process.exitcode
    if code == -getattr(signal, "SIGKILL", 9):
        return False, "its process was killed, perhaps for memory. Run the same command with fewer jobs: it goes on."
    if code < 0 or code == STOPPED:
        by = "a signal" if code == STOPPED else signal.Signals(-code).name
        return False, f"its process was ended by {by}. Run the same command again: it goes on where it stopped."
    return False, f"its process ended with exit code {code}, as said above. What was done is kept."


def _child(pipe: connection.Connection, part: Part, task: str) -> None:
    """One part, in its own process. Its lines say which it is; it ends with its parent."""
    tag = " ".join(part)
    sys.stdout, sys.stderr = Tagged(sys.stdout, tag), Tagged(sys.stderr, tag)
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, _stop_once)
        with _signals(blocked=True):  # Taken by another thread, a signal would not wake this one.
            threading.Thread(target=_end_with_parent, daemon=True).start()
        with _signals(blocked=False):
            code, work = pickle.loads(Path(task).read_bytes())
            if code != code_hash():
                raise ForethoughtError("the code has changed since the command began, so this would be another run.")
            pipe.send((True, work(part, print)))
    except ForethoughtError as error:
        pipe.send((False, str(error)))
    except KeyboardInterrupt:
        os._exit(STOPPED)  # No traceback: the parent says that it was stopped.
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        pipe.send((False, f"{NO_ROOM} Or run fewer jobs."))


def _stop_once(number: int, frame: Any) -> None:
    """Ctrl-C reaches parent and children alike, and the parent then stops its children: once is enough."""
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, lambda number, frame: None)
    raise KeyboardInterrupt


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(PATIENCE)
    os._exit(STOPPED)


@contextmanager
def _signals(blocked: bool) -> Iterator[None]:
    """Within it this thread, and what it starts, get no Ctrl-C and no SIGTERM; or, where they were blocked, get them again."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(
        signal.SIG_BLOCK if blocked else signal.SIG_UNBLOCK, (signal.SIGINT, signal.SIGTERM)
    )
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


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
