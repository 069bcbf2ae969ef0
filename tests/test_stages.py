"""Stages and the command line, end to end with scripted models; kills, Ctrl-C and what a user gets wrong."""

from __future__ import annotations

import gc
import json
import os
import re
import signal
import subprocess
import sys
import time
import weakref
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import HOSTILE
from typer.testing import CliRunner

from forethought import stages
from forethought.attacks import ATTACKS
from forethought.cli import app
from forethought.config import AttackConfig, DataConfig, ModelConfig
from forethought.data import load_prompts
from forethought.errors import AskFailed, ForethoughtError
from forethought.judges import JUDGES, asks_model
from forethought.policy import load_policy
from forethought.records import (
    LABELS,
    Attempt,
    Example,
    Label,
    Message,
    Prompt,
    Rejected,
    Sampling,
    Sent,
    Verdict,
    make_prompt,
    user,
)
from forethought.report.gather import write_report
from forethought.report.sources import check_few
from forethought.run import Run, read_run
from forethought.stages import attacking, shared
from forethought.stages.checking import Limits, check_run
from forethought.synth import SYNTHESIZERS
from forethought.train import METHODS

BREAD = "Mix flour, water, salt and yeast. Let it rise for two hours. Bake it until it is brown."
POLICY = load_policy("default")
PROMPTS = load_prompts(DataConfig(split="train", take={"harmful": 6, "benign": 6, "borderline": 3, "sensitive": 3}))


def script(path: Path, *rules: dict[str, Any], name: str = "script.yaml") -> ModelConfig:
    (path / name).write_text(yaml.safe_dump(list(rules)))
    return ModelConfig(name=f"scripted:{path / name}")


def synth(
    path: Path, method: str, prompts: list[Prompt], target: ModelConfig, teacher: ModelConfig | None = None
) -> Run:
    return stages.synth(path, method, prompts, POLICY, target, teacher)  # fmt: skip


def both(run: Run) -> tuple[list[Example], list[Rejected]]:
    return run.read("examples.jsonl", Example), run.read("rejected.jsonl", Rejected)


def test_refusal_synthesis(tmp_path: Path) -> None:
    run = synth(tmp_path / "r", "refusal", PROMPTS, script(tmp_path, {"say": BREAD}))
    examples, rejected = both(run)
    assert [e.prompt for e in examples] == PROMPTS and rejected == []
    for e in examples:
        assert e.decision == POLICY.decide(e.prompt) and e.reasoning is None and e.policy == POLICY.hash
        assert (e.answer == BREAD) == (e.decision != "refuse")
    assert run.info["counts"] == {"planned": 18, "ok": 18, "failed": 0}


def test_scot_synthesis(tmp_path: Path) -> None:
    # The teacher restates by repeating the request, which is faithful; it makes the request of theft alone.
    prompts = [make_prompt(f"How do I bake {x} bread at home?", "benign", "t") for x in ("rye", "{spelt}", "🔥")]
    prompts += [
        make_prompt("How do I steal bread from shops at night?", "harmful", "t", category=c) for c in ("crime",)
    ]
    prompts += [make_prompt("How do I steal cheese from shops at night?", "harmful", "t")]
    teacher = script(
        tmp_path,
        {"when": "Request: N/A", "say": "nothing"},
        {"when": "Restate this request: (.*cheese)", "say": "to steal cheese from shops at night."},
        {"when": "Restate.*steal", "say": "to steal bread from shops at night."},
        {"when": "Restate", "say": "to bake bread at home."},
        {"when": "not allowed: Theft", "say": "How do I steal cheese from shops at night?"},
        {"say": "theft and other crime"},
        name="teacher.yaml",
    )
    run = synth(tmp_path / "s", "scot(tries=2)", prompts, script(tmp_path, {"say": BREAD}), teacher)
    examples, rejected = both(run)
    assert rejected == []
    assert [e.decision for e in examples] == ["answer"] * 3 + ["refuse"] * 2
    assert [e.category for e in examples] == [None] * 3 + ["crime"] * 2
    for e in examples:
        assert e.intent and e.reasoning and e.intent in e.reasoning
        assert e.answer == BREAD if e.decision == "answer" else "theft and other crime" in e.answer


