"""Runs, configuration, and the registry of names."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from forethought import lock
from forethought.config import Experiment, apply_override, find_experiment, load_experiment, read_yaml
from forethought.errors import ForethoughtError
from forethought.policy import load_policy
from forethought.records import Reply
from forethought.registry import Entry, parse_spec, resolve
from forethought.run import Run, called, explain_disk, locate, open_run, read_jsonl, read_run, run_hash, write_records
from forethought.synth import SYNTHESIZERS

CONFIG = {"method": "scot", "depth": 2}


def make(path: Path, **changes: Any) -> Run:
    settings: dict[str, Any] = {"command": "synth", "config": CONFIG, "inputs": {"prompts": "abc"}, **changes}
    return open_run(path, **settings)


def finished(path: Path) -> Run:
    run = make(path)
    run.append("out.jsonl", [Reply(text="{x} 🔥"), Reply(text="b")])
    run.finish({"planned": 2, "ok": 2, "failed": 0}, ["out.jsonl"])
    return run


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["/usr/bin/forethought", "attack", "m"], ["forethought", "attack", "m"]),
        (["/x/forethought/__main__.py", "run"], ["forethought", "run"]),
        (["/home/ada/kernel.py", "-f", "k"], ["python", "kernel.py", "-f", "k"]),
    ],
)
def test_a_command_is_ours_or_a_script(words: list[str], said: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", words)
    assert called() == said


def test_a_finished_run_is_skipped_and_read_back(tmp_path: Path) -> None:
    made = finished(tmp_path / "r")
    assert make(tmp_path / "r").finished
    run = read_run(tmp_path / "r", "synth")
    assert [r.text for r in run.read("out.jsonl", Reply)] == ["{x} 🔥", "b"]
    assert run.read("none.jsonl", Reply) == []
    assert run.info["counts"]["ok"] == 2 and run.info["packages"]["python"] and run.info["argv"]
    assert run_hash(run) == run_hash(made)
    assert not list((tmp_path / "r").glob("*.tmp"))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"config": {"method": "refusal", "depth": 2}}, "method: scot -> refusal"),
        ({"config": {**CONFIG, "new": 1}}, "new: None -> 1"),
        ({"inputs": {"prompts": "xyz"}}, "prompts: abc -> xyz"),
        ({"seed": 3}, "seed: 0 -> 3"),
        ({"command": "attack"}, "command: synth -> attack"),
    ],
)
def test_other_settings_are_refused_by_name_and_overwritten_on_request(
    tmp_path: Path, changes: dict[str, Any], named: str
) -> None:
    finished(tmp_path / "r")
    with pytest.raises(ForethoughtError, match=named):
        make(tmp_path / "r", **changes)
    assert (tmp_path / "r" / "out.jsonl").exists()
    assert not make(tmp_path / "r", **changes, overwrite=True).finished
    assert not (tmp_path / "r" / "out.jsonl").exists()


def test_an_unfinished_run_goes_on_and_is_replaced_only_if_bare(tmp_path: Path) -> None:
    make(tmp_path / "r").log("nothing was made")
    assert not make(tmp_path / "r", seed=1).finished, "a bare run may be replaced"
    make(tmp_path / "r", seed=1).append("out.jsonl", [Reply(text="a")])
    with pytest.raises(ForethoughtError, match="--overwrite"):
        make(tmp_path / "r")
    assert len(make(tmp_path / "r", seed=1).read("out.jsonl", Reply)) == 1


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize(
    "content", [{"photo.jpg": "x"}, {"run.json": '{"name": "of another tool"}'}, {"run.json": "x"}]
)
def test_a_directory_that_is_no_run_is_never_deleted(tmp_path: Path, overwrite: bool, content: dict[str, str]) -> None:
    home = tmp_path / "home"
    home.mkdir()
    for name, text in content.items():
        (home / name).write_text(text)
    with pytest.raises(ForethoughtError):
        make(home, overwrite=overwrite)
    assert {p.name: p.read_text() for p in home.iterdir()} == content


def test_an_empty_directory_is_fine_and_a_file_is_not(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert not make(tmp_path / "empty").finished
    (tmp_path / "file").write_text("x")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ForethoughtError, match="file"):
            make(path, overwrite=True)
    assert (tmp_path / "file").read_text() == "x"


@pytest.mark.parametrize(
    ("spoil", "match"),
    [
        (lambda r: (r / "run.json").unlink(), "holds no run"),
        (lambda r: (r / "run.json").write_text("{"), "cannot be read"),
        (lambda r: (r / "run.json").write_bytes(b'{"\xff'), "cannot be read"),
        (lambda r: (r / "out.jsonl").unlink(), "has changed"),
        (lambda r: (r / "out.jsonl").write_text("other\n"), "has changed"),
        (shutil.rmtree, "holds no run"),
    ],
)
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_spoiled_input_is_refused(tmp_path: Path, spoil: Any, match: str) -> None:
    finished(tmp_path / "r")
    spoil(tmp_path / "r")
    with pytest.raises(ForethoughtError, match=match):
        read_run(tmp_path / "r")


def test_an_unfinished_or_other_input_is_refused(tmp_path: Path) -> None:
    make(tmp_path / "r")
    with pytest.raises(ForethoughtError, match="not finished"):
        read_run(tmp_path / "r")
    finished(tmp_path / "s")
    with pytest.raises(ForethoughtError, match="run of 'synth', not of 'attack'"):
        read_run(tmp_path / "s", "attack")


@pytest.mark.parametrize("torn", ['{"text": "half', '{"text": "🔥"}', "{"])
def test_a_torn_last_line_is_cut(tmp_path: Path, torn: str) -> None:
    run = make(tmp_path / "r")
    run.append("out.jsonl", [Reply(text="whole")])
    path = run.path / "out.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole + torn.encode()[:-1])
    assert [r.text for r in run.read("out.jsonl", Reply)] == ["whole"]
    assert path.read_bytes() == whole
    run.append("out.jsonl", [Reply(text="next")])
    assert [r.text for r in run.read("out.jsonl", Reply)] == ["whole", "next"]
    path.write_bytes(torn.encode()[:-1])
    assert run.read("out.jsonl", Reply) == []


@pytest.mark.parametrize(
    ("line", "named"),
    [
        (b'{"text": 1}', "'text'"),
        (b"{", "line 3: 'line': Invalid JSON"),
        (b"[]", "line 3"),
        (b"\xff", "line 3"),
        (b'{"text": "a", "txet": 1}', "'txet'"),
    ],
)
def test_a_malformed_line_is_named(tmp_path: Path, line: bytes, named: str) -> None:
    (tmp_path / "x.jsonl").write_bytes(b'{"text": "a"}\n\n' + line + b"\n")
    with pytest.raises(ForethoughtError, match=r"x\.jsonl, line 3") as error:
        list(read_jsonl(tmp_path / "x.jsonl", Reply))
    assert named in str(error.value) and "\n" not in str(error.value)


def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    run = make(tmp_path / "r")
    if Path("/dev/full").exists():
        (run.path / "out.jsonl").symlink_to("/dev/full")
        with pytest.raises(ForethoughtError, match=r"^the disk is full[^\n]*$"):
            run.append("out.jsonl", [Reply(text="x")])
    with pytest.raises(ForethoughtError, match=r"cannot write .*none.*No such file"):
        write_records(run.path / "none" / "x.jsonl", [])
    with pytest.raises(ForethoughtError, match="disk is full"), explain_disk():
        raise OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(ConnectionError), explain_disk():
        raise ConnectionResetError("not about the disk")


def test_a_failed_write_keeps_the_old_file(tmp_path: Path) -> None:
    def records() -> Any:
        yield Reply(text="new")
        raise KeyboardInterrupt

    write_records(tmp_path / "x.jsonl", [Reply(text="old")])
    with pytest.raises(KeyboardInterrupt):
        write_records(tmp_path / "x.jsonl", records())
    assert [r.text for r in read_jsonl(tmp_path / "x.jsonl", Reply)] == ["old"]


WRITER = """
import os, sys
from forethought.run import open_run
open_run(sys.argv[1], "synth", {"method": "scot", "depth": 2}, {"prompts": "abc"})
print(os.getpid(), flush=True)
sys.stdin.read()
"""


def test_one_process_writes_a_run_and_a_killed_one_gives_it_back(tmp_path: Path) -> None:
    place = tmp_path / "r"
    words = [sys.executable, "-c", WRITER, str(place)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        pid = other.stdout.readline().strip()
        try:
            for overwrite in (False, True):
                changes: dict[str, Any] = {"seed": 1, "overwrite": True} if overwrite else {}
                with pytest.raises(ForethoughtError, match=rf"r is being written by process {pid} on .*, since"):
                    make(place, **changes)
        finally:
            other.kill()
    run = make(place)
    assert make(place).path == run.path, "the process that has it may open it again"
    run.finish({}, [])
    assert {p.name for p in place.iterdir()} == {"run.json"}
    assert make(place).finished


def test_a_run_that_was_removed_is_locked_anew(tmp_path: Path) -> None:
    make(tmp_path / "r")
    shutil.rmtree(tmp_path / "r")
    make(tmp_path / "r")
    assert (tmp_path / "r" / ".lock").read_text().startswith(f"process {os.getpid()} on")


def test_a_file_system_without_locks_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(handle: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(lock, "_lock", refuse)
    finished(tmp_path / "r")
    assert capsys.readouterr().err.endswith("r cannot be locked (ENOLCK): see that no other process writes there.\n")
    assert read_run(tmp_path / "r").finished


# Configuration

PLAN: dict[str, Any] = {
    "name": "plan",
    "data": {"train": {"split": "train", "take": {"harmful": 4}}},
    "synth": {"scot": {"method": "scot"}},
    "train": {"scot": {"data": "scot"}},
    "targets": {"m": {"name": "scripted:echo"}},
    "attack": {"prompts": "train", "sampling": {"max_tokens": 5}},
}


def plan(path: Path, *overrides: str, **changes: Any) -> Experiment:
    file = path / "plan.yaml"
    file.write_text(yaml.safe_dump(PLAN | changes))
    return load_experiment(file, list(overrides))


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("sede=1", "unknown key 'sede'. Did you mean 'seed'?"),
        ("data.train.spilt=test", "unknown key 'data.train.spilt'. Did you mean 'split'?"),
        ("synth.scot.metod=x", "unknown key 'synth.scot.metod'. Did you mean 'method'?"),
        ("train.scot.epoch=1", "unknown key 'train.scot.epoch'. Did you mean 'epochs'?"),
        ("targets.m.sytem=x", "unknown key 'targets.m.sytem'. Did you mean 'system'?"),
        ("attack.attack=[direct]", "unknown key 'attack.attack'. Did you mean 'attacks'?"),
        ("attack.sampling.max_token=5", "unknown key 'attack.sampling.max_token'. Did you mean 'max_tokens'?"),
        ("judge.judge=[refusal]", "unknown key 'judge.judge'. Did you mean 'judges'?"),
        ("train.scot.epochs=many", "'train.scot.epochs': Input should be a valid number"),
        ("train.scot.epochs=-1", "greater than 0 (got -1)"),
        ("train.scot.batch_size=0", "'train.scot.batch_size'"),
        ("attack.sampling.max_tokens=0", "'attack.sampling.max_tokens'"),
        ("attack.sampling.temperature=-1", "'attack.sampling.temperature'"),
        ("data.train.take.harmful=-1", "'data.train.take.harmful'"),
        ("data.train.take.evil=1", "'harmful', 'benign', 'borderline' or 'sensitive'"),
        ("data.train.split=dev", "'train', 'extra', 'validation' or 'test'"),
        ("name=../up", "'name'"),
        ("targets=null", "'targets'"),
        ("train.scot.data={}", "'train.scot.data'"),
        ("seed.x=1", "cannot override 'seed.x': 'seed' holds a value, not keys"),
        ("synth.scot.method.template=short", "'method' holds a value"),
        ("seed", "Write key=value"),
        ("=1", "Write key=value"),
        ("seed=[1", "cannot read the value"),
    ],
)
def test_a_bad_key_or_value_is_named(tmp_path: Path, override: str, said: str) -> None:
    with pytest.raises(ForethoughtError) as error:
        plan(tmp_path, "seed=0", override)
    assert said in str(error.value) and "\n" not in str(error.value)


def test_a_long_bad_value_is_not_printed_whole(tmp_path: Path) -> None:
    with pytest.raises(ForethoughtError) as error:
        plan(tmp_path, about=["x" * 5000])
    assert "'about'" in str(error.value) and len(str(error.value)) < 300


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5e-4", 5e-4), ("1e5", 1e5), ("-2.5E+3", -2500.0), (".5e1", 5.0), ("3", 3), ("0.1", 0.1), ("true", True),
        ("null", None), ("", None), ("abc", "abc"), ("nan", "nan"), ("infinity", "infinity"), ("[a, b]", ["a", "b"]),
        ("{x: 1}", {"x": 1}), ("scot(template=short)", "scot(template=short)"), ("a=b", "a=b"), ("1e", "1e"),
    ],
)  # fmt: skip
def test_override_values(text: str, value: Any) -> None:
    raw: dict[str, Any] = {}
    apply_override(raw, f"a.b={text}")
    assert raw == {"a": {"b": value}}


def test_overrides_reach_the_experiment(tmp_path: Path) -> None:
    made = plan(tmp_path, "train.scot.learning_rate=1e-5", "train.new.data=scot", "attack.attacks=[direct, persona]")
    assert made.train["scot"].learning_rate == 1e-5 and made.train["new"].data == "scot"
    assert made.attack.attacks == ("direct", "persona")
    assert made.data["train"].take == {"harmful": 4}


@pytest.mark.parametrize("text", [b"- a\n", b"", b"{", b"\xff\xfe"])
def test_a_file_that_is_no_experiment(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "x.yaml").write_bytes(text)
    with pytest.raises(ForethoughtError, match=r"x\.yaml' is not"):
        load_experiment(tmp_path / "x.yaml", [])


def test_find_experiment(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("x")
    assert find_experiment(str(tmp_path / "mine.yaml")) == tmp_path / "mine.yaml"
    found = find_experiment("quickstart")
    assert load_experiment(found, []).name == "quickstart"
    for bad in ("quikstart", str(tmp_path / "none.yaml"), str(tmp_path)):
        with pytest.raises(ForethoughtError, match="no experiment") as error:
            find_experiment(bad)
    with pytest.raises(ForethoughtError, match="Did you mean 'quickstart'"):
        find_experiment("quikstart")
    assert "\n" not in str(error.value)


# Registry


def thing(word: str, times: int = 1, way: str = "a", rate: float = 0.0) -> str:
    return f"{word}{way}" * times


HERE = f"{__name__}:thing"
TABLE = {"thing": Entry(HERE, "a thing"), "gone": Entry("forethought.nothing:x", ""), "other": Entry(HERE, "")}


@pytest.mark.parametrize(
    ("spec", "name", "options"),
    [
        ("thing", "thing", {}),
        (" thing() ", "thing", {}),
        ("thing(times=2, way=b)", "thing", {"times": 2, "way": "b"}),
        ('thing(way="a, (b)", times=3)', "thing", {"way": "a, (b)", "times": 3}),
        ("thing(way='x=y')", "thing", {"way": "x=y"}),
        ("thing(way=O'Brien)", "thing", {"way": "O'Brien"}),
        ("thing(rate=5e-4)", "thing", {"rate": 5e-4}),
        ("a.b:c(d=null)", "a.b:c", {"d": None}),
    ],
)
def test_parse_spec(spec: str, name: str, options: dict[str, Any]) -> None:
    assert parse_spec(spec) == (name, options)


def test_resolve() -> None:
    assert resolve("thing", TABLE, "thing(times=2)", word="x") == "xaxa"
    assert resolve("thing", TABLE, f"{HERE}(way=7)", word="x") == "x7"


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("thnig", "unknown thing 'thnig'. Did you mean 'thing'?"),
        ("zzzzzz", "Known: gone, other, thing."),
        ("thing(time=2)", "has no option 'time'. Did you mean 'times'?"),
        ("thing(word=y)", "has no option 'word'"),
        ("thing(times=many)", "option 'times': Input should be a valid integer"),
        ("thing(2)", "Write name(option=value)"),
        ("thing(way={x)", "cannot read the value"),
        ("thing(", "cannot read 'thing('"),
        ("", "cannot read ''"),
        ("gone", "cannot load thing 'gone'"),
        ("nowhere:thing", "cannot load thing 'nowhere:thing'"),
        (f"{__name__}:nothing", "nothing"),
        (f"{__name__}:", "cannot load"),
        (f"{__name__}:TABLE", "cannot load"),
        (":thing", "cannot load"),
        (".x:thing", "cannot load"),
    ],
)
def test_resolve_says_what_is_wrong(spec: str, said: str) -> None:
    with pytest.raises(ForethoughtError) as error:
        resolve("thing", TABLE, spec, word="x")
    assert said in str(error.value) and "\n" not in str(error.value)


def test_a_wrong_choice_of_an_option_is_an_error() -> None:
    with pytest.raises(ForethoughtError, match="option 'template': Input should be 'rules', 'short' or 'reversed'"):
        resolve("synthesizer", SYNTHESIZERS, "scot(template=shrt)", policy=load_policy("default"))
    with pytest.raises(ForethoughtError, match="thing"):
        resolve("thing", TABLE, "thing")


def test_run_json_is_plain(tmp_path: Path) -> None:
    finished(tmp_path / "r")
    info = json.loads((tmp_path / "r" / "run.json").read_text())
    assert info["status"] == "finished" and info["config"] == CONFIG and len(info["outputs"]["out.jsonl"]) == 64


def test_a_written_path_is_found_from_another_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = tmp_path / "work" / "runs" / "attack"
    judged = tmp_path / "work" / "runs" / "deep" / "judged"
    for folder in (there, judged, tmp_path / "elsewhere"):
        folder.mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert locate("runs/attack", judged) == there
    assert locate("runs/none", judged) == Path("runs/none")
    assert locate(there, Path("x")) == there
    (tmp_path / "elsewhere" / "runs" / "attack").mkdir(parents=True)
    assert locate("runs/attack", judged) == Path("runs/attack")


@pytest.mark.parametrize(
    ("text", "said"),
    [("a: 1\nb: {c: 1, c: 2}\n", "the key 'c' comes twice"), ("a: 2025-02-30\n", "day is out of range")],
)
def test_yaml_that_says_something_else_than_it_seems(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ForethoughtError, match=said):
        read_yaml(tmp_path / "x.yaml", text.encode())


def test_a_run_stopped_in_its_very_first_write_goes_on(tmp_path: Path) -> None:
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "run.json.tmp").write_text("{")
    assert not make(tmp_path / "r").finished


def test_what_safetensors_and_torch_say_of_a_full_disk() -> None:
    for text in (
        "Error while serializing: I/O error: No space left on device (os error 28)",
        "PytorchStreamWriter failed writing file",
    ):
        with pytest.raises(ForethoughtError, match="the disk is full"), explain_disk():
            raise RuntimeError(text)
    with pytest.raises(RuntimeError, match="else"), explain_disk():
        raise RuntimeError("something else")
