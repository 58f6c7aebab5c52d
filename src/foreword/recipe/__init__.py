"""A run as data: one YAML file, typed and frozen, all of its mistakes reported at once. No torch.

Precedence: the method's defaults < the recipe < `--set key.path=value`. Paths are relative to the
recipe's folder.
"""

from foreword.recipe.reading import load_recipe, parse_recipe, recipe_schema
from foreword.recipe.spec import (
    VERSION,
    BackboneSpec,
    DataSpec,
    DecodingSpec,
    EvaluationSpec,
    HeadSpec,
    InputSpec,
    Limits,
    MessageSpec,
    Recipe,
    TaskSpec,
    TrainingSpec,
    VerbalizerSpec,
    types_rule,
    written_input,
)

__all__ = [
    "VERSION",
    "BackboneSpec",
    "DataSpec",
    "DecodingSpec",
    "EvaluationSpec",
    "HeadSpec",
    "InputSpec",
    "Limits",
    "MessageSpec",
    "Recipe",
    "TaskSpec",
    "TrainingSpec",
    "VerbalizerSpec",
    "load_recipe",
    "parse_recipe",
    "recipe_schema",
    "types_rule",
    "written_input",
]
