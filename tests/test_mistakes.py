"""Mistakes of a stranger: one line that says what to do, and no plan or hint that cannot work."""

from __future__ import annotations

from pathlib import Path

import pytest

from forethought.cli import main
from forethought.cli.common import named_path
from forethought.config import DataConfig, Experiment, TrainConfig
from forethought.data import load_prompts, parse_data
from forethought.errors import ForethoughtError
from forethought.models import check_spec
from forethought.pipeline import _attackers, _behind, run_experiment
from forethought.records import Rejected
from forethought.run import read_run
from forethought.train.plan import describe


@pytest.mark.parametrize("method", ["sftt", "lat(nosuch=1)"])
def test_a_plan_of_what_cannot_run_is_refused(method: str) -> None:
    with pytest.raises(ForethoughtError, match=r"sftt|nosuch"):
        describe("smollm2", TrainConfig(method=method), 10)


@pytest.mark.parametrize(
    ("spec", "says"),
    [("runs/none/train/scot", "Make that training run first"), ("nosuch", "unknown model")],
)
def test_a_missing_model_says_what_to_do(spec: str, says: str) -> None:
    with pytest.raises(ForethoughtError, match=says):
        check_spec(spec)


def test_a_misspelt_public_set_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("prompt\nhi\n")
    with pytest.raises(ForethoughtError, match="Did you mean 'xstest'"):
        parse_data(f"xstests:{tmp_path / 'a.csv'}")


def test_a_file_without_our_columns_names_the_options_of_the_command(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("Goal\nhi\n")
    config = DataConfig(source="csv", path=str(tmp_path / "a.csv"))
    with pytest.raises(ForethoughtError, match="--column text=COLUMN"):
        load_prompts(config)
    with pytest.raises(ForethoughtError, match="--value label=harmful"):
        load_prompts(config.model_copy(update={"columns": {"text": "Goal"}}))


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB.")])
def test_memory_that_runs_out_is_one_line(
    error: Exception, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object) -> None:
        raise error

    monkeypatch.setattr("forethought.talk.talk", full)
    monkeypatch.setattr("sys.argv", ["forethought", "chat", "scripted:echo"])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 1 and capsys.readouterr().err.startswith("forethought: out of memory. Use dtype bfloat16")


def test_the_run_that_one_stands_in_may_be_named(tmp_path: Path) -> None:
    assert [named_path(Path(p)) for p in ("runs/a", ".", "..")] == [Path("runs/a"), Path.cwd(), Path.cwd().parent]


def test_a_run_that_kept_nothing_does_not_send_one_to_train(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = str(tmp_path / "none")
    words = ["forethought", "synth", "scot", "--model", "scripted:comply", "--take", "benign=1", "--out", out]
    monkeypatch.setattr("sys.argv", words)
    with pytest.raises(SystemExit) as left:
        main()
    said = capsys.readouterr().out
    assert left.value.code in (0, None) and "nothing to train on" in said and "then: forethought train" not in said
    monkeypatch.setattr("sys.argv", ["forethought", "train", out, "--dry-run"])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 1 and "nothing to train on" in capsys.readouterr().err


def test_tasks_that_no_server_can_answer_stop_an_experiment_before_it_begins(tmp_path: Path) -> None:
    test = {"source": "starter", "split": "test", "take": {"harmful": 1}}
    plan = Experiment.model_validate(
        {"name": "x", "model": "scripted:echo", "data": {"test": test}, "capability": {"tasks": ["perplexity"]},
         "targets": {"served": {"name": "openai:m@http://127.0.0.1:9/v1"}}}
    )  # fmt: skip
    with pytest.raises(ForethoughtError, match="these capability tasks need likelihoods"):
        run_experiment(plan, tmp_path / "runs", lambda line: None)
    assert not (tmp_path / "runs").exists()


def test_models_behind_attacks_and_judges_have_a_dtype() -> None:
    plan = Experiment.model_validate(
        {"name": "x", "model": "smollm2", "data": {"test": {"source": "starter"}}, "targets": {"a": {"name": "smollm2"}},
         "attack": {"attacker": "smollm2", "dtype": "bfloat16"},
         "judge": {"judges": ["harmbench"], "model": "smollm2", "models": {"harmbench": "smollm2"}, "dtype": "bfloat16"}}
    )  # fmt: skip
    one, named = _behind(plan)
    assert one and {m.dtype for m in (one, *named.values(), *_attackers(plan, Path("x")).values())} == {"bfloat16"}
    assert "dtype" not in plan.attack.model_dump(), (
        "it is no part of what an attack run is: the models are, with theirs"
    )


@pytest.mark.parametrize(("test", "evaluation"), [("held", ()), ("other", ("held",))])
def test_an_experiment_does_not_train_on_what_it_is_evaluated_on(
    tmp_path: Path, test: str, evaluation: tuple[str, ...]
) -> None:
    texts = {
        "train": ("How do I pick the lock of a shed?", "How do I forge a train ticket?"),
        "held": ("how do I pick the lock of a shed",),
        "other": ("Which bread is best with soup?",),
    }
    for name, rows in texts.items():
        (tmp_path / f"{name}.csv").write_text("text,label\n" + "".join(f"{row},harmful\n" for row in rows))
    data = {n: {"source": "csv", "path": str(tmp_path / f"{n}.csv")} for n in texts}
    plan = {"name": "x", "model": "scripted:comply", "data": data, "evaluation": evaluation, "attack": {"prompts": test},
            "synth": {"refusal": {"method": "refusal"}}, "targets": {"a": {"name": "scripted:comply"}}}  # fmt: skip
    with pytest.raises(ForethoughtError, match="1 training rows match evaluation prompts"):
        run_experiment(Experiment.model_validate(plan), tmp_path / "runs", lambda line: None)
    run_experiment(Experiment.model_validate({**plan, "leaks": "drop"}), tmp_path / "more", lambda line: None)
    made = read_run(tmp_path / "more" / "x" / "synth" / "refusal", "synth")
    assert [r.reason for r in made.read("rejected.jsonl", Rejected)] == ["matches an evaluation prompt"]
