"""A run directory has one writer: an advisory lock on a file in it, which the system drops when its process ends, however it ends.

The file is removed when the run is finished. Where the file system knows no locks, a line says so and work goes on.
"""

from __future__ import annotations

import errno
import os
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path

from forethought.errors import ForethoughtError

LOCK = ".lock"
# Where the lock stands on Windows, whose locked bytes nobody else can read: far behind the text that says who holds it.
FAR = 2**20
# Directory to (process, file descriptor). A forked child inherits this table, but no lock.
_HELD: dict[Path, tuple[int, int]] = {}


def hold(folder: Path) -> None:
    """Take the lock of a directory, or keep it where this process has it. ForethoughtError says which other process has it."""
    place = folder.resolve()
    while not _is_held(place):
        handle = os.open(place / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            _lock(handle)
        except (BlockingIOError, PermissionError) as error:
            holder = os.pread(handle, 200, 0) if hasattr(os, "pread") else os.read(handle, 200)
            os.close(handle)
            raise ForethoughtError(
                f"{folder} is being written by {holder.decode('utf-8', 'replace').strip() or 'another process'}. "
                "Wait until it ends, or choose another directory."
            ) from error
        except OSError as error:
            os.close(handle)
            with suppress(OSError):
                os.unlink(place / LOCK)
            reason = errno.errorcode.get(error.errno or 0, "") or str(error)
            sys.stderr.write(f"{folder} cannot be locked ({reason}): see that no other process writes there.\n")
            return
        # It may have been removed between the two calls by the process that held it: then it is another file that counts.
        if _is_file(handle, place / LOCK):
            os.ftruncate(handle, 0)
            started = time.strftime("%Y-%m-%d %H:%M:%S")
            os.write(handle, f"process {os.getpid()} on {socket.gethostname()}, since {started}".encode())
            _HELD[place] = os.getpid(), handle
        else:
            os.close(handle)


def release(folder: Path) -> None:
    """Give the lock of a directory back, and remove its file; nothing where this process does not have it."""
    place = folder.resolve()
    if _is_held(place):
        _, handle = _HELD.pop(place)
        if sys.platform == "win32":
            os.close(handle)
            with suppress(OSError):
                os.unlink(place / LOCK)
        else:
            os.unlink(place / LOCK)
            os.close(handle)


def _is_held(place: Path) -> bool:
    pid, handle = _HELD.get(place, (0, -1))
    if pid == os.getpid() and _is_file(handle, place / LOCK):
        return True
    if pid:
        del _HELD[place]
        os.close(handle)
    return False


def _is_file(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except FileNotFoundError:
        return False


def _lock(handle: int) -> None:
    if sys.platform == "win32":
        import msvcrt

        os.lseek(handle, FAR, os.SEEK_SET)
        try:
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        finally:
            os.lseek(handle, 0, os.SEEK_SET)
    else:
        import fcntl

        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
