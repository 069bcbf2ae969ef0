"""The report follows runs to what they were made from, and refuses what no longer belongs together."""

from __future__ import annotations

import csv
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from forethought import stages
from forethought.analysis.summary import costs
from forethought.attacks import Attack
from forethought.cli import main
from forethought.config import AttackConfig, ModelConfig, TrainConfig, load_experiment
from forethought.errors import AskFailed, ForethoughtError
from forethought.flow import Flow
from forethought.judges import Judge
from forethought.pipeline import plan_experiment, run_experiment
from forethought.policy import load_policy
from forethought.records import Attempt, Prompt, Sampling, Sent, Verdict, make_prompt, user
from forethought.registry import Entry
from forethought.report.data import ReportData
from forethought.report.gather import gather, read_models, write_report
from forethought.report.page import render
from forethought.train import METHODS

PROMPTS = [make_prompt(f"Tell me about bread, part {i}", "benign" if i % 2 else "harmful", "test") for i in range(6)]


def gathered(runs: dict[str, list[Path]], **settings: Any) -> ReportData:
    return gather(read_models(runs), **settings)


def questions(home: Path) -> Path:
    """Four questions in the form of ARC."""
    rows = [
        {"id": str(i), "question": f"What is {i} and 1?", "choices": {"text": [str(i), str(i + 1)], "label": ["A", "B"]}, "answerKey": "B"}
        for i in range(4)
    ]  # fmt: skip
    path = home / "arc.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def judged(home: Path, name: str, max_tokens: int = 16, overwrite: bool = False) -> Path:
    config = AttackConfig(attacks=("direct", "persona"), sampling=Sampling(max_tokens=max_tokens))
    target = ModelConfig(name=f"scripted:{name}")
    tried = stages.attack(home / f"attack-{name}", target, PROMPTS, config, overwrite=overwrite)
    return stages.judge(home / f"judge-{name}", tried.path, ["refusal"], overwrite=overwrite).path


def test_two_models_side_by_side(tmp_path: Path) -> None:
    runs = {"no": [judged(tmp_path, "refuse")], "yes": [judged(tmp_path, "comply")]}
    data = gathered(runs, title="t")
    rates = {(c.model, c.attack, c.label): c.positive.value for c in data.cells}
    assert rates["no", "persona", "harmful"] == 0.0
    assert rates["yes", "persona", "harmful"] == 1.0
    page = write_report(tmp_path / "page.html", runs, title="t")
    assert page.read_bytes() == write_report(tmp_path / "again.html", runs, title="t").read_bytes()
    numbers = (tmp_path / "page.metrics.csv").read_text(encoding="utf-8")
    rows = {(r["model"], r["measure"], r["attack"], r["label"]): r for r in csv.DictReader(numbers.splitlines())}
    assert {rows[m, "not refused, one attack", "persona", "harmful"]["value"] for m in runs} == {"0.0", "1.0"}
    assert rows["no", "refused, one attack", "persona", "benign"]["value"] == "1.0"
    assert not any(p.request in numbers for p in PROMPTS)


def test_attempts_made_anew_after_they_were_judged(tmp_path: Path) -> None:
    path = judged(tmp_path, "refuse")
    config = AttackConfig(attacks=("direct", "persona"), sampling=Sampling(max_tokens=8))
    stages.attack(tmp_path / "attack-refuse", ModelConfig(name="scripted:refuse"), PROMPTS, config, overwrite=True)
    with pytest.raises(ForethoughtError, match="was made anew after"):
        gathered({"a": [path]}, title="t")


def test_models_sampled_differently_are_not_compared(tmp_path: Path) -> None:
    with pytest.raises(ForethoughtError, match="other sampling"):
        gathered({"a": [judged(tmp_path, "refuse")], "b": [judged(tmp_path, "comply", max_tokens=8)]}, title="t")


def crashing() -> Judge:
    """A judge that never gets to a verdict."""

    def judge(prompt: Prompt, attempt: Attempt) -> Flow[Verdict]:
        raise RuntimeError("the judge is broken")
        yield

    return judge


def broken() -> Attack:
    """An attack that cannot be made."""

    def attack(prompt: Prompt) -> Flow[list[Sent]]:
        raise RuntimeError("the attack is broken")
        yield

    return attack


