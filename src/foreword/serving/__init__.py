"""One backbone and many prompts, asked by many at the same time: an engine, and an HTTP server."""

from foreword.serving.engine import Engine
from foreword.serving.jobs import EngineOptions, Job, Told
from foreword.serving.prompts import PromptStore

__all__ = ["Engine", "EngineOptions", "Job", "PromptStore", "Told"]
