"""`forethought styles`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from forethought.cli.common import Data, Seed, read_prompts, wrote

styles_app = typer.Typer(
    no_args_is_help=True, help="Styles in which questions are rewritten. Example: `forethought styles list`"
)


@styles_app.command("list")
def styles_list() -> None:
    """Print every style with what it asks for. Example: `forethought styles list`"""
    from forethought.styles import EVOLUTION, styles

    for style in styles().values():
        where = " [question evolution]" if style.id in EVOLUTION else ""
        print(f"{style.id}{where}: {style.ask}")


@styles_app.command("choose")
def styles_choose(
    data: Data = "starter:train",
    embedder: Annotated[str, typer.Option(help="minilm, or a local model, whose hidden states are used.")] = "minilm",
    out: Annotated[Path, typer.Option("--out", "-o", help="File to write.")] = Path("demonstrations.json"),
    seed: Seed = 0,
) -> None:
    """Choose the demonstrations that a model which rewrites is shown: for each cluster of your prompts the nearest of the pool.

    Example: `forethought styles choose --data ours.jsonl --out ours-demonstrations.json`
    """
    from forethought.models.embed import load_embedder
    from forethought.run import write_text
    from forethought.styles.choose import choose

    prompts = read_prompts(data, None, None, None, seed)
    chosen = choose([p.text for p in prompts], load_embedder(embedder), made_from=data, embedder=embedder, seed=seed)
    write_text(out, chosen.model_dump_json(indent=1) + "\n")
    for request in chosen.requests:
        print(f"  {request}")
    wrote(out, f"forethought synth 'scot(variants=1, rewrite=model, demonstrations={out})'")
