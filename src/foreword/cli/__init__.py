"""The command line: `foreword VERB`. Heavy parts are imported when a verb needs them."""

from foreword.cli.app import main

__all__ = ["main"]
