"""`forethought data`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from forethought.cli.common import Columns, Values, commas, listed, read_prompts, wrote
from forethought.errors import ForethoughtError
from forethought.report.text import clean

data_app = typer.Typer(
    no_args_is_help=True,
    help="Look at prompts and at synthesized data: show, check, compare, export. Example: `forethought data show starter:train`",
)
Source = Annotated[
    str, typer.Argument(help="starter, starter:SPLIT, a file, a public set (NAME or NAME:PATH), or a synthesis run.")
]


@data_app.command("list")
def data_list() -> None:
    """List the kinds of sources and the public sets known by name. Example: `forethought data list`"""
    from forethought.data import SOURCES
    from forethought.data.public import public_sets

    listed(True, SOURCES)
    print("\npublic sets (NAME from the hub, NAME:PATH from a copy):")
    for name, found in public_sets().items():
        where = ", ".join(filter(None, (found.hub, found.licence, "evaluation only" if found.evaluation else "")))
        print(f"{name:<22} {found.note} [{where}]")


@data_app.command("show")
def data_show(
    source: Source,
    column: Columns = None,
    value: Values = None,
    show: Annotated[int, typer.Option("--show", "-n", help="How many prompts to print.")] = 0,
) -> None:
    """Count the prompts of a source by label, category and split; of a synthesis run, those it kept, with what they are decided to be.

    Example: `forethought data show starter:train --show 5`
    """
    from collections import Counter

    examples = _examples(source)
    prompts = [e.prompt for e in examples] or read_prompts(source, None, column, value, 0)
    print(f"{len(prompts)} {'examples' if examples else 'prompts'}")
    if examples:
        print("  by decision: " + ", ".join(f"{k} {n}" for k, n in Counter(e.decision for e in examples).most_common()))
    for field in ("label", "category", "split"):
        counts = Counter(str(getattr(p, field)) for p in prompts)
        print(f"  by {field}: " + ", ".join(f"{k} {n}" for k, n in counts.most_common()))
    for prompt in prompts[:show]:
        print(f"  [{prompt.label}, {clean(prompt.category or '-')}] {clean(prompt.text)}")


@data_app.command("check")
def data_check(
    source: Annotated[str, typer.Argument(help="A synthesis run, or prompts: starter:train, a file, a public set.")],
    evaluation: Annotated[
        str, typer.Option(help="Sets that must not be in it, separated by commas: xstest:PATH,starter:test.")
    ] = "",
    model: Annotated[str, typer.Option(help="Whose tokenizer measures lengths.")] = "smollm2",
    shown: Annotated[int, typer.Option(help="How many pairs of each kind to print.")] = 10,
    column: Columns = None,
    value: Values = None,
) -> None:
    """Check data for near-duplicates, leaked evaluation prompts, balance and lengths. Exit code 1 where something leaks.

    Example: `forethought data check runs/scot-data --evaluation xstest:xstest_prompts.csv,starter:test`
    """
    from forethought.data.overlap import find_leaks, near_duplicates
    from forethought.data.statistics import balance, lengths
    from forethought.models import text_length

    examples = _examples(source)
    prompts = [e.prompt for e in examples] if examples else read_prompts(source, None, column, value, 0)
    measure, unit = text_length(model)
    print(f"{len(prompts)} {'examples' if examples else 'prompts'}")
    for field, counts in balance(prompts).items():
        print(f"  by {field}: " + ", ".join(f"{k} {n}" for k, n in counts.items()))
    texts = {"prompt": [p.text for p in prompts]}
    if examples:
        texts |= {"reasoning": [e.reasoning for e in examples if e.reasoning], "answer": [e.answer for e in examples]}
    for name, found in lengths(texts, measure).items():
        print(f"  {name}, in {unit}: " + ", ".join(f"{k} {x:g}" for k, x in found.items()))
    pairs = near_duplicates(prompts)
    print(f"{len(pairs)} pairs that nearly repeat each other")
    for a, b, similarity in pairs[:shown]:
        print(f"  {similarity:.2f} {_short(a.text)} | {_short(b.text)}")
    leaks = find_leaks(prompts, {name: read_prompts(name, None, None, None, 0) for name in commas(evaluation)})
    print(f"{len(leaks)} matches with evaluation prompts")
    for leak in leaks[:shown]:
        print(
            f"  {leak.kind} {leak.similarity:.2f} {leak.training.id} ~ {leak.set} {leak.evaluation.id}: {_short(leak.evaluation.text)}"
        )
    if leaks:
        raise typer.Exit(1)


@data_app.command("compare")
def data_compare(runs: Annotated[list[Path], typer.Argument(help="Synthesis runs on the same prompts.")]) -> None:
    """Where methods that were given the same prompts differ: what each kept and lost, which decisions and categories disagree.

    Example: `forethought data compare runs/scot-data runs/srg-data runs/refusal-data`
    """
    from forethought.data.statistics import disagreements
    from forethought.records import Example, Rejected
    from forethought.run import read_run

    if len({p.name for p in runs}) < len(runs):
        raise ForethoughtError("two runs have the same name. Rename one, so that they can be told apart.")
    read = {p.name: read_run(p, "synth") for p in runs}
    records = {n: (r.read("examples.jsonl", Example), r.read("rejected.jsonl", Rejected)) for n, r in read.items()}
    table = disagreements(records)
    if not table["given to all"]:
        raise ForethoughtError(
            "these runs have no prompt in common, so nothing can be compared. Synthesize from the same prompts."
        )
    if table["given to all"] < table["prompts"]:
        print(
            f"note: these runs were not given the same prompts. {table['given to all']} of {table['prompts']} are in all of them, and "
            "'kept by all' is of those alone."
        )
    for key, found in table.items():
        print(f"{key}: {found}" if not isinstance(found, dict) else f"{key}:")
        for name, value in found.items() if isinstance(found, dict) else ():
            print(f"  {name}: {value}")


@data_app.command("export")
def data_export(
    run: Annotated[Path, typer.Argument(help="A synthesis run.")],
    to: Annotated[str, typer.Option(help="messages, trl, llamafactory, parquet or jsonl.")] = "messages",
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write, new or empty.")] = Path("export"),
) -> None:
    """Write a synthesis run in the format of another trainer, or as a folder that is ready for the hub.

    Example: `forethought data export runs/scot-data --to trl --out scot-trl`
    """
    from forethought.data.export import export
    from forethought.records import Example
    from forethought.run import read_run

    source = read_run(run, "synth")
    card = run / "README.md"
    text = card.read_text(encoding="utf-8") if card.exists() else None
    for path in export(source.read("examples.jsonl", Example), to, out, text):
        print(f"  {path}")
    wrote(out, f"head {out}/*")


def _examples(source: str) -> list[Any]:
    if not (Path(source) / "run.json").exists():
        return []
    from forethought.records import Example
    from forethought.run import read_run

    found = read_run(source, "synth").read("examples.jsonl", Example)
    if not found:
        raise ForethoughtError(f"{source} kept no example. Its rejected.jsonl says why.")
    return found


def _short(text: str) -> str:
    return repr(text if len(text) <= 80 else text[:77] + "...")
