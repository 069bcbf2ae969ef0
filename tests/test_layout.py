"""Imports go up the list only; the core and the report never import torch. See docs/extending.md, Which way imports go."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from forethought import config
from forethought.attacks import ATTACKS
from forethought.capability import TASKS
from forethought.data import SOURCES
from forethought.judges import JUDGES
from forethought.records import Record
from forethought.registry import Entry, options_of, parse_spec
from forethought.synth import SYNTHESIZERS
from forethought.train import METHODS

ROOT = Path(__file__).resolve().parents[1] / "forethought"
LAYERS = [
    ["errors"], ["records"], ["registry"], ["lock"], ["run"], ["config"], ["chat"], ["flow"], ["prompts"], ["replies"], ["refusals"],
    ["policy"], ["thoughts"], ["progress"], ["models"], ["data"], ["styles"], ["optim"],
    ["synth", "train", "attacks", "judges"], ["capability"],
    ["analysis"], ["report"], ["export"], ["talk", "stages", "jobs"], ["pipeline"], ["cli"],
]  # fmt: skip
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}
HEAVY = {"torch", "transformers", "peft", "trl", "accelerate", "datasets"}
# Loaded only by whoever has decided to run weights.
TRAINERS = ("base", "loop", "watch", "forward", "fused", "packing", "sft", "circuit_breaker", "dpo", "lat", "r2d2")
WEIGHTS = {
    "models/hf.py", "models/decode.py", "models/embed.py", "models/packed.py", "models/pages.py", "models/precision.py",
    "optim/latent.py", "optim/suffix.py", "optim/gcg.py", "optim/random_search.py", "optim/latent_reply.py",
    "optim/states.py",
    *(f"train/{name}.py" for name in TRAINERS),
}  # fmt: skip
FILES = sorted(p for p in ROOT.rglob("*.py") if p.parent != ROOT / "policies")


def imports(path: Path, everywhere: bool = True) -> Iterator[str]:
    """Absolute names a file imports; without `everywhere` only at the top, not inside functions."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    inner = {n for f in ast.walk(tree) if isinstance(f, ast.FunctionDef | ast.AsyncFunctionDef) for n in ast.walk(f)}
    for node in ast.walk(tree):
        if not everywhere and node in inner:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def layer(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def test_every_file_has_a_layer() -> None:
    assert {layer(p) for p in FILES} - {"__init__", "__main__"} <= set(RANK)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_up_only(path: Path) -> None:
    own = layer(path)
    for name in imports(path):
        parts = name.split(".")
        if parts[0] != "forethought" or len(parts) == 1 or parts[1] not in RANK or own == "__main__":
            continue
        other = parts[1]
        assert other == own or RANK[other] < RANK[own], f"{path} imports {name}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_only_files_of_weights_import_torch_at_the_top(path: Path) -> None:
    top = {name.split(".")[0] for name in imports(path, everywhere=False)}
    if str(path.relative_to(ROOT)) not in WEIGHTS:
        assert not top & HEAVY
    if own_is_report := layer(path) in ("report", "analysis"):
        assert not {name.split(".")[0] for name in imports(path)} & HEAVY, own_is_report


def test_the_check_sees_a_wrong_import(tmp_path: Path) -> None:
    file = tmp_path / "x.py"
    file.write_text("import torch.nn\nfrom forethought import stages\ndef f():\n    import peft\n")
    assert set(imports(file)) == {"torch.nn", "forethought", "forethought.stages", "peft"}
    assert "peft" not in set(imports(file, everywhere=False))


def test_every_key_of_an_experiment_file_is_on_its_page() -> None:
    page = (ROOT.parent / "docs" / "experiments.md").read_text(encoding="utf-8")
    kinds = [k for k in vars(config).values() if isinstance(k, type) and issubclass(k, Record) and k is not Record]
    missing = [
        f"{kind.__name__}.{key}" for kind in kinds for key in kind.model_fields if not re.search(rf"\b{key}\b", page)
    ]
    assert not missing


@pytest.mark.parametrize("table", [ATTACKS, JUDGES, SYNTHESIZERS, METHODS, TASKS, SOURCES], ids=lambda t: next(iter(t)))
def test_options_are_listed_as_the_factories_have_them(table: dict[str, Entry]) -> None:
    for name, entry in table.items():
        shown = options_of(entry)
        module, _, factory = entry.where.partition(":")
        known = inspect.signature(getattr(importlib.import_module(module), factory)).parameters
        parts = [o for o in re.split(r", (?=\w+(?:=|,|$))", shown) if o]
        assert [o.partition("=")[0] for o in parts] == [k for k in known if k not in ("policy", "config")], name
        written = [o for o in parts if "=" in o and not o.endswith("=...")]
        for key, read in parse_spec(f"x({', '.join(written)})")[1].items():
            given = known[key].default
            assert read == (list(given) if isinstance(given, tuple) else given), (name, key)
