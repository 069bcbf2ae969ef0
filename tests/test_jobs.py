"""Parts beside each other: in the order they need, each with its share of the machine, and ended in good order."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from forethought.errors import ForethoughtError
from forethought.jobs import Part, Say, work_off

A, B, C, D = ("made", "a"), ("made", "b"), ("made", "c"), ("made", "d")
PARTS: dict[Part, list[Part]] = {A: [], B: [], C: [A, B], D: [C]}


def leave_mark(folder: Path, ballast: bytes, part: Part, say: Say) -> dict[str, str]:
    """Marks where it begins and where it ends; A and B wait for each other. The ballast is more than a pipe holds."""
    name = part[1]
    (folder / f"{name}-begun").touch()
    say(f"marks {name}")
    while part in (A, B) and not all((folder / f"{n}-begun").exists() for n in "ab"):
        time.sleep(0.01)
    for before in PARTS[part]:
        assert (folder / f"{before[1]}-ended").exists()
    (folder / f"{name}-ended").touch()
    return {k: os.environ.get(k, "") for k in ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES")} | {"pid": str(os.getpid())}


def test_parts_run_beside_each_other_and_after_what_they_need(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Two at once, else A and B would wait for ever. Each has a thread or more, and a GPU in turn."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    found = work_off(PARTS, partial(leave_mark, tmp_path, bytes(200_000)), 2, print)
    assert set(found) == set(PARTS)
    assert {found[p]["CUDA_VISIBLE_DEVICES"] for p in (A, B)} == {"0", "1"}
    assert all(int(found[p]["OMP_NUM_THREADS"]) >= 1 for p in PARTS)
    assert len({found[p]["pid"] for p in PARTS}) == 4
    assert "CUDA_VISIBLE_DEVICES" not in os.environ and "OMP_NUM_THREADS" not in os.environ
    out = capfd.readouterr().out.splitlines()
    assert out[0].startswith("4 parts, 2 at once, each with OMP_NUM_THREADS=") and out[0].endswith("on GPUs 0, 1")
    assert {f"[made {n}] marks {n}" for n in "abcd"} <= set(out)


def test_one_at_once_is_this_process_and_the_given_order(tmp_path: Path) -> None:
    said: list[str] = []
    found = work_off({B: [], A: []}, lambda part, say: say(part[1]), 1, said.append)
    assert said == ["b", "a"] and list(found) == [B, A]


def fail(folder: Path, how: str, part: Part, say: Say) -> None:
    """A fails; B goes on for a while after A has ended."""
    if part == A:
        (folder / "a-begun").write_text(str(os.getpid()))
        if how == "mistake":
            raise ForethoughtError("the disk is full.")
        if how == "crash":
            raise ZeroDivisionError("crashed")
        os.kill(os.getpid(), signal.SIGKILL)
    while not is_over(folder / "a-begun"):
        time.sleep(0.01)
    time.sleep(1)
    (folder / f"{part[1]}-ended").touch()


def is_over(pid: Path) -> bool:
    """Whether a process that has written down its number has ended."""
    try:
        os.kill(int(pid.read_text()), 0)
    except (FileNotFoundError, ValueError):
        return False
    except ProcessLookupError:
        return True
    return False


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("mistake", "made a: the disk is full."),
        ("crash", "made a: its process ended with exit code 1, as said above."),
        ("kill", "made a: its process was killed, perhaps for memory."),
    ],
)
def test_what_runs_when_a_part_fails_is_finished_and_nothing_else_begins(
    tmp_path: Path, how: str, says: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ForethoughtError) as error:
        work_off(PARTS, partial(fail, tmp_path, how), 2, print)
    assert str(error.value).startswith(says)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a-begun", "b-ended"]
    out, err = capfd.readouterr()
    assert f"{says.split(':')[0]}: " in out and "What runs is finished first." in out
    assert ("[made a] ZeroDivisionError: crashed" in err) == (how == "crash")


def wait_long(folder: Path, part: Part, say: Say) -> None:
    (folder / f"{part[1]}-begun").write_text(str(os.getpid()))
    time.sleep(120)


SCRIPT = """
import sys
from functools import partial
from pathlib import Path
from test_jobs import A, B, wait_long, work_off
if __name__ == "__main__":
    try:
        work_off({A: [], B: []}, partial(wait_long, Path(sys.argv[1])), 2, print)
    except KeyboardInterrupt:
        print("stopped")
"""


@pytest.mark.parametrize("how", ["Ctrl-C", "kill -9"])
def test_they_end_with_their_parent(tmp_path: Path, how: str) -> None:
    """Ctrl-C reaches all of them at once, and says so once; kill -9 only the parent."""
    (tmp_path / "script.py").write_text(SCRIPT)
    here = Path(__file__).parent
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(here), str(here.parent)])}
    parent = subprocess.Popen(
        [sys.executable, "script.py", str(tmp_path)], cwd=tmp_path, env=env, start_new_session=True, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    pids = [tmp_path / f"{name}-begun" for name in "ab"]
    deadline = time.monotonic() + 60
    while not all(p.exists() and p.read_text() for p in pids):
        assert parent.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    assert not any(is_over(p) for p in pids)
    if how == "Ctrl-C":
        os.killpg(parent.pid, signal.SIGINT)
    else:
        parent.kill()
    out, err = parent.communicate(timeout=20)
    if how == "Ctrl-C":
        assert out.endswith("stopped\n") and not err
    while not all(is_over(p) for p in pids):
        assert time.monotonic() < deadline + 60
        time.sleep(0.01)
