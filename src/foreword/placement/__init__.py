"""Where in the sequence virtual tokens stand."""

from foreword.placement.prefix import Prefix

__all__ = ["Prefix"]
