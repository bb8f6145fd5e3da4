"""N-gram and subsequence overlap of captions with references: BLEU's counts, CIDEr-D and ROUGE-L as in pycocoevalcap.

The words and n-grams of a whole corpus are numbered once, so that numpy counts and compares them.
"""

from collections.abc import Iterator, Sequence
from itertools import chain

import numpy as np

ORDER = 4
"""The longest n-gram of BLEU and CIDEr-D."""

_SIGMA = 6.0
"""Width of CIDEr-D's penalty for a length that differs from a reference's, in bigrams."""

_BETA = 1.2
"""Weight of recall relative to precision in ROUGE-L."""


def bleu_and_cider(captions: Sequence[str], references: Sequence[Sequence[str]]) -> tuple[np.ndarray, np.ndarray]:
    """Each row's summands of BLEU, and its CIDEr-D.

    Args:
        captions: n texts, words separated by single spaces.
        references: for each of them one or more texts of that form.

    Returns:
        float64 `[n, 11]`: matched n-grams of orders 1 to 4 (each at most as often as in the reference that has it
        most), n-grams of these orders, words, words of the reference of the closest length (the shorter of two), 1;
        Papineni et al., 2002, section 2. And float64 `[n]`, the CIDEr-D (Vedantam et al., 2015, sections 4 and 6),
        which weights an n-gram less the more rows have it in their references.
    """
    count = len(captions)
    per_row = np.array([len(texts) for texts in references], dtype=np.int64)
    row_of = np.repeat(np.arange(count), per_row)  # the row of each reference
    # The captions' words, then those of all references.
    words, lengths = _numbered([*captions, *(text for texts in references for text in texts)])
    length, reference_length = lengths[:count], lengths[count:]
    matched, total = np.zeros((2, count, ORDER))
    similarity = np.zeros(len(row_of))
    for order, (texts, grams, times) in enumerate(_ngrams(words, lengths)):
        split = int(np.searchsorted(texts, count))  # the first n-gram of a reference
        span = int(grams.max(initial=0)) + 1
        reference_keys = row_of[texts[split:] - count] * span + grams[split:]
        # Index pairs of an n-gram in a caption and the same n-gram in one of its references.
        in_caption, in_reference = _find(reference_keys, texts[:split] * span + grams[:split])
        in_reference += split

        most = np.zeros(split, dtype=times.dtype)
        np.maximum.at(most, in_caption, times[in_reference])
        matched[:, order] = np.bincount(texts[:split], np.minimum(times[:split], most), minlength=count)
        total[:, order] = np.maximum(length - order, 0)

        # Number of rows with an n-gram in their references. With `return_counts`, `unique` sorts, which is faster.
        frequency = np.bincount(np.unique(reference_keys, return_counts=True)[0] % span, minlength=span)
        weights = times * (np.log(max(count, 1)) - np.log(np.maximum(frequency, 1)))[grams]
        norms = np.sqrt(np.bincount(texts, weights**2, minlength=len(lengths)))
        products = np.minimum(weights[in_caption], weights[in_reference]) * weights[in_reference]
        dots = np.bincount(texts[in_reference] - count, products, minlength=len(row_of))
        scale = norms[:count][row_of] * norms[count:]
        similarity += np.divide(dots, scale, out=np.zeros(len(row_of)), where=scale > 0)

    longer = np.maximum(length - 1, 0)[row_of] - np.maximum(reference_length - 1, 0)
    similarity *= np.exp(-(longer**2) / (2 * _SIGMA**2))
    cider = 10 * np.bincount(row_of, similarity, minlength=count) / (ORDER * per_row)
    order_by_distance = np.lexsort((reference_length, np.abs(reference_length - length[row_of]), row_of))
    closest = reference_length[order_by_distance][np.searchsorted(row_of, np.arange(count))]
    return np.column_stack([matched, total, length, closest, np.ones(count)]), cider


def bleu_value(sums: np.ndarray, *, order: int) -> np.ndarray:
    """BLEU of summed rows of `bleu_and_cider` (Papineni et al., 2002, section 2.3), with pycocoevalcap's constants.

    Args:
        sums: `[..., 11]`.
        order: the longest n-gram to count, 1 to 4.

    Returns:
        `[...]` in 0..1; nan if no row was summed.
    """
    tiny, small = 1e-15, 1e-9
    matched, total = sums[..., :order], sums[..., ORDER : ORDER + order]
    length, reference_length, count = np.moveaxis(sums[..., 2 * ORDER :], -1, 0)
    precision = np.prod((matched + tiny) / (total + small), axis=-1) ** (1 / order)
    brevity = np.exp(np.minimum(0.0, 1 - (reference_length + small) / (length + tiny)))
    return np.where(count > 0, precision * brevity, np.nan)


def rouge_l(captions: Sequence[str], references: Sequence[Sequence[str]]) -> list[float]:
    """ROUGE-L of each row: F of the best precision and the best recall of a longest common subsequence of words."""
    return [_rouge(caption.split(), texts) for caption, texts in zip(captions, references, strict=True)]


def _rouge(caption: Sequence[str], references: Sequence[str]) -> float:
    if not caption:
        return 0.0
    positions: dict[str, int] = {}
    for position, word in enumerate(caption):
        positions[word] = positions.get(word, 0) | 1 << position
    precision = recall = 0.0
    for text in references:
        words = text.split()
        common = _common_length(len(caption), positions, words)
        precision = max(precision, common / len(caption))
        recall = max(recall, common / max(len(words), 1))
    return (1 + _BETA**2) * precision * recall / (recall + _BETA**2 * precision) if recall else 0.0


def _common_length(length: int, positions: dict[str, int], words: Sequence[str]) -> int:
    """Length of a longest common subsequence of `words` and a text of `length` words with these `positions` (bits).

    Bit i of `row` is 0 if the subsequence grows with word i of that text (Hyyrö, 2004): the differences between
    neighbours in a row of the usual table, as one integer.
    """
    full = (1 << length) - 1
    row = full
    for word in words:
        matches = row & positions.get(word, 0)
        row = ((row + matches) | (row - matches)) & full
    return length - row.bit_count()


def _numbered(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """All words of all texts as numbers, `[W]`, and the number of words of each text, `[T]`."""
    split = [text.split() for text in texts]
    words = list(chain.from_iterable(split))
    numbers = {word: number for number, word in enumerate(dict.fromkeys(words))}
    return np.array([numbers[word] for word in words], np.int64), np.array([len(text) for text in split], np.int64)


def _ngrams(words: np.ndarray, lengths: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """For each order the distinct n-grams of each text: `[E]` sorted texts, n-gram numbers, and counts."""
    starts = np.arange(len(words))
    texts = np.repeat(np.arange(len(lengths)), lengths)
    ends = np.cumsum(lengths)[texts]
    vocabulary = int(words.max(initial=0)) + 1
    grams = words
    for order in range(1, ORDER + 1):
        if order > 1:
            whole = starts + order <= ends
            starts, texts, ends, grams = starts[whole], texts[whole], ends[whole], grams[whole]
            # An n-gram is the n-gram that is one word shorter, and the next word.
            grams = np.unique(grams * vocabulary + words[starts + order - 1], return_inverse=True)[1]
        span = int(grams.max(initial=0)) + 1
        keys, times = np.unique(texts * span + grams, return_counts=True)
        yield keys // span, keys % span, times


def _find(values: np.ndarray, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Indices in the sorted `keys` of those `values` that occur there, and the indices of these values."""
    positions = np.searchsorted(keys, values)
    found = np.flatnonzero(np.append(keys, -1)[positions] == values)
    return positions[found], found
