"""What is asked of the backbone: examples, templates, and readers of data files. No torch."""

from foreword.tasks.chat import Chat, parse_input
from foreword.tasks.example import Example, Field, linearise
from foreword.tasks.readers import read_examples
from foreword.tasks.template import Template

__all__ = [
    "Chat",
    "Example",
    "Field",
    "Template",
    "linearise",
    "parse_input",
    "read_examples",
]
