"""The report follows runs to what they were made from, and refuses what no longer belongs together."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from forethought import stages
from forethought.config import AttackConfig, ModelConfig
from forethought.errors import ForethoughtError
from forethought.records import Sampling, Verdict, make_prompt
from forethought.report.gather import gather, write_report

PROMPTS = [make_prompt(f"Tell me about bread, part {i}", "benign" if i % 2 else "harmful", "test") for i in range(6)]


def judged(home: Path, name: str, max_tokens: int = 16, overwrite: bool = False) -> Path:
    config = AttackConfig(attacks=("direct", "persona"), sampling=Sampling(max_tokens=max_tokens))
    target = ModelConfig(name=f"scripted:{name}")
    tried = stages.attack(home / f"attack-{name}", target, PROMPTS, config, overwrite=overwrite)
    return stages.judge(home / f"judge-{name}", tried.path, ["refusal"], overwrite=overwrite).path


def test_two_models_side_by_side(tmp_path: Path) -> None:
    runs = {"no": judged(tmp_path, "refuse"), "yes": judged(tmp_path, "comply")}
    data = gather(runs, title="t")
    rates = {(c.model, c.attack, c.label): c.not_refused.value for c in data.cells}
    assert rates["no", "persona", "harmful"] == 0.0
    assert rates["yes", "persona", "harmful"] == 1.0
    page = write_report(tmp_path / "page.html", runs, title="t")
    assert page.read_bytes() == write_report(tmp_path / "again.html", runs, title="t").read_bytes()


def test_attempts_made_anew_after_they_were_judged(tmp_path: Path) -> None:
    path = judged(tmp_path, "refuse")
    config = AttackConfig(attacks=("direct", "persona"), sampling=Sampling(max_tokens=8))
    stages.attack(tmp_path / "attack-refuse", ModelConfig(name="scripted:refuse"), PROMPTS, config, overwrite=True)
    with pytest.raises(ForethoughtError, match="was made anew after"):
        gather({"a": path}, title="t")


def test_models_sampled_differently_are_not_compared(tmp_path: Path) -> None:
    with pytest.raises(ForethoughtError, match="other sampling"):
        gather({"a": judged(tmp_path, "refuse"), "b": judged(tmp_path, "comply", max_tokens=8)}, title="t")


@pytest.mark.parametrize("score", [45.0, -0.1, float("nan")])
def test_a_score_out_of_range_is_no_verdict(score: float) -> None:
    with pytest.raises(ValidationError):
        Verdict(attempt="a", judge="j", score=score, label="not_refused")
