"""Memory that is full ends in one line of advice and exit status 1."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from foreword.cli import main
from foreword.common.memory import advice, ran_out
from foreword.errors import BackboneError, RunError

QUICKSTART = Path(__file__).resolve().parents[2] / "recipes" / "quickstart.yaml"
TOO_MUCH = 2**50


def really() -> None:
    """What the CPU's allocator itself says."""
    torch.empty(TOO_MUCH, dtype=torch.int8)


def on_a_gpu() -> None:
    raise torch.OutOfMemoryError(
        "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.11 GiB "
        "of which 1.31 GiB is free.\nSee documentation for Memory Management"
    )


def in_python() -> None:
    raise MemoryError


def while_loading() -> None:
    try:
        really()
    except RuntimeError as error:
        raise BackboneError("backbone 'x' cannot be loaded: no memory") from error


@pytest.mark.parametrize(
    ("fail", "said"),
    [
        (really, "out of memory (asked for 1024.0 TiB more); give a smaller --batch-size"),
        (on_a_gpu, "out of memory (asked for 2.00 GiB more); give a smaller --batch-size"),
        (in_python, "out of memory; give a smaller --batch-size"),
        (while_loading, "out of memory (asked for 1024.0 TiB more); give a smaller --batch-size"),
    ],
)
@pytest.mark.parametrize("verb", ["train", "generate"])
def test_one_line_and_status_1(
    verb: str,
    fail: object,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    places = {"train": "runs.preparing.load_backbone", "generate": "session.load"}
    place = f"foreword.{places[verb]}"
    monkeypatch.setattr(place, lambda *_, **__: fail())  # type: ignore[operator]
    words = {"train": [str(QUICKSTART)], "generate": ["a", "--text", "x"]}[verb]
    monkeypatch.setattr(sys, "argv", ["foreword", verb, *words])
    with pytest.raises(SystemExit) as end:
        main()
    printed = capsys.readouterr()
    assert (end.value.code, printed.out) == (1, "")
    assert printed.err.startswith(f"foreword: {said}")
    assert printed.err.count("\n") == 1
    for word in ("training.micro_batch_size=auto", "evaluation.batch_size"):
        assert word in printed.err


@pytest.mark.parametrize(
    "error",
    [RuntimeError("shapes differ"), RunError("a full disk"), KeyError("memory"), None],
)
def test_other_errors_are_none_of_it(error: BaseException | None) -> None:
    assert not ran_out(error)


def test_other_errors_stay_what_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("a mistake of ours")

    monkeypatch.setattr("foreword.session.load", fail)
    monkeypatch.setattr(sys, "argv", ["foreword", "generate", "a", "--text", "x"])
    with pytest.raises(RuntimeError, match="a mistake of ours"):
        main()


def test_small_amounts_stay_bytes() -> None:
    assert "asked for 512 bytes more" in advice(RuntimeError("you tried to allocate 512 bytes."))


@pytest.mark.slow
def test_a_batch_that_no_memory_holds(tmp_path: Path) -> None:
    """The system itself refuses the memory (RLIMIT_AS), in the midst of a training."""
    code = (
        "import resource, sys\n"
        "from foreword.runs import stages\n"
        "real = stages.train_model\n"
        "def limited(*given, **named):\n"
        "    size = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "    resource.setrlimit(resource.RLIMIT_AS, (size + 2**26, -1))\n"
        "    return real(*given, **named)\n"
        "stages.train_model = limited\n"
        "from foreword.cli import main\n"
        "sys.argv = ['foreword', 'train', *sys.argv[1:]]\n"
        "main()\n"
    )
    if not Path("/proc/self/statm").exists():
        pytest.skip("needs /proc")
    sets = ["training.batch_size=400", "method.length=4", "evaluation.backbone_alone=false"]
    words = [str(QUICKSTART), "--device", "cpu", "--out", "run"]
    done = subprocess.run(
        [sys.executable, "-c", code, *words, *(w for s in sets for w in ("--set", s))],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("foreword: out of memory")
