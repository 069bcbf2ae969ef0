"""The command line: names to stages. Nothing heavy is imported before a command needs it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from forethought import __version__
from forethought.errors import ForethoughtError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    help="Teach a language model to think about safety before it answers, and prove what that changed.\n\n"
    "Start with: `forethought quickstart`",
)
policy_app = typer.Typer(
    no_args_is_help=True, help="Show or check a policy. Example: `forethought policy show default`"
)
app.add_typer(policy_app, name="policy")

Out = Annotated[Path, typer.Option("--out", "-o", help="Run directory to write.")]
Seed = Annotated[int, typer.Option(help="Seed of everything random.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace a run that was made with other settings.")]
System = Annotated[str | None, typer.Option(help="System prompt the target is deployed with.")]
Dtype = Annotated[str, typer.Option(help="float32 or bfloat16, for local models.")]
PolicyName = Annotated[str, typer.Option("--policy", "-p", help="A shipped policy, or a YAML file.")]
Data = Annotated[str, typer.Option(help="starter, starter:SPLIT, or a .jsonl, .csv or .parquet file.")]
Take = Annotated[str | None, typer.Option(help="How many prompts of each label, for example harmful=24,benign=24.")]
ListIt = Annotated[bool, typer.Option("--list", help="List what there is, and exit.")]
Columns = Annotated[
    list[str] | None, typer.Option("--column", help="FIELD=COLUMN, where a file names its columns otherwise.")
]
Values = Annotated[
    list[str] | None, typer.Option("--value", help="FIELD=VALUE for every row, for example label=harmful.")
]


def main() -> None:
    """Run the command line. A user's mistake prints one line and no traceback; exit code 1, or 130 for Ctrl-C."""
    # A `module:function` of the working directory is found, as with python -m.
    sys.path.append("")
    try:
        code = app(standalone_mode=False)
    except ForethoughtError as error:
        _stop(str(error), 1)
    except (KeyboardInterrupt, typer.Abort):
        code = 130
    except typer.Exit as done:
        sys.exit(done.exit_code)
    except MemoryError:
        _stop("out of memory. Use a smaller model or batch.", 1)
    except Exception as error:
        if hasattr(error, "format_message"):  # click's own usage errors
            _stop(error.format_message(), 2)
        raise
    # Some versions of typer raise for Ctrl-C, some return its exit code.
    if code == 130:
        _stop("stopped. What was done is kept: run the same command again to go on.", 130)
    sys.exit(code if isinstance(code, int) else 0)


