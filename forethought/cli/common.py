"""Options and small helpers that commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from forethought.errors import ForethoughtError
from forethought.registry import options_of

Out = Annotated[Path, typer.Option("--out", "-o", help="Run directory to write.")]
Beside = Annotated[Path | None, typer.Option("--out", "-o", help="Run directory; default: beside the attempts.")]
Seed = Annotated[int, typer.Option(help="Seed of everything random.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace a run that was made with other settings.")]
Think = Annotated[
    bool,
    typer.Option(
        "--think",
        help="Let the chat template open the thought, so that the model always thinks; a server's must do so.",
    ),
]
System = Annotated[str | None, typer.Option(help="System prompt the target is deployed with.")]
Dtype = Annotated[str, typer.Option(help="float32 or bfloat16, for local models.")]
PolicyName = Annotated[str, typer.Option("--policy", "-p", help="A shipped policy, or a YAML file.")]
Data = Annotated[
    str, typer.Option(help="starter, starter:SPLIT, a file, or a public set (NAME or NAME:PATH); several: A,B.")
]
Take = Annotated[
    str | None, typer.Option(help="How many prompts of each label and source, for example harmful=24,benign=24.")
]
Concurrency = Annotated[int, typer.Option(min=1, help="Requests a server gets at once.")]
ListIt = Annotated[bool, typer.Option("--list", help="List what there is, and exit.")]
Columns = Annotated[
    list[str] | None, typer.Option("--column", help="FIELD=COLUMN, where a file names its columns otherwise.")
]
Values = Annotated[
    list[str] | None, typer.Option("--value", help="FIELD=VALUE for every row, for example label=harmful.")
]


class ByDefault(TyperGroup):
    """Whatever does not begin with the name of a command goes to the one that a subclass names as `default`: `judge RUN` is
    `judge run RUN`."""

    default: str

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        short = not args or (args[0] not in self.commands and args[0] != "--help")
        return super().parse_args(ctx, [self.default, *args] if short else args)


def named_path(path: Path) -> Path:
    """`path`, or where it leads if it has no name of its own (`.`): what is made of a run stands beside it, and says where it was."""
    return path.resolve() if path.name in ("", "..") else path


def model_config(
    name: str, system: str | None, dtype: str, concurrency: int = 32, think: bool = False, trained: Path | None = None
) -> Any:
    from forethought.config import ModelConfig, validated

    return validated(
        ModelConfig,
        {
            "name": name,
            "system": system,
            "dtype": dtype,
            "concurrency": concurrency,
            "think": think,
            "trained": str(trained) if trained else None,
        },
    )


def read_prompts(
    data: str, take: str | None, column: list[str] | None, value: list[str] | None, seed: int, few: str | None = None
) -> list[Any]:
    """Prompts of one data spec, or of several separated by commas; `take`, `column` and `value` hold for each.
    Without `take`, `few` are taken of the starter set's test split."""
    from forethought.config import DataConfig, validated
    from forethought.data import load_prompts, parse_data

    configs = [parse_data(part).model_dump() for part in commas(data) or [data]]
    for config in configs:
        config["columns"] |= pairs(column or [])
        config["values"] |= pairs(value or [])
        if take:
            config["take"] = pairs(commas(take))
        elif few and (config["source"], config["split"]) == ("starter", "test") and not config["take"]:
            config["take"] = pairs(commas(few))
    return load_prompts(validated(DataConfig, configs[0] | {"more": configs[1:]}), seed)


BudgetOf = Annotated[
    str | None,
    typer.Option(
        "--budget",
        help="What servers may cost: tokens=200000, or money=5,price_in=0.5,price_out=1.5 (per million tokens).",
    ),
]


def read_budget(text: str | None) -> Any:
    """`tokens=200000` or `money=5,price_in=0.5,price_out=1.5` as a Budget; None for nothing."""
    from forethought.config import Budget, validated

    return validated(Budget, pairs(commas(text)), "budget") if text else None


def named_run(item: str) -> tuple[str, Path]:
    """`NAME=RUN` or `RUN`, as (name or nothing, path)."""
    name, eq, path = ("", "", item) if Path(item).exists() or "=" not in item else item.partition("=")
    return (name if eq else "", named_path(Path(path)))


def named_runs(items: list[str]) -> dict[str, list[Path]]:
    """The runs of each model: every item is NAME=RUN, or RUN, whose directory's name is then the model's."""
    named: dict[str, list[Path]] = {}
    for item in items:
        name, path = named_run(item)
        named.setdefault(name or path.name, []).append(path)
    return named


def pairs(items: list[str]) -> dict[str, str]:
    """KEY=VALUE of each, split at the first equals sign outside brackets: a key may be a spec with options."""
    pairs = {}
    for item in items:
        depth, cut = 0, -1
        for i, char in enumerate(item):
            depth += (char == "(") - (char == ")")
            if char == "=" and depth == 0:
                cut = i
                break
        if cut < 1:
            raise ForethoughtError(f"cannot read '{item}'. Write KEY=VALUE.")
        pairs[item[:cut]] = item[cut + 1 :]
    return pairs


def commas(text: str) -> list[str]:
    """Split at commas outside brackets."""
    parts, depth = [""], 0
    for char in text:
        depth += (char == "(") - (char == ")")
        if char == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += char
    return [p.strip() for p in parts if p.strip()]


def number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def listed(wanted: bool, table: dict[str, Any], cost: Callable[[Any], str] | None = None) -> bool:
    if wanted:
        for name, entry in table.items():
            extra = ", ".join(filter(None, (entry.paper, f"needs {entry.needs}" if entry.needs else "")))
            print(f"{name:<22} {f'{cost(entry):<10} ' if cost else ''}{entry.about}{f' [{extra}]' if extra else ''}")
            if options := options_of(entry):
                print(f"{'':<22} ({options})")
    return wanted


def wrote(path: Path, look: str) -> None:
    print(f"-> {path}\nnext: {look}")
