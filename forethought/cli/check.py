"""`forethought check`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any

import typer

from forethought.cli.common import commas
from forethought.errors import ForethoughtError


def _fresh(path: Path | None) -> Path | None:
    # Where the command stops with an error, the rulings of an earlier one must not be taken for its own.
    if path:
        path.unlink(missing_ok=True)
    return path


def check(
    run: Annotated[Path, typer.Argument(help="A judge run.")],
    max_asr: Annotated[
        float | None, typer.Option(help="Most harmful (or not refused) answers to harmful prompts.")
    ] = None,
    max_over_refusal: Annotated[
        float | None, typer.Option(help="Most refusals of benign and borderline prompts, asked directly.")
    ] = None,
    judge: Annotated[
        str | None, typer.Option(help="The judge to go by; default: every one that fits the limit.")
    ] = None,
    attacks: Annotated[str | None, typer.Option(help="Attacks that count for --max-asr; default: all.")] = None,
    baseline: Annotated[Path | None, typer.Option(help="Judge run of the model before, on the same prompts.")] = None,
    max_drop: Annotated[
        float | None, typer.Option(help="With --baseline: most that either rate may have got worse, paired by prompt.")
    ] = None,
    capability: Annotated[Path | None, typer.Option(help="Capability run of the model.")] = None,
    capability_baseline: Annotated[
        Path | None, typer.Option(help="That of the model before, on the same questions.")
    ] = None,
    max_loss: Annotated[
        float | None,
        typer.Option(help="With both: most that may be lost, a share of accuracy, or nats a token; default: 0.05."),
    ] = None,
    json_: Annotated[
        Path | None,
        typer.Option("--json", callback=_fresh, is_eager=True, help="Also write the rulings to this file."),
    ] = None,
    point: Annotated[
        bool, typer.Option("--point", help="Hold the rates and losses against the limits, not their 95% bounds.")
    ] = False,
) -> None:
    """A gate for continuous integration: exit code 0 when every limit holds, 1 when one is broken, 2 when it cannot be told.

    What is held against a limit is the upper bound of the 95% interval, with everything unscored counted the wrong way.

    Example: `forethought check runs/attack-scot-judged --max-asr 0.05 --max-over-refusal 0.2`
    """
    from forethought.analysis.gate import overall
    from forethought.run import write_json
    from forethought.stages.checking import OVER_REFUSAL, Limits, check_capability, check_run, needless_refusals

    for name, limit in {"--max-asr": max_asr, "--max-over-refusal": max_over_refusal, "--max-drop": max_drop}.items():
        if limit is not None and not 0 <= limit <= 1:
            raise ForethoughtError(f"{name} is a share between 0 and 1, not {limit:g}.")
    if (baseline is None) != (max_drop is None):
        raise ForethoughtError("--baseline RUN and --max-drop SHARE go together.")
    if (capability is None) != (capability_baseline is None):
        raise ForethoughtError("--capability RUN and --capability-baseline RUN go together.")
    if max_loss is not None and capability is None:
        raise ForethoughtError("--max-loss is of --capability RUN and --capability-baseline RUN. Give both.")
    if max_loss is not None and not 0 <= max_loss < math.inf:
        raise ForethoughtError(f"--max-loss is 0 or more, not {max_loss:g}.")
    if max_asr is None and max_over_refusal is None and baseline is None and capability is None:
        raise ForethoughtError(
            "there is no limit to check: give --max-asr, --max-over-refusal, --baseline with --max-drop, or --capability with "
            "--capability-baseline."
        )
    limits = Limits(max_asr, max_over_refusal, max_drop, judge, tuple(commas(attacks or "")), point)
    lines = check_run(run, limits, baseline)
    if capability and capability_baseline:
        most = 0.05 if max_loss is None else max_loss
        lines += check_capability(capability, capability_baseline, most, run, point=point)
    for line in lines:
        print(f"{line.ruling:<12}{line.what} [{line.judge}]: {_evidence(line)}; limit {_limit(line)}: {line.why}")
    without: list[dict[str, Any]] = []
    if max_over_refusal is None and baseline is None:
        # Safety is never shown alone: what refuses everything passes.
        by, rate = needless_refusals(run, judge) or (None, None)
        said = "not known" if rate is None or rate.value is None else f"{rate.value:.1%} [{by}]"
        print(f"{'no limit':<12}{OVER_REFUSAL}: {said}")
        without = [{"what": OVER_REFUSAL, "judge": by, "rate": rate and rate.model_dump()}]
    if json_:
        lined = [line.model_dump() for line in lines]
        write_json(json_, {"exit": overall(lines), "lines": lined, "no_limit": without})
    raise typer.Exit(overall(lines))


def _evidence(line: Any) -> str:
    if line.judge == "capability":
        return f"{'-' if line.value is None else f'{line.value:+.3g}'}, on {line.scored} questions, {line.unscored} unscored"
    rate = "-" if line.value is None else f"{line.value:{'+' if line.change else ''}.1%}"
    counts = f"{line.scored} pairs, {line.hits} up" if line.change else f"{line.hits} of {line.scored} scored"
    return f"{rate}, {counts}, on {line.prompts} prompts, {line.unscored} unscored"


def _limit(line: Any) -> str:
    return f"{line.limit:g}" if line.judge == "capability" else f"{line.limit:.1%}"
