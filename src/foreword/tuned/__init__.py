"""A backbone with one choice on each axis, put together."""

from __future__ import annotations

from foreword.tuned.model import TrainingReuse as TrainingReuse
from foreword.tuned.model import TunedModel as TunedModel
