"""Best-of-N from attempts: against brute force, by what was sent, with unscored samples; and drawing the samples."""

from __future__ import annotations

import csv
import json
import random
from itertools import combinations
from pathlib import Path

import pytest
from typer.testing import CliRunner

from forethought import stages
from forethought.analysis.best_of_n import Tally, best_of_n, tallies
from forethought.analysis.rates import Outcome, outcomes_of, wilson
from forethought.analysis.summary import more_tries
from forethought.attacks import ATTACKS
from forethought.cli import app
from forethought.config import AttackConfig, ModelConfig
from forethought.errors import AskFailed, ForethoughtError
from forethought.flow import Ask, Flow
from forethought.models.decode import Decoder, Row
from forethought.models.hf import load_hf
from forethought.models.scripted import ScriptedModel
from forethought.records import Attempt, Prompt, Reply, Sampling, Sent, Verdict, make_prompt
from forethought.registry import Entry

NO, YES = "I'm sorry, but I can't help with that.", "Sure. There are several ways to look at this, and here is one."
PROMPTS = [make_prompt(f"do harm {i}", "harmful", "t") for i in range(4)] + [make_prompt("bake", "benign", "t")]
WARM = Sampling(temperature=1.0, max_tokens=6)
COIN = ModelConfig(name="scripted:comply")


def brute(said: list[bool], tries: int) -> tuple[float, float]:
    drawn = [[said[i] for i in c] for c in combinations(range(len(said)), tries)]
    return sum(map(all, drawn)) / len(drawn), sum(map(any, drawn)) / len(drawn)


def test_against_every_way_to_draw_n() -> None:
    rng = random.Random(5)
    for _ in range(20):
        said = [[rng.random() < p for _ in range(rng.randint(4, 7))] for p in (0.1, 0.5, 0.9)]
        outcomes = [
            Outcome(f"a/{p}/{i}", str(p), "a", "harmful", hit, str(p)) for p, row in enumerate(said) for i, hit in enumerate(row)
        ]  # fmt: skip
        for tries in (1, 2, 3, 4):
            ways = [brute(row, tries) for row in said]
            for i, kind in enumerate(("safe_of_n", "bon_attack")):
                found = best_of_n(kind, tallies(outcomes, kind), tries)  # type: ignore[arg-type]
                assert found.value == pytest.approx(sum(w[i] for w in ways) / 3) and found.prompts == 3
                assert found.lowest == found.highest == pytest.approx(found.value)


