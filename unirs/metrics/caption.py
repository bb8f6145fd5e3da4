"""Caption metrics: BLEU, METEOR, ROUGE-L and CIDEr-D as pycocoevalcap computes them, and change accuracy."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from unirs.metrics.base import Evaluation, Prediction, Statistic
from unirs.metrics.scorer import Scorer
from unirs.metrics.text import fold, words

if TYPE_CHECKING:
    import numpy as np

_EVENT = (
    r"(?:re)?built|constructed|appear(?:s|ed|ing)?|disappear(?:s|ed|ing)?|vanish(?:es|ed)?|emerg(?:es|ed|ing)|"
    r"remov(?:es|ed|ing)|replac(?:es|ed|ing)|demolish(?:es|ed)|destroy(?:s|ed)|add(?:s|ed)|cleared|planted|paved|"
    r"turn(?:s|ed)|becom(?:es|ing)|became|convert(?:s|ed)|expand(?:s|ed)|extend(?:s|ed)|widen(?:s|ed)|"
    r"increas(?:es|ed)|decreas(?:es|ed)|shows? up|show(?:s|ed) up"
)
_GAP = r"(?:(?!(?:and|but|while)\b)\S+ ){0,4}?"
_NO_CHANGE = re.compile(
    rf"\b(?:(?:no|not any|not much|without(?: any)?|hardly any|barely any|little) (?!longer\b|other\b){_GAP}"
    rf"(?:changes?|differences?|alterations?|modifications?|{_EVENT})(?: (?:ha(?:s|ve) )?(?:{_EVENT}))?"
    rf"|nothing {_GAP}(?:chang(?:es?|ed|ing)|differ(?:s|ent)|happen(?:s|ed)|occur(?:s|red)|{_EVENT})|nothing new"
    r"|(?:not|never|hardly|barely|\S+n't) (?:\S+ ){0,2}?(?:chang(?:e|ed|ing)|differ(?:ent)?|altered)"
    r"|(?:(?:appear|seem|look)(?:s|ed)? )?(?:to be )?(?<!not )(?<!longer )(?:unchanged|identical|alike"
    r"|the same(?! (?:area|location|place|position|site|spot|time)\b)(?: as before)?|as (?:it was )?before))\b"
)
_CHANGE = re.compile(
    rf"\b(?:{_EVENT}|new|newly|more|fewer|but|except|however|although|though|apart|besides|(?<!each )other|only)\b"
)


def tokenize(text: str) -> str:
    """A caption's lower-case words separated by single spaces, without punctuation; `t-shaped` is one word."""
    return " ".join(words(fold(text, str.lower).replace("\N{RIGHT SINGLE QUOTATION MARK}", "'"), "-'"))


def describes_change(text: str) -> bool:
    """Whether a caption of an image pair describes a change.

    It does not if it contains a phrase that LEVIR-CC's sentences for unchanged pairs use ("there is no difference",
    "the two scenes seem identical", "the scene is the same as before", "no change has occurred", "almost nothing has
    changed" and the like) and the rest contains neither an event ("is built", "appear") nor an exception ("but",
    "except", "other"). So "the road has not changed but a house is built" describes one; a text without words does not.
    """
    words = tokenize(text)
    rest, phrases = _NO_CHANGE.subn(" ", words)
    return bool(words) and (phrases == 0 or _CHANGE.search(rest) is not None)


@dataclass(frozen=True)
class CaptionMetrics(Scorer):
    """BLEU-1 to 4, METEOR, ROUGE-L and CIDEr-D over several references, and change accuracy.

    Statistics, as pycocoevalcap computes them for the words of `tokenize`: `bleu_1` to `bleu_4`, `meteor`, `rouge_l`
    and `cider`. If rows are of category `changed` or `unchanged`, also the same over each (`cider/changed`), with the
    n-gram weights of all rows in CIDEr-D, and `change_accuracy`: the share of these rows whose caption describes a
    change exactly if there is one (see `describes_change`). A caption without words scores 0 and is wrong.

    METEOR runs a Java program. It is omitted if `meteor` or `slow` is false and, with a warning in the log, if Java is
    missing or fails. Its value and its resamples are corpus scores, computed from the program's alignment of each row.

    Bootstrap resamples keep the n-gram weights of CIDEr-D, whose document frequencies are those of all rows, in every
    resample and every category: the weights are part of the metric (Vedantam et al., 2015, section 4), and recounted
    weights would be biased, since a pair that is drawn twice counts as two documents with the same n-grams. So CIDEr-D
    is a mean over rows, and two models on the same pairs are compared with the same weights.

    A row's score is its CIDEr-D.

    Attributes:
        meteor: Whether to compute METEOR.
    """

    meteor: bool = True

    name = "caption"

    def mismatch(self, rows: Sequence[Prediction]) -> str:
        """Each row must have several references."""
        return caption_mismatch(rows)

    def evaluate(self, rows: Sequence[Prediction], *, slow: bool = True) -> Evaluation:
        """Scores captions; without METEOR if `slow` is false."""
        import numpy as np

        from unirs.metrics.statistics import mean

        captions = [tokenize(row.answer) for row in rows]
        references = [[tokenize(reference) for reference in row.references] for row in rows]
        corpus, cider = caption_statistics(captions, references, meteor=slow and self.meteor)
        statistics = dict(corpus)
        masks = {name: np.array([row.category == name for row in rows]) for name in ("changed", "unchanged")}
        for category, mask in masks.items():
            if mask.any():
                statistics |= {f"{name}/{category}": restrict(statistic, mask) for name, statistic in corpus.items()}
        known = masks["changed"] | masks["unchanged"]
        if known.any():
            right = [
                caption != "" and describes_change(caption) == changed
                for caption, changed in zip(captions, masks["changed"], strict=True)
            ]
            statistics["change_accuracy"] = mean(right, known)
        return Evaluation(captions, cider.tolist(), statistics, "cider")


def caption_statistics(
    captions: Sequence[str], references: Sequence[Sequence[str]], *, meteor: bool
) -> tuple[dict[str, Statistic], np.ndarray]:
    """BLEU, METEOR (if Java runs), ROUGE-L and CIDEr-D of texts of words separated by single spaces.

    Also returns the CIDEr-D of each row, float64 `[n]`.
    """
    from unirs.metrics.meteor import meteor_rows, meteor_value
    from unirs.metrics.ngram import ORDER, bleu_and_cider, bleu_value, rouge_l
    from unirs.metrics.statistics import mean

    counts, cider = bleu_and_cider(captions, references)
    statistics = {
        f"bleu_{order}": Statistic(counts, functools.partial(bleu_value, order=order), len(captions))
        for order in range(1, ORDER + 1)
    }
    alignments = meteor_rows(captions, references) if meteor else None
    if alignments is not None:
        statistics["meteor"] = Statistic(alignments, meteor_value, len(captions))
    statistics["rouge_l"] = mean(rouge_l(captions, references))
    statistics["cider"] = mean(cider)
    return statistics, cider


def caption_mismatch(rows: Sequence[Prediction]) -> str:
    """Why rows are no captions with several references each; empty if they are."""
    single = sum(len(row.references) < 2 for row in rows)
    return f"{single} of {len(rows)} rows have a single reference" if single else ""


def restrict(statistic: Statistic, mask: np.ndarray) -> Statistic:
    """The statistic over the rows that the bool mask `[n]` selects."""
    return replace(statistic, row_sums=statistic.row_sums * mask[:, None], n=int(mask.sum()))
