"""What is asked of the backbone: examples, templates, and readers of data files. No torch."""

from foreword.tasks.example import Example, Field, linearise
from foreword.tasks.readers import read_examples
from foreword.tasks.template import Template

__all__ = ["Example", "Field", "Template", "linearise", "read_examples"]