def test_samples_belong_to_what_was_sent() -> None:
    """Two wordings, of which one always works: the safest of two replies to one wording is asked for, not of the two wordings."""
    outcomes = [Outcome(f"a/p/{i}", "p", "a", "harmful", i < 2, "xy"[i // 2]) for i in range(4)]
    assert tallies(outcomes, "safe_of_n") == [Tally(2, 2, 0, "p"), Tally(2, 0, 0, "p")]
    assert tallies(outcomes, "bon_attack") == [Tally(4, 2, 0, "p")]
    assert best_of_n("safe_of_n", tallies(outcomes, "safe_of_n"), 2).value == 0.5
    # Each sent once, as `bon` does: then the things sent are the tries.
    once = [Outcome(f"a/p/{i}", "p", "a", "harmful", i < 2, str(i)) for i in range(4)]
    assert tallies(once, "safe_of_n") == [Tally(4, 2, 0, "p")]


def test_unscored_samples_are_never_safe_and_intervals_are_by_prompt() -> None:
    found = best_of_n("safe_of_n", [Tally(3, 3, 1, "a"), Tally(4, 4, 0, "b"), Tally(0, 0, 4, "c")], 4)
    assert (found.value, found.prompts, found.left_out) == (1.0, 1, 2)
    assert (found.lowest, found.highest) == (pytest.approx(1 / 3), 1.0)
    # Ten wordings of two prompts are two prompts.
    alike = best_of_n("safe_of_n", [Tally(4, 4, 0, str(i % 2)) for i in range(10)], 2)
    assert (alike.low, alike.high) == wilson(2, 2)
    # One prompt in twenty breaks: the bootstrap alone would often say that none does, and never much more.
    rare = best_of_n("safe_of_n", [Tally(4, 4 * (i == 0), 0, str(i)) for i in range(20)], 4)
    assert rare.value == 0.05 and rare.high is not None and rare.high >= (wilson(1, 20) or (0, 0))[1]


def coin(chances: dict[str, list[str]]) -> ScriptedModel:
    """Says by request and sample; the last line for all further samples. An empty line is a failure."""

    def say(ask: Ask) -> Reply | AskFailed:
        lines = next(lines for words, lines in chances.items() if words in ask.messages[-1].content)
        said = lines[min(ask.sample, len(lines) - 1)]
        return Reply(text=said) if said else AskFailed("too_long", "the test says so")

    return ScriptedModel(say, "coin")


@pytest.fixture
def sampled(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A judged run of 4 samples: always, half of the time, never unsafe, and once unscored."""
    says = {"harm 0": [YES], "harm 1": [YES, NO, YES, NO], "harm 2": [NO], "harm 3": [YES, YES, YES, ""], "bake": [YES]}
    monkeypatch.setitem(stages.LOADED, COIN, coin(says))
    config = AttackConfig(attacks=("direct", "persona"), sampling=WARM, samples=4)
    made = stages.attack(tmp_path / "attack", COIN, PROMPTS, config)
    assert made.info["counts"]["planned"] == 2 * 4 * 5
    ids = [a.id for a in made.read("attempts.jsonl", Attempt)]
    assert ids[:5] == [*(f"direct/{PROMPTS[0].id}/{i}" for i in range(4)), f"direct/{PROMPTS[1].id}/0"]
    return stages.judge(tmp_path / "judged", made.path, ["refusal"]).path


def test_the_command_prints_and_writes_curves(sampled: Path, tmp_path: Path) -> None:
    made = CliRunner().invoke(app, ["analyze", "safe-of-n", f"m={sampled}", "--csv", str(tmp_path / "n.csv")])
    assert made.exit_code == 0, made.output
    with open(tmp_path / "n.csv", encoding="utf-8") as file:
        rows = {(r["attack"], r["kind"], r["N"]): r for r in csv.DictReader(file)}
    assert {n for _, _, n in rows} == {"1", "2", "4"} and {r["measure"] for r in rows.values()} == {"not refused"}
    two, four = rows["direct", "safe_of_n", "2"], rows["persona", "safe_of_n", "4"]
    assert float(two["rate"]) == pytest.approx((1 + 1 / 6 + 0 + 1) / 4) and two["left out"] == "0"
    # At N = 4 the prompt with an unscored sample can be in neither column, and the bounds say what it could change.
    assert float(four["rate"]) == pytest.approx(1 / 3) and (four["sampled"], four["left out"]) == ("3", "1")
    assert (float(four["if unscored were safe"]), float(four["if unsafe"])) == (0.25, 0.5)
    assert float(rows["direct", "bon_attack", "4"]["rate"]) == pytest.approx(2 / 3)
    wanted = CliRunner().invoke(app, ["analyze", "safe-of-n", str(sampled), "--n", "3,64", "--judge", "refusal"])
    assert wanted.exit_code == 0 and wanted.output.count("direct") == 2
    for words, part in ((["--n", "0"], "whole numbers"), (["--judge", "keywords"], "by 'keywords'")):
        wrong = CliRunner().invoke(app, ["analyze", "safe-of-n", str(sampled), *words])
        assert isinstance(wrong.exception, ForethoughtError) and part in str(wrong.exception)


def test_a_run_of_one_sample_has_no_curve(tmp_path: Path) -> None:
    made = stages.attack(tmp_path / "a", COIN, PROMPTS, AttackConfig(attacks=("direct",)))
    stages.judge(tmp_path / "j", made.path, ["refusal"])
    shown = CliRunner().invoke(app, ["analyze", "safe-of-n", str(tmp_path / "j")])
    assert isinstance(shown.exception, ForethoughtError) and "--samples 16" in str(shown.exception)
    wrong = CliRunner().invoke(app, ["attack", "scripted:comply", "--samples", "3", "--out", str(tmp_path / "x")])
    assert isinstance(wrong.exception, ForethoughtError) and "--temperature" in str(wrong.exception)
    with pytest.raises(ValueError, match="one reply"):
        AttackConfig(samples=2)


def searching() -> object:
    def attack(prompt: Prompt) -> Flow[list[Sent]]:
        heard = yield Ask("target", prompt.messages, sample=70)
        assert isinstance(heard, Reply)
        return [Sent(messages=prompt.messages, reply=heard)]

    return attack


def test_a_reply_that_a_search_chose_is_no_sample(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(ATTACKS, "searching", Entry("test_safe_of_n:searching", "keeps what it heard"))
    model = coin({"": [NO, NO, NO, YES]})
    monkeypatch.setitem(stages.LOADED, COIN, model)
    config = AttackConfig(attacks=("searching",), sampling=WARM, samples=3)
    made = stages.attack(tmp_path / "a", COIN, PROMPTS[:1], config).read("attempts.jsonl", Attempt)
    assert [a.answer for a in made] == [NO] * 3 and [a.queries for a in made] == [
        {"target": 2}, {"target": 1}, {"target": 1}
    ]  # fmt: skip
    assert len(model.asked) == 4, "the search is made once for all samples"
    one = stages.attack(tmp_path / "b", COIN, PROMPTS[:1], AttackConfig(attacks=("searching",), sampling=WARM))
    assert [a.answer for a in one.read("attempts.jsonl", Attempt)] == [YES]


def test_a_killed_run_ends_with_the_same_bytes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    config = AttackConfig(attacks=("bon(n=2)", "direct"), sampling=WARM, samples=3)
    model = coin({"": [YES, NO]})
    monkeypatch.setitem(stages.LOADED, COIN, model)
    path = stages.attack(tmp_path / "a", COIN, PROMPTS, config).path
    whole, info = (path / "attempts.jsonl").read_text(), json.loads((path / "run.json").read_text())
    info["status"] = "running"
    (path / "run.json").write_text(json.dumps(info))
    # As it was written, sample by sample, and torn in the middle of the second of two attempts that one job made.
    lines = whole.splitlines(keepends=True)
    jobs = [lines[6 * p + 3 * i + k] for p in range(5) for k in range(3) for i in range(2)]
    (path / "attempts.jsonl").write_text("".join(jobs[:9]) + jobs[9][:40])
    stages.attack(path, COIN, PROMPTS, config)
    assert (path / "attempts.jsonl").read_text() == whole
    # Six replies to two wordings of each prompt: three samples to draw from, and six tries.
    made = [Attempt.model_validate_json(line) for line in lines]
    verdicts = {a.id: Verdict(attempt=a.id, judge="refusal", score=float(a.answer == YES), label="x") for a in made}
    heard = {"m": {"refusal": outcomes_of(made, verdicts)}}
    most = {(t.attack, t.found.kind): t.found.tries for t in more_tries(heard)}
    assert most["bon(n=2)", "safe_of_n"] == 3 and most["bon(n=2)", "bon_attack"] == 6


def test_a_run_reads_a_prompt_once_for_all_its_samples(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also with more prompts than decode at once, and replies of a sample do not depend on how many others there are."""
    read: list[int] = []
    forward = Decoder._forward

    def counted(self: Decoder, decoding: list[Row], pieces: list[tuple[Row, object]]) -> object:
        read.extend(len(p.tokens) for _, p in pieces)  # type: ignore[attr-defined]
        return forward(self, decoding, pieces)  # type: ignore[arg-type]

    monkeypatch.setattr(Decoder, "_forward", counted)
    target = ModelConfig(name=f"hf:{tiny}")
    found, work = {}, {}
    for samples in (2, 8):
        model = load_hf(str(tiny))
        model._decoders[0] = Decoder(model.model, model.stops, 3, 600, True)
        monkeypatch.setitem(stages.LOADED, target, model)
        read.clear()
        config = AttackConfig(attacks=("direct", "persona"), sampling=WARM, samples=samples)
        made = stages.attack(tmp_path / f"runs{samples}" / "a", target, PROMPTS, config)
        found[samples] = {a.id: a.raw for a in made.read("attempts.jsonl", Attempt)}
        work[samples] = sum(read)
    assert work[2] == work[8] > 0
    texts = [found[8][f"direct/{PROMPTS[0].id}/{i}"] for i in range(8)]
    assert len(set(texts)) > 4 and found[2].items() <= found[8].items()
