"""What a run needs before it trains: examples, templates, the backbone, rows of tokens."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from foreword import names
from foreword.artifacts.card import said_of_trained
from foreword.artifacts.starting import going_on, read_trained, starts_from
from foreword.backbone import Backbone, Decoding, load_backbone, seed_all, slowness
from foreword.backbone.arithmetic import HALVES
from foreword.common.progress import Progress
from foreword.errors import RecipeError
from foreword.recipe import Recipe, TaskId, types_rule, written_input
from foreword.runs.cautions import cautions
from foreword.runs.data import RunData, RunExamples, read_data, read_examples, state_task
from foreword.runs.demonstrations import Shown
from foreword.tasks import BoundTask, task_of
from foreword.tasks.text import Templates
from foreword.training.hardware import settled_precision
from foreword.training.sharding import Sharding
from foreword.tuned import TunedModel
from foreword.tuned.compose import compose
from foreword.tuned.initial import Trained


@dataclass(frozen=True)
class Prepared:
    """What is trained, and on what.

    Attributes:
        recipe: the recipe, what its method takes from the data filled in.
        examples: what the files hold.
        stated: the task as an artifact states it.
        task: the same, bound to the method's model at its random start on `backbone`.
        how: decoding.
        data: the examples as tokens.
        trained: what an artifact gives to start from; None where training starts anew.
        notes: what there is to say of backbone, label words, and settings that hardly work.
    """

    recipe: Recipe
    examples: RunExamples
    stated: TaskId
    task: BoundTask
    backbone: Backbone
    how: Decoding
    data: RunData
    trained: Trained | None
    notes: list[str]

    @property
    def model(self) -> TunedModel:
        """What is trained."""
        return self.task.model

    def plan(self) -> str:
        """What will be trained, in a line."""
        recipe, model = self.recipe, self.model
        data, geometry = self.data, self.backbone.geometry
        cut = f", {data.truncated} of them cut to fit" if data.truncated else ""
        trained = said_of_trained(model.trained_parameters, model.trained_share)
        return (
            f"{recipe.name}: {recipe.method.name} on {recipe.backbone.name} "
            f"({geometry.main.layers} layers, width {geometry.width}), {recipe.method.length} "
            f"virtual tokens, {trained} trained; {len(data.pairs)} training pairs{cut}, "
            f"{_measured(data)} records"
        )


def _measured(data: RunData) -> str:
    """How many records are watched and measured; both may be the same ones."""
    test = f"{len(data.test)} {data.test_split}"
    return test if data.test_split == "dev" else f"{len(data.dev)} dev and {test}"


def prepare(
    recipe: Recipe,
    device: str | torch.device,
    backbone: Backbone | None,
    progress: Progress,
    *,
    trust_remote_code: bool = False,
    sharding: Sharding | None = None,
) -> Prepared:
    """Read a recipe's files, load its backbone, and make sure that all goes together.

    Args:
        recipe: what is run.
        device: where the backbone is loaded to.
        backbone: the recipe's, if it is loaded already.
        progress: told the notes.
        trust_remote_code: run code that comes with the backbone.
        sharding: how the backbone is dealt out over processes, where it is.

    Raises:
        UserError: the recipe, a data file or the backbone is wrong, or an example is too long.
    """
    _check_templates(recipe)
    examples = read_examples(recipe, progress)
    stated = state_task(recipe, examples)
    task = task_of(stated)
    seed_all(recipe.seed)
    where = device if sharding is None else "cpu"  # from where each process takes its share
    backbone = backbone or load(recipe, where, trust_remote_code=trust_remote_code)
    backbone.check_trainable(recomputing=recipe.training.gradient_checkpointing is True)
    if rule := types_rule(backbone.dtype, recipe.training.precision):
        raise RecipeError("recipe", [rule])
    if sharding is not None:
        held = sharding.deal_out(backbone, torch.device(device))
        progress.say(
            f"the backbone is dealt out: {held.here / 1e6:,.1f} of its {held.whole / 1e6:,.1f} MB "
            "lie in this process"
        )
    readout = task.readout(backbone)
    task.start(readout, backbone)
    init = starts_from(recipe.method)
    method = recipe.method if init is None else going_on(recipe.method, init)
    shown = Shown(task, backbone, examples.train, recipe.seed, recipe.task.limits.train)
    most, method = method.length, method.filled(shown)
    recipe = recipe.model_copy(update={"method": method})
    model = compose(backbone, recipe.method, readout, inside=task.soft > 0)
    trained = None if init is None else read_trained(init, model, recipe.method, task=stated)
    how = Decoding(**recipe.decoding.model_dump())
    bound = task.on(model)
    data = read_data(recipe, examples, stated, bound, how, progress)
    shorter = f"method.length: {method.length} virtual tokens, not {most}: there is no more to take"
    notes = [
        *backbone.notes,
        *_arithmetic(backbone, recipe),
        *([shorter] if method.length < most else []),
        *task.notes(backbone),
        *(() if trained is None else trained.notes),
        *cautions(recipe, len(data.pairs)),
    ]
    for line in notes:
        progress.say(f"note: {line}")
    return Prepared(recipe, examples, stated, bound, backbone, how, data, trained, notes)


def _arithmetic(backbone: Backbone, recipe: Recipe) -> list[str]:
    """What there is to say of the types in which a device computes."""
    device, precision = backbone.device.type, recipe.training.precision
    kept = settled_precision(precision, recipe.loads.dtype, device)
    autocast = slowness(
        kept, device, "training.precision", "give float32, or auto, which is float32 here"
    )
    own = kept if backbone.dtype == "float32" else backbone.dtype
    chosen = f"training.precision: auto is {own} here" if precision == "auto" else None
    lost = None
    if recipe.method.moves.in_place and backbone.dtype in HALVES:
        lost = (
            f"backbone.dtype: the backbone's own weights move in {backbone.dtype}, in which most "
            "of what a step adds to them is lost; give float32, and training.precision: auto for "
            "arithmetic in 16 bits"
        )
    return [line for line in (backbone.slowness, autocast, chosen, lost) if line]


def load(
    recipe: Recipe, device: str | torch.device, *, trust_remote_code: bool = False
) -> Backbone:
    """A recipe's backbone.

    Raises:
        BackboneError: it cannot be loaded.
    """
    spec = recipe.loads
    return load_backbone(
        spec.name,
        revision=spec.revision,
        dtype=spec.dtype,
        device=device,
        bos=spec.bos,
        attention=None if spec.attention == "auto" else spec.attention,
        quantization=spec.quantization,
        device_map=spec.device_map,
        trust_remote_code=trust_remote_code,
    )


def _check_templates(recipe: Recipe) -> None:
    """Parse the templates of a text, before any file is read."""
    task = recipe.task
    kind = names.ANSWERS[task.answer]
    second = None if kind.apart else task.second
    if kind.templates:
        Templates.of(written_input(task.input), task.target, task.truncate, second)