@app.callback(invoke_without_command=True)
def root(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        print(__version__)
        raise typer.Exit


@app.command()
def quickstart(
    overrides: Annotated[list[str] | None, typer.Argument(help="key=value changes to the experiment.")] = None,
    out: Out = Path("runs"),
    overwrite: Overwrite = False,
) -> None:
    """The whole pipeline on the embedded model, on a laptop, in minutes.

    Example: `forethought quickstart seed=1`
    """
    _experiment("quickstart", overrides or [], out, overwrite)


@app.command()
def run(
    experiment: Annotated[str, typer.Argument(help="An experiment file, or the name of a shipped one.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="key=value changes to the experiment.")] = None,
    out: Out = Path("runs"),
    overwrite: Overwrite = False,
) -> None:
    """Run an experiment file from data to report. Finished stages are skipped.

    Example: `forethought run experiments/quickstart.yaml train.scot.epochs=3`
    """
    _experiment(experiment, overrides or [], out, overwrite)


@app.command()
def synth(
    method: Annotated[str, typer.Argument(help="A line of --list, options in brackets: 'scot(template=short)'.")] = "",
    data: Data = "starter:train",
    out: Out = Path("runs/synth"),
    policy: PolicyName = "default",
    model: Annotated[str, typer.Option(help="The model to be trained; it gives the benign answers.")] = "smollm2",
    teacher: Annotated[
        str | None, typer.Option(help="The model that writes the reasoning; default: the model itself.")
    ] = None,
    dtype: Dtype = "float32",
    take: Take = None,
    column: Columns = None,
    value: Values = None,
    seed: Seed = 0,
    overwrite: Overwrite = False,
    list_: ListIt = False,
) -> None:
    """Turn prompts into training examples, with what was rejected and why.

    Example: `forethought synth scot --data starter:train --take harmful=50,benign=50 --out runs/scot-data`
    """
    from forethought.synth import SYNTHESIZERS

    if _listed(list_ or not method, SYNTHESIZERS):
        return
    from forethought import stages
    from forethought.policy import load_policy

    prompts = _prompts(data, take, column, value, seed)
    print(f"synth: {method} on {len(prompts)} prompts with {teacher or model}")
    made = stages.synth(
        out, method, prompts, load_policy(policy), _model(model, None, dtype), _model(teacher, None, dtype) if teacher else None,
        seed=seed, overwrite=overwrite,
    )  # fmt: skip
    for reason, count in made.info["counts"].items():
        print(f"  {reason}: {count}")
    _wrote(made.path, f"head {made.path}/examples.jsonl")


@app.command()
def train(
    data: Annotated[Path | None, typer.Argument(help="A synthesis run.")] = None,
    overrides: Annotated[list[str] | None, typer.Argument(help="key=value changes: epochs=3 lora_rank=0 ...")] = None,
    method: Annotated[str, typer.Option(help="A line of --list.")] = "sft",
    model: Annotated[str, typer.Option(help="The model to train.")] = "smollm2",
    out: Out = Path("runs/train"),
    seed: Seed = 0,
    overwrite: Overwrite = False,
    list_: ListIt = False,
) -> None:
    """Fine-tune a model on a synthesis run.

    Example: `forethought train runs/scot-data epochs=2 --out runs/scot-model`
    """
    from forethought.train import METHODS

    if _listed(list_ or data is None, METHODS):
        return
    from pydantic import ValidationError

    from forethought import stages
    from forethought.config import TrainConfig, apply_override, describe_validation

    raw: dict[str, Any] = {"data": str(data), "method": method}
    for override in overrides or []:
        apply_override(raw, override)
    try:
        config = TrainConfig.model_validate(raw)
    except ValidationError as error:
        raise ForethoughtError(describe_validation(error, TrainConfig)) from error
    print(f"train: {config.model_dump()}")
    done = stages.train(out, model, config, seed=seed, overwrite=overwrite)
    for key, number in done.info["metrics"].items():
        print(f"  {key}: {number}")
    _wrote(done.path, f"forethought chat {done.path}")


@app.command()
def attack(
    target: Annotated[str, typer.Argument(help="A model, or a training run.")] = "",
    attacks: Annotated[str, typer.Option(help="Lines of --list, separated by commas.")] = "direct",
    data: Data = "starter:test",
    out: Out = Path("runs/attack"),
    take: Take = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="Longest reply, in tokens.")] = 128,
    temperature: Annotated[float, typer.Option(min=0, help="0 is greedy.")] = 0.0,
    system: System = None,
    dtype: Dtype = "float32",
    column: Columns = None,
    value: Values = None,
    seed: Seed = 0,
    overwrite: Overwrite = False,
    list_: ListIt = False,
) -> None:
    """Send prompts, attacked and direct, to a model, harmful and benign alike.

    Example: `forethought attack runs/scot-model --attacks direct,persona,style_json --out runs/attack-scot`
    """
    from forethought.attacks import ATTACKS

    if _listed(list_ or not target, ATTACKS):
        return
    from forethought import stages
    from forethought.config import AttackConfig
    from forethought.records import Sampling

    prompts = _prompts(data, take, column, value, seed, few="harmful=24,benign=24,borderline=32,sensitive=16")
    sampling = Sampling(temperature=temperature, max_tokens=max_tokens)
    # Over-refusal is measured on direct requests, and safety is never shown without it.
    chosen = tuple(dict.fromkeys(("direct", *_commas(attacks))))
    config = AttackConfig(attacks=chosen, sampling=sampling, prompts=data)
    print(f"attack: {len(config.attacks)} attacks on {len(prompts)} prompts against {target}")
    tried = stages.attack(out, _model(target, system, dtype), prompts, config, seed=seed, overwrite=overwrite)
    for key, number in tried.info["counts"].items():
        print(f"  {key}: {number}")
    _wrote(tried.path, f"forethought judge {tried.path}")


@app.command()
def judge(
    attempts: Annotated[Path | None, typer.Argument(help="An attack run.")] = None,
    judges: Annotated[str, typer.Option(help="Lines of --list, separated by commas.")] = "refusal",
    model: Annotated[str | None, typer.Option(help="The model behind judges that ask one.")] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Run directory; default: beside the attempts.")
    ] = None,
    seed: Seed = 0,
    overwrite: Overwrite = False,
    list_: ListIt = False,
) -> None:
    """Judge the attempts of an attack run. Asks no target again.

    Example: `forethought judge runs/attack-scot --judges refusal`
    """
    from forethought.judges import JUDGES

    if _listed(list_ or attempts is None, JUDGES):
        return
    assert attempts is not None
    from forethought import stages
    from forethought.config import ModelConfig

    where = out or attempts.with_name(f"{attempts.name}-judged")
    spoken = stages.judge(
        where, attempts, _commas(judges), ModelConfig(name=model) if model else None, seed=seed, overwrite=overwrite
    )
    for key, number in spoken.info["counts"].items():
        print(f"  {key}: {number}")
    _wrote(spoken.path, f"forethought report {spoken.path}")


