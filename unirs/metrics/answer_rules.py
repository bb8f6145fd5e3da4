"""Rules by which other projects compare a short answer with its reference, each under the project's name."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from unirs.errors import DataError
from unirs.metrics.base import Evaluation, Prediction
from unirs.metrics.box_text import box_syntax
from unirs.metrics.scorer import Scorer
from unirs.metrics.treebank import treebank_tokens
from unirs.metrics.wordnet import WordNet


def not_short_answers(rows: Sequence[Prediction]) -> str:
    """Why rows are no questions with short answers: one reference each, not all of them boxes; empty if they are."""
    several = sum(len(row.references) != 1 for row in rows)
    if several:
        return f"{several} of {len(rows)} rows have several references"
    syntax = box_syntax([row.references[0] for row in rows])
    return f"the references are boxes ({syntax})" if syntax else ""


class AnswerRule(Scorer):
    """Scores each row by `match`, the greatest over its references.

    Statistics: `accuracy`, the mean over all rows, `accuracy_macro`, the mean over the categories that occur, and
    `accuracy/<category>`.
    """

    category_is_given = True
    is_exact = True

    @abstractmethod
    def match(self, answer: str, reference: str) -> float:
        """Score of an answer, 0..1."""

    def category(self, row: Prediction) -> str:
        """The category under which a row is counted."""
        return row.category

    def mismatch(self, rows: Sequence[Prediction]) -> str:
        """The rule is for rows with one reference, which is no box."""
        return not_short_answers(rows)

    def evaluate(self, rows: Sequence[Prediction], *, slow: bool = True) -> Evaluation:  # noqa: ARG002 (nothing is slow)
        """Scores rows; `slow` has no effect."""
        from unirs.metrics.statistics import accuracies

        scores = [max((self.match(row.answer, each) for each in row.references), default=0.0) for row in rows]
        statistics = accuracies("accuracy", scores, [self.category(row) for row in rows])
        return Evaluation([row.answer.strip().lower() for row in rows], scores, statistics)


@dataclass(frozen=True)
class EarthDialRecall(AnswerRule):
    """EarthDial's recall of tokens: the share of the reference's tokens that occur in the answer.

    Both are lower-cased, and their spaces are removed, before they are split into tokens by the rules of the Penn
    Treebank, so that `sparse residential` is one token. Tokens that the reference repeats count once as found.

    Source: EarthDial (Soni et al., 2025), public code, `eval/rs_vqa/eval.py` and `eval/rs_classification/eval.py`. It
    evaluates RSVQA without `count` and `area`: exclude these categories.
    """

    name = "earthdial"
    is_exact = False

    def match(self, answer: str, reference: str) -> float:
        """Distinct tokens that both have, over the number of the reference's tokens."""
        wanted, found = (treebank_tokens(text.strip().lower().replace(" ", "")) for text in (reference, answer))
        return len(set(wanted) & set(found)) / len(wanted) if wanted else 0.0


@dataclass(frozen=True)
class Contains(AnswerRule):
    """Whether the reference is a substring of the answer, without regard to case; an empty reference is none.

    Source: evaluation by substring as in TEOChat (Irvin et al., 2025) and RSThinker.
    """

    name = "contains"

    def match(self, answer: str, reference: str) -> float:
        """1 if the answer contains the reference, else 0."""
        wanted = reference.strip().lower()
        return float(bool(wanted) and wanted in answer.lower())


_SETTLED = {"yes", "no", *map(str, range(100))}
_SCENE_TYPES = ("image", "rural or urban")


@dataclass(frozen=True)
class VrsBenchVqa(Contains):
    """VRSBench's rule for VQA without its judge.

    An answer that contains the reference is right. If it does not and the reference is `yes`, `no` or a number from 0
    to 99, it is wrong. All others are decided by a language model in the public code (GPT-4o mini); here they are
    wrong, and `needs_judge` is their share. The categories `image` and `rural or urban` count as `scene type`.
    Since the substring is tried first, `12` is a right answer to a reference `2`.

    Source: VRSBench (Li et al., 2024), public code, `eval_vqa_gpt.ipynb`.
    """

    name = "vrsbench"

    def category(self, row: Prediction) -> str:
        """The category of VRSBench's table."""
        category = row.category.lower()
        return "scene type" if category in _SCENE_TYPES else category

    def evaluate(self, rows: Sequence[Prediction], *, slow: bool = True) -> Evaluation:
        """Scores rows; `slow` has no effect."""
        from unirs.metrics.statistics import mean

        evaluation = super().evaluate(rows, slow=slow)
        open_rows = [
            not score and not any(each.strip().lower() in _SETTLED for each in row.references)
            for row, score in zip(rows, evaluation.scores, strict=True)
        ]
        note = (
            f"judge: none. {sum(open_rows)} of {len(rows)} answers need a judge and are scored by the substring alone."
        )
        statistics = {**evaluation.statistics, "needs_judge": mean(open_rows)}
        return replace(evaluation, statistics=statistics, notes=(note,))


@dataclass(frozen=True)
class LrsVqa(AnswerRule):
    """LRS-VQA's rule: equal without regard to case, or synonyms in WordNet (path similarity above 0.8).

    `accuracy` is the overall accuracy of the paper, `accuracy_macro` its average accuracy. As path similarity is
    1 / (1 + distance), only words with a common synset pass. Answers of several words are looked up with their spaces,
    as in the public code, so that no entry of WordNet has them.

    Source: LRS-VQA (Luo et al., 2025), public code, `evaluation_LRSVQA.py`.

    Attributes:
        wordnet: Folder or zip file with WordNet's database (`index.noun`, `noun.exc` ...); by default that of NLTK's
            data or of the system.

    Raises:
        DataError: WordNet's database is not found.
    """

    wordnet: Path | None = None

    name = "lrsvqa"

    def match(self, answer: str, reference: str) -> float:
        """1 for equal texts or synonyms, else 0."""
        answer, reference = answer.lower(), reference.lower()
        return float(bool(reference) and (answer == reference or self._database().are_synonyms(answer, reference)))

    def mismatch(self, rows: Sequence[Prediction]) -> str:
        """Also names a missing WordNet."""
        try:
            self._database()
        except DataError as error:
            return str(error).rstrip(".")
        return super().mismatch(rows)

    def _database(self) -> WordNet:
        return WordNet.load(self.wordnet)
