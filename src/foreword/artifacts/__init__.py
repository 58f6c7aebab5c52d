"""Artifacts: folders that hold one trained prompt and everything needed to use it again."""
