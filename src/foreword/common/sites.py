"""Where in a backbone a prompt can stand."""

from __future__ import annotations

from typing import Literal

Site = Literal["encoder", "decoder", "cross"]
"""A place that can hold a prompt: an attention, each with its layers."""
SITES: tuple[Site, ...] = ("encoder", "decoder", "cross")
