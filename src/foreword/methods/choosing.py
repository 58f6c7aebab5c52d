"""Which of several prompts a row takes. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from foreword.errors import DataError, did_you_mean


@dataclass(frozen=True)
class PromptChoice:
    """By what a row chooses among the prompts of one artifact.

    Attributes:
        field: the field of a row that names its prompt.
        names: those of the prompts, in their order.
    """

    field: str
    names: tuple[str, ...]

    def number(self, fields: Mapping[str, object], where: str) -> int:
        """The number of the prompt that a row takes.

        Args:
            fields: the row's.
            where: what messages call the row.

        Raises:
            DataError: the row names none, or one that there is not.
        """
        listed = ", ".join(self.names[:20]) + (", …" if len(self.names) > 20 else "")
        if self.field not in fields:
            raise DataError(
                f"{where}: has no field '{self.field}', which names the prompt that a row takes; "
                f"give one of {listed}"
            )
        name = fields[self.field]
        if not isinstance(name, str) or name not in self.names:
            text = name if isinstance(name, str) else ""
            raise DataError(
                f"{where}, field '{self.field}': {name!r:.60} is none of the prompts"
                f"{did_you_mean(text, self.names)}"
            )
        return self.names.index(name)
