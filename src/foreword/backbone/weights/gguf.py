"""Backbones in llama.cpp's format, GGUF: one file with weights, tokenizer and chat template.

transformers unpacks such a file in 20 to 75 seconds, so what it made is kept as a plain folder:
beside the file, else in the user's cache folder, else for this process alone. Backbones are loaded
from that folder always, so that they are the same with and without what was kept.

What identifies the backbone is the file's own tensors as they are stored: names, types, shapes and
bytes. A second quantisation of the same model is thus another backbone.
"""

from __future__ import annotations

import atexit
import hashlib
import json
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoConfig, AutoTokenizer
from transformers.utils import cached_file

from foreword.backbone.weights import hashing
from foreword.backbone.weights.rope import with_own_frequencies
from foreword.common import files, opening
from foreword.common.cached import cache_folder, recall, remember
from foreword.common.json_text import parse_json
from foreword.common.paths import GGUF
from foreword.errors import BackboneError, ForewordError

HASHES = "gguf-hashes.json"
SOURCE = "source.json"
"""In a kept folder: what it was made of."""
_MAGIC = b"GGUF"
_PLAIN = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
_for_now: dict[str, Path] = {}
"""Folders that last as long as this process, by what they were made of."""


@dataclass(frozen=True)
class Source:
    """What a kept folder was made of; where any of it differs, the folder is made anew.

    Attributes:
        file: sha256 of the file's bytes.
        tensors: sha256 over its tensors as they are stored.
        dtype: what their numbers were written as.
        types: the names of the types that they are stored in, the most frequent first.
        weights: sha256 over the tensors that were written.
        transformers: the version that unpacked them.
    """

    file: str
    tensors: str
    dtype: str
    types: tuple[str, ...]
    weights: str
    transformers: str


@dataclass(frozen=True)
class Unpacked:
    """A GGUF file as a plain transformers folder.

    Attributes:
        folder: config, weights and tokenizer.
        source: what they were made of.
    """

    folder: Path
    source: Source

    def note(self, name: str) -> str:
        """What there is to know before a training on it."""
        stored = ", ".join(self.source.types)
        return (
            f"backbone '{name}' is a GGUF file of {stored}: its weights are unpacked to "
            f"{self.source.dtype}, and whatever is trained is written as safetensors, never as GGUF"
        )


def is_gguf(name: str | Path) -> bool:
    """Whether a backbone's name is that of a GGUF file."""
    return str(name).lower().endswith(GGUF)


def file_of(name: str, revision: str | None, *, local_files_only: bool) -> Path:
    """The file that a name stands for: a path, or `owner/repository/file.gguf` on the hub.

    Raises:
        BackboneError: there is none.
    """
    path = Path(name).expanduser()
    if path.is_file():
        return path
    parts = name.split("/")
    if path.exists() or name.startswith((".", "~", "/")) or len(parts) < 3:
        what = "is no regular file" if path.exists() else "there is no such file"
        raise BackboneError(
            f"backbone '{name}': {what}; give the path of a GGUF file, or "
            "owner/repository/file.gguf of the hub"
        )
    try:
        place = cached_file(
            "/".join(parts[:2]),
            "/".join(parts[2:]),
            revision=revision,
            local_files_only=local_files_only,
        )
    except (OSError, ValueError) as error:
        raise BackboneError(f"backbone '{name}': {str(error).splitlines()[0]}") from error
    if place is None:
        raise BackboneError(f"backbone '{name}': the hub's repository has no such file")
    return Path(place)


def check_folder(name: str, folder: Path) -> None:
    """Raise BackboneError where a folder has GGUF files and no model of transformers'."""
    if not folder.is_dir() or (folder / "config.json").exists():
        return
    held = sorted(file.name for file in folder.glob(f"*{GGUF}"))
    if held:
        raise BackboneError(
            f"backbone '{name}': the folder has GGUF files; name one of them: "
            f"{', '.join(str(folder / file) for file in held[:3])}"
        )


def unpacked(name: str, file: Path, dtype: str, class_of: Callable[[Any], Any]) -> Unpacked:
    """The plain folder of a GGUF file, from what was kept or made now.

    Args:
        name: the backbone's, for messages.
        file: the GGUF file.
        dtype: what it will be loaded as; "auto" is the file's own type where it has plain numbers
            alone, and else float32.
        class_of: from transformers' config to its class of the model.

    Raises:
        BackboneError: it is no GGUF file, or one that transformers cannot read or reads wrongly; or
            the package that reads such files is missing.
    """
    _check_begin(name, file)
    digest = _digest(file)
    wanted = "float32" if dtype == "float64" else dtype
    for kept in (wanted, "float32"):
        for place in _places(file, digest, kept):
            source = _source(place)
            if source and source.file == digest and _is_current(place, source):
                return Unpacked(place, source)
    for key in (f"{digest} {wanted}", f"{digest} float32"):
        if key in _for_now and (source := _source(_for_now[key])) is not None:
            return Unpacked(_for_now[key], source)
    reading = _Reading(name, file, digest, wanted, class_of)
    return _keep(reading, wanted)


