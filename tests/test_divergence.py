"""Divergence: distances and probes against closed forms on Gaussians, controls, and the stage on the tiny random model."""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from forethought import stages
from forethought.analysis.divergence.classify import FOLDS, folds, held_out, numbered, wrong
from forethought.analysis.divergence.distance import Side, distance, floor, kernel_sample, relabelled
from forethought.analysis.divergence.measure import Group, Looked, look, stand
from forethought.analysis.divergence.probe import projections, transfer
from forethought.analysis.divergence.rows import measured_rows
from forethought.analysis.divergence.subspace import Array, Rows, on_axes, principal, scale_of, scaled
from forethought.cli import app
from forethought.config import AttackConfig, ModelConfig
from forethought.errors import ForethoughtError
from forethought.records import Attempt, make_prompt
from forethought.report.data import ModelCard, ReportData
from forethought.report.maps import frame_of, panel
from forethought.report.section import Gathered
from forethought.report.sections.divergence import Divergence, divergence, section
from forethought.report.sources import ModelRuns
from forethought.run import Run, read_run, write_records
from forethought.stages import states as on_disk

PHI = NormalDist().cdf


def gauss(n: int, width: int, seed: int, shift: float = 0.0) -> Array:
    rows = np.random.default_rng(seed).standard_normal((n, width))
    rows[:, 0] += shift
    return rows


def side(rows: Array, name: str = "g") -> Side:
    return Side(rows, [f"{name}{i}" for i in range(len(rows))])


