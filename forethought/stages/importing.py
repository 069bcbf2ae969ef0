"""Attempts of other tools in, an attack run out. No target is asked."""

from __future__ import annotations

from pathlib import Path

from forethought.attacks.imported import read_attempts
from forethought.config import AttackConfig, ModelConfig
from forethought.records import LABELS, Sampling, digest
from forethought.run import Run, hash_file, open_run, read_run, run_hash


def import_attempts(
    out: Path,
    path: Path,
    target: str,
    *,
    attack: str = "imported",
    label: str = "harmful",
    goals: Path | None = None,
    trained: Path | None = None,
    seed: int = 0,
    overwrite: bool = False,
) -> Run:
    """`attempts.jsonl` from a file that attacks/imported.py describes, as `forethought attack` would have written it; `target` is what
    the report calls the model. How the target sampled is not known, so such runs stand in one report only with one another."""
    # A target that is a training of ours says by itself what it was trained on.
    made_by = trained or (Path(target) if (Path(target) / "run.json").exists() else None)
    attempts = read_attempts(path, attack, label, goals)
    names = tuple(dict.fromkeys(a.attack for a in attempts))
    config = AttackConfig(attacks=names, labels=LABELS, prompts=path.name, sampling=Sampling())
    inputs = {
        "prompts": digest([p.model_dump() for p in {a.prompt.id: a.prompt for a in attempts}.values()]),
        "imported": hash_file(path),
        **({"goals": hash_file(goals)} if goals else {}),
        **({str(made_by): run_hash(read_run(made_by, "train"))} if made_by else {}),
    }
    settings = {
        **config.model_dump(mode="json"),
        "target": ModelConfig(name=target, trained=str(made_by) if made_by else None).model_dump(),
        "imported": {"path": str(path), "attack": attack, "label": label},
    }
    run = open_run(out, "attack", settings, inputs, seed=seed, overwrite=overwrite)
    if run.finished:
        return run
    run.replace("attempts.jsonl", attempts)
    # An attack whose request is not known is judged by what was sent.
    without = sum(a.attack != "direct" and a.messages == a.prompt.messages for a in attempts)
    failed = sum(a.error is not None for a in attempts)
    run.finish(
        {"planned": len(attempts), "ok": len(attempts) - failed, "failed": failed},
        ["attempts.jsonl"],
        without_goal=without,
    )
    return run
