"""Families into whose attention nothing can be put: they load, a prefix is refused with the reason,
and all else is as right as on any other."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from transformers import GenerationMixin, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

from conftest import mini_tokens
from families import by_hand, measures
from families.catalogue import WITHOUT_KEYS_VALUES
from families.measures import SOURCES, TOLERANCE, backbone_of, gap_to_reference
from families.test_family_decoding import NEW, Case, check_greedy
from foreword.axes.injection import Embeddings
from foreword.axes.readout import Generation, Head, Readout
from foreword.backbone import Backbone, Call, Decoding, bundled_backbones, generate, load_backbone
from foreword.backbone.layout import Layout, Pair
from foreword.errors import BackboneError
from foreword.methods import CPT, LLaMAAdapter, LoRA, PrefixTuning
from foreword.tuned.compose import compose

INTERFACE = "does not go through transformers' attention interface"
REASONS = {
    "deepseek_v32": "an indexer chooses",
    "gpt_neo": "local attention",
    "mamba": "no attention",
    "mpt": "alibi biases count the padding",
    "rwkv": "no attention",
}
WRITES = [name for name in WITHOUT_KEYS_VALUES if name in REASONS] + ["led", "longt5", "mvp"]


@pytest.fixture(autouse=True)
def _exactly() -> Iterator[None]:
    with by_hand.ExactFloat64():
        yield


def _readout(backbone: Backbone) -> Readout:
    encodes = backbone.geometry.kind == "encoder"
    return Head(backbone.hidden_width, 2) if encodes else Generation()


@pytest.mark.parametrize("family", WITHOUT_KEYS_VALUES)
def test_a_prefix_is_refused_with_the_reason(family) -> None:
    backbone = backbone_of(family)
    reason = REASONS.get(family, INTERFACE)
    assert backbone.geometry.through == "nothing"
    said = rf"do not fit .*\({family}\): .*{reason}.*\. Use prompt-tuning .*docs/families\.md$"
    with pytest.raises(BackboneError, match=said):
        compose(backbone, PrefixTuning(name="prefix-tuning"), _readout(backbone))


@pytest.mark.parametrize(
    "options", [LLaMAAdapter(name="llama-adapter"), CPT(name="cpt")], ids=lambda one: one.name
)
def test_so_is_whatever_else_needs_keys_and_values(options) -> None:
    with pytest.raises(BackboneError, match=r"do not fit .*\(mamba\): it has no attention"):
        compose(backbone_of("mamba"), options)


@pytest.mark.parametrize("family", WITHOUT_KEYS_VALUES)
def test_soft_prompts_are_those_put_in_by_hand(family) -> None:
    """In padded batches of mixed lengths, and alone."""
    assert gap_to_reference(family, Embeddings(backbone_of(family))) < TOLERANCE


@pytest.mark.parametrize("family", WRITES)
def test_greedy_after_a_soft_prompt(family) -> None:
    backbone = backbone_of(family)
    check_greedy(Case(backbone, measures.injection_of(backbone, "prompt-tuning")))


def test_rows_that_end_early_leave_the_others_as_they_are() -> None:
    """RWKV knows no padding, wherever it is."""
    backbone = backbone_of("rwkv")
    case = Case(backbone, measures.injection_of(backbone, "prompt-tuning"))
    whole = [case.without_cache(source) for source in SOURCES]
    stop = backbone.tokens.text(whole[0][1:2])
    assert stop
    found = case.generate(Decoding(max_new_tokens=NEW, stop=(stop,)))
    assert found[0] == whole[0][:2]
    assert all(own == long[: len(own)] for own, long in zip(found, whole, strict=True))


def test_beams_are_transformers_own() -> None:
    """Mamba's, from its own states; here in a padded batch, and every row read anew."""
    backbone, plain = backbone_of("mamba"), measures.plain_of("mamba")
    layout = Layout.of(SOURCES, side="left")
    found = generate(backbone, Call(layout), Decoding(max_new_tokens=NEW, num_beams=3))
    for row, ids in zip(found, SOURCES, strict=True):
        with torch.no_grad():
            expected = plain.generate(
                input_ids=torch.tensor([ids]),
                max_new_tokens=NEW,
                num_beams=3,
                do_sample=False,
                pad_token_id=0,
                eos_token_id=backbone.tokens.eos_id,
            )
        new = expected[0, len(ids) :].tolist()
        assert (
            row
            == new[: new.index(backbone.tokens.eos_id) if backbone.tokens.eos_id in new else NEW]
        )


@pytest.mark.parametrize("family", ["deberta-v2", "led", "mamba", "rwkv", "gemma4_text"])
def test_the_gradient_of_a_soft_prompt_is_the_slope_of_the_loss(family) -> None:
    backbone = backbone_of(family)
    injection = Embeddings(backbone)
    rows = measures.random_rows(injection)
    layout = measures.laid_out(backbone, injection, "shift", (0, 1, 2), "right")

    def loss(rows: Tensor) -> Tensor:
        logits = backbone.logits(Call(layout, injection.prompt_of(rows)))
        return logits[layout.attention_mask].log_softmax(-1)[:, 7].mean()

    direction, step = torch.randn_like(rows), 1e-5
    moving = rows.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(moving), moving)
    with torch.no_grad():
        rise = (loss(rows + step * direction) - loss(rows - step * direction)) / (2 * step)
    assert (gradient * direction).sum().item() == pytest.approx(rise.item(), rel=1e-5)
    assert gradient.abs().min() > 0


def test_a_model_with_code_of_its_own(tmp_path) -> None:
    """Whose config does not even say how many layers it has."""

    class OwnConfig(PreTrainedConfig):
        model_type = "own_recurrence"
        vocab_size: int = 512
        hidden_size: int = 16

    class OwnModel(PreTrainedModel, GenerationMixin):
        config_class = OwnConfig
        base_model_prefix = "body"

        def __init__(self, config: OwnConfig) -> None:
            super().__init__(config)
            self.words = nn.Embedding(config.vocab_size, config.hidden_size)
            self.layers = nn.ModuleList(
                nn.GRU(config.hidden_size, config.hidden_size, batch_first=True) for _ in range(2)
            )
            self.up = nn.Linear(config.hidden_size, config.hidden_size)
            self.head = nn.Linear(config.hidden_size, config.vocab_size)

        def get_input_embeddings(self) -> nn.Module:
            return self.words

        def get_output_embeddings(self) -> nn.Module:
            return self.head

        def forward(self, input_ids: Tensor, **_: object) -> CausalLMOutputWithPast:
            states = self.words(input_ids)
            for layer in self.layers:
                states = layer(states)[0]
            return CausalLMOutputWithPast(logits=self.head(self.up(states)))

    torch.manual_seed(0)
    backbone = Backbone.wrap(OwnModel(OwnConfig()).double(), mini_tokens())
    assert backbone.geometry.through == "nothing"
    assert backbone.geometry.main.layers == 2
    with pytest.raises(BackboneError, match=r"\(own_recurrence\): .*attention interface"):
        compose(backbone, PrefixTuning(name="prefix-tuning"))
    check_greedy(Case(backbone, Embeddings(backbone)))
    model = compose(backbone, LoRA(name="lora", targets=("up",)))
    assert model(model.lay_out([Pair([5, 6], [7])])).isfinite().all()


def test_where_a_backbone_lies_may_be_a_path() -> None:
    name, folder = next(iter(bundled_backbones().items()))
    assert load_backbone(folder).sha256 == load_backbone(name).sha256