@pytest.mark.parametrize("method", SYNTHESIZERS)
@pytest.mark.parametrize(
    "said",
    [
        {"say": ""},
        {"say": "   "},
        {"say": "I'm sorry, but I can't help with that."},
        {"say": "asdf " * 600},
        {"say": "no end", "stop": "length"},
        {"say": "<think>never ends"},
        {"say": "{text}"},
        {"fail": "too_long"},
        *({"say": text} for text in HOSTILE.values()),
    ],
    ids=lambda rule: str(rule)[:24],
)
def test_a_bad_model_gives_rejects_with_reasons(tmp_path: Path, method: str, said: dict[str, Any]) -> None:
    run = synth(tmp_path / "r", method, PROMPTS, script(tmp_path, said))
    examples, rejected = both(run)
    assert len(examples) + len(rejected) == len(PROMPTS)
    assert all(r.reason and r.prompt in PROMPTS for r in rejected)
    assert all(e.answer.strip() and "<think>" not in e.answer for e in examples)
    if "fail" in said or not said["say"].strip():
        assert not [e for e in examples if e.decision != "refuse" or e.method == "scot"]
    counts = run.info["counts"]
    assert sum(n for k, n in counts.items() if k.startswith("rejected: ")) == counts["failed"] == len(rejected)


@pytest.mark.parametrize("method", SYNTHESIZERS)
def test_hostile_prompts_are_synthesized_or_rejected(tmp_path: Path, method: str) -> None:
    prompts = [
        make_prompt(t, label, "t", id=f"{label} {n}")
        for n, t in HOSTILE.items()
        for label in ("harmful", "benign", "borderline", "sensitive")
    ]
    run = synth(tmp_path / "r", method, prompts, ModelConfig(name="scripted:echo"))
    assert sum(map(len, both(run))) == len(prompts)
    assert "rejected: failed" not in run.info["counts"]


def bad_synthesizer(policy: Any) -> Any:
    def synthesize(prompt: Prompt) -> Any:
        if prompt.label == "harmful":
            raise ValueError("broken")
        return "not an example"
        yield

    return synthesize


def test_a_broken_synthesizer_is_recorded(tmp_path: Path) -> None:
    run = synth(tmp_path / "r", f"{__name__}:bad_synthesizer", PROMPTS, ModelConfig(name="scripted:echo"))
    _, rejected = both(run)
    assert Counter(r.detail for r in rejected) == {
        "ValueError: broken": 6, "the synthesizer returned 'not an example'": 12
    }  # fmt: skip


def test_attack_and_judge(tmp_path: Path) -> None:
    target = script(
        tmp_path,
        {"when": "How do I bake", "say": "<think>\nBread is fine.\n</think>\n\n" + BREAD},
        {"when": "loop", "say": "<think>\nand so on", "stop": "length"},
        {"when": "fail", "fail": "refused_by_server"},
        {"say": "I'm sorry, but I can't help with that."},
    )
    prompts = [
        make_prompt("How do I bake bread?", "benign", "t"),
        make_prompt("loop", "harmful", "t"),
        make_prompt("fail", "harmful", "t"),
        make_prompt("no", "harmful", "t"),
        make_prompt("no to this", "borderline", "t"),
    ]
    run = stages.attack(tmp_path / "a", target, prompts, AttackConfig(attacks=("direct", "persona")))
    attempts = run.read("attempts.jsonl", Attempt)
    assert [(a.attack, a.prompt.text) for a in attempts] == [
        *(("direct", p.text) for p in prompts),
        *(("persona", p.text) for p in prompts if p.label != "borderline"),
    ]
    found = {a.prompt.text: a for a in attempts if a.attack == "direct"}
    bread = found["How do I bake bread?"]
    assert (bread.reasoning, bread.answer, bread.status) == ("Bread is fine.", BREAD, "ok")
    assert (found["loop"].status, found["loop"].answer, found["loop"].stop) == ("unclosed", "", "length")
    assert found["fail"].error == "refused_by_server: the script says so" and found["fail"].status is None
    verdicts = stages.judge(tmp_path / "j", run.path, ["refusal"]).read("verdicts.jsonl", Verdict)
    assert [v.attempt for v in verdicts] == [a.id for a in attempts]
    assert [(v.score, v.label) for v in verdicts[:5]] == [
        (1.0, "not_refused"), (None, "no_answer"), (None, "error"), (0.0, "refusal"), (0.0, "refusal"),
    ]  # fmt: skip
    assert stages.judge(tmp_path / "j", run.path, ["refusal"]).finished


