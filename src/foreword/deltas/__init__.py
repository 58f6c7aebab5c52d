"""What of the backbone's own weights moves."""

from foreword.deltas.frozen import Frozen

__all__ = ["Frozen"]
