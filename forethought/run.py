"""Runs: a directory with provenance that a stage writes, resumes, finishes once, and that later stages read and verify."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from forethought import __version__
from forethought.errors import ForethoughtError
from forethought.lock import LOCK, hold, release
from forethought.records import Record, digest

R = TypeVar("R", bound=Record)
PACKAGES = ("torch", "transformers", "trl", "peft", "accelerate", "datasets", "tokenizers", "pydantic")


# Without O_BINARY, Windows would write other line ends.
FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0)


# None outside an experiment, whose command alone can keep them.
_KEEP: ContextVar[bool | None] = ContextVar("keep finished runs of other code", default=None)


class Run:
    """A run directory being written. Use `open_run`; write records with `append`; end with `finish`."""

    def __init__(self, path: Path, info: dict[str, Any]) -> None:
        self.path = path
        self.info = info
        self._open: dict[str, int] = {}

    @property
    def finished(self) -> bool:
        return bool(self.info["status"] == "finished")

    def read(self, name: str, kind: type[R]) -> list[R]:
        """Records of `name` written so far; [] where there are none. A last line torn by a kill is cut off the file."""
        path = self.path / name
        if not path.exists():
            return []
        if not self.finished:
            _cut_torn_line(path)
        return list(read_jsonl(path, kind))

    def append(self, name: str, records: Iterable[Record]) -> None:
        """Add records and push them to the disk, so that a kill loses nothing that was reported."""
        data = "".join(r.model_dump_json() + "\n" for r in records).encode()
        with explain_disk():
            while data:
                data = data[os.write(self._file(name), data) :]

    def _file(self, name: str) -> int:
        """The file, kept open: opening it for each record takes longer than the record does."""
        if name not in self._open:
            self._open[name] = os.open(self.path / name, FLAGS, 0o666)
        return self._open[name]

    def close(self) -> None:
        """Close the files that `append` keeps open; to be called before one of them is replaced."""
        while self._open:
            os.close(self._open.popitem()[1])

    __del__ = close

    def replace(self, name: str, records: Iterable[Record]) -> None:
        """Write a whole file of records in place of what it holds."""
        self.close()
        write_records(self.path / name, records)

    def first_time(self, keys: set[str]) -> set[str]:
        """Those of `keys` that this has not been asked of in this run before, which it writes down."""
        known = set(self.info.get("again", ()))
        if keys - known:
            self.info["again"] = sorted(known | keys)
            write_json(self.path / "run.json", self.info)
        return keys - known

    def log(self, line: str) -> None:
        with explain_disk(), open(self.path / "log.txt", "a", encoding="utf-8") as file:
            file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}\n")

    def finish(self, counts: dict[str, int], outputs: Iterable[str], **extra: Any) -> None:
        """Hash the outputs and write the finished status, last and atomically."""
        self.close()
        self.info |= {
            "status": "finished",
            "counts": counts,
            "outputs": {name: hash_file(self.path / name) for name in sorted(outputs)},
            "ended": time.time(),
            **extra,
        }
        write_json(self.path / "run.json", self.info)
        release(self.path)


@contextmanager
def keeping_finished(keep: bool) -> Iterator[None]:
    """Within, `open_run` takes a finished run of the same settings and inputs as done, whatever code made it."""
    token = _KEEP.set(keep)
    try:
        yield
    finally:
        _KEEP.reset(token)


def open_run(
    path: str | Path,
    command: str,
    config: dict[str, Any],
    inputs: dict[str, str],
    *,
    seed: int = 0,
    overwrite: bool = False,
) -> Run:
    """Make the run directory, or open the unfinished or finished one that the same settings made.

    `inputs` maps a name to a content hash. Raises ForethoughtError where the directory holds a run of other settings, or something
    that is no run at all; with `overwrite` such a run (never another directory) is removed. An unfinished run is locked until it is
    finished or this process ends; ForethoughtError where another process writes it.
    """
    path = Path(path)
    settings: dict[str, Any] = {
        "command": command,
        "config": config,
        "inputs": inputs,
        "seed": seed,
        "code": code_hash(),
    }
    identity = digest(settings)
    if (found := _reusable(path, settings, identity, overwrite)) and found["status"] == "finished":
        return Run(path, found)
    with explain_disk():
        path.mkdir(parents=True, exist_ok=True)
        hold(path)
        # Another process may have written here until the lock was ours.
        if found := _reusable(path, settings, identity, overwrite):
            return Run(path, found)
        for old in path.iterdir():
            if old.name != LOCK:
                shutil.rmtree(old) if old.is_dir() and not old.is_symlink() else old.unlink()
    info = {
        "identity": identity,
        **settings,
        "status": "running",
        "argv": called(),
        "started": time.time(),
        "git": git_state(),
        "packages": versions(),
        "hardware": hardware(),
    }
    write_json(path / "run.json", info)
    return Run(path, info)


def _reusable(path: Path, settings: dict[str, Any], identity: str, overwrite: bool) -> dict[str, Any] | None:
    """What `run.json` says of a run of these settings; None where one may be made, in place of what is there."""
    if (path / "run.json").exists():
        info = read_info(path)
        if info["identity"] == identity:
            return info
        done = info["status"] == "finished" and _as_before(info, {**info, **settings, "code": info["code"]})
        if done and _KEEP.get():
            return info
        if not overwrite and not _is_bare(path):
            keep = (
                " After an upgrade, `forethought run EXPERIMENT --keep-finished` goes on with what is finished."
                if done and _KEEP.get() is False
                else ""
            )
            raise ForethoughtError(
                f"{path} was made with other settings ({_difference(info, settings)}). "
                f"Choose another directory, or pass --overwrite to replace it.{keep}"
            )
    elif path.exists() and not (path.is_dir() and {p.name for p in path.iterdir()} <= {LOCK, "run.json.tmp"}):
        raise ForethoughtError(f"{path} is not empty and holds no run. Choose another directory.")
    return None


def locate(path: str | Path, run: Path) -> Path:
    """A path that a run has written down: as it stands, or, from another directory, below the nearest parent of the run that has it."""
    if Path(path).is_absolute() or Path(path).exists():
        return Path(path)
    return next((p / path for p in run.absolute().parents if (p / path).exists()), Path(path))


def read_run(path: str | Path, command: str | None = None) -> Run:
    """A finished run whose outputs still hash as when it finished. Raises ForethoughtError otherwise."""
    path = Path(path)
    info = read_info(path)
    if command is not None and info["command"] != command:
        raise ForethoughtError(f"{path} is a run of '{info['command']}', not of '{command}'.")
    if info["status"] != "finished":
        raise ForethoughtError(
            f"{path} is not finished. Run its command again to complete it: it goes on where it stopped."
        )
    for name, expected in info["outputs"].items():
        if not (path / name).exists() or hash_file(path / name) != expected:
            raise ForethoughtError(f"{path / name} has changed since the run finished. Make the run again.")
    return Run(path, info)


def readable(folder: Path) -> None:
    """Give the weights in a folder the mode of its other files: safetensors writes them for their owner alone."""
    others = list(folder.glob("*.json"))
    for file in folder.glob("*.safetensors") if others else ():
        file.chmod(others[0].stat().st_mode & 0o777)


def new_folder(out: Path) -> Path:
    """A new or empty folder. ForethoughtError where it holds anything, which is never written over."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ForethoughtError(f"{out} is not an empty folder. Choose another with --out.")
    out.mkdir(parents=True, exist_ok=True)
    return out


