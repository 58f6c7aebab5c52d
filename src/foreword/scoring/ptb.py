"""The Penn Treebank tokeniser (Stanford CoreNLP 3.4.1), as COCO's caption evaluation uses it."""

from __future__ import annotations

from collections.abc import Sequence

from foreword.scoring.java import ADVICE, Unavailable, find_jar, run

_JAR = "tokenizer/stanford-corenlp-3.4.1.jar"
_CLASS = "edu.stanford.nlp.process.PTBTokenizer"


def tokenise(texts: Sequence[str]) -> list[str]:
    """Each text as lower-case tokens between single blanks, without punctuation.

    Raises:
        Unavailable: without Java.
    """
    if find_jar(_JAR) is None:
        raise Unavailable(ADVICE)
    from pycocoevalcap.tokenizer.ptbtokenizer import PUNCTUATIONS

    dropped = {*PUNCTUATIONS, ""}
    lines = [" ".join(text.splitlines()) for text in texts]
    tokenised = run(
        _JAR, ["-preserveLines", "-lowerCase", "-encoding", "UTF-8"], lines, main=_CLASS
    )
    return [
        " ".join(token for token in line.split(" ") if token not in dropped) for line in tokenised
    ]
