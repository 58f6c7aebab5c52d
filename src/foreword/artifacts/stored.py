"""The tensor files of an artifact, read and held against what the manifest says of them.

That concerns its sizes, too, before a module of such a size is built: a few bytes of
`foreword.json` would otherwise ask for gigabytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from foreword.artifacts.manifest import DELTA, HEAD, MANIFEST, TENSORS, Manifest
from foreword.common import files, opening
from foreword.errors import ArtifactError
from foreword.methods.axes import Bottlenecks, LowRank

Tensors = dict[str, Tensor]
"""By their names; they lie in the mapped file until they are read."""


def read_parts(folder: Path, manifest: Manifest) -> dict[str, Tensors]:
    """The tensors of each file of an artifact; none of a file that it does not have.

    Their bytes are checked against the manifest's hashes, and the sizes that the manifest states
    against their shapes.

    Raises:
        ArtifactError: a file is damaged or stored in a type that holds no prompt, or a tensor of a
            stated size is not there.
    """
    hashes = {
        TENSORS: manifest.prompt_sha256,
        HEAD: manifest.head_sha256,
        DELTA: manifest.delta_sha256,
    }
    parts = {
        name: {} if sha256 is None else read_checked(folder / name, sha256)
        for name, sha256 in hashes.items()
    }
    for claim in _claims(manifest):
        claim.check(folder, parts[claim.file])
    return parts


def read_checked(file: Path, sha256: str) -> dict[str, Tensor]:
    """Tensors of a file whose bytes have a known hash.

    Raises:
        ArtifactError: it is damaged, is no regular file of its folder, or is stored in a type that
            holds no prompt.
    """
    try:
        opening.check_regular(file, within=file.parent)
        with safe_open(file, framework="pt"):
            pass  # what is no safetensors, or longer than its header says, is not hashed to its end
        actual = files.sha256(file)
        if actual != sha256:
            raise ArtifactError(
                f"{file}: is damaged: its sha256 is {actual[:12]}…, {MANIFEST} says {sha256[:12]}…"
            )
        tensors = load_file(file)
    except (OSError, SafetensorError, ValueError, KeyError, OverflowError) as error:
        raise _unreadable(file, error) from error
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and tensor.element_size() < 2:
            raise ArtifactError(
                f"{file}: {name} is stored as {tensor.dtype}; expected float16, bfloat16, float32 "
                "or float64"
            )
    return tensors


@dataclass(frozen=True)
class _Claim:
    """A size in the manifest, and the tensors that must have it.

    Attributes:
        field: where it stands.
        value: what it says.
        file: the tensors' file.
        endings: of the tensors' names.
        axis: which of their sizes it is.
        size: what that is for a tensor of a shape; `value` itself if not given.
    """

    field: str
    value: float
    file: str
    endings: tuple[str, ...]
    axis: int
    size: Callable[[Sequence[int]], int] | None = None

    def check(self, folder: Path, stored: Tensors) -> None:
        says = f"{folder / MANIFEST}: {self.field} is {self.value:,}"
        meant = {n: tuple(t.shape) for n, t in stored.items() if n.endswith(self.endings)}
        if not meant:
            raise ArtifactError(f"{says}, but {self.file} holds no tensor *{self.endings[0]}")
        for name, shape in meant.items():
            if len(shape) <= max(self.axis, 0 if self.size is None else 1):
                raise ArtifactError(f"{says}, but {self.file}: {name} has the shape {list(shape)}")
            want = self.value if self.size is None else self.size(shape)
            if shape[self.axis] != want:
                raise ArtifactError(
                    f"{says}, but {self.file}: {name} has the shape {list(shape)}; expected "
                    f"{want:,} in place of {shape[self.axis]:,}"
                )


def _claims(manifest: Manifest) -> Iterator[_Claim]:
    method, task = manifest.method, manifest.task
    if method.length:
        for field, stated, endings, axis in method.injection.sizes(method.length):
            yield _Claim(field, stated, TENSORS, endings, axis)
    moves, inside = method.moves, "method" if method.name in ("lora", "adapter") else "method.delta"
    if isinstance(moves, LowRank):
        yield _Claim(f"{inside}.rank", moves.rank, DELTA, (".lora_A.weight",), 0)
        yield _Claim(f"{inside}.rank", moves.rank, DELTA, (".lora_B.weight",), 1)
    elif isinstance(moves, Bottlenecks):
        down = (".adapter.down.weight",)
        if moves.size is not None:
            yield _Claim(f"{inside}.size", moves.size, DELTA, down, 0)
        else:
            share = moves.reduction
            size: Callable[[Sequence[int]], int] = lambda shape: max(1, round(shape[1] / share))  # noqa: E731
            yield _Claim(f"{inside}.reduction", share, DELTA, down, 0, size)
    if task.has_head:
        last = "layers.0.weight"
        if task.head.hidden is not None:
            yield _Claim("task.head.hidden", task.head.hidden, HEAD, (last,), 0)
            last = "layers.2.weight"
        if task.labels:
            yield _Claim("the number of task.labels", len(task.labels), HEAD, (last,), 0)


def _unreadable(file: Path, error: Exception) -> ArtifactError:
    if isinstance(error, OSError):
        return ArtifactError(f"{file}: cannot be read: {error.strerror or error}")
    return ArtifactError(f"{file}: cannot be read, it is damaged: {str(error)[:300]}")
