"""Agreement of people on LEVIR-CC: each test reference against the other four, by `caption` and by `rsicc`.

`levir_references.py TOKENS.jsonl VOCAB.json` reads rows `{"filename", "tokens": [five lists of words]}`, joined from
Change-Agent's `data/LEVIR_MCI/tokens/test_*.txt`, and its `vocab.json`. It prints a table for each of the five.
"""

import argparse
import itertools
from collections.abc import Sequence
from pathlib import Path

from unirs.metrics import Prediction, Scorer
from unirs.metrics.bootstrap import point_estimate
from unirs.metrics.caption import CaptionMetrics
from unirs.metrics.rsicc import UNCHANGED, RsiccCaptions
from unirs.utils.io import read_json_lines
from unirs.utils.tables import to_markdown

_METRICS = ("bleu_1", "bleu_4", "meteor", "rouge_l", "cider")


def main() -> None:
    """Prints a line per protocol and reference that is taken as the answer, and their means."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tokens", type=Path)
    parser.add_argument("vocabulary", type=Path)
    options = parser.parse_args()
    rows = [
        (row["filename"], [" ".join(words[1:-1]) for words in row["tokens"]])
        for _, row in read_json_lines(options.tokens)
    ]
    scorers: dict[str, Scorer] = {"caption": CaptionMetrics(), "rsicc": RsiccCaptions(options.vocabulary)}
    table = [["protocol", "answer", *_METRICS, *(f"{name}/changed" for name in ("meteor", "cider"))]]
    for name, scorer in scorers.items():
        lines = [_values(scorer, rows, index) for index in range(5)]
        table += [[name, f"reference {index + 1}", *_texts(line)] for index, line in enumerate(lines)]
        table.append([name, "mean", *_texts([sum(column) / len(column) for column in zip(*lines, strict=True)])])
    print(to_markdown(table))


def _values(scorer: Scorer, rows: Sequence[tuple[str, list[str]]], index: int) -> list[float]:
    predictions = []
    for key, texts in rows:
        others = tuple(itertools.chain(texts[:index], texts[index + 1 :]))
        # The sentences of a pair agree on whether something changed.
        category = "unchanged" if others[0] in UNCHANGED else "changed"
        predictions.append(Prediction(key, "levir_cc", (key,), category, "", texts[index], others))
    statistics = scorer.evaluate(predictions).statistics
    return [point_estimate(statistics[name]) for name in (*_METRICS, "meteor/changed", "cider/changed")]


def _texts(values: Sequence[float]) -> list[str]:
    return [f"{100 * value:.2f}" for value in values]


if __name__ == "__main__":
    main()