def read_info(path: str | Path) -> dict[str, Any]:
    """What a run directory says of itself, finished or not. ForethoughtError where it holds no run."""
    file = Path(path) / "run.json"
    if not file.exists():
        raise ForethoughtError(f"{path} holds no run (no run.json).")
    try:
        info: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        broken = not {"identity", "status", "command"} <= info.keys()
    except (ValueError, AttributeError):
        broken = True
    if broken:
        raise ForethoughtError(f"{file} cannot be read. Remove the directory and make the run again.")
    return info


def run_hash(run: Run) -> str:
    """Content hash of a finished run: what it was made from, and what it wrote."""
    return digest(run.info["identity"], run.info["outputs"])


def hash_file(path: str | Path) -> str:
    """sha256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_jsonl(path: str | Path, kind: type[R]) -> Iterator[R]:
    """Records of a JSONL file; ForethoughtError names the file and line of the first malformed one."""
    if not Path(path).is_file():
        raise ForethoughtError(f"no file '{path}'.")
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                try:
                    yield kind.model_validate_json(line)
                except ValidationError as error:
                    first = error.errors()[0]
                    where = ".".join(str(p) for p in first["loc"]) or "line"
                    raise ForethoughtError(f"{path}, line {number}: '{where}': {first['msg']}.") from error


def write_records(path: Path, records: Iterable[Record]) -> None:
    """Write a whole JSONL file atomically."""
    _write_atomically(path, lambda file: file.writelines(r.model_dump_json() + "\n" for r in records))


def write_text(path: Path, text: str) -> None:
    """Write a whole text file atomically."""
    _write_atomically(path, lambda file: file.write(text))


def write_json(path: Path, value: Any) -> None:
    _write_atomically(path, lambda file: json.dump(value, file, indent=1, ensure_ascii=False, sort_keys=True))


def _write_atomically(path: Path, write: Callable[[Any], Any]) -> None:
    temporary = path.with_name(path.name + ".tmp")
    with explain_disk():
        with open(temporary, "w", encoding="utf-8", newline="") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)


NO_SPACE = "the disk is full. Free some space and run the same command again: it goes on where it stopped."
# What safetensors and torch, whose errors are none of the system's, say of a full disk.
FULL = ("os error 28", "os error 122", "PytorchStreamWriter failed")


class explain_disk:
    """Context manager: a full disk or a forbidden path becomes one clear line."""

    def __enter__(self) -> None: ...

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, Exception) and any(word in str(error) for word in FULL):
            raise ForethoughtError(NO_SPACE) from error
        if isinstance(error, OSError) and not isinstance(error, ConnectionError):
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise ForethoughtError(NO_SPACE) from error
            raise ForethoughtError(f"cannot write {error.filename or ''}: {error.strerror}.") from error


@cache
def code_hash() -> str:
    """Version and content hash of this package: runs made by other code are other runs."""
    root = Path(__file__).parent
    files = sorted(p for p in root.rglob("*") if p.suffix in (".py", ".md", ".txt", ".yaml", ".jsonl", ".json"))
    return f"{__version__}+{digest([(str(p.relative_to(root)), hash_file(p)) for p in files], length=10)}"


def called() -> list[str]:
    """The command that this process runs; `python` and a script where it is none of ours (a notebook, say)."""
    program, *words = sys.argv
    own = Path(program).stem == "forethought" or Path(program).parts[-2:] == ("forethought", "__main__.py")
    return ["forethought", *words] if own else ["python", Path(program).name, *words]


def git_state() -> dict[str, Any] | None:
    """Commit and dirtiness of the working directory's repository; None outside one."""

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    try:
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):
        return None


