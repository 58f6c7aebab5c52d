"""What other packages and a user's own file add, without a change to foreword.

    import foreword.extensions as extend

    @extend.metric("words", title="words", decimals=1)
    def words(answers, examples):
        return sum(len(answer.split()) for answer in answers) / max(1, len(answers))

A file like this one is loaded by `--plugin FILE`, by `load_plugin(FILE)`, or by importing it. A
package names in its entry points the object that such a decorator registers; the groups are
`foreword.methods`, `foreword.reparameterizations`, `foreword.metrics` and `foreword.formats`.
"""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, TypeVar

from foreword import names
from foreword.axes.injection.options import InjectionSpec as InjectionSpec
from foreword.axes.injection.options import injection as injection
from foreword.axes.reparam.options import ReparameterizationSpec as ReparameterizationSpec
from foreword.axes.reparam.options import reparameterization as reparameterization
from foreword.errors import UserError, argument
from foreword.methods import MethodOptions as MethodOptions
from foreword.methods import method as method
from foreword.methods.base import PromptOptions as PromptOptions

AnyFunction = TypeVar("AnyFunction", bound=Callable[..., Any])


def metric(
    name: str,
    *,
    title: str,
    better: Literal["high", "low"] = "high",
    of: names.Answer | tuple[names.Answer, ...] = "text",
    decimals: int = 1,
) -> Callable[[AnyFunction], AnyFunction]:
    """Register a function as a metric: from answers and their examples to a number, or None.

    Args:
        name: what a recipe calls it.
        title: what a table calls it.
        better: whether a high or a low figure is good.
        of: what an answer is, or several such; a metric of labels takes `labels=` too, all labels
            in their order.
        decimals: how many a table shows.
    """

    def register(score: AnyFunction) -> AnyFunction:
        names.METRICS.add(
            name, names.MetricName(title, better, of, decimals, score=score, defined_by=score)
        )
        return score

    return register


def data_format(
    name: str, what: str, *, asks: names.Answer = "text", table: bool = False
) -> Callable[[AnyFunction], AnyFunction]:
    """Register a function as a reader: from a `foreword.data.Request` to an iterator of `Row`s.

    Args:
        name: what a recipe calls it.
        what: what it is, in a few words.
        asks: what its examples ask for, where no column is named as their label.
        table: whether rows are named columns of any kind, one of which may be a label.
    """

    def register(read: AnyFunction) -> AnyFunction:
        names.FORMATS.add(name, names.FormatName(what, asks, table, read=read, defined_by=read))
        return read

    return register


_MODULE = "foreword_plugin_"


def loaded_plugins() -> tuple[str, ...]:
    """The files that `load_plugin` has run in this process: another process that is to read the
    same recipes runs them first."""
    modules = [module for name, module in sys.modules.items() if name.startswith(_MODULE)]
    return tuple(str(module.__file__) for module in modules)


def load_plugin(file: Path | str) -> None:
    """Run a Python file, whose decorators register what it adds; a file runs once.

    Raises:
        UserError: there is no such file, it is no Python, or running it failed.
    """
    path, given = Path(file), f"{argument('--plugin', 'plugin')} {file}"
    if not path.is_file():
        raise UserError(f"{given}: no such file; give the path of a Python file")
    path = path.resolve()
    digest = hashlib.sha256(str(path).encode()).hexdigest()[:8]
    name = f"{_MODULE}{path.stem}_{digest}"
    if name in sys.modules:
        return
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UserError(f"{given}: is no Python file; its name must end in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except UserError:
        del sys.modules[name]
        raise
    except Exception as error:
        del sys.modules[name]
        raise UserError(
            f"{given}: running it failed with {type(error).__name__}: {error}"
        ) from error
