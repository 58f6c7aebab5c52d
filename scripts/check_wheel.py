"""The wheel is small enough, and runs the quickstart outside of the repository."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).resolve().parent.parent
LARGEST = 60e6
NAMED = "from foreword.backbone import bundled_backbones; print(*sorted(bundled_backbones()))"
SHORT = ["--limit", "8", "--set", "training.steps=2", "--set", "decoding.max_new_tokens=4"]


def run(*words: str, **options: object) -> str:
    """A command's output; raises if it fails."""
    done = subprocess.run(words, check=True, capture_output=True, text=True, **options)  # type: ignore[call-overload]
    return str(done.stdout)


def main() -> int:
    """Build, unpack, train for two steps; 1 if anything is wrong."""
    with TemporaryDirectory() as place:
        folder = Path(place)
        pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "-q")
        run(*pip, "wheel", "--no-deps", "-w", place, str(ROOT))
        (wheel,) = folder.glob("*.whl")
        size = wheel.stat().st_size
        site = folder / "site"
        run(*pip, "install", "--no-deps", "--no-compile", "--target", str(site), str(wheel))
        shutil.copy(ROOT / "recipes" / "quickstart.yaml", folder)
        around = {**os.environ, "PYTHONPATH": str(site)}
        imported = run(
            sys.executable,
            "-c",
            "import foreword; print(foreword.__file__)",
            cwd=place,
            env=around,
        )
        assert imported.startswith(str(site)), f"{imported} is not the wheel's"
        configs = ROOT.glob("src/foreword/bundled/*/config.json")
        bundled = sorted(f"foreword/{file.parent.name}" for file in configs)
        named = run(sys.executable, "-c", NAMED, cwd=place, env=around).split()
        assert named == bundled, f"the wheel has {named}, the repository {bundled}"
        command = [sys.executable, "-m", "foreword", "train", "quickstart.yaml", *SHORT]
        run(*command, cwd=place, env=around)
        assert (folder / "runs" / "quickstart" / "artifact" / "foreword.json").exists()
    print(f"wheel: {size / 1e6:.1f} MB, trains the quickstart by itself")
    return 0 if size <= LARGEST else 1


if __name__ == "__main__":
    sys.exit(main())
