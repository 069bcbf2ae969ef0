"""What the stages share: loading models, hashing them, running jobs with a cache and a progress line."""

from __future__ import annotations

import platform
import re
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TypeVar

from forethought.config import Budget, ModelConfig
from forethought.errors import ForethoughtError
from forethought.flow import ACTIVE, Done, Job, Model, run_flows
from forethought.models import check_spec, is_served, load_model
from forethought.models.cache import DiskCache
from forethought.models.heap import let_go
from forethought.models.meter import Meter, Metered
from forethought.progress import progress
from forethought.records import digest
from forethought.run import Run, hash_file, read_info, read_run, run_hash, write_json
from forethought.train.card import CARD

T = TypeVar("T")
# Prompts from which the cost of all is estimated.
PILOT = 20
MOUNTS = Path("/proc/self/mounts")
NETWORKED = (
    "afs", "beegfs", "ceph", "cifs", "glusterfs", "gpfs", "lustre", "nfs", "nfs4", "panfs", "smb3", "smbfs", "sshfs", "wekafs", "ceph-fuse",
    "juicefs",
)  # fmt: skip
LOADED: dict[ModelConfig, Model] = {}


def weights_of(*models: ModelConfig) -> dict[str, str]:
    """Content hashes of the training runs among the models, to tie a run to the weights it used. Unknown models are errors."""
    for model in models:
        check_spec(model.name)
        if model.trained:
            read_run(model.trained, "train")
    named = dict.fromkeys(name for m in models for name in (m.name, m.trained) if name)
    return {name: found for name in named if (found := _content(name)) is not None}


def _content(spec: str) -> str | None:
    """Hash of a training run, of the weights of another local model, or of a script; None for a server or a hub model."""
    if (Path(spec) / "run.json").exists():
        return run_hash(read_run(spec, "train"))
    place = Path(spec.partition(":")[2] or spec)
    files = [place] if place.is_file() else []
    if place.is_dir():
        ours = (place.parent / "run.json").exists()  # Then the card is there to be edited.
        files = sorted(p for p in place.iterdir() if p.is_file() and not (ours and p.name == CARD))
    return digest([(p.name, hash_file(p)) for p in files]) if files else None


def attacked(attempts_run: Path) -> tuple[Run, ModelConfig, dict[str, str]]:
    """(an attack run, its target, the hashes of the target's weights). ForethoughtError where the target was made anew since."""
    source = read_run(attempts_run, "attack")
    target = ModelConfig.model_validate(source.info["config"]["target"])
    weights = weights_of(target)
    if weights.get(target.name) != source.info["inputs"].get(target.name):
        raise ForethoughtError(
            f"{target.name} was made anew after {attempts_run} had attacked it. Make {attempts_run} again."
        )
    return source, target, weights


def files_of(*specs: str) -> dict[str, str]:
    """{name: content hash} of the files and attack runs that specs name, `templates:PATH` or `replay(path=RUN)`, and of the modules of
    one's own, `module:function`. They are inputs of a run. ForethoughtError for an attack run that is not finished."""
    named = (word.strip().strip("'\"") for spec in specs for word in re.findall(r"[:=]([^,()+=]+)", spec))
    places = {name: Path(name).expanduser() for name in named if name}
    files = {name: hash_file(path) for name, path in places.items() if path.is_file()}
    # Of a training run the stage has the weights already (`weights_of`).
    runs = [n for n, path in places.items() if (path / "run.json").exists() and read_info(path)["command"] == "attack"]
    files |= {name: run_hash(read_run(places[name])) for name in runs}
    modules = {name for spec in specs for name in re.findall(r"([A-Za-z_][\w.]*):[A-Za-z_]\w*", spec)}
    return files | {name: found for name in sorted(modules) if (found := _code(name)) is not None}


def _code(module: str) -> str | None:
    try:
        spec = find_spec(module)
    except (ImportError, ValueError):
        return None
    return hash_file(Path(spec.origin)) if spec and spec.origin and Path(spec.origin).is_file() else None


def load(model: ModelConfig) -> Model:
    """A loaded model, shared by the stages of one process."""
    if model not in LOADED:
        LOADED[model] = load_model(
            model.name, system=model.system, dtype=model.dtype, concurrency=model.concurrency, think=model.think
        )
    return LOADED[model]


