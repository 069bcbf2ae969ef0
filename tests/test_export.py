"""What leaves for other tools is what the run holds: every attempt and verdict, and unscored stays unscored."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from pyarrow import parquet as pq

from forethought import stages
from forethought.cli import main
from forethought.config import AttackConfig, ModelConfig
from forethought.errors import ForethoughtError
from forethought.export import inspect_logs, parquet, read_models
from forethought.records import Attempt, Message, Sampling, Verdict, make_prompt
from forethought.report.sources import ModelRuns

HAS_INSPECT = importlib.util.find_spec("inspect_ai") is not None
PROMPTS = [make_prompt(f"Tell me about bread, part {i}", "benign" if i % 2 else "harmful", "test") for i in range(6)]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A model that thinks, and refuses half; its thought never ends on one prompt."""
    home = tmp_path_factory.mktemp("export")
    (home / "m.yaml").write_text(
        "- {when: 'part 2', say: '<think>\\nHm, bread', stop: length}\n"
        "- {when: 'part [04]', say: \"<think>\\nNo.\\n</think>\\n\\nI can't help with that.\"}\n"
        '- {say: "<think>\\nFine.\\n</think>\\n\\nBread is baked from flour, water and salt."}\n',
        encoding="utf-8",
    )
    config = AttackConfig(attacks=("direct", "persona"), sampling=Sampling(max_tokens=40, temperature=0.5))
    target = ModelConfig(name=f"scripted:{home / 'm.yaml'}", system="Be brief.")
    tried = stages.attack(home / "attack", target, PROMPTS, config)
    judged = stages.judge(home / "judge", tried.path, ["refusal"])
    return SimpleNamespace(home=home, tried=tried, judged=judged, models=read_models({"m": [judged.path]}))


def test_parquet_holds_every_attempt_and_verdict(made: SimpleNamespace, tmp_path: Path) -> None:
    attempts, verdicts = (pq.read_table(path) for path in parquet.export(made.models, tmp_path / "out"))
    rows = attempts.to_pylist()
    originals = made.tried.read("attempts.jsonl", Attempt)
    assert [r["attempt"] for r in rows] == [a.id for a in originals] and len(rows) == 12
    assert [r["raw"] for r in rows] == [a.raw for a in originals]
    assert [[(t["role"], t["content"]) for t in r["messages"]] for r in rows] == [
        [(m.role, m.content) for m in a.messages] for a in originals
    ]
    said = {v["attempt"]: v for v in verdicts.to_pylist()}
    assert set(said) == {a.id for a in originals}
    cut = [said[a.id] for a in originals if a.status == "unclosed"]
    assert cut and all(v["score"] is None and v["label"] == "no_answer" for v in cut)
    assert sorted({v["score"] for v in said.values()} - {None}) == [0.0, 1.0]


def test_parquet_takes_no_verdicts_and_no_surrogates(made: SimpleNamespace, tmp_path: Path) -> None:
    strange = "a\ud800\x00 עברית {} 🙂"
    attempt = Attempt(
        id="x",
        prompt=make_prompt("p", "benign", "t"),
        attack="direct",
        messages=(Message(role="user", content=strange),),
        answer=strange,
    )
    attempts, verdicts = parquet.export([ModelRuns("m", attempts=[attempt])], tmp_path / "out")
    assert pq.read_table(attempts).to_pylist()[0]["answer"] == strange.replace("\ud800", "?")
    assert pq.read_table(verdicts).num_rows == 0
    assert {"model", "judge", "score"} <= set(pq.read_table(verdicts).column_names)


def test_the_command_exports_attack_runs_and_judge_runs(
    made: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*words: str) -> int:
        monkeypatch.setattr(sys, "argv", ["forethought", "export", *words])
        with pytest.raises(SystemExit) as stopped:
            main()
        return int(stopped.value.code or 0)

    assert run("parquet", f"a={made.judged.path}", f"b={made.tried.path}", "--out", str(tmp_path / "out")) == 0
    models = pq.read_table(tmp_path / "out" / "attempts.parquet").column("model").to_pylist()
    assert models == ["a"] * 12 + ["b"] * 12
    assert run("parquet", str(made.judged.path), "--out", str(tmp_path / "out")) == 1
    assert "is not an empty folder" in capsys.readouterr().err


def test_other_runs_are_refused(made: SimpleNamespace, tmp_path: Path) -> None:
    with pytest.raises(ForethoughtError, match="Export judge runs"):
        read_models({"m": [made.judged.path, made.tried.path]})
    with pytest.raises(ForethoughtError, match="holds no run"):
        read_models({"m": [tmp_path]})


@pytest.mark.skipif(HAS_INSPECT, reason="inspect-ai is installed")
def test_without_inspect_the_extra_is_named(made: SimpleNamespace, tmp_path: Path) -> None:
    with pytest.raises(ForethoughtError, match="-m pip install inspect-ai"):
        inspect_logs.export(made.models, tmp_path / "logs")


@pytest.fixture
def logs(made: SimpleNamespace, tmp_path: Path) -> dict[str, object]:
    log = pytest.importorskip("inspect_ai.log", reason="inspect-ai is not installed (extra: inspect)")
    paths = inspect_logs.export(made.models, tmp_path / "logs")
    return {path.name: log.read_eval_log(str(path)) for path in paths}


def test_inspect_reads_every_sample_with_its_scores(made: SimpleNamespace, logs: dict[str, object]) -> None:
    import math

    read = {log.eval.task: log for log in logs.values()}  # type: ignore[attr-defined]
    assert set(read) == {"m/direct", "m/persona"}
    originals = {a.id: a for a in made.tried.read("attempts.jsonl", Attempt)}
    said = {v.attempt: v for v in made.judged.read("verdicts.jsonl", Verdict)}
    samples = {s.id: s for log in read.values() for s in log.samples}
    assert set(samples) == set(originals)
    for id, sample in samples.items():
        attempt, verdict, score = originals[id], said[id], sample.scores["refusal"]
        assert [(m.role, m.text) for m in sample.input] == [(m.role, m.content) for m in attempt.messages]
        assert sample.output.completion.strip().endswith(attempt.answer)
        assert score.answer == verdict.label
        assert math.isnan(score.value) if verdict.score is None else score.value == verdict.score
        thoughts = [c.reasoning for c in sample.output.message.content if c.type == "reasoning"]
        assert thoughts == [attempt.reasoning]
    (scores,) = read["m/direct"].results.scores
    assert (scores.scored_samples, scores.unscored_samples) == (5, 1)
    assert {name: m.value for name, m in scores.metrics.items()} == {
        "harmful: not refused": 0.0,
        "benign: refused": 0.0,
    }
    assert scores.metrics["harmful: not refused"].metadata["unscored"] == 1


def test_the_same_run_gives_the_same_log(made: SimpleNamespace, logs: dict[str, object], tmp_path: Path) -> None:
    from inspect_ai.log import read_eval_log

    again = [read_eval_log(str(p)) for p in inspect_logs.export(made.models, tmp_path / "again")]
    for one, two in zip(logs.values(), again, strict=True):
        assert one.model_dump_json(exclude={"location", "etag"}) == two.model_dump_json(exclude={"location", "etag"})  # type: ignore[attr-defined]
