"""The command line: names to stages, one file a command. Nothing heavy is imported before a command needs it."""

from __future__ import annotations

import signal
import sys
from typing import Annotated

import typer

from forethought import __version__
from forethought.cli import (
    analyze,
    attack,
    capability,
    chat,
    check,
    data,
    experiment,
    export,
    judge,
    policy,
    report,
    styles,
    synth,
    train,
)
from forethought.errors import NO_ROOM, ForethoughtError, is_out_of_memory
from forethought.report.text import clean

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    help="Teach a language model to think about safety before it answers, and prove what that changed.\n\n"
    "Start with: `forethought quickstart`",
)
# In the order in which --help shows them.
COMMANDS = (
    experiment.quickstart,
    experiment.run,
    synth.synth,
    train.train,
    train.merge,
    attack.attack,
    report.report,
    check.check,
    chat.chat,
)
for command in COMMANDS:
    app.command()(command)
app.add_typer(capability.capability_app, name="capability")
app.add_typer(analyze.analyze_app, name="analyze")
app.add_typer(judge.judge_app, name="judge")
app.add_typer(data.data_app, name="data")
app.add_typer(export.export_app, name="export")
app.add_typer(policy.policy_app, name="policy")
app.add_typer(styles.styles_app, name="styles")


def main() -> None:
    """Run the command line. A user's mistake prints one line and no traceback; exit code 1, or 130 for Ctrl-C.

    SIGTERM, with which batch systems and containers end a job, is a Ctrl-C too.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
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
    except Exception as error:
        if is_out_of_memory(error):
            _stop(NO_ROOM, 1)
        if isinstance(error, OSError) and error.filename:
            _stop(f"cannot read or write {error.filename}: {error.strerror or error}.", 1)
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


def _stop(message: str, code: int) -> None:
    # What a server or a file says may hold a terminal's control characters.
    print(f"forethought: {clean(message)}", file=sys.stderr)
    sys.exit(code)
