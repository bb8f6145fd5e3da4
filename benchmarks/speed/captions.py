"""Time to score the captions of a test set of LEVIR-CC's size, compared with pycocoevalcap.

    python benchmarks/speed/captions.py

UniRS computes CIDEr-D, BLEU-1 to 4 and ROUGE-L with `CaptionMetrics`, tokenization included; the baseline gets
tokenized texts. Both values must be equal to 1e-9, which is checked before the measurement.

With intervals, both score the same resamples of the pairs. The baseline scores each resample from scratch, with one
exception: CIDEr-D uses the document frequencies of all pairs in every resample, as `CaptionMetrics` does. Counting
them again would take longer and change the values.
"""

import argparse
import math
import statistics
from collections.abc import Sequence
from functools import partial

import numpy as np
from measure import Row, in_turn, rates, report
from pycocoevalcap.bleu.bleu_scorer import BleuScorer
from pycocoevalcap.cider.cider_scorer import CiderScorer
from pycocoevalcap.rouge.rouge import Rouge
from unirs_tasks.synth.sentences import Event, Topic, describe_changes

from unirs.metrics.base import Prediction
from unirs.metrics.bootstrap import intervals, point_estimate
from unirs.metrics.caption import CaptionMetrics, tokenize

METRIC = CaptionMetrics(meteor=False)
TOPICS: tuple[Topic, ...] = (
    "many houses",
    "a row of houses",
    "two buildings",
    "a building",
    "a road",
    "trees",
    "a pond",
)
LOCATIONS = ("left", "right", "top", "bottom", "top left", "top right", "bottom left", "bottom right", "center")
REFERENCES = 5

Texts = tuple[str, list[str]]
Scores = dict[str, float]


def main() -> None:
    """Runs the measurements of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=1929, help="of LEVIR-CC's test split (default: %(default)s)")
    parser.add_argument("--resamples", type=int, default=20, help="that both sides score (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="of each side (default: %(default)s)")
    options = parser.parse_args()
    rows = captions(options.pairs)
    texts = [(tokenize(row.text), [tokenize(text) for text in row.references]) for row in rows]
    draws = np.random.default_rng(0).integers(len(rows), size=(options.resamples, len(rows)))

    ours, baseline = partial(values, rows), partial(baseline_values, texts)
    ours_many, baseline_many = partial(ends, rows, options.resamples), partial(baseline_ends, texts, draws)
    check(ours(), baseline())
    check(ours_many(), baseline_many())
    # The baseline would take minutes.
    full, _ = in_turn(partial(ends, rows, 1000), lambda: None, rounds=options.rounds)
    report(
        "captions.py",
        [
            rates("values (bar 5)", len(rows), "pairs", in_turn(ours, baseline, rounds=options.rounds)),
            rates(
                f"values and 95 % intervals of {options.resamples} resamples (bar 5)",
                len(rows),
                "pairs",
                in_turn(ours_many, baseline_many, rounds=options.rounds, warmup=0),
            ),
            Row("values and 95 % intervals of 1,000 resamples", statistics.median(full), None, "s", None),
        ],
    )


def captions(pairs: int) -> list[Prediction]:
    """Pairs with five references, half of them changed; answers are right, of another pair, or truncated."""
    generator = np.random.default_rng(0)
    rows: list[Prediction] = []
    for number in range(pairs):
        count = int(generator.integers(1, 4)) if number % 2 else 0
        events: list[Event] = [
            (TOPICS[topic], bool(generator.random() < 0.7), LOCATIONS[generator.integers(len(LOCATIONS))])
            for topic in generator.permutation(len(TOPICS))[:count]
        ]
        caption, *references = describe_changes(generator, events, 1 + REFERENCES)
        other = rows[-1].references[0] if rows else caption
        answer = (caption, other, " ".join(caption.split()[:5]))[generator.choice(3, p=[0.6, 0.25, 0.15])]
        rows.append(Prediction(str(number), "levir_cc", (f"{number}.png",), "", "", answer, tuple(references)))
    return rows


def values(rows: Sequence[Prediction]) -> Scores:
    """UniRS's values."""
    return {name: point_estimate(statistic) for name, statistic in METRIC.evaluate(rows).statistics.items()}


def ends(rows: Sequence[Prediction], resamples: int) -> Scores:
    """UniRS's values and intervals."""
    named = METRIC.evaluate(rows).statistics
    found = intervals(list(named.values()), [row.media for row in rows], resamples)
    scores = {name: point_estimate(statistic) for name, statistic in named.items()}
    for name, (low, high) in zip(named, found, strict=True):
        scores |= {f"{name} low": low, f"{name} high": high}
    return scores


def baseline_values(texts: Sequence[Texts], frequencies: CiderScorer | None = None) -> Scores:
    """Pycocoevalcap's values.

    Args:
        texts: words of each caption and of its references.
        frequencies: source of CIDEr-D's document frequencies; by default those of `texts`.
    """
    bleu, rouge, cider = BleuScorer(n=4), Rouge(), CiderScorer(n=4)
    for caption, references in texts:
        bleu += (caption, references)
        cider += (caption, references)
    if frequencies is None:
        score = cider.compute_score()[0]
    else:
        cider.document_frequency = frequencies.document_frequency
        score = np.mean(cider.compute_cider())
    found = dict(zip(("bleu_1", "bleu_2", "bleu_3", "bleu_4"), bleu.compute_score(option="closest")[0], strict=True))
    found["rouge_l"] = np.mean([rouge.calc_score([caption], references) for caption, references in texts])
    return {name: float(value) for name, value in (found | {"cider": score}).items()}


def baseline_ends(texts: Sequence[Texts], draws: np.ndarray) -> Scores:
    """Pycocoevalcap's values and their intervals, by scoring each of the resamples `[R, n]`."""
    scores = baseline_values(texts)
    cider = CiderScorer(n=4)
    for caption, references in texts:
        cider += (caption, references)
    cider.compute_doc_freq()
    resampled = [baseline_values([texts[index] for index in drawn], cider) for drawn in draws.tolist()]
    for name in list(scores):
        low, high = np.quantile([each[name] for each in resampled], [0.025, 0.975])
        scores |= {f"{name} low": float(low), f"{name} high": float(high)}
    return scores


def check(ours: Scores, baseline: Scores) -> None:
    """Exits if the two sides differ."""
    for name, value in baseline.items():
        if not math.isclose(ours[name], value, rel_tol=0, abs_tol=1e-9):
            raise SystemExit(f"{name}: ours is {ours[name]!r}, pycocoevalcap's {value!r}.")


if __name__ == "__main__":
    main()
