"""`forethought capability` and `forethought capability compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from forethought.cli.common import (
    ByDefault,
    Concurrency,
    Dtype,
    ListIt,
    Out,
    Overwrite,
    Seed,
    System,
    Think,
    commas,
    listed,
    model_config,
    number,
    wrote,
)
from forethought.errors import ForethoughtError

NOTHING_READ = (
    "nothing is read better than chance, the plain sentence neither, so that this says nothing of the attacks."
)


class _AskByDefault(ByDefault):
    default = "ask"


capability_app = typer.Typer(
    cls=_AskByDefault,
    add_completion=False,
    help="What a model can still do: `forethought capability MODEL --tasks arc,gsm8k`, then `forethought capability compare RUN RUN`.",
)


@capability_app.command("ask")
def capability(
    target: Annotated[str, typer.Argument(help="A model, or a training run.")] = "",
    tasks: Annotated[
        str, typer.Option(help="Lines of --list, separated by commas; NAME:PATH for a copy. Default: all but decode.")
    ] = "",
    harness: Annotated[str, typer.Option(help="Tasks of lm-evaluation-harness in their place (an extra).")] = "",
    out: Out = Path("runs/capability"),
    take: Annotated[
        int | None, typer.Option(min=1, help="How many questions of each task, by hash; default: all.")
    ] = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="Longest reply, in tokens, its thought included.")] = 512,
    system: System = None,
    think: Think = False,
    dtype: Dtype = "float32",
    concurrency: Concurrency = 32,
    seed: Seed = 0,
    overwrite: Overwrite = False,
    list_: ListIt = False,
) -> None:
    """Put capability tasks to a model, the same questions to every model.

    Example: `forethought capability smollm2 --tasks arc,mmlu,gsm8k,perplexity --take 200 --out runs/capability-base`
    """
    from forethought.capability import TASKS

    if listed(list_ or not target, TASKS):
        return
    if harness and tasks:
        raise ForethoughtError("--tasks and --harness are two runs. Give one of them.")
    from forethought import stages

    model = model_config(target, system, dtype, concurrency, think)
    # What a model can read of attacks is no ability that training may cost.
    names = commas(harness or tasks or ",".join(name for name in TASKS if name != "decode"))
    stage = stages.harness if harness else stages.capability
    done = stage(out, model, names, take=take, max_tokens=max_tokens, seed=seed, overwrite=overwrite)
    show(done.path)
    wrote(done.path, f"forethought capability compare UNTUNED_RUN {done.path}")


@capability_app.command("compare")
def compare(
    first: Annotated[Path, typer.Argument(help="The capability run of the untuned model.")],
    second: Annotated[Path, typer.Argument(help="That of the other model, on the same questions.")],
    margin: Annotated[
        float, typer.Option(help="Difference in accuracy that does not matter; 0.03 is three points.")
    ] = 0.03,
    margin_nll: Annotated[float, typer.Option(help="The same for perplexity, in nats per token.")] = 0.05,
) -> None:
    """Whether a model still does what another does: paired difference, 95% interval, verdict against a margin.

    Example: `forethought capability compare runs/capability-base runs/capability-scot --margin 0.03`
    """
    from forethought.stages.capability import compare_runs

    found = compare_runs(first, second, margin=margin, margin_nll=margin_nll)
    print(f"second less first: {second} - {first}")
    print(_line("task", "mode", "n", "first", "second", "difference", "95%", "verdict"))
    for row in found:
        change = "-" if row.difference is None else f"{row.difference:+.3f}"
        interval = "-" if row.low is None or row.high is None else f"{row.low:+.3f} to {row.high:+.3f}"
        said = f"equivalent within ±{row.margin:g}" if row.verdict == "equivalent" else row.verdict
        numbers = (str(row.n), number(row.first), number(row.second), change, interval)
        print(_line(row.task, row.mode, *numbers, f"{said}{_notes(row)}"))
    print(
        f"accuracy: what cannot be read is wrong; margin ±{margin:g}. perplexity: nats per token, less is better; margin ±{margin_nll:g}.\n"
        "equivalent: the whole interval lies within the margin; undecided: more questions are needed."
    )


def show(path: Path) -> None:
    """Print the table of a capability run."""
    from forethought.analysis.capability import abilities, decoded
    from forethought.records import Graded
    from forethought.run import read_run
    from forethought.stages.capability import ROWS

    print(_line("task", "mode", "n", "accuracy", "unscored", "chance", "95%", "of read"))
    found = abilities(read_run(path, "capability").read(ROWS, Graded))
    for a in found:
        why = ", ".join(f"{count} {reason}" for reason, count in a.reasons.items())
        r = a.accuracy
        if r is None:
            cells = (number(a.nll), str(sum(a.reasons.values())), "", _interval(a.nll_low, a.nll_high))
            said = f"nats per token, {a.tokens} tokens"
        else:
            cells = (number(r.value), str(r.unscored), number(a.chance), _interval(r.low, r.high))
            said = f"{number(a.readable)} ({a.readable_n})"
        notes = "; ".join(filter(None, (a.standing if a.standing != "above chance" else "", why)))
        print(_line(a.task, a.mode, str(a.n), *cells, f"{said}  {notes}".rstrip()))
    print(
        "accuracy: what cannot be read is wrong, as in `capability compare`; of read: over what could be read (how many); unscored: what "
        "failed otherwise. Intervals: Wilson, 95%; for perplexity a bootstrap."
    )
    if (read := decoded(found)) is not None:
        print(f'read better than chance: --attacks "{",".join(read)}"' if read else NOTHING_READ)


def _interval(low: float | None, high: float | None) -> str:
    return "-" if low is None or high is None else f"{low:.3f}-{high:.3f}"


def _line(task: str, mode: str, *cells: str) -> str:
    widths = (6, 10, 10, 12, 18)
    return (
        f"{task:<20} {mode:<29}" + "".join(f"{c:>{w}}" for c, w in zip(cells, widths, strict=False)) + f"  {cells[-1]}"
    )


def _notes(row: Any) -> str:
    notes = [row.note] if row.note else []
    if row.missing:
        notes.append(f"{row.missing} left out")
    if row.unit == "accuracy" and row.readable is not None and row.readable_n < row.n:
        notes.append(f"{row.readable:+.3f} on the {row.readable_n} that both answered readably")
    return f" ({'; '.join(notes)})" if notes else ""