def versions() -> dict[str, str]:
    """Versions of what a result depends on, without importing any of it."""
    found = {"python": platform.python_version(), "forethought": __version__}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def hardware() -> dict[str, Any]:
    info: dict[str, Any] = {"machine": platform.machine(), "system": platform.system(), "cores": os.cpu_count()}
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        info["memory_gib"] = round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1)
    # Without importing torch: by then a stage that computes on a GPU has done so.
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        info["gpus"] = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return info


def _as_before(old: Any, new: Any) -> bool:
    """Whether settings are what they were, but for those that only one of two versions knows and that are off there."""
    if isinstance(old, dict) and isinstance(new, dict):
        return all(
            _as_before(old[key], new[key]) if key in old and key in new else not (old.get(key) or new.get(key))
            for key in {*old, *new}
        )
    return digest(old) == digest(new)


def _is_bare(path: Path) -> bool:
    """Whether a run stopped before it wrote anything but its own description."""
    return {p.name for p in path.iterdir()} <= {"run.json", "log.txt", LOCK} and read_info(path)["status"] != "finished"


def _difference(old: dict[str, Any], new: dict[str, Any]) -> str:
    """The first thing that differs: the code last, since the rest is what somebody chose."""
    top, code = ({key: old.get(key) for key in keys} for keys in (("command", "seed"), ("code",)))
    pairs = [(top, new), (old.get("config", {}), new["config"]), (old.get("inputs", {}), new["inputs"]), (code, new)]
    for before, after in pairs:
        for key in sorted(before.keys() if after is new else {*before, *after}):
            if not _as_before({key: before[key]} if key in before else {}, {key: after[key]} if key in after else {}):
                return f"{key}: {before.get(key)} -> {after.get(key)}"[:160]
    return "unknown"


def _cut_torn_line(path: Path) -> None:
    with open(path, "rb+") as file:
        data = file.read()
        if data and not data.endswith(b"\n"):
            file.truncate(data.rfind(b"\n") + 1)