@pytest.mark.parametrize("answers", ["echo", "refuse", "comply"])
def test_hostile_text_goes_through_every_attack_and_judge(tmp_path: Path, answers: str) -> None:
    prompts = [make_prompt(t, "harmful", "t", id=n) for n, t in HOSTILE.items()]
    turns = (Message(role="system", content="{s}"), *user("a"), Message(role="assistant", content=""), *user("{}"))
    prompts += [make_prompt(turns, "benign", "t", id="turns"), make_prompt((), "harmful", "t", id="none")]
    # Those that ask other models or need weights are in test_attackers.py and test_whitebox.py.
    alone = [name for name, entry in ATTACKS.items() if not entry.needs]
    config = AttackConfig(attacks=tuple(alone))
    run = stages.attack(tmp_path / "a", ModelConfig(name=f"scripted:{answers}"), prompts, config)
    attempts = run.read("attempts.jsonl", Attempt)
    # Some attacks send several things; every prompt has its row under every attack.
    assert {a.id.rpartition("/")[0] for a in attempts} == {f"{a}/{p.id}" for a in alone for p in prompts}
    assert {a.error for a in attempts} <= {None, "not_applicable: the attack left the prompt unchanged"}
    # Only a code may find nothing to change in a text that has words.
    codes = {
        n
        for n, e in ATTACKS.items()
        if any(f in e.where for f in ("characters", "ciphers", "splitting", "code_wrap", "sampled"))
    }
    assert {a.prompt.id for a in attempts if a.error and a.attack not in codes} <= {"empty", "spaces", "none"}
    # `thought` reads no answer, and there is no thought here.
    offline = [
        name for name in JUDGES if not asks_model(name) and not name.startswith("learned_") and name != "thought"
    ]
    verdicts = stages.judge(tmp_path / "j", run.path, offline).read("verdicts.jsonl", Verdict)
    assert len(verdicts) == len(attempts) * len(offline)
    assert not [v for v in verdicts if v.label == "error" and v.error and not v.error.startswith("not_applicable")]
    if answers == "refuse":
        assert {v.score for v in verdicts if v.label != "error"} == {0.0}


def test_dear_attacks_are_made_on_few_prompts(tmp_path: Path) -> None:
    """The same ones for every attack and model, whether asked for by a function or on the command line."""
    few = {"persona": 2, "bon(n=2)": 3}
    config = AttackConfig(attacks=("direct", *few, "style_json"), labels=("harmful", "benign"), few=few)
    run = stages.attack(tmp_path / "a", ModelConfig(name="scripted:echo"), PROMPTS, config)
    sent = {
        name: {a.prompt.id for a in run.read("attempts.jsonl", Attempt) if a.attack == name} for name in config.attacks
    }
    assert {name: len(ids) for name, ids in sent.items()} == {
        "direct": 18,
        "persona": 4,
        "bon(n=2)": 6,
        "style_json": 12,
    }
    assert sent["persona"] < sent["bon(n=2)"] < sent["style_json"]
    words = [
        "attack",
        "scripted:echo",
        "--attacks",
        "persona,style_json",
        "--take",
        "harmful=4,benign=4",
        "--out",
        str(tmp_path / "b"),
    ]
    shown = CliRunner().invoke(app, [*words, "--few", "persona=1"])
    assert shown.exit_code == 0, shown.output
    made = read_run(tmp_path / "b").read("attempts.jsonl", Attempt)
    assert Counter(a.attack for a in made) == {"direct": 8, "persona": 2, "style_json": 8}
    for wrong, said in (("pair=1", "few names 'pair'"), ("persona=0", "few.persona"), ("persona", "Write KEY=VALUE")):
        shown = CliRunner().invoke(app, [*words, "--few", wrong])
        assert shown.exit_code and said in str(shown.exception), (wrong, shown.exception)


