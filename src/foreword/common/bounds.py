"""Numbers with bounds, for what users and files say. No torch.

The bounds lie far beyond every sensible value, and what is computed with them stays finite.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from foreword.common.limits import MOST, MOST_ROWS

Many = Annotated[int, Field(ge=0, le=MOST)]
"""How many steps, examples or evaluations, none included."""
Some = Annotated[int, Field(ge=1, le=MOST)]
"""The same, at least one."""
Rows = Annotated[int, Field(ge=1, le=MOST_ROWS)]
"""Rows of a batch, or batches of a step."""
Tokens = Annotated[int, Field(ge=1, le=10**7)]
"""Tokens of a sequence, or entries of a vocabulary."""
Column = Annotated[int, Field(ge=1, le=10**6)]
"""A column of a file, from 1."""
Layer = Annotated[int, Field(ge=-(10**4), le=10**4)]
"""A layer, from 0; negative from the last."""
Beta = Annotated[float, Field(ge=0, lt=1)]
"""How much of a moving average stays."""
GPU = Annotated[int, Field(ge=0, lt=1024)]
"""A GPU's number."""
Rate = Annotated[float, Field(gt=0, le=1e3)]
"""A learning rate."""
Scale = Annotated[float, Field(gt=0, le=1e6)]
"""What numbers are multiplied or divided by."""
Temperature = Annotated[float, Field(ge=1e-3, le=1e3)]
"""What logits are divided by; those of half precision stay finite."""
Deviation = Annotated[float, Field(gt=0, le=1e15)]
"""How far numbers lie apart."""
Share = Annotated[float, Field(ge=0, le=1)]
"""A probability, or a share of something."""
Seed = Annotated[int, Field(ge=0, lt=2**32)]
"""A seed of everything random."""
Figure = Annotated[float, Field(ge=-1e15, le=1e15)]
"""What a metric says."""
Setting = str | bool | Annotated[int, Field(ge=-(10**15), le=10**15)] | Figure
"""A text, a number or a truth that is handed on as it is."""
Numbers = Annotated[int, Field(ge=0, le=10**15)]
"""How many parameters, or bytes."""