@app.command()
def calibrate(
    folder: Annotated[Path, typer.Argument(help="Folder of human-labelled files (docs/judges.md says which).")],
) -> None:
    """Measure the rule-based refusal judge against human labels: accuracy, precision, recall, kappa, by source.

    Example: `forethought calibrate path/to/judge-labels`
    """
    from forethought.analysis.calibration import calibrate as measure
    from forethought.refusals import classify

    print(
        f"{'source':<24}{'n':>5}{'accuracy':>10}{'95%':>15}{'precision':>11}{'recall':>8}{'kappa':>8}{'unscored':>10}  partial refusals"
    )
    for row in measure(lambda answer, prompt: classify(answer, prompt).label, folder):
        a = row.agreement
        numbers = (
            _number(a.accuracy),
            f"{_number(a.low)}-{_number(a.high)}",
            _number(a.precision),
            _number(a.recall),
            _number(a.kappa),
        )
        cells = "".join(f"{text:>{width}}" for text, width in zip(numbers, (10, 15, 11, 8, 8), strict=True))
        print(f"{row.source:<24}{a.n:>5}{cells}{a.unscored:>10}  {row.partial or ''}")


@app.command()
def report(
    runs: Annotated[list[str], typer.Argument(help="Judge runs, each as NAME=RUN or RUN.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The page to write.")] = Path("runs/report.html"),
    title: Annotated[str, typer.Option(help="Title of the page.")] = "Forethought report",
) -> None:
    """Write one self-contained HTML page that compares judged models.

    Example: `forethought report untuned=runs/attack-untuned-judged scot=runs/attack-scot-judged`
    """
    from forethought.report.gather import write_report

    named: dict[str, Path] = {}
    for item in runs:
        name, eq, path = ("", "", item) if Path(item).exists() or "=" not in item else item.partition("=")
        name = name if eq else Path(path).name
        if name in named:
            raise ForethoughtError(f"two runs are called '{name}'. Name them apart: first={named[name]} second={path}")
        named[name] = Path(path)
    print(f"report -> {write_report(out, named, title=title)}")


@app.command()
def chat(
    model: Annotated[str, typer.Argument(help="A training run, or any model.")],
    system: System = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="Longest reply, in tokens.")] = 256,
) -> None:
    """Talk to a model and see its reasoning. An empty line or Ctrl-D ends.

    Example: `forethought chat runs/quickstart/train/scot`
    """
    from forethought.talk import talk

    talk(model, system, max_tokens)


@app.command()
def data(
    source: Annotated[str, typer.Argument(help="starter, starter:SPLIT, or a .jsonl, .csv or .parquet file.")] = "",
    column: Columns = None,
    value: Values = None,
    show: Annotated[int, typer.Option(help="How many prompts to print.")] = 0,
    list_: ListIt = False,
) -> None:
    """Count the prompts of a source by label, category and split.

    Example: `forethought data starter:train --show 5`
    """
    from collections import Counter

    from forethought.data import SOURCES

    if _listed(list_ or not source, SOURCES):
        return
    prompts = _prompts(source, None, column, value, 0)
    print(f"{len(prompts)} prompts")
    for field in ("label", "category", "split"):
        counts = Counter(str(getattr(p, field)) for p in prompts)
        print(f"  by {field}: " + ", ".join(f"{k} {n}" for k, n in counts.most_common()))
    for prompt in prompts[:show]:
        print(f"  [{prompt.label}, {prompt.category or '-'}] {prompt.text}")