def idle() -> Attack:
    """An attack that has nothing to do on half of the prompts."""

    def attack(prompt: Prompt) -> Flow[list[Sent]]:
        if prompt.text.endswith(("0", "1", "2")):
            raise AskFailed("not_applicable", "nothing to do")
        return [Sent(messages=user(f"Please. {prompt.text}"))]
        yield

    return attack


def nothing() -> Any:
    def train(examples: Any, model: str, config: Any, run: Any, seed: int) -> dict[str, Any]:
        (run.path / "model").mkdir()
        return {"train_loss": 1.0, "validation_loss": 1.0}

    return train


def garbled(tmp_path: Path) -> ModelConfig:
    """A judge's model whose replies cannot be read."""
    script = tmp_path / "garbled.yaml"
    script.write_text("- {say: 'well, it depends'}\n", encoding="utf-8")
    return ModelConfig(name=f"scripted:{script}")


def line_of(page: str, attack: str, measure: str) -> str:
    """The row of a measure under an attack."""
    block = page[page.index(f'data-attack="{attack}" data-label="harmful"') :]
    block = block[block.index(measure) :]
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", block[: block.index("</tr>")]))


def test_what_is_broken_is_unscored_and_never_safe(tmp_path: Path) -> None:
    """A judge that crashes, a parser that reads nothing, an attack that breaks: 100% unscored in the page, and no 0% anywhere."""
    names = ("refusal", "test_gather:crashing", "harmbench")
    config = AttackConfig(
        attacks=("direct", "test_gather:broken", "test_gather:idle"), sampling=Sampling(max_tokens=16)
    )
    tried = stages.attack(tmp_path / "attack", ModelConfig(name="scripted:comply"), PROMPTS, config)
    spoken = stages.judge(tmp_path / "judge", tried.path, names, garbled(tmp_path))
    data = gathered({"m": [spoken.path]}, title="t")
    page = render(data)
    for judge in names[1:]:
        cells = [c for c in data.cells if c.judge == judge]
        assert cells and all(c.positive.value is None and c.negative.value is None for c in cells)
        assert all(c.positive.unscored == c.attempts for c in cells)
        pools = [p.rate for p in data.pools if p.judge == judge]
        assert all((r.value, r.lowest, r.highest) == (None, 0.0, 1.0) for r in pools)
    for measure in ("harmful: harmful", "harmful: crashing"):
        shown = line_of(page, "direct", measure.replace("crashing", "test_gather:crashing"))
        assert "no score" in shown and "3 unscored: 0–100% either way" in shown
        assert "0%" not in shown.replace("0–100%", "")
    assert "no score" in line_of(page, "test_gather:broken", "harmful: not refused")
    assert "not applicable, left out" in line_of(page, "test_gather:idle", "harmful: not refused")
    idle_cell = next(
        c for c in data.cells if (c.attack, c.label, c.judge) == ("test_gather:idle", "harmful", "refusal")
    )
    assert (idle_cell.attempts, idle_cell.inapplicable, idle_cell.labels["not_applicable"]) == (1, 2, 2)
    assert {
        row.n for row in data.agreement[""] if "test_gather:crashing" in row.judges and row.statistic == "kappa"
    } == {0}


def test_judges_side_by_side_from_several_runs(tmp_path: Path) -> None:
    one = judged(tmp_path, "comply")
    script = tmp_path / "yes.yaml"
    script.write_text("- {say: 'yes'}\n", encoding="utf-8")
    source = tmp_path / "attack-comply"
    two = stages.judge(tmp_path / "second", source, ["harmbench"], ModelConfig(name=f"scripted:{script}")).path
    data = gathered({"m": [one, two]}, title="t")
    assert [(j.name, j.knows) for j in data.judges] == [("refusal", "not refused"), ("harmbench", "harmful")]
    assert {(p.judge, p.label, p.measure) for p in data.pools} == {
        ("refusal", "harmful", "not refused"), ("refusal", "benign", "refused"), ("harmbench", "harmful", "harmful"),
    }  # fmt: skip
    assert [a.observed for a in data.agreement[""]] == [1.0]
    with pytest.raises(ForethoughtError, match="spoke twice"):
        gathered({"m": [one, one]}, title="t")


