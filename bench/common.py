"""What the sections share: timing, memory peaks, and running a contender in a process of its own."""

from __future__ import annotations

import json
import multiprocessing
import os
import platform
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

RESULTS = Path("bench/results")


def peak_mib() -> float:
    """The most memory this process has held so far."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)


def now_mib() -> float:
    """The memory that this process holds now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return round(pages * os.sysconf("SC_PAGE_SIZE") / 2**20, 1)


def alone(work: Callable[..., dict[str, Any]], *args: Any) -> dict[str, Any]:
    """`work(*args)` in a fresh process, so that its memory peak and its patches are its own; adds `peak_mib`, `wall` and `tries`.

    A process that dies without an error of its own (a library's crash) is started a second time. Stops the section if that dies too.
    """
    context = multiprocessing.get_context("spawn")
    for tries in (1, 2):
        ours, theirs = context.Pipe(duplex=False)
        started = time.perf_counter()
        process = context.Process(target=_child, args=(theirs, work, args))
        process.start()
        theirs.close()
        try:
            found: dict[str, Any] = ours.recv()
        except EOFError:
            process.join()
            print(f"bench: {work.__name__}{args} died with exit code {process.exitcode}", flush=True)
            if process.exitcode is not None and process.exitcode >= 0:
                break
            continue
        process.join()
        return found | {"wall": round(time.perf_counter() - started, 2), "tries": tries}
    raise SystemExit(f"bench: no result of {work.__name__}{args}")


def _child(pipe: Any, work: Callable[..., dict[str, Any]], args: tuple[Any, ...]) -> None:
    pipe.send(work(*args) | {"peak_mib": peak_mib()})


def matmul_rate(rows: int, inner: int, columns: int, seconds: float = 0.5, weights: int = 16) -> float:
    """float32 operations a second of x @ w.T, x [rows, inner], over several matrices, so that they do not stay in cache. The best
    of three runs."""
    import torch

    many = [torch.randn(columns, inner) for _ in range(weights)]
    x, best = torch.randn(rows, inner), 0.0
    with torch.inference_mode():
        for _ in range(3):
            done, started = 0, time.perf_counter()
            while time.perf_counter() - started < seconds:
                for w in many:
                    torch.nn.functional.linear(x, w)
                done += weights
            best = max(best, 2.0 * rows * inner * columns * done / (time.perf_counter() - started))
    return best


def best_matmul_rate() -> float:
    """The ceiling that everything is held against: the best float32 rate over shapes like those of a small model's layers."""
    return max(matmul_rate(rows, *shape) for rows in (256, 1024) for shape in ((576, 1536), (1536, 576)))


def machine() -> dict[str, Any]:
    import torch

    about = Path("/proc/cpuinfo")
    lines = about.read_text(encoding="utf-8").splitlines() if about.exists() else []
    model = next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor()
    )
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "torch threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "load before": round(os.getloadavg()[0], 2),
    }


def save(section: str, result: dict[str, Any], quick: bool) -> None:
    RESULTS.mkdir(parents=True, exist_ok=True)
    out = {"quick": quick, "date": time.strftime("%Y-%m-%d"), "machine": machine(), **result}
    (RESULTS / f"{section}.json").write_text(json.dumps(out, indent=1) + "\n", encoding="utf-8")
