"""A blank that begins a template is one blank on every tokenizer, in source and target alike.

The reference is the tokenizer's own reading of source and target as one text.
"""

from __future__ import annotations

import pytest
from tokenizers import Tokenizer, models, normalizers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from foreword.backbone import Chats, Tokens
from foreword.data import Example
from foreword.tasks.text import Templates
from tokenizers_by_kind import tokenizer

CHARACTERS = "▁\nThecatsdog->.:[]/INS"


def like_llama() -> PreTrainedTokenizerBase:
    """SentencePiece as Llama's tokenizer has it: a mark before every text, `▁` for each blank."""
    vocabulary = {one: number for number, one in enumerate(["</s>", *dict.fromkeys(CHARACTERS)])}
    vocabulary |= {"▁T": len(vocabulary), "▁c": len(vocabulary) + 1}
    merges = [("▁", "T"), ("▁", "c")]
    made = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    made.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token="</s>")


def tokens_of(kind: str, encodes: bool = False) -> Tokens:
    return Tokens(like_llama() if kind == "llama" else tokenizer(kind), encodes=encodes)


def pieces(tokens: Tokens, ids: list[int]) -> str:
    return "".join(tokens.names([i for i in ids if i != tokens.eos_id]))


KINDS = pytest.mark.parametrize("kind", ["llama", "stories", "bundled", "gpt2"])


@KINDS
@pytest.mark.parametrize(
    ("source", "target"),
    [("cat ->", " The dog"), ("cat\n", "The dog"), ("cat:", "The"), (" cat", " The"), ("c", "\nT")],
)
def test_source_and_target_are_the_tokens_of_one_text(kind: str, source: str, target: str) -> None:
    tokens = tokens_of(kind)
    read, written = tokens.source(source), tokens.target(target)
    assert written[-1] == tokens.eos_id
    assert [*read, *written[:-1]] == tokens.source(source + target)


@KINDS
def test_a_leading_blank_is_one_blank(kind: str) -> None:
    tokens = tokens_of(kind)
    task = Templates.of(" {text} ->", " {reference}")
    example = Example({"text": "cat"}, ("The dog",))
    text, ids = task.source(tokens, example)
    assert text == " cat ->"
    blank = "▁" if kind in ("llama", "stories") else "Ġ"
    assert pieces(tokens, ids) == f"{blank}cat{blank}->"
    answer = pieces(tokens, task.answer(tokens, example, "The dog"))
    assert answer == f"{blank}The{blank}dog"


@pytest.mark.parametrize("bos", ["auto", "never"])
def test_two_blanks_stay_two(bos: str) -> None:
    tokens = Tokens(like_llama(), bos=bos)
    assert pieces(tokens, tokens.source("  cat")) == "▁▁cat"
    assert pieces(tokens, tokens.target("  cat")) == "▁▁cat"


def test_slots_and_second_texts_begin_with_one_blank() -> None:
    tokens = Tokens(like_llama(), virtual=1000)
    assert pieces(tokens, tokens.filled([" cat", 1000])[0]) == "▁cat<soft1>"
    first, second = tokens.pair(" cat", " dog")[0], tokens.pair("cat", "dog")[0]
    assert first == second


def test_an_encoder_decoders_answer_is_a_text_of_its_own() -> None:
    tokens = tokens_of("llama", encodes=True)
    assert pieces(tokens, tokens.target("The")) == "▁The"
    assert pieces(tokens, tokens.target(" The")) == "▁The"


def test_an_assistants_turn_goes_on_after_the_messages() -> None:
    made = like_llama()
    made.chat_template = (
        "{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]"
        "{% else %} {{ m.content }}</s>{% endif %}{% endfor %}"
    )
    tokens = Tokens(made)
    chats = Chats(tokens)
    asked, said = {"role": "user", "content": "cat"}, {"role": "assistant", "content": "The dog"}
    assert pieces(tokens, chats.written(chats.answer([asked, said]))) == "▁The▁dog"
