"""`foreword ls`, `show` and `recipe-schema`: what is here, what it is, what a recipe may say."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from foreword.cli import options as o
from foreword.cli.output import emit_json, say

if TYPE_CHECKING:
    from foreword.artifacts.manifest import Manifest
    from foreword.recipe import TaskId


def ls(
    folder: Annotated[Path, typer.Argument(help="Where to look for artifacts.")] = Path("runs"),
    sort: Annotated[
        str | None, typer.Option("--sort", metavar="METRIC", help="The best by it first.")
    ] = None,
    as_json: o.JsonOption = False,
    plugin: o.PluginOption = None,  # noqa: ARG001
) -> None:
    """List artifacts and unfinished runs below a folder, and what comes with foreword."""
    from foreword.artifacts.manifest import MANIFEST, read_manifest, size_in_bytes
    from foreword.errors import ArtifactError

    artifacts: list[dict[str, Any]] = []
    for file in sorted(folder.glob(f"**/{MANIFEST}")):
        entry: dict[str, Any] = {"artifact": str(file.parent), "bytes": 0}
        try:
            entry["bytes"] = size_in_bytes(file.parent)
            manifest = read_manifest(file.parent)
        except (ArtifactError, OSError) as error:
            artifacts.append({**entry, "error": str(error)})
            continue
        scores = manifest.metrics.get("all", {})
        artifacts.append(
            {
                **entry,
                "method": manifest.method.name,
                "length": manifest.method.length,
                "backbone": manifest.backbone.name,
                "scores": scores,
            }
        )
    if sort is not None:
        artifacts = _sorted(artifacts, sort)
    bundled, unfinished = _bundled(), _unfinished(folder)
    if as_json:
        emit_json({"artifacts": artifacts, "unfinished": unfinished, **bundled})
        return
    _print_list(folder, artifacts, bundled)
    for run in unfinished:
        of = f" of {run['steps']}" if run.get("steps") else ""
        state = run.get("error") or f"{run['state']} at step {run['step']}{of} ({run['method']})"
        say(f"unfinished {run['folder']}: {state}")


def _sorted(artifacts: list[dict[str, Any]], metric: str) -> list[dict[str, Any]]:
    """The best by a metric first, and last those that have no value of it."""
    from foreword.errors import UserError
    from foreword.names import METRICS

    measured = {name for entry in artifacts for name in entry.get("scores", {})}
    if metric not in METRICS or (artifacts and metric not in measured):
        listed = ", ".join(name for name in METRICS if name in measured) or ", ".join(METRICS)
        raise UserError(f"--sort: {metric!r} was not measured; choose among {listed}")
    sign = -1 if METRICS[metric].better == "high" else 1

    def place(entry: dict[str, Any]) -> float:
        value = entry.get("scores", {}).get(metric)
        return float("inf") if value is None else sign * float(value)

    return sorted(artifacts, key=place)


def _unfinished(folder: Path) -> list[dict[str, Any]]:
    """The runs below a folder that have no figures yet."""
    from foreword.common.run_files import RECIPE, is_finished
    from foreword.errors import UserError
    from foreword.runs.record import read_record

    records: list[dict[str, Any]] = []
    for file in sorted(folder.glob(f"**/{RECIPE}")):
        run = file.parent
        if is_finished(run):
            continue
        try:
            records.append(read_record(run).model_dump(mode="json", exclude={"metrics"}))
        except UserError as error:
            records.append({"folder": str(run), "error": str(error)})
    return records


def _bundled() -> dict[str, list[str]]:
    root = Path(__file__).parent.parent / "bundled"
    return {
        "backbones": [f"foreword/{f.parent.name}" for f in sorted(root.glob("*/config.json"))],
        "data": [f"foreword/{f.parent.name}/{f.stem}" for f in sorted(root.glob("*/*.jsonl"))],
    }


def _print_list(
    folder: Path, artifacts: list[dict[str, Any]], bundled: dict[str, list[str]]
) -> None:
    from rich import box
    from rich.table import Table

    from foreword.cli.tables import figure, print_table, title_of

    if artifacts:
        table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
        for column in ("artifact", "method", "tokens", "backbone", "scores", "kB"):
            number = column in ("tokens", "kB")  # never broken, whatever else is
            justify: Literal["left", "right"] = "right" if number else "left"
            table.add_column(column, justify=justify, overflow="fold", no_wrap=number)
        for entry in artifacts:
            scores = ", ".join(
                f"{title_of(name).split(' (')[0]} {figure(name, value)}"
                for name, value in entry.get("scores", {}).items()
                if value is not None
            )
            table.add_row(
                entry["artifact"],
                entry.get("method", "damaged"),
                str(entry.get("length", "")),
                entry.get("backbone", ""),
                scores,
                f"{entry['bytes'] / 1000:.0f}",
            )
        print_table(table)
    else:
        say(f"no artifacts below {folder}")
    for what, names in bundled.items():
        say(f"bundled {what}: {', '.join(names)}")


@o.with_flags
def show(
    artifact: o.ArtifactArgument,
    words: Annotated[
        int,
        typer.Option(
            "--words",
            min=0,
            max=1000,
            help="So many words nearest to each virtual token of the input; loads the backbone.",
        ),
    ] = 0,
    as_json: o.JsonOption = False,
    *,
    on: o.ArtifactFlags,
) -> None:
    """Say what an artifact is: method, backbone, task, data, figures."""
    from foreword.artifacts.card import quantised_as, said_of_divergence, said_of_trained
    from foreword.artifacts.manifest import TEACHER, artifact_folder, read_manifest, size_in_bytes

    folder = artifact_folder(artifact)
    manifest = read_manifest(folder)
    near = _near(folder, words, on) if words else None
    if as_json:
        words_told = {} if near is None else {"nearest_words": near}
        emit_json({**manifest.model_dump(mode="json"), **words_told})
        return
    method, backbone = manifest.method, manifest.backbone
    trained = said_of_trained(manifest.trained_parameters, manifest.trained_share)
    far = said_of_divergence(manifest)
    lines = {
        "name": manifest.name,
        "method": f"{method.name}, {method.length} virtual tokens, positions {method.positions}, "
        f"trained as {method.reparameterization.kind}",
        **_moved(manifest),
        **({"trained": trained} if trained else {}),
        "backbone": f"{backbone.name} ({backbone.family}, {backbone.dtype}), sha256 "
        f"{backbone.sha256[:12]}…"
        f"{f', attention {backbone.attention}' if backbone.attention else ''}"
        f"{f', {quantised_as(backbone.quantization)}' if backbone.quantization else ''}",
        **_asked(folder, manifest),
        "data": ", ".join(f"{split} {_named(entry)}" for split, entry in manifest.data.items()),
        **({"distance": far} if far else {}),
        "seed": str(manifest.seed),
        "size": f"{size_in_bytes(folder) / 1000:.0f} kB",
        "made with": ", ".join(f"{k} {v}" for k, v in manifest.versions.items()),
    }
    for key, value in lines.items():
        say(f"{key:<10} {value}")
    if scores := {name: some for name, some in manifest.metrics.items() if name != TEACHER}:
        from foreword.cli.tables import print_table, score_table

        print_table(score_table("", {method.name: scores}))
    for site, tokens in (near or {}).items():
        say(f"nearest words of the virtual tokens in the input ({site}; cosine)")
        for number, token in enumerate(tokens):
            nearest = ", ".join(f"{word['word']} {word['cosine']:.2f}" for word in token)
            say(f"{number + 1:>4}  {nearest}")


def _near(folder: Path, words: int, on: o.ArtifactFlags) -> dict[str, Any]:
    """The nearest words of the virtual tokens that enter the input, by site."""
    from dataclasses import asdict

    from foreword.artifacts.nearest import nearest_words
    from foreword.cli.loading import load_artifact
    from foreword.errors import UserError

    near = nearest_words(folder, load_artifact(folder, on).model.backbone, words=words)
    if not near:
        raise UserError(f"{folder}: no virtual tokens of its enter the input, as words do")
    return {
        site: [[asdict(word) for word in token] for token in tokens]
        for site, tokens in near.items()
    }


def _named(entry: Mapping[str, Any]) -> str:
    """What a data file is called; the first artifacts hold its whole path."""
    from foreword.data.sources import bare_name

    return str(entry.get("name") or bare_name(str(entry.get("path"))))


def _moved(manifest: Manifest) -> dict[str, str]:
    """What of the backbone moved, where something did."""
    options_given = manifest.method.moves.model_dump(exclude_none=True)
    kind = options_given.pop("kind")
    options = ", ".join(f"{name}={value}" for name, value in options_given.items())
    return {} if kind == "none" else {"delta": f"{kind}{f' ({options})' if options else ''}"}


def _asked(folder: Path, manifest: Manifest) -> dict[str, str]:
    """What goes in, and what comes out."""
    from foreword.recipe import written_input

    task = manifest.task
    if task.answer == "span":
        none = ", or that there is none" if task.may_be_none else ""
        return {"input": "question, context", "answers": f"a span of the context{none}"}
    if task.answer == "tags":
        return {"input": "words", "answers": f"a tag for each word: {', '.join(task.labels)}"}
    chosen = manifest.decoding.model_dump(exclude_defaults=True)
    decoding = ", ".join(f"{name}={value}" for name, value in chosen.items()) or "greedy"
    rendered = {} if task.chat_template is None else {"chat template": task.chat_template}
    if task.chat_options:
        options = ", ".join(f"{name}={value}" for name, value in task.chat_options.items())
        rendered["chat options"] = options
    if task.answer == "turns":
        tools = "" if task.tools is None else f", and what it may call in '{task.tools}'"
        column = f"a conversation in the column '{task.messages}'{tools}"
        answers = "the assistant's next turn"
        return {"input": column, **rendered, "answers": answers, "decoding": decoding}
    texts = {"input": repr(written_input(task.input)), **rendered}
    if task.answer == "vector":
        texts["paired"] = repr(task.second or f"{{{task.paired}}}")
    elif task.second is not None:
        texts["second"] = repr(task.second)
    soft = manifest.axes.get("placement") == "in_text"
    if soft:
        texts["soft"] = f"{manifest.method.length} virtual tokens stand in the slots of the input"
    if task.answer == "word":
        return {**texts, "answers": "the word that is missing at {mask}"}
    if task.answer == "choice":
        return {**texts, "answers": f"{_chosen(task)}"}
    if task.answer == "vector":
        length = " of length 1" if task.vector.normalise else ""
        return {**texts, "answers": f"a vector{length} ({task.vector.pooling} of the last states)"}
    if task.verbalizer is not None:
        prior = {}
        if manifest.head_sha256 is not None:
            from foreword.artifacts.artifact import read_prior

            prior = read_prior(folder, manifest)
        for label in task.labels:
            words = ", ".join(map(repr, task.verbalizer.words.get(label, ())))
            share = f", prior {prior[label]:.1%} taken off" if label in prior else ""
            texts[f"word {label}"] = f"{words}{share}"
        return {**texts, "answers": f"a label: {', '.join(task.labels)}"}
    if task.answer == "label":
        return {**texts, "answers": f"a label: {', '.join(task.labels)}"}
    if task.answer == "labels":
        lines = (f"{label} (from {task.thresholds.get(label, 0.5):.3g})" for label in task.labels)
        return {**texts, "answers": f"any of the labels {', '.join(lines)}"}
    if task.answer == "number":
        scale = f"a head tells it as {task.deviation:.4g} times its output and {task.mean:.4g}"
        plain = (task.mean, task.deviation) == (0.0, 1.0)
        return {**texts, "answers": f"a number{'' if plain else f' ({scale})'}"}
    return {**texts, "target": repr(task.target), "decoding": decoding}


def _chosen(task: TaskId) -> str:
    """How one of a row's choices is chosen."""
    columns = task.choices if isinstance(task.choices, tuple) else (task.choices or "choices",)
    which = "one" if task.choice.select == "one" else "any number"
    by = "the head's number" if task.has_head else "likelihood after the input"
    if task.verbalizer is not None:
        by = " or ".join(f"'{word}'" for words in task.verbalizer.words.values() for word in words)
    elif task.choice.normalise != "none" and not task.has_head:
        by += f", divided by its {task.choice.normalise}"
    least = task.thresholds.get("right")
    threshold = "" if least is None else f", from a probability of {least:.3g}"
    return f"{which} of a row's own choices ({', '.join(columns)}), by {by}{threshold}"


def recipe_schema(plugin: o.PluginOption = None) -> None:  # noqa: ARG001
    """Print the JSON Schema of a recipe."""
    from foreword.recipe import recipe_schema as schema

    emit_json(schema())
