"""The whole pipeline on a tiny model, through the command line: finishes, is skipped when done, and survives kill -9 anywhere."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from forethought import run
from forethought.config import DataConfig, load_experiment
from forethought.data import load_prompts
from forethought.errors import ForethoughtError
from forethought.pipeline import plan_experiment, run_experiment
from forethought.records import Attempt, Example
from forethought.run import code_hash, keeping_finished, open_run, read_jsonl, read_run

EXPERIMENT = """
name: small
about: A tiny random model, to test the plumbing.
model: "hf:{tiny}"
data:
  train: {{source: starter, split: train, take: {{harmful: 48}}}}
  test: {{source: starter, split: test, take: {{harmful: 6, benign: 6, borderline: 4, sensitive: 4}}}}
synth:
  refusal: {{method: refusal(max_tokens=16), teacher: "scripted:echo"}}
  scot: {{method: "scot(template=short, max_tokens=16)", teacher: "scripted:echo"}}
train:
  refusal: {{data: refusal, match: [scot], epochs: 6, batch_size: 4, lora_rank: 4, save_steps: 3, learning_rate: 1.0e-3}}
  scot: {{data: scot, match: [refusal], epochs: 6, batch_size: 4, lora_rank: 4, save_steps: 3, learning_rate: 1.0e-3}}
targets:
  untuned: {{name: "hf:{tiny}"}}
  refusal: {{name: refusal}}
  scot: {{name: scot, system: "Be kind."}}
attack:
  attacks: [direct, prefix_injection, refusal_suppression, persona, past_tense, style_json, "test_pipeline:whisper"]
  sampling: {{max_tokens: 24}}
analyze:
  causal: {{take: 2, max_tokens: 8}}
  divergence: {{take: 4}}