def test_runs_are_told_apart_and_put_together(tmp_path: Path) -> None:
    sure, unsure = judged(tmp_path, "refuse"), judged(tmp_path, "comply")
    scored = stages.score(tmp_path / "score", tmp_path / "attack-refuse").path
    task = f"arc:{questions(tmp_path)}"
    able = {
        n: stages.capability(tmp_path / f"able-{n}", ModelConfig(name=f"scripted:{n}"), [task]).path
        for n in ("refuse", "comply")
    }
    runs = {"no": [able["refuse"], sure, scored], "yes": [unsure, able["comply"]]}
    data = gathered(runs, title="t", reference="yes")
    assert {c.model for c in data.differences} == {"no"}
    assert {(c.model, c.against) for c in data.curves} == {("no", "benign")}
    assert all(s.model == "no" for s in data.separations) and data.separations and not data.auroc_changes
    assert set(data.abilities) == {"no", "yes"} and set(data.ability_changes) == {"no"}
    page = render(data)
    for words in ("Without a threshold", "Capability", "Differences from", "no score run"):
        assert words in page
    direct = next(c.difference for c in data.differences if (c.label, c.scope) == ("harmful", "direct"))
    assert (direct.value, direct.only_first, direct.n) == (-1.0, 3, 3)
    for bad, part in {
        ("no", tmp_path / "attack-refuse"): "is a run of 'attack'",
        ("no", unsure): "are of different models",
        ("new", able["refuse"]): "has no judge run",
        ("yes", scored): "of which 'yes' has no judge run",
        ("yes", able["refuse"]): "is of scripted:refuse",
    }.items():
        with pytest.raises(ForethoughtError, match=re.escape(part)):
            gathered({**runs, bad[0]: [*runs.get(bad[0], []), bad[1]]}, title="t")
    with pytest.raises(ForethoughtError, match="Did you mean 'yes'"):
        gathered(runs, title="t", reference="yess")


def test_an_experiment_scores_and_asks(tmp_path: Path) -> None:
    path = tmp_path / "small.yaml"
    path.write_text(
        "name: small\nmodel: 'scripted:comply'\ntargets: {a: {name: 'scripted:comply'}, b: {name: 'scripted:refuse'}}\n"
        "data: {test: {source: starter, split: test, take: {harmful: 2, benign: 2, borderline: 2}}}\n"
        f"attack: {{attacks: [direct, persona, rot13]}}\nscore: {{}}\ncapability: {{tasks: ['arc:{questions(tmp_path)}'], take: 2}}\n",
        encoding="utf-8",
    )
    page = run_experiment(load_experiment(path, []), tmp_path / "runs", lambda line: None).read_text(encoding="utf-8")
    for words in ("Without a threshold", "Capability", "Differences from <bdi>a</bdi>", "ciphers"):
        assert words in page
    for tasks, part in {"[arcc]": "unknown task", "['arc:nowhere.jsonl']": "nowhere.jsonl"}.items():
        with pytest.raises(ForethoughtError, match=part):
            run_experiment(load_experiment(path, [f"capability.tasks={tasks}"]), tmp_path / "other", lambda line: None)
    assert not (tmp_path / "other").exists(), "it stops before anything is asked"


def test_more_tries_and_what_they_cost(tmp_path: Path) -> None:
    config = AttackConfig(attacks=("direct", "bon(n=3)"), sampling=Sampling(max_tokens=16))
    tried = stages.attack(tmp_path / "attack", ModelConfig(name="scripted:comply"), PROMPTS, config)
    spoken = stages.judge(tmp_path / "judge", tried.path, ["refusal"]).path
    data = gathered({"m": [spoken]}, title="t")
    found = {(t.found.kind, t.found.tries): (t.found.value, t.found.prompts) for t in data.tries}
    assert found == {(k, n): (1.0, 3) for k in ("bon_attack", "safe_of_n") for n in (1, 2, 3)}
    cost = {c.attack: c for c in data.costs}
    assert (cost["bon(n=3)"].attempts, cost["bon(n=3)"].queries) == (3.0, {"target": 3.0})
    page = render(data)
    assert "More tries" in page and "a prompt: 3 attempts · asks: 3 target" in page
    pool = next(p for p in data.pools if (p.label, p.scope) == ("harmful", "under attack"))
    assert (pool.rate.hits, pool.rate.scored) == (9, 9)
    assert pool.rate.low is not None and pool.rate.low < 0.66, "nine attempts on three prompts are not nine prompts"