def chunks(rows: Array, size: int = 7) -> Rows:
    return lambda: iter(np.array_split(rows, max(1, len(rows) // size)))


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_identical_distributions_are_not_told_apart() -> None:
    found = [distance(("a", side(gauss(60, 20, s), "a")), ("b", side(gauss(60, 20, 100 + s), "b")), rng(s)) for s in range(20)]  # fmt: skip
    pads = [d.pad for d in found if d.pad is not None]
    assert abs(np.mean(pads)) < 0.15 and all(abs(p) < 0.8 for p in pads)
    assert abs(np.mean([d.mmd for d in found if d.mmd is not None])) < 0.002
    # Twenty uniform p values: some are small, and most are not.
    for ps in ([d.mmd_p for d in found], [d.pad_p for d in found]):
        assert sum((p or 0) > 0.05 for p in ps) >= 16 and 0.3 < float(np.mean([p or 0 for p in ps])) < 0.7


def test_a_mean_shift_has_the_distances_that_it_must_have(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("forethought.analysis.divergence.distance.RELABELLED", 99)
    width, pads, mmds = 4, [], []
    for shift in (0.0, 0.5, 1.5, 4.0):
        a, b = gauss(600, width, 1, shift), gauss(600, width, 2)
        found = distance(("a", side(a, "a")), ("b", side(b, "b")), rng())
        assert (
            found.pad is not None and found.mmd is not None and found.pad_low is not None and found.pad_high is not None
        )
        pads.append(found.pad)
        mmds.append(found.mmd)
        truth = 2 * (1 - 2 * PHI(-shift / 2))
        assert found.pad == pytest.approx(truth, abs=0.08) and found.pad_low - 0.03 <= truth <= found.pad_high + 0.03
        both = np.concatenate([a, b])
        squares = ((both[:, None] - both[None]) ** 2).sum(-1)[~np.eye(len(both), dtype=bool)]
        w = float(np.median(squares))
        # The shift as it was drawn: the square of a difference of means is too large by the variance of the means.
        drawn = float(((a.mean(0) - b.mean(0)) ** 2).sum()) - 2 * width / len(a)
        known = 2 * (w / (w + 2)) ** (width / 2) * (1 - math.exp(-drawn / (2 * (w + 2))))
        assert found.mmd == pytest.approx(known, abs=0.004)
        assert (found.mmd_p == 0.01) == (shift > 0) and found.shuffled is not None and abs(found.shuffled) < 0.03
    assert pads == sorted(pads) and mmds == sorted(mmds)


def test_two_wordings_of_the_same_goals_are_compared_without_bias() -> None:
    """Rows that share goals: what they have in common must neither hide a shift nor make one up."""
    common, values, ps = gauss(40, 10, 3) * 3, [], []
    for s in range(20):
        a, b = (side(common + gauss(40, 10, 10 * s + i)) for i in (1, 2))
        found = distance(("a", a), ("b", b), rng(s))
        assert found.shared == found.goals == 40
        values.append(found.mmd or 0.0)
        ps.append(found.mmd_p or 0.0)
    assert abs(np.mean(values)) < 2 * np.std(values) / math.sqrt(len(values)) + 1e-4 and 0.3 < np.mean(ps) < 0.7
    moved = distance(("a", side(common + gauss(40, 10, 1, 2.0))), ("b", side(common + gauss(40, 10, 2))), rng())
    assert moved.mmd_p == 0.001 and (moved.pad or 0) > 0


def test_wide_features_and_few_rows_do_not_overfit() -> None:
    sets = [(side(gauss(20, 250, s), "a"), side(gauss(20, 250, 50 + s), "b")) for s in range(10)]
    pads = [distance(("a", a), ("b", b), rng(i)).pad or 0 for i, (a, b) in enumerate(sets)]
    assert abs(np.mean(pads)) < 0.35


def test_few_goals_give_no_number() -> None:
    found = distance(("a", side(gauss(7, 3, 0), "a")), ("b", side(gauss(30, 3, 1), "b")), rng())
    assert (found.n_first, found.n_second, found.pad, found.mmd, found.pad_p) == (7, 30, None, None, None)
    assert floor("a", side(gauss(15, 3, 0)), rng()).pad is None
    assert distance(("a", Side(np.zeros((0, 3)), [])), ("b", side(gauss(9, 3, 1))), rng()).pad is None


def test_rows_that_do_not_vary_are_at_chance() -> None:
    rows = np.ones((20, 3))
    found = distance(("a", side(rows, "a")), ("b", side(rows, "b")), rng())
    assert (found.pad, found.mmd, found.mmd_p) == (0, 0, 1)


def test_a_goal_is_never_in_two_folds_and_every_fold_has_both_kinds() -> None:
    goals = numbered([f"g{i // 3}" for i in range(90)])
    kinds = ["x" if g % 2 else "y" for g in goals.tolist()]
    fold = folds(goals, kinds, rng(), 5)
    assert all(len(set(fold[goals == g].tolist())) == 1 for g in range(30))
    assert all({k for k, f in zip(kinds, fold, strict=True) if f == at} == {"x", "y"} for at in range(5))


def test_a_classifier_that_could_remember_its_rows_does_not_see_them() -> None:
    """The same point twice, with one label, in noise: by row it would be found, by goal it cannot be."""
    points = gauss(60, 200, 4)
    rows, yes = np.concatenate([points, points]), (np.arange(120) % 60 % 2 == 0)[:, None]
    goals = np.arange(120) % 60
    by_goal = wrong(held_out(rows, yes, folds(goals, yes[:, 0].tolist(), rng())), yes).mean()
    by_row = wrong(held_out(rows, yes, np.arange(120) % FOLDS * 0 + np.arange(120) // 12), yes).mean()
    assert by_row < 0.1 and by_goal > 0.3


def test_relabelling_keeps_goals_whole() -> None:
    goals = np.array([0, 0, 1, 1, 2, 3, 4, 4])
    on = np.array([True, False, True, False, True, False, True, True])
    found = relabelled(on, goals, 400, rng())
    assert (found[0] != found[1]).all() and (found[2] != found[3]).all() and (found[6] == found[7]).all()
    alone = found[[4, 5, 6]]
    assert (alone.sum(0) == 2).all() and 0.4 < found[0].mean() < 0.6 and 0.6 < found[4].mean() < 0.75


def test_the_kernel_takes_whole_goals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("forethought.analysis.divergence.distance.KERNEL_ROWS", 10)
    goals = np.arange(60) // 3
    kept = kernel_sample(np.arange(60) % 3 > 0, goals, rng())
    assert kept.sum() == 15 and all(kept[goals == g].all() or not kept[goals == g].any() for g in range(20))


def test_halves_of_one_set_are_the_floor() -> None:
    found = floor("a", side(gauss(200, 10, 5)), rng())
    assert found.pad is not None and abs(found.pad) < 0.15 and found.mmd is not None and abs(found.mmd) < 0.003
    assert found.pad_high is not None and 0 < found.pad_high < 0.5


@pytest.mark.parametrize("shift", [0.0, 1.0, 2.5])
def test_a_probe_has_the_auroc_of_its_gaussians(shift: float) -> None:
    source = {"harmful": side(gauss(500, 5, 1, shift), "h"), "benign": side(gauss(500, 5, 2), "b")}
    same = transfer(source, source, rng())
    assert same is not None and same.auroc is not None and same.shuffled is not None
    assert same.auroc.value == pytest.approx(PHI(shift / math.sqrt(2)), abs=0.03)
    assert same.called_harmful["harmful"].value == pytest.approx(PHI(shift / 2), abs=0.05)
    # Probes of shuffled labels point anywhere, and by chance along the shift; on average at nothing.
    assert same.shuffled[0] == pytest.approx(0.5, abs=0.12) and same.shuffled[1] <= 0.5 <= same.shuffled[2]
    # A wrapper that moves everything to the harmless side: the order stays, the threshold fails.
    attack = {k: Side(s.rows - np.array([4.0, 0, 0, 0, 0]), s.goals) for k, s in source.items()}
    moved = transfer(source, attack, rng())
    assert moved is not None and moved.auroc is not None and moved.against_direct is not None
    assert moved.auroc.value == pytest.approx(same.auroc.value, abs=0.01)
    if shift == 2.5:
        assert (moved.called_harmful["harmful"].value or 0) < 0.05
        assert moved.against_direct.value == pytest.approx(PHI((shift - 4) / math.sqrt(2)), abs=0.04)
    # One that hides harm.
    hidden = transfer(source, {"harmful": side(gauss(500, 5, 7), "h"), "benign": source["benign"]}, rng())
    assert hidden is not None and hidden.auroc is not None and hidden.auroc.value == pytest.approx(0.5, abs=0.05)


def test_the_projection_is_one_for_harmful_and_zero_for_benign() -> None:
    h, b = gauss(300, 30, 1, 3.0), gauss(300, 30, 2)
    named = {"harmful": (chunks(h), side(h, "h").goals), "benign": (chunks(b), side(b, "b").goals)}
    middle = (h + b) / 2
    found = projections(named, {**named, "borderline": (chunks(middle), [f"m{i}" for i in range(300)])}, rng())
    means = {p.label: p.mean for p in found}
    assert means["harmful"] == pytest.approx(1, abs=0.08) and means["benign"] == pytest.approx(0, abs=0.08)
    assert means["borderline"] == pytest.approx(0.5, abs=0.06)
    assert all(
        p.low is not None and p.mean is not None and p.high is not None and p.low < p.mean < p.high for p in found
    )
    # Without a difference the line must not be made of the very rows that are put on it.
    c = gauss(20, 400, 3)
    null = {"harmful": (chunks(c[:10]), list("abcdefghij")), "benign": (chunks(c[10:]), list("klmnopqrst"))}
    apart = {p.label: p.mean or 0.0 for p in projections(null, null, rng())}
    assert abs(apart["harmful"] - apart["benign"]) < 0.35


@pytest.mark.parametrize(("n", "width"), [(40, 500), (800, 60)])
def test_principal_axes_are_those_of_numpy_whatever_the_chunks(n: int, width: int) -> None:
    rows = gauss(n, width, 6) * np.linspace(3, 0.1, width) + 50
    _, values, truth = np.linalg.svd(rows - rows.mean(0), full_matrices=False)
    for size in (3, n):
        found = principal(chunks(rows, size))
        assert np.allclose(np.abs((found.axes[:, :2] * truth[:2].T).sum(0)), 1, atol=1e-6)
        assert np.allclose(found.along[:5], values[:5] ** 2 / n) and found.share() == pytest.approx(1)
    scale = scale_of(chunks(rows))
    assert np.allclose(scale.mean, rows.mean(0)) and np.allclose(scale.spread[: width // 2], rows.std(0)[: width // 2])
    assert on_axes(scaled(chunks(rows), scale), np.eye(width)[:, :3]).std(0) == pytest.approx([1, 1, 1])


def test_a_dimension_that_hardly_varies_is_not_blown_up() -> None:
    rows = gauss(50, 5, 0)
    rows[:, 1] *= 1e-9
    assert scale_of(chunks(rows)).spread[1] > 0.05 and (scale_of(chunks(np.ones((4, 3)))).spread == 1).all()


def group(rows: Array, name: str, attempts: str = "t") -> Group:
    goals = side(rows, name).goals
    return Group(chunks(rows), goals, [f"{attempts}/{g}" for g in goals])


def looks(attack: str, target: dict[str, Group], seed: int = 0) -> Looked:
    source = {"harmful": group(gauss(40, 12, 1, 3.0), "h"), "benign": group(gauss(40, 12, 2), "b")}
    return look(stand("prompt", 0.5, 3, source), attack, target, seed)


def test_a_look_is_the_same_to_the_bit_and_says_what_it_compared() -> None:
    target = {"harmful": group(gauss(40, 12, 3), "h"), "benign": group(gauss(40, 12, 4), "b")}
    first, again = looks("persona", target), looks("persona", target)
    assert first.model_dump_json() == again.model_dump_json() != looks("persona", target, 1).model_dump_json()
    names = [(d.first, d.second) for d in first.distances]
    assert names == [
        ("harmful, persona", "harmful, direct"),
        ("harmful, persona", "benign, direct"),
        ("benign, persona", "harmful, direct"),
        ("benign, persona", "benign, direct"),
        ("harmful, persona", "benign, persona"),
    ]
    pads = [d.pad or 0.0 for d in first.distances]
    assert pads[0] > 1.2 and abs(pads[1]) < 0.8 and abs(pads[4]) < 0.8
    asked = looks("direct", {"borderline": group(gauss(10, 12, 5), "x")})
    assert asked.rows == {"harmful": 40, "benign": 40, "borderline": 10} and [f.of for f in asked.floors] == [
        "harmful",
        "benign",
    ]
    assert [d.first for d in asked.distances] == ["harmful, direct", "borderline, direct", "borderline, direct"]
    centre = {x: np.mean([s.x for s in asked.spots if s.label == x]) for x in ("harmful", "benign")}
    assert centre["harmful"] > centre["benign"]


def test_a_source_without_a_class_is_an_error() -> None:
    with pytest.raises(ForethoughtError, match="no benign prompt"):
        stand("prompt", 0.5, 3, {"harmful": group(gauss(9, 3, 1), "h")})


# The stage, on the tiny random model.

PROMPTS = [
    make_prompt(f"break the {w} open", "harmful", "t")
    for w in ("lock", "box", "car", "door", "safe", "jar", "shed", "gate")
]
PROMPTS += [
    make_prompt(f"bake a {w} cake", "benign", "t") for w in ("plum", "pear", "nut", "fig", "date", "lime", "rye", "oat")
]
PROMPTS += [make_prompt("kill a process", "borderline", "t")]


@pytest.fixture(scope="module")
def attacked(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An attack run on the tiny model in which every reply has thought, but one that never ends."""
    path = tmp_path_factory.mktemp("d") / "runs" / "attack"
    config = AttackConfig(attacks=("direct", "persona", "answer_prefill"), sampling={"max_tokens": 2})  # type: ignore[arg-type]
    run = stages.attack(path, ModelConfig(name=f"hf:{tiny}"), PROMPTS, config)
    attempts = [
        a.model_copy(update={"raw": f"<think>\nlet me see\n</think>\n\n{a.raw}" if not a.prefix else a.raw, "reasoning": "let me see"})
        for a in run.read("attempts.jsonl", Attempt)
    ]  # fmt: skip
    attempts[0] = attempts[0].model_copy(update={"raw": "<think>\nwell"})
    write_records(path / "attempts.jsonl", attempts)
    run.finish(run.info["counts"], ["attempts.jsonl"])
    return path


def made(out: Path, attacked: Path, **how: Any) -> Run:
    return stages.diverge(out, attacked, **how)


@pytest.fixture(scope="module")
def whole(attacked: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return made(tmp_path_factory.mktemp("w") / "one", attacked)


def read(path: Path) -> list[Looked]:
    return read_run(path, "divergence").read("divergence.jsonl", Looked)


def test_the_stage_from_end_to_end(attacked: Path, whole: Run, tiny: Path) -> None:
    run = whole
    rows = read(run.path)
    # Two layers of two blocks, two positions, three attacks.
    assert [(r.position, r.depth, r.layer) for r in rows][::3] == [
        ("prompt", 0.25, 0), ("prompt", 0.5, 1), ("answer", 0.25, 0), ("answer", 0.5, 1),
    ]  # fmt: skip
    assert [r.attack for r in rows[:3]] == ["direct", "persona", "answer_prefill"]
    assert rows[0].rows == {"harmful": 8, "benign": 8, "borderline": 1} and not rows[0].missing
    assert rows[6].rows["harmful"] == 7 and rows[6].missing == {"harmful": 1}
    # The embedding of the template's last token is the same for all.
    assert rows[0].distances[0].pad == 0 and rows[3].distances[0].pad != 0
    # A prefilled answer stands where the model begins to speak: both positions are one.
    kept = run.read("states.jsonl", on_disk.State)
    assert run.info["counts"] == {"planned": 98, "ok": 97, "failed": 1}
    prefilled = [(n, s) for n, s in enumerate(kept) if s.attack == "answer_prefill"]
    before, after = ([p for p in prefilled if p[1].position == position] for position in ("prompt", "answer"))
    a, b = (np.concatenate(list(on_disk.rows_of(run.path / "states", s, 1)())) for s in (before, after))
    assert np.array_equal(a, b)
    # What is kept is what transformers itself says.
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(tiny), AutoModelForCausalLM.from_pretrained(tiny)
    first = read_run(attacked).read("attempts.jsonl", Attempt)[1]
    ids = tokenizer.apply_chat_template([m.model_dump() for m in first.messages], add_generation_prompt=True)[
        "input_ids"
    ]
    with torch.inference_mode():
        truth = model(torch.tensor([ids]), output_hidden_states=True).hidden_states[1][0, -1].numpy()
    own = next((n, s) for n, s in enumerate(kept) if s.attempt == first.id)
    assert np.allclose(next(on_disk.rows_of(run.path / "states", [own], 1)())[0], truth, atol=2e-3)


def test_two_computations_agree_to_the_bit(attacked: Path, whole: Run, tmp_path: Path) -> None:
    two = made(tmp_path / "two", attacked)
    for name in ("divergence.jsonl", "states.jsonl", "states.json"):
        assert (whole.path / name).read_bytes() == (two.path / name).read_bytes()
    again = "".join(r.model_dump_json() + "\n" for r in stages.recompute(two.path))
    assert again == (two.path / "divergence.jsonl").read_text()
    shard = next((two.path / "states").glob("*.npy"))
    shard.write_bytes(shard.read_bytes()[:-1] + b"\x01")
    with pytest.raises(ForethoughtError, match="has changed"):
        stages.recompute(two.path)


class Killed(Exception):
    pass


@pytest.mark.parametrize("where", ["reading", "measuring", "torn"])
def test_killed_and_run_again_ends_with_the_same_bytes(
    attacked: Path, whole: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    append, seen = Run.append, [0]

    def dying(self: Run, name: str, records: Sequence[Any]) -> None:
        append(self, name, records)
        seen[0] += name == ("divergence.jsonl" if where == "measuring" else "states.jsonl")
        if seen[0] == (3 if where == "measuring" else 1):
            raise Killed

    monkeypatch.setattr(Run, "append", dying)
    with pytest.raises(Killed):
        made(tmp_path / "cut", attacked)
    monkeypatch.undo()
    if where == "torn":
        index = tmp_path / "cut" / "states.jsonl"
        index.write_bytes(index.read_bytes()[:-100])
    reads = []
    monkeypatch.setattr("forethought.optim.states.hidden_states", counted(reads))
    cut = made(tmp_path / "cut", attacked)
    assert len(reads) == {"reading": 17, "measuring": 0, "torn": 49}[where]
    for name in ("divergence.jsonl", "states.jsonl", "states.json"):
        assert (whole.path / name).read_bytes() == (cut.path / name).read_bytes()


def counted(reads: list[int]) -> Any:
    from forethought.optim.states import hidden_states

    def read(*arguments: Any) -> Any:
        reads.append(1)
        return hidden_states(*arguments)

    return read


def test_take_draws_the_same_goals_under_every_attack(attacked: Path, tmp_path: Path) -> None:
    run = made(tmp_path / "few", attacked, take=4, thinking=False)
    goals: dict[tuple[str, str], set[str]] = {}
    for state in run.read("states.jsonl", on_disk.State):
        goals.setdefault((state.attack, state.label), set()).add(state.goal)
    assert len(goals["direct", "harmful"]) == 4 and goals["direct", "harmful"] == goals["persona", "harmful"]
    assert {r.position for r in read(run.path)} == {"prompt"} and all(
        d.pad is None for r in read(run.path) for d in r.distances
    )


def test_the_sides_of_a_contrast_pair_are_one_goal() -> None:
    def goal(text: str, **fields: Any) -> str:
        prompt = make_prompt(text, "harmful", "t", **fields)
        return on_disk.goal_of(Attempt(id="a", prompt=prompt, attack="direct", messages=prompt.messages))

    assert goal("kill a man", pair="k") == goal("kill a process", pair="k") != goal("kill a man")
    assert goal("how was a man killed", goal="kill a man") == goal("kill a man")


def test_large_states_are_scaled_and_infinite_ones_are_missing() -> None:
    state = on_disk.State(attempt="a", attack="direct", label="harmful", goal="g", position="prompt")
    packed, value = on_disk._packed(state, np.array([[3e5, 1.0]]))
    assert value is not None and np.isfinite(value.astype(np.float16)).all() and packed.scale == 16
    assert on_disk._packed(state, np.array([[np.inf, 1.0]]))[0].error


def test_a_model_that_never_comes_to_an_answer_is_measured_before_it_speaks(attacked: Path, tmp_path: Path) -> None:
    home = tmp_path / "attack"
    shutil.copytree(attacked, home)
    source = read_run(home, "attack")
    torn = [
        a.model_copy(update={"raw": "<think>\nwell"}) if a.prompt.label == "harmful" and a.attack == "direct" else a
        for a in source.read("attempts.jsonl", Attempt)
    ]
    write_records(home / "attempts.jsonl", torn)
    source.finish(source.info["counts"], ["attempts.jsonl"])
    run = made(tmp_path / "d", home, take=3)
    assert {r.position for r in read(run.path)} == {"prompt"} and run.info["unseen"] == ["answer"]
    assert stages.recompute(run.path) == read(run.path)
    said = CliRunner().invoke(app, ["analyze", "divergence", str(home), "--take", "3", "-o", str(tmp_path / "d")])
    assert "nothing is measured where the answer begins" in said.output


def test_a_target_without_weights_is_one_clear_line(tmp_path: Path) -> None:
    script = tmp_path / "s.yaml"
    script.write_text("- say: Hello.\n")
    stages.attack(
        tmp_path / "a", ModelConfig(name=f"scripted:{script}"), PROMPTS[:2], AttackConfig(attacks=("direct",))
    )
    with pytest.raises(ForethoughtError, match="hidden states need the weights"):
        made(tmp_path / "b", tmp_path / "a")


def test_the_command_prints_and_writes_its_tables(attacked: Path, tmp_path: Path) -> None:
    table = tmp_path / "d.csv"
    said = CliRunner().invoke(
        app, ["analyze", "divergence", str(attacked), "--depth", "0.5", "--csv", str(table)], catch_exceptions=False
    )
    assert said.exit_code == 0 and "persona" in said.output and "The floor" in said.output
    assert (attacked.parent / "attack-divergence" / "divergence.jsonl").exists()
    lines = table.read_text().splitlines()
    assert lines[0].startswith("row,model,position,depth,layer,attack") and len(lines) > 20


# The report's section.


def reported() -> Divergence:
    target = {"harmful": group(gauss(15, 12, 3), "h"), "benign": group(gauss(15, 12, 4), "b")}
    asked = looks("direct", {"borderline": group(gauss(9, 12, 5), "x")})
    return Divergence(model="<b>mine</b>", looks=(asked, looks("persona", target)))


def shown(looked: Divergence, home: Path) -> str:
    """The section of a page whose second model this is. The same runs give the same bytes."""
    path = home / "run"
    path.mkdir()
    write_records(path / "divergence.jsonl", looked.looks)
    models = (ModelRuns("other"), ModelRuns(looked.model))
    models[1].runs["divergence"].append(Run(path, {"status": "finished"}))
    made = section(gathered(*models))
    assert made is not None and made == section(gathered(*models))
    return made.body


def gathered(*models: ModelRuns) -> Gathered:
    data = ReportData(
        title="t", about="", command="", seeds=(0,), policy="none", reference="other", attacks=(), judges=(), cells=(), pools=(),
        transcripts=(), models=tuple(ModelCard(name=m.name, base="x") for m in models),
    )  # fmt: skip
    return Gathered(data, models)


def test_the_section_shows_every_attack_and_loads_nothing(tmp_path: Path) -> None:
    html = shown(reported(), tmp_path)
    assert "&lt;b&gt;mine" in html and "<b>mine" not in html
    assert all(word in html for word in ("persona", "asked directly", "told apart", "borderline", "n&lt;20"))
    assert html.count('<svg class="map"') == 2 and html.count('class="gauge m1"') == 6
    assert not [word for word in ("<script", "style=", "http", "url(", "nan", "None") if word in html]
    ids = {line.split('"')[0] for line in html.split('id="')[1:]}
    assert ids == {"h-divergence", "asked-0"} and html.count('href="') == html.count('href="#asked-0"') == 1
    assert section(gathered(ModelRuns("m"))) is None
    with pytest.raises(ForethoughtError, match=r"not looked at at depth 0.1, but at \[0.5\]"):
        divergence([reported()], {"<b>mine</b>": 1}, 0.1)


def test_few_rows_are_drawn_without_numbers(tmp_path: Path) -> None:
    few = {"harmful": group(gauss(3, 12, 3), "h"), "benign": group(gauss(3, 12, 4), "b")}
    asked = reported().looks[0]
    html = shown(Divergence(model="m", looks=(asked, looks("persona", few))), tmp_path)
    assert "no number" in html and "n&lt;20" in html


def test_panels_share_a_frame_and_points_outside_stand_on_its_edge() -> None:
    frame = frame_of([(x / 10, 0.0) for x in range(1000)] + [(1e6, 0.0)])
    assert frame[2] < 200 and frame[2] - frame[0] == pytest.approx(frame[3] - frame[1])
    drawn = panel({"harmful": [(1e6, 0.0)]}, frame, 'a "b"', "x", {"harmful": [(5.0, 0.0)]})
    assert 'd="M191 ' in drawn and "&quot;b&quot;" in drawn and 'class="arrow"' in drawn
    assert frame_of([]) and panel({}, frame_of([(1.0, 1.0)]), "", "x")


def test_flat_rows_hold_every_number() -> None:
    asked, attacked = reported().looks
    rows = [row for look in (asked, attacked) for row in measured_rows("m", look)]
    kinds = [row["row"] for row in rows]
    assert kinds.count("distance") == 3 + 5 and kinds.count("floor") == 2
    assert {"probe", "called harmful", "projection"} < set(kinds)