def said_by(config: Any) -> str | None:
    """The GGUF file from which transformers itself loaded a model, as its config has it."""
    own = getattr(config, "quantization_config", None)
    plain = own if isinstance(own, Mapping) else getattr(own, "__dict__", {})
    if str(plain.get("quant_method", "")).rpartition(".")[2].lower() != "gguf":
        return None
    stated = plain.get("gguf_file")
    if not stated:
        return None
    return str(Path(str(getattr(config, "name_or_path", "") or "."), stated))


def stored_sha256(folder: Path) -> str:
    """What identifies the backbone of a folder: where it was unpacked from a GGUF file, the tensors
    of that."""
    source = _source(folder)
    return hashing.hash_folder(folder) if source is None else source.tensors


class _Reading:
    """A GGUF file that is read for the first time."""

    def __init__(
        self, name: str, file: Path, digest: str, dtype: str, class_of: Callable[[Any], Any]
    ) -> None:
        if find_spec("gguf") is None:
            raise BackboneError(
                f"backbone '{name}': reading GGUF files needs the package gguf; "
                "pip install 'foreword[gguf]'"
            )
        from gguf import GGUFReader

        self.name, self.file, self.digest, self.class_of = name, file, digest, class_of
        try:
            self.reader = GGUFReader(str(file))
        except Exception as error:  # it checks little, so that anything may be raised
            raise self._wrong(
                "its GGUF file is damaged, or was cut off while it was copied; fetch it again "
                f"({_short(error)})"
            ) from error
        self._check()
        kinds = [tensor.tensor_type.name for tensor in self.reader.tensors]
        self.types = tuple(sorted(set(kinds), key=lambda kind: (-kinds.count(kind), kind)))
        self.dtype = self._own_type() if dtype == "auto" else dtype

    def _own_type(self) -> str:
        if not set(self.types) <= set(_PLAIN):
            return "float32"
        return next((_PLAIN[one] for one in ("BF16", "F16") if one in self.types), "float32")

    def stated(self, field: str) -> Any:
        """A value of the file's metadata; None where it has none."""
        entry = self.reader.get_field(field)
        return None if entry is None else entry.contents()

    def _wrong(self, what: str) -> BackboneError:
        return BackboneError(f"backbone '{self.name}': {what}")

    def _check(self) -> None:
        parts = self.stated("split.count")
        if parts and int(parts) > 1:
            raise self._wrong(
                f"is one of {int(parts)} parts; put them together with llama-gguf-split"
            )
        kind = self.stated("general.type")
        if kind not in (None, "model"):
            raise self._wrong(f"holds no model ('{kind}'); name the model's own GGUF file")
        family = self.stated("general.architecture")
        scaling = self.stated(f"{family}.rope.scaling.type")
        if scaling not in (None, "none") and family != "gpt-oss":
            raise self._wrong(
                f"its rotary positions are scaled ('{scaling}'), which transformers does not read "
                "from GGUF, so that its answers would be wrong; use the model's safetensors"
            )

    def tensors(self) -> str:
        """sha256 over the stored tensors, in the order of names."""
        digest = hashlib.sha256()
        for tensor in sorted(self.reader.tensors, key=lambda one: str(one.name)):
            shape = [int(size) for size in tensor.shape]
            digest.update(f"{tensor.name}\0{tensor.tensor_type.name}\0{shape}\0".encode())
            digest.update(tensor.data.tobytes())
        return digest.hexdigest()

    def write(self, folder: Path) -> Source:
        """Unpack everything into a folder."""
        where = {"gguf_file": self.file.name}
        parent = str(self.file.absolute().parent)
        try:
            config = AutoConfig.from_pretrained(parent, **where)
            frequencies = [
                one.data for one in self.reader.tensors if one.name == "rope_freqs.weight"
            ]
            if frequencies:
                config = with_own_frequencies(self.name, config, frequencies[0])
            tokenizer = AutoTokenizer.from_pretrained(parent, **where)
            model, report = self.class_of(config).from_pretrained(
                parent,
                config=config,
                dtype=getattr(torch, self.dtype),
                output_loading_info=True,
                **where,
                **_dense(),
            )
        except BackboneError:
            raise
        except Exception as error:  # of transformers, whose readers check little
            raise self._unreadable(error) from error
        missing = sorted(report.get("missing_keys") or ())
        if missing:
            raise self._wrong(
                f"lacks weights that the model needs ({len(missing)}: {', '.join(missing[:3])})"
            )
        for owner in (model, model.config):
            vars(owner).pop("quantization_config", None)  # the weights are plain by now
        vars(model).pop("hf_quantizer", None)
        model.config.name_or_path = ""
        if not model.config.architectures:
            model.config.architectures = [type(model).__name__]
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        source = Source(
            self.digest,
            self.tensors(),
            self.dtype,
            self.types,
            hashing.hash_folder(folder),
            version("transformers"),
        )
        for weights in folder.glob("*.safetensors"):
            weights.chmod(0o644)
        text = json.dumps(asdict(source), indent=2)
        (folder / SOURCE).write_text(text + "\n", encoding="utf-8")
        return source

    def _unreadable(self, error: Exception) -> BackboneError:
        family = self.stated("general.architecture")
        if "not supported" in str(error) or "Unknown gguf" in str(error):
            from transformers.modeling_gguf_pytorch_utils import GGUF_SUPPORTED_ARCHITECTURES

            known = ", ".join(sorted(GGUF_SUPPORTED_ARCHITECTURES))
            return self._wrong(
                f"transformers {version('transformers')} reads no GGUF of the architecture "
                f"'{family}'; it reads {known}"
            )
        return self._wrong(f"transformers cannot read this GGUF ('{family}'): {_short(error)}")