def unload() -> None:
    """Close every loaded model."""
    while LOADED:
        LOADED.popitem()[1].close()
    let_go()


def execute(
    run: Run,
    label: str,
    jobs: list[Job[T]],
    roles: dict[str, ModelConfig],
    save: Callable[[Done[T]], None],
    total: int,
    seed: int,
    budget: Budget | None = None,
    pilot: bool = True,
) -> None:
    """Run jobs with their models, the disk cache and a progress line; `save` keeps each result as soon as it is there.

    With a budget, PILOT jobs run first, to know what an ask costs before many are on their way. With `pilot` what all would cost is
    estimated from them, and too much stops the run. With it or without, a server is handed nothing more once a cap is met.
    """
    models = {role: load(model) for role, model in roles.items()} if jobs else {}
    _note_models(run, {roles[role].name: model for role, model in models.items()})
    meter = Meter(budget, run.path / "usage.json") if budget and jobs else None
    if meter:
        # Roles with equal settings share a model, and so its wrapper: of several models none is waited for.
        metered = {m: Metered(m, meter, roles[r].concurrency) for r, m in models.items() if is_served(roles[r].name)}
        models = {r: metered.get(m, m) for r, m in models.items()}
    cache = DiskCache(cache_path(run.path)) if models else None
    active = max([ACTIVE, *(2 * asked.concurrency for asked in roles.values() if is_served(asked.name))])
    errors, replies, first = 0, 0, total - len(jobs)
    parts = [jobs[:PILOT], jobs[PILOT:]] if meter else [jobs]

    def heard(number: int) -> None:
        nonlocal replies
        replies += number
        bar.advance(0, note())

    def note() -> str:
        return ", ".join(filter(None, (f"{replies} replies" if replies else "", f"{errors} failed" if errors else "")))

    try:
        with progress(label, total, "done", first) as bar:
            for number, part in enumerate(parts):
                if meter and pilot and number:
                    run.log(f"estimate: {meter.estimate(bar.done, total)} for {total} prompts")
                salt = str(run.info["started"])
                for done in run_flows(part, models, seed=seed, cache=cache, active=active, salt=salt, heard=heard):
                    errors += done.error is not None
                    if done.error is not None:
                        run.log(f"{done.key}: {done.error}")
                    save(done)
                    bar.advance(note=note())
        # What a server does not take is known only now.
        _note_models(run, {roles[role].name: model for role, model in models.items()})
    except BaseException:
        # Whatever is still queued belongs to the run that stopped here.
        unload()
        raise
    finally:
        if cache is not None:
            cache.close()


def _note_models(run: Run, models: Mapping[str, Model]) -> None:
    """Write down what was loaded: revision, numbers and device. ForethoughtError where a run would go on with another revision."""
    found = {name: about for name, model in models.items() if (about := getattr(model, "about", None))}
    known = run.info.get("loaded", {})
    for name, about in found.items():
        if name in known and known[name]["revision"] != about["revision"]:
            raise ForethoughtError(
                f"{name} was revision {known[name]['revision']} when {run.path} was begun and is {about['revision']} now. "
                "Remove the run to begin anew; hf:ID@REVISION names one for good."
            )
    if found and known | found != known:
        run.info["loaded"] = known | found
        write_json(run.path / "run.json", run.info)


def cache_path(run: Path) -> Path:
    """The reply cache that runs under the same `runs` directory share; beside the run where there is none of that name. On a network
    file system each host has its own: SQLite's write-ahead log breaks where hosts share it."""
    home = next((p for p in run.absolute().parents if p.name == "runs"), run.absolute().parent)
    host = re.sub(r"[^\w.-]", "_", platform.node())
    return home / ".cache" / ("replies.sqlite" if not is_networked(home) else f"replies-{host}.sqlite")


def is_networked(path: Path, mounts: Path = MOUNTS) -> bool:
    """Whether a path lies on a file system that several hosts may have mounted. False where the system does not say (Linux does)."""
    if not mounts.exists():
        return False
    rows = [line.split() for line in mounts.read_text(encoding="utf-8", errors="replace").splitlines()]
    kinds = {Path(row[1].replace("\\040", " ")): row[2] for row in rows}
    here = path.resolve()
    kind = next((kinds[place] for place in (here, *here.parents) if place in kinds), "")
    return kind.removeprefix("fuse.") in NETWORKED
