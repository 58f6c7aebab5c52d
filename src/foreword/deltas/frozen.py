"""Nothing moves: the backbone's bytes after training are those before."""

from __future__ import annotations

from foreword.backbone import Backbone


class Frozen:
    """The delta of all prompt methods proper."""

    def apply(self, backbone: Backbone) -> None:
        """Take every weight of the backbone out of training."""
        backbone.model.requires_grad_(False)
        backbone.model.eval()