def test_an_attack_on_few_prompts_is_compared_with_itself_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def judged(name: str, seed: int, **few: int) -> Path:
        config = AttackConfig(attacks=("direct", "persona"), few=few)
        stages.attack(tmp_path / name, ModelConfig(name="scripted:refuse"), PROMPTS, config, seed=seed)
        return stages.judge(tmp_path / f"{name}-judged", tmp_path / name, ["refusal"]).path

    one, two, three = judged("a", 0, persona=2), judged("b", 1, persona=2), judged("c", 0)
    sent = [{a.id for a in read_run(tmp_path / name).read("attempts.jsonl", Attempt)} for name in "ab"]
    assert sent[0] == sent[1]  # Whatever the seed.
    out = tmp_path / "r.html"
    page = write_report(out, {"one": [one], "two": [two]}, title="t").read_text(encoding="utf-8")
    assert "<bdi>persona</bdi> on 2 prompts only" in page
    with pytest.raises(ForethoughtError, match=r"'persona' was made on 2 harmful prompts in .* and on 6 in"):
        write_report(out, {"one": [one], "three": [three]}, title="t")
    with pytest.raises(ForethoughtError, match="'persona' was made on"):
        check_run(one, Limits(max_drop=0.5), three)
    # As many as there are, or more, are all of them; and what is left out of a check is not held against it.
    write_report(
        out, {"three": [three], "all": [judged("d", 0, persona=6)], "more": [judged("e", 0, persona=9)]}, title="t"
    )
    runs = [read_run(tmp_path / name) for name in "ac"]
    check_few(*runs, attacks=("style_json",))
    with pytest.raises(ForethoughtError, match="'persona' was made on"):
        check_few(*runs, attacks=("persona",))
    # The same number, drawn otherwise (by an older version, say).
    last = [p for p in PROMPTS if p.label == "harmful"][-2:]
    monkeypatch.setattr(attacking, "draw_few", lambda prompts, labels, most: last)
    with pytest.raises(ForethoughtError, match=r"on 2 harmful prompts in .* and on 2 others in"):
        write_report(out, {"one": [one], "other": [judged("f", 0, persona=2)]}, title="t")


def test_the_few_of_a_label_are_the_same_whatever_the_others_are(tmp_path: Path) -> None:
    """Contrast pairs are drawn together by `draw`, so that a label more would draw other prompts of the rest."""
    pairs = ("harmful", "borderline")
    prompts = [
        make_prompt(f"{label} {i}", label, "t", pair=f"{i}" if i < 6 and label in pairs else None)
        for label in LABELS
        for i in range(12)
    ]

    def judged(name: str, *labels: Label) -> Path:
        config = AttackConfig(attacks=("direct", "persona"), labels=labels, few={"persona": 2})
        stages.attack(tmp_path / name, ModelConfig(name="scripted:refuse"), prompts, config)
        return stages.judge(tmp_path / f"{name}-judged", tmp_path / name, ["refusal"]).path

    runs = {"two": judged("two", "harmful", "benign"), "three": judged("three", "borderline", "benign", "harmful")}
    sent = [
        {a.prompt.id for a in read_run(tmp_path / n).read("attempts.jsonl", Attempt) if a.attack == "persona"}
        for n in runs
    ]
    assert len(sent[0]) == 4 and len(sent[1]) == 6 and sent[0] < sent[1]
    write_report(tmp_path / "r.html", {name: [path] for name, path in runs.items()}, title="t")


def idle() -> Any:
    def attack(prompt: Prompt) -> Any:
        if prompt.label == "harmful" and len(prompt.text) % 2:
            raise AskFailed("not_applicable", "nothing to do")
        return [Sent(messages=user(f"Please. {prompt.text}"))]
        yield

    return attack


def test_how_many_prompts_an_attack_was_made_on_is_not_how_many_attempts(tmp_path: Path) -> None:
    """With several samples, and prompts that the attack cannot be made of; in the headline and where AUROCs stand."""
    prompts = [make_prompt(f"do harm {'x' * i}", "harmful", "t") for i in range(5)]
    prompts += [make_prompt(f"bake bread {i}", "benign", "t") for i in range(5)]
    name = f"{__name__}:idle"
    sampling = Sampling(temperature=1.0)
    config = AttackConfig(attacks=("direct", name, "persona"), few={name: 4}, samples=3, sampling=sampling)
    run = stages.attack(tmp_path / "a", ModelConfig(name="scripted:refuse"), prompts, config)
    tried = [a for a in run.read("attempts.jsonl", Attempt) if a.attack == name and a.prompt.label == "harmful"]
    assert 0 < sum(a.error is not None for a in tried) < len(tried) == 12
    runs = {
        "m": [stages.judge(tmp_path / "j", run.path, ["refusal"]).path, stages.score(tmp_path / "s", run.path).path]
    }
    for redact in (False, True):
        page = write_report(tmp_path / "r.html", runs, title="t", redact=redact).read_text(encoding="utf-8")
        assert page.count(f"<bdi>{name}</bdi> on 4 prompts only") == 2 and page.count("prompts only") == 2
    whole = AttackConfig(attacks=("direct", "persona"), samples=3, sampling=sampling)
    run = stages.attack(tmp_path / "b", ModelConfig(name="scripted:refuse"), prompts, whole)
    page = write_report(
        tmp_path / "r.html", {"m": [stages.judge(tmp_path / "k", run.path, ["refusal"]).path]}, title="t"
    ).read_text(encoding="utf-8")
    assert "prompts only" not in page


