"""The verbs, and how errors end: 0 done, 1 the run failed, 2 the input is wrong."""

from __future__ import annotations

import os
import sys
from typing import Annotated, NoReturn

import typer

from foreword import __version__
from foreword.cli import catalogue, exchange, memory, score, training, using
from foreword.errors import ForewordError, named_as_flags

app = typer.Typer(
    name="foreword",
    help="Teach one frozen language model many tasks, each with kilobytes of trained prompt.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("train")(training.train)
app.command("generate")(using.generate)
app.command("predict")(using.predict)
app.command("evaluate")(using.evaluate)
app.command("score")(score.score)
app.command("ls")(catalogue.ls)
app.command("show")(catalogue.show)
app.command("recipe-schema")(catalogue.recipe_schema)
app.add_typer(exchange.import_, name="import")
app.add_typer(exchange.export, name="export")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"foreword {__version__}")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line and exit."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        with named_as_flags():
            app()
    except ForewordError as error:
        if memory.ran_out(error):  # while a backbone was loaded
            _end_without_memory(error)
        print(f"foreword: {error}", file=sys.stderr)
        sys.exit(error.exit_status)
    except BrokenPipeError:
        # The reader of our output went away (`| head`); that is no failure of ours.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except KeyboardInterrupt:
        print("foreword: stopped", file=sys.stderr)
        sys.exit(130)
    except (MemoryError, RuntimeError) as error:
        if not memory.ran_out(error):
            raise
        _end_without_memory(error)


def _end_without_memory(error: BaseException) -> NoReturn:
    print(f"foreword: {memory.advice(error)}", file=sys.stderr)
    sys.exit(1)
