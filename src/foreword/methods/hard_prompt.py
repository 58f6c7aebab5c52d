"""A hard prompt: real text alone, nothing is trained (Brown et al. 2020, section 2).

Zero-shot, the backbone reads the input's template and answers; few-shot, some training examples
with their answers stand before it. Which ones, the seed decides; where there are labels, each has
its turn.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from foreword.methods.base import TextOptions, method
from foreword.methods.examples import InText


@method
class HardPrompt(TextOptions):
    """Options of a hard prompt."""

    paper: ClassVar[str] = "Brown et al. 2020"

    name: Literal["hard-prompt"]
    shots: int = Field(0, ge=0, le=1024, description="training examples before the input")
    separator: str = Field("\n\n", description="what stands after each of them")

    @property
    def in_text(self) -> InText | None:
        """The shots, where there are some."""
        return InText(self.shots, self.separator) if self.shots else None
