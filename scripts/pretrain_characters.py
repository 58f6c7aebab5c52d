"""A vocabulary of characters, for text in Chinese: BERT's WordPiece with pieces of one character.

A Chinese character, a mark or the first character of a word of letters or digits is a token; the
characters that follow in such a word are tokens with `##` in front.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from tokenizers import Regex, Tokenizer
from tokenizers.decoders import Replace, Sequence, WordPiece
from tokenizers.models import WordPiece as Pieces
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

BOUNDARY, UNKNOWN = "[PAD]", "[UNK]"
RESERVED = (BOUNDARY, UNKNOWN, "[CLS]", "[SEP]", "[MASK]")
FOLLOWS = "##"
LEAST = 2
"""How often a piece occurs that gets an entry; those that do not are unknown."""


def characters_of(texts: Iterable[str]) -> Tokenizer:
    """The tokenizer whose pieces are the characters of some texts, the most frequent first.

    Id 0, which stands between documents in a stream, is `[PAD]`; `[UNK]`, `[CLS]`, `[SEP]` and
    `[MASK]` follow. Letters become small and lose their accents.
    """
    normalizer = BertNormalizer(lowercase=True)
    splitter = BertPreTokenizer()
    counts: Counter[str] = Counter()
    for text in texts:
        for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text)):
            counts.update([word[0], *(FOLLOWS + character for character in word[1:])])
    frequent = sorted(
        (piece for piece, count in counts.items() if count >= LEAST),
        key=lambda piece: (-counts[piece], piece),
    )
    entries = {piece: index for index, piece in enumerate((*RESERVED, *frequent))}
    tokenizer = Tokenizer(
        Pieces(
            entries,
            unk_token=UNKNOWN,
            continuing_subword_prefix=FOLLOWS,
            max_input_chars_per_word=10_000,
        )
    )
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = splitter
    tokenizer.decoder = Sequence(
        [
            WordPiece(prefix=FOLLOWS, cleanup=False),
            Replace(Regex(r"^ (?=[^\x00-\x7f]|[^\w\s\[])"), ""),
        ]
    )
    return tokenizer
