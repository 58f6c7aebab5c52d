"""The verbs, and how errors end: 0 done, 1 the run failed, 2 the input is wrong."""

from __future__ import annotations

import os
import sys
from typing import Annotated, Any, NoReturn, cast

import typer

from foreword import __version__
from foreword.cli import (
    catalogue,
    comparing,
    composing,
    distilling,
    embedding,
    exchange,
    score,
    searching,
    serving,
    similar,
    training,
    using,
)
from foreword.cli.output import (
    ReaderGone,
    close_streams,
    complain,
    open_closed_streams,
    say,
    warnings_said,
)
from foreword.cli.system import as_our_own, check_working_folder
from foreword.common import memory
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
app.command("distil")(distilling.distil)
app.command("generate")(using.generate)
app.command("predict")(using.predict)
app.command("embed")(embedding.embed)
app.command("evaluate")(using.evaluate)
app.command("compare")(comparing.compare)
app.command("search")(searching.search)
app.command("serve")(serving.serve)
app.command("score")(score.score)
app.command("similar")(similar.similar)
app.command("compose")(composing.compose)
app.command("ls")(catalogue.ls)
app.command("show")(catalogue.show)
app.command("recipe-schema")(catalogue.recipe_schema)
app.add_typer(exchange.import_, name="import")
app.add_typer(exchange.export, name="export")


_WrongUsage = cast("type[Exception]", typer.BadParameter.__mro__[2])
"""click's ClickException, of the click that typer brings."""


def _version(wanted: bool) -> None:
    if wanted:
        say(f"foreword {__version__}")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    del version  # its callback ended the process
    check_working_folder()


def main() -> NoReturn:
    """Run the command line and exit."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    open_closed_streams()
    status = _run()
    try:
        close_streams()
    except ReaderGone:
        pass
    except ForewordError as error:
        if not status:  # else it was said
            complain(f"foreword: {error}")
            status = error.exit_status
    sys.exit(status)


def _run() -> int:
    """What a verb's end means as an exit status; the reason is said."""
    try:
        with named_as_flags(), warnings_said():
            status = app(standalone_mode=False)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except _WrongUsage as error:
        return _say_usage(error)
    except ReaderGone:
        return 0
    except (KeyboardInterrupt, typer.Abort):
        complain("foreword: stopped")
        return 130
    except Exception as error:
        # While a backbone is loaded, memory runs out behind an exception of our own.
        if memory.ran_out(error):
            complain(f"foreword: {memory.advice(error, batch='--batch-size', dtype='--dtype')}")
            return 1
        own = as_our_own(error)
        if own is None:
            raise
        complain(f"foreword: {own}")
        return own.exit_status
    return status if isinstance(status, int) else 0


def _say_usage(error: Any) -> int:
    """Say what is wrong with the arguments, as plain text: they may hold anything."""
    message = error.format_message()
    if message:  # else the help was shown, since nothing was given
        usage = f"{error.ctx.get_usage()}\n" if error.ctx is not None else ""
        named = error.ctx.command_path if error.ctx is not None else "foreword"
        complain(f"{usage}foreword: {message.rstrip('.')}; see {named} --help")
    return int(error.exit_code)
