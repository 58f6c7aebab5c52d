"""A run as data: one YAML file, typed and frozen, all of its mistakes reported at once. No torch.

Precedence: the method's defaults < the recipe < `--set key.path=value`. Paths are relative to the
recipe's folder.
"""

from foreword.recipe.backbone import BackboneSpec
from foreword.recipe.data import DataSpec, Limits
from foreword.recipe.heads import HeadSpec
from foreword.recipe.reading import load_recipe, parse_recipe, recipe_schema
from foreword.recipe.settled import TaskId
from foreword.recipe.spec import VERSION, Recipe
from foreword.recipe.task import (
    InputSpec,
    MessageSpec,
    TaskSpec,
    VerbalizerSpec,
    WindowPool,
    written_input,
)
from foreword.recipe.teacher import TeacherSpec
from foreword.recipe.training import (
    DecodingSpec,
    EvaluationSpec,
    SavingsSpec,
    TrainingSpec,
    types_rule,
)
from foreword.recipe.vectors import VectorSpec

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
    "SavingsSpec",
    "TaskId",
    "TaskSpec",
    "TeacherSpec",
    "TrainingSpec",
    "VectorSpec",
    "VerbalizerSpec",
    "WindowPool",
    "load_recipe",
    "parse_recipe",
    "recipe_schema",
    "types_rule",
    "written_input",
]