def _dense() -> dict[str, Any]:
    """That weights are unpacked, for versions of transformers that could keep them as they are."""
    config = getattr(transformers, "GgufConfig", None)
    return {} if config is None else {"quantization_config": config(dequantize=True)}


def _keep(reading: _Reading, wanted: str) -> Unpacked:
    """Unpack a file into the first place that can be written."""
    refused = []
    for place in _places(reading.file, reading.digest, wanted):
        if (place / SOURCE).is_file():
            shutil.rmtree(place, ignore_errors=True)  # what was kept of another file
        try:
            with files.new_folder(place) as temporary:
                source = reading.write(temporary)
        except BackboneError:
            raise
        except (ForewordError, OSError) as error:
            source_now = _source(place)
            if source_now is not None and source_now.file == reading.digest:
                return Unpacked(place, source_now)  # another process was faster
            refused.append(str(error))
            continue
        _tell(f"{Unpacked(place, source).note(reading.name)}; kept in {place}")
        return Unpacked(place, source)
    temporary = Path(tempfile.mkdtemp(prefix="foreword-gguf-"))
    atexit.register(shutil.rmtree, temporary, ignore_errors=True)
    try:
        source = reading.write(temporary)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    _for_now[f"{reading.digest} {wanted}"] = temporary
    _tell(
        f"{Unpacked(temporary, source).note(reading.name)}; that is done anew at each start, for "
        f"it can be kept nowhere ({'; '.join(refused)}); FOREWORD_CACHE names a folder for it"
    )
    return Unpacked(temporary, source)


def _tell(text: str) -> None:
    warnings.warn(text, stacklevel=5)


def _places(file: Path, digest: str, dtype: str) -> Iterator[Path]:
    """Where an unpacked file may be kept: beside it, unless it lies in the hub's cache, and in the
    user's cache folder."""
    if "snapshots" not in file.parts:
        yield file.absolute().with_name(f"{file.name}.foreword-{dtype}")
    yield cache_folder() / "gguf" / f"{digest[:16]}-{dtype}"


def _source(folder: Path) -> Source | None:
    try:
        stated = parse_json(opening.read_text(folder / SOURCE))
        return Source(**{**stated, "types": tuple(stated["types"])})
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _is_current(folder: Path, source: Source) -> bool:
    """Whether a kept folder is of this transformers and has the weights that were written."""
    if source.transformers != version("transformers"):
        return False
    try:
        return hashing.hash_folder(folder) == source.weights
    except (BackboneError, OSError):
        return False


def _check_begin(name: str, file: Path) -> None:
    try:
        with opening.open_regular(file) as handle:
            begin = handle.read(4)
    except OSError as error:
        raise BackboneError(
            f"backbone '{name}': cannot be read: {error.strerror or error}"
        ) from error
    if begin != _MAGIC:
        raise BackboneError(
            f"backbone '{name}': is no GGUF file (begins with {begin!r}, not {_MAGIC!r})"
        )


def _digest(file: Path) -> str:
    """sha256 of the file's bytes, remembered by its path, size and time."""
    status = file.stat()
    key = f"{file.resolve()} {status.st_size} {status.st_mtime_ns}"
    loaded = recall(HASHES)
    known = loaded if isinstance(loaded, dict) else {}
    if key not in known:
        known = {**known, key: files.sha256(file)}
        remember(HASHES, known)
    return str(known[key])


def _short(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__