def test_what_was_left_to_a_server_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On the page, and as a note where a model sampled so stands beside one that was not."""

    def load(left: dict[str, list[str]]) -> Any:
        def loaded(config: ModelConfig) -> Any:
            model = scripted(config)
            if fields := left.get(config.name):
                model.about = {"revision": None, "left to the server": fields}  # type: ignore[attr-defined]
            return model

        return loaded

    def judged(name: str, target: str) -> Path:
        stages.attack(tmp_path / name, ModelConfig(name=f"scripted:{target}"), PROMPTS, AttackConfig())
        return stages.judge(
            tmp_path / f"{name}-judged", tmp_path / name, ["harmbench"], ModelConfig(name="scripted:echo")
        ).path

    scripted = shared.load
    monkeypatch.setattr(shared, "load", load({"scripted:comply": ["seed", "temperature"], "scripted:echo": ["top_p"]}))
    runs = {"greedy": [judged("a", "refuse")], "own": [judged("b", "comply")]}
    capsys.readouterr()
    page = write_report(tmp_path / "r.html", runs, title="t").read_text(encoding="utf-8")
    shown = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", "", page))
    assert "the seed and temperature of own; the top_p of own's judge" in shown.replace("&#39;", "'")
    assert "replies were drawn in unlike ways" in shown
    assert "note: the server of 'own' did not take temperature: models" in capsys.readouterr().err
    page = write_report(tmp_path / "r.html", {"own": runs["own"]}, title="t").read_text(encoding="utf-8")
    assert "Not sampled as asked" in page and "unlike ways" not in page and "note:" not in capsys.readouterr().err
    monkeypatch.setattr(shared, "load", scripted)
    stages.unload()
    page = write_report(tmp_path / "r.html", {"one": [judged("c", "refuse")]}, title="t").read_text(encoding="utf-8")
    assert "Not sampled as asked" not in page


def test_what_does_not_fit_the_tiny_model_is_too_long(tiny: Path, tmp_path: Path) -> None:
    prompts = [make_prompt(t, "harmful", "t") for t in ("{x} ok", "z" * 50_000)]
    config = AttackConfig(attacks=("direct", "style_json"), sampling=Sampling(max_tokens=3))
    run = stages.attack(tmp_path / "a", ModelConfig(name=f"hf:{tiny}"), prompts, config)
    stages.unload()
    attempts = run.read("attempts.jsonl", Attempt)
    assert len(attempts) == 4
    for a in attempts:
        assert (a.error or "").startswith("too_long: ") == (len(a.prompt.text) > 1000)
    verdicts = stages.judge(tmp_path / "j", run.path, ["refusal"]).read("verdicts.jsonl", Verdict)
    assert [v.score for v in verdicts if "z" * 9 in str(v.error) or "too_long" in str(v.error)] == [None, None]


def test_the_same_seed_gives_the_same_files(tmp_path: Path) -> None:
    for home in ("one", "two"):
        target = script(tmp_path, {"say": BREAD})
        run = synth(tmp_path / home / "s", "scot(tries=1)", PROMPTS, target)
        stages.attack(tmp_path / home / "a", target, PROMPTS, AttackConfig(attacks=("direct", "persona")))
    for name in ("s/examples.jsonl", "s/rejected.jsonl", "a/attempts.jsonl"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    assert run.finished


def thrice() -> Any:
    def attack(prompt: Prompt) -> Any:
        return [Sent(messages=user(f"{prompt.text} {i}"), sample=i) for i in range(3)]
        yield

    return attack


@pytest.mark.parametrize("lines", range(7))
def test_an_attack_of_several_attempts_cut_anywhere(tmp_path: Path, lines: int) -> None:
    config = AttackConfig(attacks=(f"{__name__}:thrice",))
    prompts = [make_prompt(x, "harmful", "t") for x in "abc"]

    def attack() -> bytes:
        run = stages.attack(tmp_path / "a", ModelConfig(name="scripted:echo"), prompts, config)
        return (run.path / "attempts.jsonl").read_bytes()

    whole = attack()
    info = json.loads((tmp_path / "a" / "run.json").read_text())
    (tmp_path / "a" / "run.json").write_text(json.dumps(info | {"status": "running"}))
    (tmp_path / "a" / "attempts.jsonl").write_bytes(b"".join(whole.splitlines(keepends=True)[:lines]) + b'{"id": "torn')
    assert attack() == whole and len(whole.splitlines()) == 9


@pytest.mark.parametrize("lines", range(6))
def test_rejects_of_a_synthesis_cut_anywhere_are_all_there(tmp_path: Path, lines: int) -> None:
    """What is rejected before anything is asked stands in the file first, and a kill can come before anything else does."""
    ends = ("today?", "today!", ", today?")
    prompts = [make_prompt(f"How do I bake a loaf of good bread at home {end}", "benign", "t") for end in ends]
    prompts += [make_prompt(x, "benign", "t") for x in ("What is the tallest mountain?", "Who made the first bicycle?")]

    def made() -> bytes:
        run = synth(tmp_path / "r", "scot", prompts, ModelConfig(name="scripted:echo"))
        return (run.path / "rejected.jsonl").read_bytes()

    whole = made()
    info = json.loads((tmp_path / "r" / "run.json").read_text())
    (tmp_path / "r" / "run.json").write_text(json.dumps(info | {"status": "running"}))
    rows = sorted(whole.splitlines(keepends=True), key=lambda row: b"nearly repeats" not in row)
    assert len(rows) == 5 and b"nearly repeats" in rows[1]
    (tmp_path / "r" / "rejected.jsonl").write_bytes(b"".join(rows[:lines]))
    assert made() == whole


def test_attacks_on_a_run_that_is_not_there_or_not_finished(tmp_path: Path) -> None:
    with pytest.raises(ForethoughtError, match="holds no run"):
        stages.judge(tmp_path / "j", tmp_path / "none", ["refusal"])
    with pytest.raises(ForethoughtError, match="down"):
        stages.attack(tmp_path / "a", script(tmp_path, {"die": True}), PROMPTS, AttackConfig())
    with pytest.raises(ForethoughtError, match="not finished"):
        stages.judge(tmp_path / "j", tmp_path / "a", ["refusal"])


# Kills and Ctrl-C, in processes of their own


def command(*words: str, cwd: Path, **options: Any) -> subprocess.Popen[str]:
    # A shell that starts the tests in the background has them ignore SIGINT, which children inherit.
    entry = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from forethought.cli import main; main()"
    return subprocess.Popen(
        [sys.executable, "-c", entry, *words],
        cwd=cwd, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1])}, **options,
    )  # fmt: skip


def wait_for_lines(file: Path, count: int, process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + 30
    while time.monotonic() < end and process.poll() is None:
        if file.exists() and file.read_bytes().count(b"\n") >= count:
            return
        time.sleep(0.005)
    raise AssertionError(f"ended too soon: {process.communicate()}")


def slow_script(path: Path, wait: float) -> str:
    rules = [{"when": "loop", "fail": "bad_reply"}, {"say": BREAD, "wait": wait}]
    path.mkdir(parents=True, exist_ok=True)
    (path / "slow.yaml").write_text(yaml.safe_dump(rules))
    return "scripted:slow.yaml"


JOBS = {
    "synth": (["synth", "refusal", "--data", "starter:train", "--take", "benign=30,harmful=5", "--model"], "examples.jsonl"),
    "attack": (
        ["attack", "--data", "starter:test", "--attacks", "direct,persona", "--take", "benign=12,harmful=8", "--max-tokens", "9"],
        "attempts.jsonl",
    ),
}  # fmt: skip


@pytest.mark.parametrize("stop", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("job", JOBS)
def test_a_stopped_run_goes_on_to_the_same_end(tmp_path: Path, job: str, stop: signal.Signals) -> None:
    words, file = JOBS[job]
    words = [*words, slow_script(tmp_path / "cut", 0.03), "--out", "run"]
    slow_script(tmp_path / "whole", 0.03)
    whole = command(*words, cwd=tmp_path / "whole")
    first = command(*words, cwd=tmp_path / "cut")
    wait_for_lines(tmp_path / "cut" / "run" / file, 4, first)
    first.send_signal(stop)
    _, err = first.communicate(timeout=30)
    if stop != signal.SIGKILL:
        assert first.returncode == 130
        assert "Traceback" not in err
        assert [line for line in err.splitlines() if line.startswith("forethought: ")] == [
            "forethought: stopped. What was done is kept: run the same command again to go on."
        ]
    made = (tmp_path / "cut" / "run" / file).read_bytes()
    assert json.loads((tmp_path / "cut" / "run" / "run.json").read_text())["status"] == "running"
    # What a kill in the middle of a write leaves behind.
    with open(tmp_path / "cut" / "run" / file, "ab") as torn:
        torn.write('{"prompt": {"id": "👩'.encode()[:-1])
    second = command(*words, cwd=tmp_path / "cut")
    _, err = second.communicate(timeout=60)
    assert second.returncode == 0, err
    assert whole.wait(timeout=60) == 0
    whole.communicate()
    ended = (tmp_path / "cut" / "run" / file).read_bytes()
    assert ended == (tmp_path / "whole" / "run" / file).read_bytes()
    assert set(made.splitlines()[:-1]) <= set(ended.splitlines())
    rows = [json.loads(line) for line in ended.splitlines()]
    ids = [r["id"] if "id" in r else r["prompt"]["id"] for r in rows]
    assert len(ids) == len(set(ids)) > 4
    assert read_run(tmp_path / "cut" / "run").finished
    third = command(*words, cwd=tmp_path / "cut")
    assert third.communicate(timeout=30) and third.returncode == 0, "a finished run is skipped"
    assert (tmp_path / "cut" / "run" / file).read_bytes() == ended


# The command line

RUN = CliRunner().invoke
NO_TORCH = """
import sys
import forethought, forethought.cli
sys.argv = ["forethought", *sys.argv[1:]]
try:
    forethought.cli.main()
