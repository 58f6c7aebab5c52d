"""A folder with one of everything that a verb reads, and situations in it, drawn by a seed."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import yaml
from command_line import Situation, check, run
from mutators import paths
from odd import ENCODINGS, NUMBERS, odd_text, odd_value, spoil

from conftest import loading_once, mini_tokens, tiny_model
from foreword.names import FORMATS

ROWS = [
    {"text": f"the {animal} is {colour}", "references": [f"a {colour} {animal}"], "label": label}
    for animal, colour, label in (
        ("otter", "grey", "a"),
        ("fox", "red", "b"),
        ("鲸鱼", "blue", "a"),
        ("żaba", "green", "b"),
        ("cat", "black", "a"),
    )
]
SENTENCES = "Ana B-PER\nsaw O\nRome B-LOC\n\nthe O\ncat O\nsleeps O\n\n" * 2
RUNS = {
    "texts": ({"name": "prefix-tuning", "length": 2}, {"format": "jsonl"}, "rows.jsonl"),
    "labels": (
        {"name": "p-tuning-v2", "length": 2},
        {"format": "csv", "label": "label"},
        "rows.csv",
    ),
    "tags": ({"name": "head-only"}, {"format": "conll"}, "rows.conll"),
    "lora": ({"name": "lora", "rank": 2}, {"format": "jsonl"}, "rows.jsonl"),
}
Draw = random.Random


def recipe(kind: str, backbone: Path) -> dict[str, Any]:
    """A recipe of one step."""
    method, data, file = RUNS[kind]
    task = {"data": {**data, "train": file, "dev": file, "test": file}}
    if kind != "tags":
        task["input"] = "{text} ->" if kind != "labels" else "{text}"
    if kind in ("texts", "lora"):
        task["target"] = " {reference}"
    return {
        "version": 1,
        "name": kind,
        "seed": 1,
        "backbone": str(backbone),
        "task": task,
        "method": method,
        "training": {"steps": 1, "batch_size": 2, "learning_rate": 1e-3, "betas": [0.9, 0.99]},
        "decoding": {"max_new_tokens": 3, "num_beams": 1},
    }


def make(folder: Path) -> Path:
    """The folder, with finished runs of four methods; nothing is wrong with it."""
    backbone = folder / "backbone"
    tiny_model("llama").save_pretrained(backbone)
    mini_tokens().tokenizer.save_pretrained(backbone)
    shutil.copytree(backbone, folder / "spare")
    world = folder / "world"
    world.mkdir()
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)
    table = "".join(f'"{row["text"]}",{row["label"]}\n' for row in ROWS)
    (world / "rows.jsonl").write_text(lines, encoding="utf-8")
    (world / "rows.csv").write_text(f"text,label\n{table}", encoding="utf-8")
    (world / "rows.conll").write_text(SENTENCES, encoding="utf-8")
    (world / "rows.txt").write_text("".join(f"{row['text']}\n" for row in ROWS), encoding="utf-8")
    (world / "refs.txt").write_text("".join(f"{row['text']} x\n\n" for row in ROWS), "utf-8")
    with cached(backbone), pytest.MonkeyPatch.context() as patch:
        patch.chdir(world)
        for kind in RUNS:
            file = world / f"{kind}.yaml"
            file.write_text(yaml.safe_dump(recipe(kind, backbone)), encoding="utf-8")
            ended = run(["train", file.name, "--out", kind])
            assert not ended.status, ended.err
        ended = run(["export", "peft", "texts", "peft"])
        assert not ended.status, ended.err
    return world


def cached(backbone: Path) -> AbstractContextManager[None]:
    """The sound backbone is loaded once."""
    return loading_once(lambda name: name == str(backbone))


def copied(world: Path, to: Path) -> Path:
    """A world to damage."""
    shutil.copytree(world, to / "world")
    return to / "world"


def try_seed(verb: str, seed: int, world: Path, to: Path) -> None:
    """Draw a situation of a verb and check how it ends; AssertionError names what was given."""
    rng = Draw(f"{verb} {seed}")
    here = copied(world, to)
    situation, what = VERBS[verb](rng, here)
    try:
        check(situation, here)
    except Exception as error:
        given = f"{verb} {seed}: {what}: {list(situation.arguments)!r}"
        raise AssertionError(f"{given}: {type(error).__name__}: {error}") from error


def _flags(rng: Draw, known: dict[str, Callable[[Draw], str]]) -> list[str]:
    chosen = rng.sample(sorted(known), rng.choice((0, 1, 1, 2)))
    return [word for flag in chosen for word in (flag, known[flag](rng))]


def _short(rng: Draw) -> str:
    value = rng.choice((1, 2, 3, *(n for n in NUMBERS if n != 10**400)))
    return str(value)


ON: dict[str, Callable[[Draw], str]] = {
    "--device": lambda rng: rng.choice(("cpu", "cuda", "mps", "tpu", odd_text(rng))),
    "--dtype": lambda rng: rng.choice(("float32", "float64", "bfloat16", "int8", odd_text(rng))),
    "--batch-size": _short,
    "--limit": _short,
}
ARTIFACT_FLAGS: dict[str, Callable[[Draw], str]] = {
    **ON,
    "--encoding": lambda rng: rng.choice((*ENCODINGS, "rot13", "idna", "base64", odd_text(rng))),
    "--quantization": lambda rng: rng.choice(("none", "{bits: 9}", "4", odd_text(rng))),
    "--device-map": lambda rng: rng.choice(("auto", "{'': tpu}", "{x: 1e308}", odd_text(rng))),
    "--backbone": odd_text,
}
READING = {"--format": lambda rng: rng.choice((*FORMATS, "text", odd_text(rng)))}
DECODING: dict[str, Callable[[Draw], str]] = {
    "--max-new-tokens": lambda rng: rng.choice((_short(rng), "4", "300")),
    "--num-beams": _short,
    "--temperature": _short,
    "--top-p": _short,
    "--seed": _short,
    "--stop": odd_text,
}


def _out(rng: Draw, here: Path) -> tuple[list[str], frozenset[str], bool]:
    """An `--out`, what it may make, and whether the machine may refuse it."""
    kind = rng.choice(("none", "none", "file", "nested", "name", "odd", "full"))
    if kind == "none":
        return [], frozenset(), False
    if kind == "odd":
        spoil(rng, here / "rows.txt", fifo=False)
        return ["--out", "rows.txt"], frozenset({"rows.txt", "rows.png", "nowhere"}), False
    if kind == "full":
        return ["--out", "/dev/full"], frozenset(), True
    name = {"file": "new.jsonl", "nested": "a/b/new.json"}.get(kind) or odd_text(rng)
    name = name.replace("..", "up").lstrip("/")
    made = str(Path(name.split("\0")[0])).split("/")[0]
    return (
        ["--out", name],
        frozenset({made, f"{made.rpartition('.')[0]}.png", f"{made}.png"}),
        False,
    )


def _inputs(rng: Draw, here: Path) -> tuple[list[str], bytes]:
    kind = rng.randrange(4)
    if kind == 0:
        return [w for _ in range(rng.choice((1, 2))) for w in ("--text", odd_text(rng))], b""
    file = here / f"rows.{rng.choice(('jsonl', 'csv', 'txt', 'conll'))}"
    if kind == 1:
        raw = file.read_bytes()
        spoil(rng, file, fifo=False)
        regular = file.is_file() and file.stat().st_size < 10**6
        return ["--input", "-"], file.read_bytes() if regular else raw
    if rng.random() < 0.8:
        spoil(rng, file, fifo=False)
    return ["--input", file.name], b""


def _spoilt_run(rng: Draw, here: Path, kind: str) -> str:
    files = [place for place in sorted((here / kind).rglob("*")) if place.is_file()]
    wanted = [f for f in files if f.suffix in (".json", ".jsonl", ".yaml", ".safetensors")]
    place = rng.choice(wanted)
    return f"{place.relative_to(here)} {spoil(rng, place)}"


def _answers(verb: str, rng: Draw, here: Path) -> tuple[Situation, str]:
    kind = rng.choice(("texts", "lora") if verb == "generate" else ("labels", "tags"))
    kind = rng.choice((kind, kind, kind, kind, *RUNS))
    what = _spoilt_run(rng, here, kind) if rng.random() < 0.3 else "inputs"
    given, stdin = _inputs(rng, here)
    flags = _flags(rng, {**ARTIFACT_FLAGS, **READING, **(DECODING if verb == "generate" else {})})
    out, makes, may_fail = _out(rng, here)
    sampled = ["--sample"] if verb == "generate" and rng.random() < 0.3 else []
    return Situation([verb, kind, *given, *flags, *sampled, *out], makes, stdin, may_fail), what


def _evaluate(rng: Draw, here: Path) -> tuple[Situation, str]:
    kind = rng.choice(("texts", "labels", "tags"))
    file = here / RUNS[kind][2]
    what = spoil(rng, file) if rng.random() < 0.7 else _spoilt_run(rng, here, kind)
    known = {**ARTIFACT_FLAGS, **READING, "--references": odd_text, "--group": odd_text}
    out, makes, may_fail = _out(rng, here)
    json_too = rng.choice(([], ["--json"]))
    arguments = ["evaluate", kind, "--data", file.name, *_flags(rng, known), *out, *json_too]
    return Situation(arguments, makes, b"", may_fail), what


def _train(rng: Draw, here: Path) -> tuple[Situation, str]:
    kind = rng.choice(tuple(RUNS))
    file = here / f"{kind}.yaml"
    known = {**ON, "--seed": _short, "--backbone": lambda rng: f"./{odd_text(rng)}"}
    damage = rng.choice(("recipe", "recipe", "data", "set", "set", "flags"))
    settings: list[str] = []
    if damage == "recipe":
        what = f"{file.name} {spoil(rng, file)}"
    elif damage == "data":
        what = f"{RUNS[kind][2]} {spoil(rng, here / RUNS[kind][2])}"
    else:
        what = damage
    if damage == "set":
        tree = yaml.safe_load(file.read_text(encoding="utf-8"))
        place = ".".join(map(str, rng.choice(list(paths(tree)))))
        value = rng.choice((json.dumps(odd_value(rng)), odd_text(rng)))[:100_000]
        settings = ["--set", f"{place}={value}" if rng.random() < 0.9 else odd_text(rng)]
    flags = _flags(rng, known) if damage == "flags" else []
    arguments = ["train", file.name, *settings, *flags]
    if damage in ("data", "flags") and rng.random() < 0.3:
        return Situation([*arguments, "--out", "new"], frozenset({"new"})), what
    return Situation([*arguments, "--dry-run", *rng.choice(([], ["--json"]))]), what


def _resume(rng: Draw, here: Path) -> tuple[Situation, str]:
    kind = rng.choice(tuple(RUNS))
    if rng.random() < 0.3:
        (here / kind / "metrics.json").unlink()
    what = _spoilt_run(rng, here, kind)
    again = rng.choice((f"{kind}.yaml", f"{kind}/recipe.yaml"))
    return Situation(["train", again, "--out", kind, "--resume"], frozenset({kind})), what


def _score(rng: Draw, here: Path) -> tuple[Situation, str]:
    files = ["rows.txt", "refs.txt"] if rng.random() < 0.6 else ["texts/answers.jsonl"]
    what = spoil(rng, here / rng.choice(files))
    named = rng.choice(("bleu", "bleu,nist,rouge_l,cider", "chrf,ter", odd_text(rng)))
    drawn = rng.choice(("10", "0", _short(rng))) if rng.random() < 0.8 else "-1"
    drawn = drawn if len(drawn) < 4 else "20"
    flags = ["--metrics", named, "--samples", drawn, *rng.choice(([], ["--json"]))]
    return Situation(["score", *files, *flags]), what


def _look(rng: Draw, here: Path) -> tuple[Situation, str]:
    kind = rng.choice(tuple(RUNS))
    what = _spoilt_run(rng, here, kind)
    arguments = rng.choice((["ls", "."], ["ls", kind], ["show", kind], ["show", odd_text(rng)]))
    return Situation([*arguments, *rng.choice(([], ["--json"]))]), what


def _new_folder(rng: Draw, here: Path) -> tuple[str, frozenset[str], bool]:
    if rng.random() < 0.7:
        return "new", frozenset({"new"}), False
    spoil(rng, here / "rows.txt", fifo=False)
    name = rng.choice(("rows.txt", "a/b", odd_text(rng).replace("..", "up").lstrip("/")))
    return name, frozenset({name.split("/")[0], "nowhere"}), False


def _import(rng: Draw, here: Path) -> tuple[Situation, str]:
    files = sorted(place for place in (here / "peft").iterdir() if place.suffix != ".md")
    what = spoil(rng, rng.choice(files)) if rng.random() < 0.8 else "flags"
    known = {**ON, "--input": odd_text, "--target": odd_text, "--labels": odd_text}
    known = {name: flag for name, flag in known.items() if name not in ("--batch-size", "--limit")}
    out, makes, may_fail = _new_folder(rng, here)
    arguments = ["import", "peft", "peft", "--out", out, *_flags(rng, known)]
    return Situation(arguments, makes, b"", may_fail), what


def _export(rng: Draw, here: Path) -> tuple[Situation, str]:
    kind = rng.choice(tuple(RUNS))
    what = _spoilt_run(rng, here, kind) if rng.random() < 0.8 else "flags"
    out, makes, may_fail = _new_folder(rng, here)
    to = rng.choice(("peft", "peft", "model"))
    return Situation(["export", to, kind, out], makes, b"", may_fail), what


def _backbone(rng: Draw, here: Path) -> tuple[Situation, str]:
    stated = yaml.safe_load((here / "texts.yaml").read_text(encoding="utf-8"))
    sound = Path(stated["backbone"]).parent / "spare"
    spare = Path(shutil.copytree(sound, here / "spare"))
    place = rng.choice([place for place in sorted(spare.iterdir()) if place.is_file()])
    what = f"{place.name} {spoil(rng, place)}"
    ask = ["generate", "texts", "--text", "a fox", "--backbone", "spare"]
    ask += rng.choice(([], ["--other-backbone"]))
    dry = ["train", "texts.yaml", "--backbone", "./spare", "--dry-run"]
    return Situation(rng.choice((ask, dry))), what


VERBS: dict[str, Callable[[Draw, Path], tuple[Situation, str]]] = {
    "generate": lambda rng, here: _answers("generate", rng, here),
    "predict": lambda rng, here: _answers("predict", rng, here),
    "evaluate": _evaluate,
    "train": _train,
    "resume": _resume,
    "score": _score,
    "look": _look,
    "import": _import,
    "export": _export,
    "backbone": _backbone,
}
