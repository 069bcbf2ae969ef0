"""`forethought analyze divergence`: where attacks lie in a model's hidden states."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from forethought.cli.common import Overwrite, Seed, named_path
from forethought.cli.tables import Csv, Row, interval, print_table, write_csv
from forethought.errors import ForethoughtError


def divergence(
    attempts: Annotated[list[Path], typer.Argument(help="Attack runs on local models, say the untuned one first.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Run directory, for one attack run; default: beside it.")
    ] = None,
    thinks: Annotated[
        bool | None,
        typer.Option("--thinks/--plain", help="Whether the models think first; default: as their replies show."),
    ] = None,
    take: Annotated[
        int | None, typer.Option(min=1, help="At most so many requests of each label; default: all.")
    ] = None,
    depth: Annotated[float, typer.Option(min=0, max=1, help="Which depth to print; all are measured.")] = 0.5,
    csv: Csv = None,
    seed: Seed = 0,
    overwrite: Overwrite = False,
) -> None:
    """Where attacks lie in a model's hidden states, against what it was asked directly: distances, a probe carried over, a map.

    Example: `forethought analyze divergence runs/attack-base runs/attack-scot --csv divergence.csv`
    """
    from forethought import stages
    from forethought.analysis.divergence.rows import measured_rows

    attempts = [named_path(path) for path in attempts]
    if out is not None and len(attempts) > 1:
        raise ForethoughtError(f"--out names one directory, and there are {len(attempts)} runs. Leave it out.")
    if len({p.name for p in attempts}) < len(attempts):
        raise ForethoughtError("two runs have the same name. Rename one, so that they can be told apart.")
    found: list[tuple[str, Any]] = []
    for path in attempts:
        where = out or path.with_name(f"{path.name}-divergence")
        made = stages.diverge(where, path, thinking=thinks, take=take, seed=seed, overwrite=overwrite)
        stages.unload()
        found += [(path.name, r) for r in stages.read_looks(made.path)]
        print(f"-> {made.path}")
        for position in made.info["unseen"]:
            print(
                f"  nothing is measured where the {position} begins: no harmful, or no benign, direct request came that far"
            )
    depths = sorted({r.depth for _, r in found})
    if depth not in depths:
        raise ForethoughtError(f"nothing was measured at depth {depth:g}. Measured: {', '.join(f'{d:g}' for d in depths)}.")  # fmt: skip
    shown = [(name, r) for name, r in found if r.depth == depth]
    print(
        f"\nAt depth {depth:g}. Proxy A-distance of harmful requests under each attack: 0 is the same, 2 wholly apart; in "
        "brackets 95%. To harmful and benign ones asked directly, and (with p, and MMD squared) to benign ones under it."
    )
    print_table([_distances(name, r) for name, r in shown])
    print(
        "\nA probe of harm fitted on direct requests (AUROC: 0.5 is chance), and the way from benign (0) to harmful (1)."
    )
    print_table([_probe(name, r) for name, r in shown])
    floors = [row for name, r in shown for row in _floors(name, r)]
    print("\nThe floor: two halves of the same requests. A distance below its 95th percentile is no evidence.")
    print_table(floors)
    write_csv((row for name, r in found for row in measured_rows(name, r)), csv)
    print("How to read these tables: docs/divergence.md.")


def _short(name: str, r: Any) -> Row:
    return {"model": name, "at": r.position, "attack": r.attack}


def _distances(name: str, r: Any) -> Row:
    """One attack: how far its harmful requests lie from both classes asked directly, and from benign ones under the same wrapper."""
    own = {(d.first, d.second): d for d in r.distances}
    row: Row = {**_short(name, r), "harmful": r.rows.get("harmful", 0), "benign": r.rows.get("benign", 0)}
    row["missing"] = sum(r.missing.values())
    for title, second in (
        ("to harmful", "harmful, direct"),
        ("to benign", "benign, direct"),
        ("apart", f"benign, {r.attack}"),
    ):
        d = own.get((f"harmful, {r.attack}", second)) if title == "apart" or r.attack != "direct" else None
        row |= interval(title, d.pad, d.pad_low, d.pad_high) if d else interval(title, None, None, None)
    apart = own.get((f"harmful, {r.attack}", f"benign, {r.attack}"))
    return row | {"p": apart and apart.pad_p, "MMD": apart and apart.mmd, "MMD p": apart and apart.mmd_p}


def _probe(name: str, r: Any) -> Row:
    t = r.transfer
    row = _short(name, r)
    for title, of in (("AUROC", t and t.auroc), ("against direct", t and t.against_direct)):
        row |= interval(title, of.value, of.low, of.high) if of else interval(title, None, None, None)
    row["shuffled"] = t.shuffled[0] if t and t.shuffled else None
    for label in ("harmful", "benign"):
        row[f"{label} called harmful"] = t.called_harmful[label].value if t and label in t.called_harmful else None
    for p in r.projections:
        if p.label in ("harmful", "benign"):
            row |= interval(f"{p.label} lies at", p.mean, p.low, p.high)
    return row


def _floors(name: str, r: Any) -> Iterator[Row]:
    for f in r.floors:
        yield {
            "model": name, "at": r.position, "of": f.of, "n": f.n, "distance": f.pad, "95th percentile": f.pad_high,
            "MMD": f.mmd, "MMD 95th percentile": f.mmd_high,
        }  # fmt: skip
