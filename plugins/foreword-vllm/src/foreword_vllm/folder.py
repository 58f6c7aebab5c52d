"""A folder of prompts that changes while it is served.

Each look at a prompt asks the file system for the time of its statement, so that what was added,
replaced or removed counts from the next request on, in every process, and nobody has to be told.
"""

from __future__ import annotations

import os
from pathlib import Path

from foreword_vllm.prompts import STATED, Prompt, PromptError, is_name, read_prompt


class PromptFolder:
    """Prompts by name.

    Args:
        root: a folder with a folder for each prompt.

    Raises:
        PromptError: there is no such folder.
    """

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root)
        if not self.root.is_dir():
            raise PromptError(
                f"{root}: is no folder of prompts; write one with `foreword export vllm`"
            )
        self._read: dict[str, tuple[tuple[int, int, int], Prompt]] = {}

    def get(self, name: object) -> Prompt | None:
        """The prompt of a name, as it is now; None where there is none.

        Raises:
            PromptError: it is damaged.
        """
        if not isinstance(name, str) or not is_name(name):
            return None
        folder = self.root / name
        try:
            status = (folder / STATED).stat()
            state = (status.st_mtime_ns, status.st_size, status.st_ino)
            known = self._read.get(name)
            if known is None or known[0] != state:
                known = self._read[name] = state, read_prompt(folder)
            return known[1]
        except (FileNotFoundError, NotADirectoryError):
            self._read.pop(name, None)
            return None
        except OSError as error:
            raise PromptError(f"{folder}: cannot be read: {error.strerror}") from error

    def names(self) -> list[str]:
        """The names of all prompts that are there now, damaged ones too."""
        try:
            with os.scandir(self.root) as entries:
                names = [entry.name for entry in entries if is_name(entry.name)]
        except OSError as error:
            raise PromptError(f"{self.root}: cannot be read: {error.strerror}") from error
        return sorted(name for name in names if (self.root / name / STATED).is_file())