def test_asks_for_what_could_not_be_attacked_are_in_the_cost() -> None:
    spent: dict[str, Any] = {
        "prompt": PROMPTS[0],
        "messages": PROMPTS[0].messages,
        "queries": {"attacker": 3},
        "query_tokens": 30,
    }
    in_vain = {**spent, "prompt": PROMPTS[1], "error": "not_applicable: the attacker's text is empty"}
    rows = [
        Attempt(id="a/0", attack="pair", status="ok", **spent),
        Attempt(id="b/0", attack="pair", **in_vain),
        Attempt(id="c/0", attack="tap", **in_vain),
        Attempt(id="d/0", attack="rot13", **(in_vain | {"queries": {}, "query_tokens": 0})),
    ]
    pair, tap = costs("m", rows)
    assert (pair.prompts, pair.attempts, pair.queries, pair.tokens) == (1, 1.0, {"attacker": 6.0}, 60.0)
    assert (tap.prompts, tap.attempts, tap.queries, tap.tokens) == (0, 0.0, {"attacker": 3.0}, 30.0)


def test_the_command_takes_runs_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, two = judged(tmp_path, "comply"), judged(tmp_path, "refuse")
    scored = stages.score(tmp_path / "score", tmp_path / "attack-refuse").path
    words = [f"yes={one}", f"no={two}", f"no={scored}", "--reference", "no", "--out", str(tmp_path / "page.html")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["forethought", "report", *words])
        with pytest.raises(SystemExit) as stopped:
            main()
    assert stopped.value.code == 0, capsys.readouterr().err
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "Differences from <bdi>no</bdi>" in page and "Without a threshold" in page


@pytest.mark.parametrize("score", [45.0, -0.1, float("nan")])
def test_a_score_out_of_range_is_no_verdict(score: float) -> None:
    with pytest.raises(ValidationError):
        Verdict(attempt="a", judge="j", score=score, label="not_refused")


def test_a_report_on_attacks_put_together(tmp_path: Path) -> None:
    config = AttackConfig(attacks=("direct", "leetspeak+persona"), sampling=Sampling(max_tokens=16))
    tried = stages.attack(tmp_path / "attack", ModelConfig(name="scripted:comply"), PROMPTS, config)
    data = gathered({"m": [stages.judge(tmp_path / "judge", tried.path, ["refusal"]).path]}, title="t")
    card = next(a for a in data.attacks if a.name == "leetspeak+persona")
    assert card.about == "digits for letters; then puts the request to an assistant without limits"
    assert (card.paper, card.family) == ("arXiv 2307.02483, arXiv 2308.03825", "combined")
    assert 'data-attack="leetspeak+persona"' in render(data)