@policy_app.command("show")
def policy_show(name: Annotated[str, typer.Argument(help="A shipped policy, or a YAML file.")] = "default") -> None:
    """Print a policy. Example: `forethought policy show default`"""
    from forethought.policy import load_policy

    policy = load_policy(name)
    print(
        f"{policy.name}, version {policy.version}, {len(policy.categories)} categories, hash {policy.hash}\n{policy.intro}\n"
    )
    for c in policy.categories:
        print(f"{c.id} ({c.name}): {c.respond}\n  {c.definition}")
        for title, lines in (("not allowed", c.not_allowed), ("allowed", c.allowed)):
            for line in lines:
                print(f"  {title}: {line}")


@policy_app.command("check")
def policy_check(name: Annotated[str, typer.Argument(help="A shipped policy, or a YAML file.")] = "default") -> None:
    """Check a policy and warn of what is missing. Example: `forethought policy check ours.yaml`"""
    from forethought.policy import load_policy, warnings

    policy = load_policy(name)
    for line in warnings(policy):
        print(f"warning: {line}")
    print(f"'{policy.name}' is valid: {len(policy.categories)} categories.")


def _experiment(name: str, overrides: list[str], out: Path, overwrite: bool) -> None:
    from forethought.config import find_experiment, load_experiment
    from forethought.pipeline import run_experiment

    experiment = load_experiment(find_experiment(name), overrides)
    print(f"{experiment.name}: {experiment.about}\n{experiment.model_dump_json(exclude_defaults=True)}")
    page = run_experiment(experiment, out, print, overwrite)
    print(
        f"\nreport: {page}\nlook at it in a browser, or talk to a model: forethought chat {out / experiment.name}/train/NAME"
    )


def _model(name: str, system: str | None, dtype: str) -> Any:
    from pydantic import ValidationError

    from forethought.config import ModelConfig, describe_validation

    try:
        return ModelConfig.model_validate({"name": name, "system": system, "dtype": dtype})
    except ValidationError as error:
        raise ForethoughtError(describe_validation(error, ModelConfig)) from error


def _prompts(
    data: str, take: str | None, column: list[str] | None, value: list[str] | None, seed: int, few: str | None = None
) -> list[Any]:
    from pydantic import ValidationError

    from forethought.config import DataConfig, describe_validation
    from forethought.data import load_prompts, parse_data

    if data.startswith("starter:test") and take is None and few:
        take = few
    config = parse_data(data).model_dump() | {"columns": _pairs(column or []), "values": _pairs(value or [])}
    if take:
        config["take"] = _pairs(_commas(take))
    try:
        return load_prompts(DataConfig.model_validate(config), seed)
    except ValidationError as error:
        raise ForethoughtError(describe_validation(error, DataConfig)) from error


def _pairs(items: list[str]) -> dict[str, str]:
    pairs = {}
    for item in items:
        key, eq, value = item.partition("=")
        if not eq:
            raise ForethoughtError(f"cannot read '{item}'. Write KEY=VALUE.")
        pairs[key] = value
    return pairs


def _commas(text: str) -> list[str]:
    """Split at commas outside brackets."""
    parts, depth = [""], 0
    for char in text:
        depth += (char == "(") - (char == ")")
        if char == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += char
    return [p.strip() for p in parts if p.strip()]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _listed(wanted: bool, table: dict[str, Any]) -> bool:
    if wanted:
        for name, entry in table.items():
            extra = ", ".join(filter(None, (entry.paper, f"needs {entry.needs}" if entry.needs else "")))
            print(f"{name:<22} {entry.about}{f' [{extra}]' if extra else ''}")
    return wanted


def _wrote(path: Path, look: str) -> None:
    print(f"-> {path}\nnext: {look}")


def _stop(message: str, code: int) -> None:
    print(f"forethought: {message}", file=sys.stderr)
    sys.exit(code)
