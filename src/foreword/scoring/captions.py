"""ROUGE-L and CIDEr, by pycocoevalcap, on PTB tokens: means of a number per segment."""

from __future__ import annotations

from typing import Any

from foreword.scoring.corpus import Corpus
from foreword.scoring.statistics import Statistics


def rouge_l(corpus: Corpus) -> Statistics:
    """ROUGE-L, 0 to 1 (Lin 2004; beta 1.2, best precision and best recall of all references).

    Raises:
        Unavailable: without Java.
    """
    tokens = corpus.ptb
    from pycocoevalcap.rouge.rouge import Rouge

    return _by_segment(Rouge(), tokens)


def cider(corpus: Corpus) -> Statistics:
    """CIDEr, 0 to 10 (the CIDEr-D of Vedantam et al. 2015, section 7: clipped, length penalty).

    Document frequencies are those of this corpus's references; resampling leaves them as they are.

    Raises:
        Unavailable: without Java.
    """
    tokens = corpus.ptb
    from pycocoevalcap.cider.cider import Cider

    if not any(text for texts in tokens.references for text in texts):
        return Statistics.mean([0.0] * len(tokens.outputs))
    return _by_segment(Cider(), tokens)


def _by_segment(scorer: Any, tokens: Corpus) -> Statistics:
    references = {i: list(texts) for i, texts in enumerate(tokens.references)}
    outputs = {i: [text] for i, text in enumerate(tokens.outputs)}
    _, segments = scorer.compute_score(references, outputs)
    return Statistics.mean(segments)
