"""How the answer is read off the backbone."""

from foreword.readout.generation import Generation

__all__ = ["Generation"]
