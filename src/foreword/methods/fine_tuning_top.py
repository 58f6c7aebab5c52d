"""Fine-tuning of the top layers: those before the last ones stay as they are.

FT-top2, what Li & Liang 2021 (section 5.2) compare prefixes with: the last two layers of the
decoder. The paper gives no settings of its own for it; the defaults are those of full fine-tuning
(Devlin et al. 2019, appendix A.3).
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from foreword.methods.axes import AnyDelta, TopLayers, TopOptions
from foreword.methods.base import DeltaOptions, method
from foreword.methods.fine_tuning import FineTuning


@method
class FineTuningTop(TopOptions, DeltaOptions):
    """Options of fine-tuning of the top layers."""

    paper: ClassVar[str] = "Li & Liang 2021"
    training_defaults: ClassVar[dict[str, Any]] = FineTuning.training_defaults

    name: Literal["fine-tuning-top"]

    @property
    def moves(self) -> AnyDelta:
        """The last layers."""
        return TopLayers(layers=self.layers)
