"""From a YAML file and `--set` overrides to a recipe."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from foreword.common.json_text import check_depth
from foreword.common.paths import GGUF, is_backbone
from foreword.errors import RecipeError, argument, refuse_single
from foreword.methods import METHODS
from foreword.recipe.data import FILES, IDS
from foreword.recipe.problems import explain, kind
from foreword.recipe.spec import EXCLUSIVE, PLAIN, VERSION, Recipe, section_rules
from foreword.recipe.teacher import FILES as TEACHER_FILES
from foreword.recipe.teacher import MESSAGES
from foreword.recipe.training import training_rules
from foreword.recipe.yaml_text import parse_yaml, read_yaml

_PATHS = {
    *(f"task.data.{key}" for key in (*FILES, *IDS)),
    *(f"teacher.{key}" for key in TEACHER_FILES),
    "method.init.file",
    "method.init.path",
}
"""Keys of a recipe whose texts are paths, the backbone's name apart."""


def _unsaid(line: str) -> None:
    """Where nobody asks to be told."""


def load_recipe(
    file: Path | str, overrides: Iterable[str] = (), *, say: Callable[[str], None] = _unsaid
) -> Recipe:
    """Read a recipe from YAML.

    Args:
        file: the YAML file.
        overrides: `key.path=value` strings, whose values are read as YAML; paths among them are
            relative to the working folder, those of the file to the file's. Among fields that
            exclude each other (`spec.EXCLUSIVE`) the later override takes the place of what the
            file or an earlier override gives.
        say: told of each field whose place an override took.

    Raises:
        RecipeError: everything that is wrong with it.
    """
    file = Path(file)
    return parse_recipe(read_yaml(file), overrides, where=str(file), folder=file.parent, say=say)


def parse_recipe(
    raw: Any,
    overrides: Iterable[str] = (),
    *,
    where: str = "recipe",
    folder: Path | None = None,
    start: Path | None = None,
    say: Callable[[str], None] = _unsaid,
) -> Recipe:
    """Check a recipe given as plain data; the other arguments are those of `load_recipe`.

    Args:
        raw: the plain data.
        overrides: changes to it.
        where: what messages call the recipe.
        folder: paths of the plain data are relative to it; None: they stay as they are.
        start: paths among the overrides are relative to it; None: to the working folder.
        say: told of each field whose place an override took.
    """
    if not isinstance(raw, Mapping):
        raise RecipeError(where, [f"must be a mapping of sections, found {kind(raw)}"])
    try:
        check_depth(raw)
    except ValueError as error:
        raise RecipeError(where, [str(error)]) from error
    refuse_single("overrides", overrides)
    data, overrides = _copy(raw), list(overrides)
    problems = [line for item in overrides if (line := _override(data, item, start, say))]
    given = data.get("version")
    if isinstance(given, int) and given != VERSION:
        version = f"{given} is not known here" if abs(given) < 1000 else "is not known here"
        line = f"version: {version}, this foreword reads version {VERSION}"
        raise RecipeError(where, [*problems, line])
    _apply_defaults(data)
    try:
        recipe = Recipe.model_validate(data)
    except ValidationError as error:
        lines = explain(error, Recipe)
        # pydantic leaves these out where a field of the section is wrong by itself.
        lines += [f"training: {rule}" for rule in training_rules(data.get("training"))]
        lines += section_rules(data)
        lines = [_with_quotes(line, overrides) for line in lines]
        raise RecipeError(where, dict.fromkeys([*problems, *lines])) from error
    problems += section_rules(data)
    if problems:
        raise RecipeError(where, problems)
    return recipe if folder is None else _resolve(recipe, folder)


def recipe_schema() -> dict[str, Any]:
    """JSON Schema of a recipe, the plain texts that stand for mappings (`PLAIN`) included."""
    schema = Recipe.model_json_schema()
    schema["required"].remove("task")  # a teacher may make one
    schema["anyOf"] = [{"required": ["task"]}, {"required": ["teacher"]}]
    for path, key in PLAIN.items():
        field = path.partition(".")[2]
        if not field:
            continue  # the fields of `Recipe` say it themselves
        for options in METHODS.values():
            method = schema["$defs"][options.__name__]["properties"]
            if field in method:
                method[field] = _or_plain(method[field], options.model_fields[field], key)
    return schema


def _or_plain(node: dict[str, Any], field: FieldInfo, key: str) -> dict[str, Any]:
    """The schema of one or more mappings, or of the texts that may stand for them alone."""
    mapping = node.get("discriminator", {}).get("mapping")
    texts = list(mapping) if mapping else [getattr(field.default, key)]
    alone = TypeAdapter[Any](Annotated[field.annotation, *field.metadata, field])  # type: ignore[arg-type]
    apart = ("default", "description", "title") if mapping else ("default",)
    rest = {name: node[name] for name in apart if name in node}
    whole = {name: value for name, value in node.items() if name not in rest}
    return {"anyOf": [whole, {"enum": [t for t in texts if _valid(alone, {key: t})]}], **rest}


def _valid(adapter: TypeAdapter[Any], value: Any) -> bool:
    try:
        adapter.validate_python(value)
    except ValidationError:
        return False
    return True


