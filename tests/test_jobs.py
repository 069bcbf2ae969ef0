"""Parts beside each other: in the order they need, each with its share of the machine, and ended in good order."""

from __future__ import annotations

import os
import signal
import time
from functools import partial
from pathlib import Path

import pytest

from forethought.errors import ForethoughtError
from forethought.jobs import Part, Say, work_off

A, B, C, D = ("made", "a"), ("made", "b"), ("made", "c"), ("made", "d")
PARTS: dict[Part, list[Part]] = {A: [], B: [], C: [A, B], D: [C]}


def leave_mark(folder: Path, part: Part, say: Say) -> dict[str, str]:
    """Marks where it begins and where it ends; A and B wait for each other."""
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
    found = work_off(PARTS, partial(leave_mark, tmp_path), 2, print)
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
    if part == A:
        while not (folder / "begun").exists():
            time.sleep(0.01)
        if how == "mistake":
            raise ForethoughtError("the disk is full.")
        if how == "crash":
            raise ZeroDivisionError("crashed")
        os.kill(os.getpid(), signal.SIGKILL)
    (folder / "begun").touch()
    time.sleep(3)  # A has ended by then.
    (folder / f"{part[1]}-ended").touch()


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
    assert sorted(p.name for p in tmp_path.iterdir()) == ["b-ended", "begun"]
    out, err = capfd.readouterr()
    assert f"{says.split(':')[0]}: " in out and "What runs is finished first." in out
    assert ("[made a] ZeroDivisionError: crashed" in err) == (how == "crash")