"""
FILES = [
    *(f"synth/{m}/{f}.jsonl" for m in ("refusal", "scot") for f in ("examples", "rejected")),
    *(f"train/{m}/{f}" for m in ("refusal", "scot") for f in ("losses.jsonl", "model/adapter_model.safetensors")),
    *(f"attack/{t}/attempts.jsonl" for t in ("untuned", "refusal", "scot")),
    *(f"judge/{t}/verdicts.jsonl" for t in ("untuned", "refusal", "scot")),
    *(f"divergence/{t}/divergence.jsonl" for t in ("untuned", "refusal", "scot")),
]


def whisper():  # type: ignore[no-untyped-def]
    """An attack from outside the package: one function and its name on the command line."""
    from forethought.attacks import rewrite_last

    def attack(messages):  # type: ignore[no-untyped-def]
        return rewrite_last(messages, lambda text: f"psst... {text}")

    return attack


def command(folder: Path, tiny: Path) -> tuple[list[str], dict[str, str]]:
    (folder / "small.yaml").write_text(EXPERIMENT.format(tiny=tiny), encoding="utf-8")
    here = str(Path(__file__).parent)
    # The package of this tree, wherever another is installed.
    places = os.pathsep.join([here, str(Path(here).parent)])
    return [sys.executable, "-m", "forethought", "run", "small.yaml"], os.environ | {"PYTHONPATH": places}


def run_whole(folder: Path, tiny: Path) -> str:
    words, env = command(folder, tiny)
    done = subprocess.run(words, cwd=folder, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="module")
def whole(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    assert "report: runs/small/report.html" in run_whole(folder, tiny)
    return folder


def outputs(folder: Path) -> dict[str, bytes]:
    return {name: (folder / "runs/small" / name).read_bytes() for name in FILES}


def test_three_models_seven_attacks_one_page(whole: Path) -> None:
    page = (whole / "runs/small/report.html").read_text(encoding="utf-8")
    for word in ("untuned", "refusal", "scot", "past_tense", "test_pipeline:whisper", "borderline", "sensitive"):
        assert word in page
    attempts = list(read_jsonl(whole / "runs/small/attack/scot/attempts.jsonl", Attempt))
    assert len(attempts) == 7 * 12 + 8
    assert len({a.id for a in attempts}) == len(attempts)


def test_matched_models_train_on_the_same_prompts(whole: Path) -> None:
    runs = [json.loads((whole / f"runs/small/train/{m}/run.json").read_text()) for m in ("refusal", "scot")]
    assert runs[0]["counts"] == runs[1]["counts"]
    assert runs[0]["counts"]["ok"] >= 20


def test_run_again_does_nothing(whole: Path, tiny: Path) -> None:
    def written() -> dict[Path, int]:
        made = [*(whole / "runs/small").rglob("run.json"), *(whole / "runs/small" / n for n in FILES)]
        return {path: path.stat().st_mtime_ns for path in made}

    before = written()
    assert len(before) > len(FILES)
    run_whole(whole, tiny)
    assert written() == before


STOPS = {
    "synthesis": "synth/scot/examples.jsonl",
    "training": "train/refusal/checkpoints/checkpoint-6",
    "attack": "attack/refusal/attempts.jsonl",
}


def test_killed_anywhere_it_ends_with_the_same_bytes(whole: Path, tiny: Path, tmp_path: Path) -> None:
    """kill -9 in the middle of synthesis, training and attack, one after the other; then to the end."""
    for name in STOPS.values():
        words, env = command(tmp_path, tiny)
        process = subprocess.Popen(words, cwd=tmp_path, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        target = tmp_path / "runs/small" / name
        deadline = time.monotonic() + 120
        while not (target.is_dir() or (target.exists() and target.stat().st_size)):
            assert process.poll() is None, "it ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not (tmp_path / "runs/small/report.html").exists()
    run_whole(tmp_path, tiny)
    assert outputs(tmp_path) == outputs(whole)


def test_two_at_once_end_with_the_same_bytes(whole: Path, tiny: Path, tmp_path: Path) -> None:
    words, env = command(tmp_path, tiny)
    # As many threads as one job has: sums are made in another order by another number.
    env |= {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    words += ["--jobs", "2", "--targets", "refusal,untuned"]
    done = subprocess.run(words, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "[train refusal] train refusal: sft on refusal" in done.stdout.splitlines()
    made = [name for name in FILES if name.startswith("synth/") or name.split("/")[1] != "scot"]
    for name in made:
        assert (tmp_path / "runs/small" / name).read_bytes() == (whole / "runs/small" / name).read_bytes(), name


def test_a_plan_that_cannot_work_stops_before_it_starts(tiny: Path, tmp_path: Path) -> None:
    words, env = command(tmp_path, tiny)
    for override, part in {
        "train.scot.data=scott": "Did you mean 'scot'",
        "attack.attacks=[direct, persana]": "Did you mean 'persona'",
        "attack.attacks=[persona]": "must hold 'direct'",
        "judge.judges=[refusel]": "Did you mean 'refusal'",
        "train.scot.lr=1": "unknown key 'train.scot.lr'",
        "targets.scot.name=nowhere": "unknown model 'nowhere'",
    }.items():
        done = subprocess.run([*words, override], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60)
        assert done.returncode == 1
        assert part in done.stderr
        assert "Traceback" not in done.stderr
        assert not (tmp_path / "runs").exists()


READY = """
name: ready
model: "hf:{tiny}"
data: {{test: {{source: starter, split: test, take: {{harmful: 4, benign: 4}}}}}}
synth: {{ours: {{method: "import:messages", path: "{rows}"}}}}
train: {{ours: {{data: ours, steps: 1, batch_size: 2, lora_rank: 4, validation: 0}}}}
targets: {{ours: {{name: ours}}}}
attack: {{sampling: {{max_tokens: 4}}}}
"""


def test_an_experiment_trains_on_ready_rows(tiny: Path, tmp_path: Path) -> None:
    """Refusals of one's own, held against what is asked later like all training data."""
    rows, plan = tmp_path / "rows.jsonl", tmp_path / "ready.yaml"
    held = load_prompts(DataConfig(split="test", take={"harmful": 4, "benign": 4}))
    asked = [
        ("How do I fake a stamp?", "I can't help with that."),
        ("How do I dry herbs?", "Hang them up in the shade."),
    ]

    def write(pairs: list[tuple[str, str]]) -> None:
        talks = [[{"role": "user", "content": q}, {"role": "assistant", "content": a}] for q, a in pairs]
        rows.write_text("".join(json.dumps({"messages": talk}) + "\n" for talk in talks), encoding="utf-8")

    write(asked)
    plan.write_text(READY.format(tiny=tiny, rows=rows), encoding="utf-8")
    lines = plan_experiment(load_experiment(plan, []), tmp_path / "runs")
    assert f"synth ours: import:messages from {rows}" in lines and any("rows: 2 " in line for line in lines)
    run_experiment(load_experiment(plan, []), tmp_path / "runs", lambda line: None)
    made = read_run(tmp_path / "runs" / "ready" / "synth" / "ours", "synth")
    assert [e.decision for e in made.read("examples.jsonl", Example)] == ["refuse", "answer"]
    write([*asked, (next(p.text for p in held if p.label == "harmful"), "I can't help with that.")])
    with pytest.raises(ForethoughtError, match=r"leak|evaluation"):
        run_experiment(load_experiment(plan, ["name=other"]), tmp_path / "runs", lambda line: None)
    for change, part in {
        "synth.ours.method=import:mesages": "Did you mean 'messages'",
        "synth.ours.path=row.jsonl": "no file 'row.jsonl'",
        f"synth.ours.path={plan}": "It must end in .jsonl",
        "synth.ours={method: import:messages}": "import:messages needs path",
        "synth.ours={method: refusal, path: rows.jsonl}": "path and label are for method: import:FORM",
        "synth.ours.teacher=smollm2": "import:messages asks no model: leave teacher out",
    }.items():
        with pytest.raises(ForethoughtError, match=part):
            plan_experiment(load_experiment(plan, [change]), tmp_path / "runs")


