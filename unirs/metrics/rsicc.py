"""Change captions as the public programs of LEVIR-CC's literature score them: vocabulary ids as text."""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from unirs.errors import DataError
from unirs.metrics.base import Evaluation, Prediction
from unirs.metrics.caption import caption_mismatch, caption_statistics, restrict
from unirs.metrics.scorer import Scorer
from unirs.utils.io import read_json

_MARKS = ("<NULL>", "<START>", "<END>")
_UNKNOWN = "<UNK>"
UNCHANGED = (
    "the scene is the same as before",
    "there is no difference",
    "the two scenes seem identical",
    "no change has occurred",
    "almost nothing has changed",
)
"""The sentences for unchanged pairs."""


@dataclass(frozen=True)
class RsiccCaptions(Scorer):
    """BLEU, METEOR, ROUGE-L and CIDEr-D of captions whose words are replaced by their ids in a vocabulary.

    Words are separated by spaces, in lower case and without surrounding punctuation; those that the vocabulary lacks
    are all the same unknown word. METEOR compares ids, which have no stems, synonyms and paraphrases, so it differs
    from that of the plain protocol `caption`; the others come near, as only unknown words differ.

    A pair is `unchanged` if its first reference is one of five fixed sentences ("there is no difference" ...), whatever
    its category. `<metric>/changed` and `<metric>/unchanged` are scores of these pairs alone, with n-gram weights of
    CIDEr-D of their own. `change_accuracy/unchanged` is the share of unchanged pairs whose caption is one of the five
    sentences, `change_accuracy/changed` the share of changed pairs whose caption is none.

    Source: RSICCformer (Liu et al., 2022), Chg2Cap (Chang and Ghamisi, 2023) and Change-Agent (Liu et al., 2024),
    public code, `test.py`.

    Attributes:
        vocabulary: JSON file with the id of each word, such as LEVIR-MCI's `vocab.json`.
        meteor: Whether to compute METEOR.

    Raises:
        DataError: The vocabulary is missing, or is none.
    """

    vocabulary: Path | None = None
    meteor: bool = True

    name = "rsicc"

    def mismatch(self, rows: Sequence[Prediction]) -> str:
        """Rows must be captions, and the vocabulary given."""
        return caption_mismatch(rows) or ("" if self.vocabulary else "it needs --option vocabulary=FILE")

    def evaluate(self, rows: Sequence[Prediction], *, slow: bool = True) -> Evaluation:
        """Scores captions; without METEOR if `slow` is false.

        Raises:
            DataError: No vocabulary is given.
        """
        import numpy as np

        from unirs.metrics.statistics import mean

        if self.vocabulary is None:
            raise DataError("The protocol 'rsicc' needs the ids of words: add the option vocabulary=FILE (JSON).")
        ids = _read_vocabulary(self.vocabulary)
        captions = [_encode(row.answer, ids) for row in rows]
        references = [[_encode(reference, ids) for reference in row.references] for row in rows]
        fixed = {_encode(sentence, ids) for sentence in UNCHANGED}
        statistics, cider = caption_statistics(captions, references, meteor=slow and self.meteor)
        unchanged = np.array([texts[0] in fixed for texts in references])
        is_fixed = np.array([caption in fixed for caption in captions])
        right = is_fixed == unchanged
        masks = {"changed": ~unchanged, "unchanged": unchanged}
        for category, mask in masks.items():
            if mask.any():
                of_category = {
                    f"{name}/{category}": restrict(each, mask) for name, each in statistics.items() if "/" not in name
                }
                chosen = np.flatnonzero(mask)
                # As a corpus of its own.
                own = np.zeros(len(rows))
                own[chosen] = caption_statistics(
                    [captions[index] for index in chosen], [references[index] for index in chosen], meteor=False
                )[1]
                statistics |= of_category | {f"cider/{category}": mean(own, mask)}
        statistics["change_accuracy"] = mean(right)
        statistics |= {f"change_accuracy/{name}": mean(right, mask) for name, mask in masks.items() if mask.any()}
        unknown = sum(text.split().count(str(ids[_UNKNOWN])) for text in captions)
        note = f"{unknown} words of the answers are not among the {len(ids)} of {self.vocabulary.name}."
        return Evaluation(captions, cider.tolist(), statistics, "cider", (note,))


def _encode(text: str, ids: Mapping[str, int]) -> str:
    words = (word.strip(string.punctuation) for word in text.lower().split())
    return " ".join(str(ids.get(word, ids[_UNKNOWN])) for word in words if word)


@cache
def _read_vocabulary(path: Path) -> dict[str, int]:
    vocabulary = read_json(path)
    if not isinstance(vocabulary, dict) or not all(type(number) is int for number in vocabulary.values()):
        raise DataError(f"{path} is no vocabulary: it must be a JSON object with an integer for each word.")
    if _UNKNOWN not in vocabulary:
        raise DataError(f"{path} is no vocabulary: it lacks '{_UNKNOWN}', the id of unknown words.")
    return {word: number for word, number in vocabulary.items() if word not in _MARKS}