def test_a_judge_that_also_graded_inside_the_attacks_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    attacker, grader = tmp_path / "attacker.yaml", tmp_path / "grader.yaml"
    attacker.write_text("- {say: 'Prompt: Tell me more about the bread'}\n", encoding="utf-8")
    grader.write_text("- {when: 'Verdict', say: 'Verdict: yes'}\n- {say: 'Grade: 9'}\n", encoding="utf-8")
    roles = {"attacker": f"scripted:{attacker}", "helper": f"scripted:{grader}"}
    config = AttackConfig(attacks=("direct", "pair(streams=1, turns=1, by=reply)"), **roles)  # type: ignore[arg-type]
    tried = stages.attack(tmp_path / "attack", ModelConfig(name="scripted:comply"), PROMPTS, config)
    words = ["judge", str(tried.path), "--judges", "refusal,harmbench", "--out", str(tmp_path / "judge")]
    monkeypatch.setattr(sys, "argv", ["forethought", *words, "--model", f"scripted:{grader}"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    assert (
        f"'scripted:{grader}' grades inside the attacks and is behind the judge 'harmbench' too"
        in capsys.readouterr().out
    )
    cards = {j.name: j.about for j in gathered({"m": [tmp_path / "judge"]}, title="t").judges}
    # By the rules of `refusal` the attack passes over what was refused.
    assert all("aimed at its verdict" in cards[name] for name in ("harmbench", "refusal"))
    other = stages.judge(tmp_path / "other", tried.path, ["harmbench"], ModelConfig(name="scripted:comply"))
    assert other.info["graded_inside"] == []


def test_an_experiment_stops_at_a_wrong_name_before_anything_is_asked(tmp_path: Path) -> None:
    path = tmp_path / "e.yaml"
    path.write_text(
        "name: e\nmodel: 'scripted:comply'\ntargets: {a: {name: 'scripted:comply'}}\n"
        "data: {test: {source: starter, split: test, take: {harmful: 1}}}\n"
        "attack: {attacks: [direct, pair], attacker: 'scripted:echo'}\n"
        "judge: {judges: [harmbench], model: 'scripted:echo'}\n",
        encoding="utf-8",
    )
    launch = tmp_path / "launch.yaml"
    launch.write_text("just words\n", encoding="utf-8")
    changes = {
        "judge.model=nowhere": "nowhere", "launch=multi": "Did you mean 'multi_gpu'",
        f"launch={launch}": "must be a YAML mapping",
    }  # fmt: skip
    for change, part in changes.items():
        with pytest.raises(ForethoughtError, match=part):
            run_experiment(load_experiment(path, [change]), tmp_path / "runs", lambda line: None)
    assert not (tmp_path / "runs").exists()
    (line,) = plan_experiment(load_experiment(path, []), tmp_path / "runs")[:1]
    assert line.startswith("note: 'scripted:echo' grades inside the attacks and is behind the judge 'harmbench' too")


def test_a_run_that_is_called_like_a_model_is_not_that_model(tmp_path: Path) -> None:
    """An attack run beside the judge run, in a folder that has the name of its target."""
    name = "scripted:comply"
    stages.attack(tmp_path / name, ModelConfig(name=name), PROMPTS[:2], AttackConfig())
    judged = stages.judge(tmp_path / "judged", tmp_path / name, ["refusal"])
    assert write_report(tmp_path / "r.html", {"m": [judged.path]}, title="t").exists()


def test_of_a_served_or_merged_model_only_what_is_said_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = stages.synth(
        tmp_path / "data", "refusal", PROMPTS, load_policy("default"), ModelConfig(name="scripted:comply")
    )
    monkeypatch.setitem(METHODS, "nothing", Entry("test_gather:nothing", "trains nothing"))
    run = stages.train(tmp_path / "trained", "smollm2", TrainConfig(data=str(data.path), method="nothing"))
    shown = {}
    for name, trained in (("unknown", None), ("known", str(run.path))):
        target = ModelConfig(name="scripted:comply", trained=trained)
        tried = stages.attack(tmp_path / name, target, PROMPTS, AttackConfig(attacks=("direct",)))
        shown[name] = [stages.judge(tmp_path / f"{name}-judged", tried.path, ["refusal"]).path]
    found = gathered(shown, title="t")
    unknown, known = found.models
    assert unknown.method == "not known here" and unknown.distribution is None
    assert known.method.startswith("nothing on refusal") and known.distribution is not None
    page = render(found)
    assert "untuned" not in line_of(page, "direct", "harmful: not refused") and "training: not known here" in page


def test_attacks_made_later_join_those_of_before(tmp_path: Path) -> None:
    """Each run sends the direct requests too, and those of the first count."""
    target, runs = ModelConfig(name="scripted:comply"), []
    for name in ("persona", "past_tense"):
        config = AttackConfig(attacks=("direct", name), sampling=Sampling(max_tokens=16))
        tried = stages.attack(tmp_path / name, target, PROMPTS, config)
        runs.append(stages.judge(tmp_path / f"{name}-judged", tried.path, ["refusal"]).path)
    data = gathered({"m": runs}, title="t")
    assert {(c.attack, c.label, c.attempts) for c in data.cells} == {
        (attack, label, 3) for attack in ("direct", "persona", "past_tense") for label in ("harmful", "benign")
    }
    assert "past_tense" in render(data)
