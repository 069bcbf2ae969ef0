"""Progress of long steps: count, rate, time left. A live bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

EVERY = 15.0
# Units, or this share of all, before time left is said: the first ones tell little.
FEW, SHARE = 10, 0.05


class Progress:
    """Counts units of work. `advance` may be called as often as one likes."""

    def __init__(self, label: str, total: int, unit: str, done: int = 0) -> None:
        self.label, self.total, self.unit, self.done = label, total, unit, done
        self._first, self._start, self._shown = done, time.monotonic(), 0.0
        self._live = sys.stderr.isatty()

    def advance(self, n: int = 1, note: str = "") -> None:
        self.done += n
        now = time.monotonic()
        if now - self._shown >= (0.2 if self._live else EVERY):
            self._shown = now
            self._show(note)

    def end(self) -> None:
        self._show("")
        if self._live:
            sys.stderr.write("\n")

    def _show(self, note: str) -> None:
        seconds = time.monotonic() - self._start
        rate = (self.done - self._first) / seconds if seconds > 0.5 else 0.0
        parts = [f"{self.label}: {self.done}/{self.total} {self.unit}"]
        if rate > 0:
            parts.append(f"{rate:.2f}/s" if rate < 10 else f"{rate:.0f}/s")
            if self.done >= self.total:
                parts.append(f"took {duration(seconds)}")
            elif self.done - self._first >= min(FEW, SHARE * self.total):
                parts.append(f"{duration((self.total - self.done) / rate)} left")
        line = ", ".join([*parts, note] if note else parts)
        sys.stderr.write(f"\r\033[K{line[:118]}" if self._live else f"{line}\n")
        sys.stderr.flush()


@contextmanager
def progress(label: str, total: int, unit: str, done: int = 0) -> Iterator[Progress]:
    """A Progress that shows its last state however the block ends."""
    bar = Progress(label, total, unit, done)
    try:
        yield bar
    finally:
        bar.end()


def duration(seconds: float) -> str:
    """`42 s`, `3 min 05 s`, `2 h 10 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