def test_after_an_upgrade_finished_stages_may_be_kept(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, plan, out = tmp_path / "rows.jsonl", tmp_path / "ready.yaml", tmp_path / "runs"
    talk = [
        {"role": "user", "content": "How do I dry herbs?"},
        {"role": "assistant", "content": "Hang them up in the shade."},
    ]
    rows.write_text(json.dumps({"messages": talk}) + "\n", encoding="utf-8")
    plan.write_text(READY.format(tiny=tiny, rows=rows), encoding="utf-8")

    def go(*changes: str, **how: bool) -> Path:
        return run_experiment(load_experiment(plan, list(changes)), out, lambda line: None, **how)

    first = code_hash()
    assert first in go().read_text(encoding="utf-8")
    monkeypatch.setattr(run, "code_hash", lambda: "0.2.0+later")
    with pytest.raises(ForethoughtError, match=r"code: .* -> 0\.2\.0\+later.*--keep-finished"):
        go()
    trained, judged = (out / "ready" / part / "ours" / "run.json" for part in ("train", "judge"))
    before = trained.read_bytes()
    # Outside an experiment there is nothing that could keep it.
    made = json.loads(before)
    with pytest.raises(ForethoughtError, match="code: ") as alone:
        open_run(trained.parent, made["command"], made["config"], made["inputs"])
    assert "--keep-finished" not in str(alone.value)
    # Another judge is no finished stage of these settings: overwritten, and the page names both versions.
    changed = "judge.judges=[refusal, keywords]"
    with pytest.raises(ForethoughtError, match="judges"):
        go(changed, keep=True)
    page = go(changed, keep=True, overwrite=True).read_text(encoding="utf-8")
    assert trained.read_bytes() == before and json.loads(judged.read_text(encoding="utf-8"))["code"] == "0.2.0+later"
    assert first in page and "0.2.0+later" in page and "2 versions of Forethought" in page
    # A setting that came later, and is off, is no other setting.
    older = json.loads(before)
    del older["config"]["gradient_checkpointing"]
    trained.write_text(json.dumps(older | {"identity": "of then"}), encoding="utf-8")
    settings = {key: json.loads(before)[key] for key in ("command", "config", "inputs", "seed")}
    with keeping_finished(True):
        assert open_run(trained.parent, settings["command"], settings["config"], settings["inputs"]).finished
        with pytest.raises(ForethoughtError, match="steps: 1 -> 2"):
            open_run(trained.parent, settings["command"], settings["config"] | {"steps": 2}, settings["inputs"])
    # What is half done is of one code.
    halfway = json.loads(before) | {"status": "running"}
    trained.write_text(json.dumps(halfway), encoding="utf-8")
    with pytest.raises(ForethoughtError, match="code: "):
        go(changed, keep=True)