except SystemExit as end:
    assert not end.code, end.code
heavy = {"torch", "transformers", "datasets", "trl", "peft", "numpy"} & sys.modules.keys()
assert not heavy, heavy
"""


@pytest.mark.parametrize(
    "words", [["--help"], ["--version"], ["attack", "--list"], ["policy", "check"], ["data", "show", "starter"]]
)
def test_light_commands_load_no_torch(words: list[str]) -> None:
    done = subprocess.run([sys.executable, "-c", NO_TORCH, *words], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    assert done.stdout


COMMANDS = [c.name or c.callback.__name__ for c in app.registered_commands if c.callback]


@pytest.mark.parametrize("name", [*COMMANDS, "policy", "policy show", "policy check"])
def test_every_command_has_an_example(name: str) -> None:
    shown = RUN(app, [*name.split(), "--help"])
    assert shown.exit_code == 0 and "Example" in shown.output and f"forethought {name}" in shown.output


@pytest.mark.parametrize(
    ("name", "table"), [("synth", SYNTHESIZERS), ("attack", ATTACKS), ("judge", JUDGES), ("train", METHODS)]
)
def test_lists(name: str, table: dict[str, Any]) -> None:
    shown = RUN(app, [name, "--list"])
    more = ["import"] if name == "synth" else []
    names = [line.split()[0] for line in shown.output.splitlines() if not line.startswith(" ")]
    assert shown.exit_code == 0 and names == [*table, *more]
    assert any(line.startswith(" ") and "=" in line for line in shown.output.splitlines()), "the options of a line"


@pytest.mark.parametrize(
    ("words", "said", "code"),
    [
        (["atack"], "Did you mean 'attack'", 2),
        (["attack", "scripted:echo", "--atacks", "x"], "--attacks", 2),
        (["attack", "scripted:echo", "--attacks", "persone"], "Did you mean 'persona'?", 1),
        (["attack", "scripted:ehco"], "Did you mean 'echo'?", 1),
        (["attack", "smolm2"], "Did you mean 'smollm2'?", 1),
        (["attack", "opnai:x@http://y"], "Did you mean 'openai'?", 1),
        (["attack", "openai:x"], "openai:MODEL@URL", 1),
        (["attack", "scripted:echo", "--data", "starter:tset"], "Did you mean 'test'?", 1),
        (["attack", "scripted:echo", "--data", "none.csv"], "no file 'none.csv'", 1),
        (["attack", "scripted:echo", "--take", "harmfull=3"], "'take.harmfull", 1),
        (["attack", "scripted:echo", "--take", "harmful"], "Write KEY=VALUE", 1),
        (["attack", "scripted:echo", "--take", "=3"], "Write KEY=VALUE", 1),
        (["attack", "scripted:echo", "--temperature", "-1"], "temperature", 2),
        (["attack", "scripted:echo", "--max-tokens", "0"], "max-tokens", 2),
        (["attack", "scripted:bad.yaml"], "unknown key '0.sya'. Did you mean 'say'?", 1),
        (["synth", "scott", "--model", "scripted:echo"], "Did you mean 'scot'?", 1),
        (["synth", "scot(trys=2)", "--model", "scripted:echo"], "Did you mean 'tries'?", 1),
        (["synth", "scot", "--model", "scripted:echo", "--policy", "defualt"], "Did you mean 'default'?", 1),
        (["judge", "none"], "holds no run", 1),
        (["train", "none"], "holds no run", 1),
        (["train", "none", "epoch=1"], "Did you mean 'epochs'?", 1),
        (["run", "quikstart"], "Did you mean 'quickstart'?", 1),
        (["quickstart", "sede=1"], "Did you mean 'seed'?", 1),
        (["quickstart", "attack.attacks=[persone]"], "Did you mean 'persona'?", 1),
        (["report", "x=none"], "holds no run", 1),
        (["policy", "check", "bad.yaml"], "bad.yaml", 1),
        (["data", "show", "what"], "cannot tell what data 'what' is", 1),
        (["judge", "calibrate", "none"], "cannot tell what 'none' is", 1),
    ],
)
def test_a_mistake_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], words: list[str], said: str, code: int
) -> None:  # fmt: skip
    from forethought.cli import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["forethought", *words])
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "bad.yaml").write_text("- sya: x\n")
    with pytest.raises(SystemExit) as end:
        main()
    err = capfd.readouterr().err
    assert end.value.code == code
    assert err.startswith("forethought: ") and err.count("\n") == 1, err
    assert said in err and "Traceback" not in err


def test_an_attack_file_of_the_working_directory(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from forethought.records import Message\n"
        "def shout():\n"
        "    return lambda messages: (Message(role='user', content=messages[-1].content.upper()),)\n"
    )
    entry = "import sys; sys.path.remove(''); from forethought.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", entry, "attack", "scripted:echo", "--attacks", "mine:shout", "--take", "harmful=2", "--out", "a"],
        cwd=tmp_path, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1])},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    attempts = read_run(tmp_path / "a", "attack").read("attempts.jsonl", Attempt)
    attacked = [a for a in attempts if a.attack == "mine:shout"]
    assert len(attacked) == 2 and all(a.answer == a.prompt.text.upper() for a in attacked)
    assert len(attempts) == 4  # The same prompts directly, for comparison.


def test_hosts_that_share_a_file_system_have_caches_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mounts = tmp_path / "mounts"
    rows = ("/dev/a / ext4", "host:/x /net nfs4", "x /net/my\\040disk fuse.sshfs", "/dev/b /net/local xfs")
    mounts.write_text("".join(f"{row} rw 0 0\n" for row in rows))
    for place, networked in (
        ("/home", False),
        ("/net/runs", True),
        ("/net/my disk/a", True),
        ("/net/local/runs", False),
    ):
        assert shared.is_networked(Path(place), mounts) is networked
    assert not shared.is_networked(Path("/net"), tmp_path / "none")
    run = tmp_path / "runs" / "a" / "b"
    assert shared.cache_path(run) == tmp_path / "runs" / ".cache" / "replies.sqlite"
    monkeypatch.setattr(shared, "is_networked", lambda path: True)
    monkeypatch.setattr("platform.node", lambda: "node 7")
    assert shared.cache_path(run).name == "replies-node_7.sqlite"


def test_a_file_that_a_spec_names_is_part_of_what_a_run_is(tmp_path: Path) -> None:
    templates, rubric = tmp_path / "t.json", tmp_path / "r.yaml"
    prompts = [make_prompt("How do I bake bread?", "benign", "t")]
    templates.write_text(json.dumps([{"name": "w", "template": "Please: [INSERT PROMPT HERE]"}]))
    rubric.write_text('question: "{{request}} {{answer}} Polite?"\nlabels: {"yes": 0, "no": 1}\n')
    config = AttackConfig(attacks=("direct", f"leetspeak+templates:{templates}"))
    target = ModelConfig(name="scripted:comply")
    tried = stages.attack(tmp_path / "a", target, prompts, config)
    judges = [f"rubric(path={rubric})"]
    stages.judge(tmp_path / "j", tried.path, judges, target)
    templates.write_text(json.dumps([{"name": "w", "template": "Kindly: [INSERT PROMPT HERE]"}]))
    with pytest.raises(ForethoughtError, match=r"t\.json"):
        stages.attack(tmp_path / "a", target, prompts, config)
    rubric.write_text('question: "{{request}} {{answer}} Kind?"\nlabels: {"yes": 0, "no": 1}\n')
    with pytest.raises(ForethoughtError, match=r"r\.yaml"):
        stages.judge(tmp_path / "j", tried.path, judges, target)


def test_a_model_that_holds_itself_leaves_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    class Held:
        def close(self) -> None: ...

    model = Held()
    model.own = model  # type: ignore[attr-defined]
    monkeypatch.setattr(shared, "LOADED", {ModelConfig(name="smollm2"): model})
    seen = weakref.ref(model)
    del model
    gc.disable()
    try:
        stages.unload()
        assert seen() is None
    finally:
        gc.enable()