def _override(
    data: dict[str, Any], item: str, start: Path | None, say: Callable[[str], None]
) -> str | None:
    """Put an override in its place; what is wrong with it, if something is."""
    given = f"{argument('--set', 'override')} {_short(item)}"
    path, equals, text = item.partition("=")
    keys = path.split(".")
    if not equals or not all(keys):
        return f"{given}: expected key.path=value, such as training.steps=100"
    try:
        value = parse_yaml(text)
    except ValueError as error:
        return f"{given}: the value is not valid YAML ({error}); {_quoted(path, text)}"
    if isinstance(value, str) and " #" in text and " #" not in value:
        return f"{given}: YAML takes what stands after # for a comment; {_quoted(path, text)}"
    here = data
    for depth, key in enumerate(keys[:-1], start=1):
        inner = here.get(key)
        plain = PLAIN.get(".".join(keys[:depth]))
        if isinstance(inner, str) and plain is not None:
            inner = {plain: inner}
        if inner is None:
            inner = {}
        if not isinstance(inner, dict):
            return f"{given}: '{key}' is {kind(inner)}, so it has nothing named below it"
        here[key] = inner
        here = inner
    here[keys[-1]] = _resolved(path, value, start or Path.cwd())
    if value is not None:
        for field, old in _given_way(data, path):
            say(f"{given}: takes the place of {field}={_shown(old)}")
    return None


def _quoted(path: str, text: str) -> str:
    """How to give a text that YAML takes for something else."""
    item = f"{path}={json.dumps(_short(text), ensure_ascii=False)}"
    flag = f"{argument('--set', '')} {argument(shlex.quote(item), repr(item))}".strip()
    return f"a text that YAML takes for something else needs quotes of its own: {flag}"


def _with_quotes(line: str, overrides: Iterable[str]) -> str:
    """What is wrong, and how to quote it where an override was to give a text and did not."""
    for path, _, text in (item.partition("=") for item in overrides):
        if line.startswith(f"{path}: expected a text, found"):
            return f"{line}; {_quoted(path, text)}"
    return line


def _given_way(data: dict[str, Any], path: str) -> Iterable[tuple[str, Any]]:
    """Take out what excludes the field at `path`; the fields that were there, and their values."""
    for group in EXCLUSIVE:
        if not any(path == field or path.startswith(f"{field}.") for field in group):
            continue
        for field in group:
            *above, last = field.split(".")
            here: Any = data
            for key in above:
                here = here.get(key) if isinstance(here, Mapping) else None
            same = path == field or path.startswith(f"{field}.")
            if not same and isinstance(here, dict) and here.get(last) is not None:
                yield field, here.pop(last)


def _shown(value: Any) -> str:
    return _short(json.dumps(value, ensure_ascii=False, default=str))


def _short(text: str) -> str:
    return text if len(text) <= 200 else f"{text[:199]}…"


def _resolved(path: str, value: Any, folder: Path) -> Any:
    """A value, where it is a path made absolute; so are the paths in a mapping."""
    if isinstance(value, dict):
        return {key: _resolved(f"{path}.{key}", inner, folder) for key, inner in value.items()}
    if isinstance(value, list) and path == "teacher.texts":
        return [_resolved(path, inner, folder) for inner in value]
    if not isinstance(value, str) or not value or "\0" in value:
        return value  # refused later, with its field's name
    if path in ("backbone", "backbone.name"):
        return _resolve_backbone(value, folder)
    return _resolve_path(value, folder) if path in _PATHS else value


def _apply_defaults(data: dict[str, Any]) -> None:
    if isinstance(data.get("teacher"), dict) and isinstance(data.setdefault("task", {}), dict):
        made = {"format": "jsonl", "messages": MESSAGES}
        data["task"].setdefault("data", made)
    method = data.get("method")
    name = method.get("name") if isinstance(method, dict) else method
    options = METHODS.get(name) if isinstance(name, str) else None
    training = data.get("training", {})
    if options is None or not isinstance(training, dict):
        return
    defaults = dict(options.training_defaults)
    for given, other in (("steps", "epochs"), ("epochs", "steps")):
        if training.get(given) is not None:
            defaults.pop(other, None)
    data["training"] = {**defaults, **training}
    if not data["training"]:
        del data["training"]


def _resolve(recipe: Recipe, folder: Path) -> Recipe:
    def resolved(path: str) -> str:
        return _resolve_path(path, folder)

    name = _resolve_backbone(recipe.backbone.name, folder)
    backbone = recipe.backbone.model_copy(update={"name": name})
    task = recipe.task.model_copy(update={"data": recipe.task.data.moved(resolved)})
    method = recipe.method
    leads = {
        field: resolved(path)
        for field in method.init.paths
        if (path := getattr(method.init, field)) is not None
    }
    if leads:
        method = method.model_copy(update={"init": method.init.model_copy(update=leads)})
    changed: dict[str, Any] = {"backbone": backbone, "task": task, "method": method}
    if recipe.teacher is not None:
        changed["teacher"] = recipe.teacher.moved(resolved)
    return recipe.model_copy(update=changed)


def _resolve_backbone(name: str, folder: Path) -> str:
    """The path of a folder or a GGUF file if it is written as one or there is one; else `a/b` is a
    hub name, and so is `a/b/file.gguf`."""
    in_place = name.lower().endswith(GGUF) and name.count("/") < 2
    try:
        is_path = in_place or name.startswith((".", "~", "/")) or is_backbone(folder / name)
    except OSError:  # too long for a file's name
        is_path = False
    return _resolve_path(name, folder) if is_path else name


def _resolve_path(path: str, folder: Path) -> str:
    if path.startswith(("foreword/", "hub:")):
        return path
    try:
        expanded = Path(path).expanduser()
    except RuntimeError:  # `~name` where there is no such user
        expanded = Path(path)
    try:
        return str((folder / expanded).resolve())
    except (OSError, RuntimeError):  # a loop of links, refused where the file is read
        return str((folder / expanded).absolute())


def _copy(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _copy(inner) for key, inner in value.items()}
    return [_copy(inner) for inner in value] if isinstance(value, list) else value
