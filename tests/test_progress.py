"""Progress lines."""

from __future__ import annotations

import pytest

from forethought import progress as bars


def test_time_left_is_said_once_there_is_something_to_tell_it_by(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = iter(range(0, 100_000, 20))
    monkeypatch.setattr(bars.time, "monotonic", lambda: next(now))
    with bars.progress("bake", 410, "loaves", done=100) as bar:
        bar.advance()
        bar.advance(8)
        bar.advance()
        bar.advance(300)
    first, second, third, *_, last = capsys.readouterr().err.splitlines()
    assert first.startswith("bake: 101/410 loaves") and "left" not in first + second
    assert third.startswith("bake: 110/410 loaves, 0.") and third.endswith(" left") and "took" in last


@pytest.mark.parametrize(("seconds", "said"), [(42, "42 s"), (185, "3 min 05 s"), (7810, "2 h 10 min")])
def test_durations(seconds: float, said: str) -> None:
    assert bars.duration(seconds) == said
