"""Memory that stays with the process, so that tensors do not fault their pages in anew at every step, until it is given back."""

from __future__ import annotations

import ctypes
import gc
import sys
from typing import Any

# From glibc's malloc.h.
M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -4, -8


def keep_pages() -> bool:
    """Tell glibc to keep freed blocks of any size for the next tensor; False where the C library is another one.

    By default each large block is mapped and unmapped by itself, and the system fills every page with zeros again: about a sixth
    of a training step on CPU.
    """
    mallopt = _glibc("mallopt")
    if mallopt is None:
        return False
    settings = {M_ARENA_MAX: 1, M_MMAP_MAX: 0, M_TRIM_THRESHOLD: 2**31 - 1}
    return all(bool(mallopt(name, value)) for name, value in settings.items())


def give_back() -> bool:
    """Give the system the pages that nothing uses now; False where the C library cannot.

    Tensors of ever new sizes leave gaps, so that what is kept grows. Asking for pages again takes the time of a fraction of a step, so it
    is for now and then: at a checkpoint, and where models are closed.
    """
    trim = _glibc("malloc_trim")
    return trim is not None and bool(trim(0))


def let_go() -> None:
    """Free models that nothing uses: a layer that is given another forward holds itself, so that counting references never frees it."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    give_back()


def _glibc(name: str) -> Any:
    """A function of the C library; None where it has none of that name."""
    return getattr(ctypes.CDLL(None), name, None) if sys.platform.startswith("linux") else None
