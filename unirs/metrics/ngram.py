"""What captions have in common with their references: BLEU's counts, CIDEr-D and ROUGE-L, as pycocoevalcap has them.

The words and n-grams of a whole corpus are numbered once, so that counting and comparing them is work for numpy.
"""

from collections.abc import Iterator, Sequence
from itertools import chain

import numpy as np

ORDER = 4
"""The longest n-gram of BLEU and CIDEr-D."""

_SIGMA = 6.0
"""Of CIDEr-D's penalty on captions that are longer or shorter than a reference, in bigrams."""

_BETA = 1.2
"""How much more recall counts than precision in ROUGE-L."""


def bleu_and_cider(captions: Sequence[str], references: Sequence[Sequence[str]]) -> tuple[np.ndarray, np.ndarray]:
    """What each row adds to BLEU, and its CIDEr-D.

    Args:
        captions: n texts, words parted by single spaces.
        references: for each of them one or more texts of that form.

    Returns:
        float64 `[n, 11]`: n-grams of orders 1 to 4 that stand in a reference too (none counted more often than in the
        reference that has it most), n-grams of these orders, words, words of the reference of the closest length (the
        shorter of two), 1; Papineni et al., 2002, section 2. And float64 `[n]`, the CIDEr-D (Vedantam et al., 2015,
        sections 4 and 6), for which an n-gram is the less telling the more of these rows have it in their references.
    """
    count = len(captions)
    per_row = np.array([len(texts) for texts in references], dtype=np.int64)
    owners = np.repeat(np.arange(count), per_row)  # the row of each reference
    # The captions' words, then those of all references.
    words, lengths = _numbered([*captions, *(text for texts in references for text in texts)])
    length, reference_length = lengths[:count], lengths[count:]
    correct, guessed = np.zeros((2, count, ORDER))
    similarity = np.zeros(len(owners))
    for order, (texts, grams, times) in enumerate(_ngrams(words, lengths)):
        cut = int(np.searchsorted(texts, count))  # the first n-gram of a reference
        span = int(grams.max(initial=0)) + 1
        wanted = owners[texts[cut:] - count] * span + grams[cut:]
        # Pairs of the same n-gram in a caption and in one of its references.
        shared, found = _find(wanted, texts[:cut] * span + grams[:cut])
        found += cut

        most = np.zeros(cut, dtype=times.dtype)
        np.maximum.at(most, shared, times[found])
        correct[:, order] = np.bincount(texts[:cut], np.minimum(times[:cut], most), minlength=count)
        guessed[:, order] = np.maximum(length - order, 0)

        # How many rows have an n-gram in their references. Asked for counts, `unique` sorts, which is faster.
        frequency = np.bincount(np.unique(wanted, return_counts=True)[0] % span, minlength=span)
        weights = times * (np.log(max(count, 1)) - np.log(np.maximum(frequency, 1)))[grams]
        norms = np.sqrt(np.bincount(texts, weights**2, minlength=len(lengths)))
        products = np.minimum(weights[shared], weights[found]) * weights[found]
        dots = np.bincount(texts[found] - count, products, minlength=len(owners))
        scale = norms[:count][owners] * norms[count:]
        similarity += np.divide(dots, scale, out=np.zeros(len(owners)), where=scale > 0)

    longer = np.maximum(length - 1, 0)[owners] - np.maximum(reference_length - 1, 0)
    similarity *= np.exp(-(longer**2) / (2 * _SIGMA**2))
    cider = 10 * np.bincount(owners, similarity, minlength=count) / (ORDER * per_row)
    closest = _closest(length, reference_length, owners)
    return np.column_stack([correct, guessed, length, closest, np.ones(count)]), cider


def bleu_value(sums: np.ndarray, *, order: int) -> np.ndarray:
    """BLEU of summed rows of `bleu_and_cider` (Papineni et al., 2002, section 2.3), with pycocoevalcap's constants.

    Args:
        sums: `[..., 11]`.
        order: the longest n-gram to count, 1 to 4.

    Returns:
        `[...]` in 0..1; nan where no row was summed.
    """
    tiny, small = 1e-15, 1e-9
    correct, guessed = sums[..., :order], sums[..., ORDER : ORDER + order]
    length, reference_length, count = np.moveaxis(sums[..., 2 * ORDER :], -1, 0)
    precision = np.prod((correct + tiny) / (guessed + small), axis=-1) ** (1 / order)
    brevity = np.exp(np.minimum(0.0, 1 - (reference_length + small) / (length + tiny)))
    return np.where(count > 0, precision * brevity, np.nan)


def rouge_l(captions: Sequence[str], references: Sequence[Sequence[str]]) -> list[float]:
    """The ROUGE-L of each row: F of the best precision and the best recall of a longest common subsequence of words.

    Args:
        captions: as in `bleu_and_cider`.
        references: as in `bleu_and_cider`.
    """
    return [_rouge(caption.split(), texts) for caption, texts in zip(captions, references, strict=True)]


def _rouge(said: Sequence[str], references: Sequence[str]) -> float:
    if not said:
        return 0.0
    places: dict[str, int] = {}
    for place, word in enumerate(said):
        places[word] = places.get(word, 0) | 1 << place
    precision = recall = 0.0
    for text in references:
        words = text.split()
        common = _common(len(said), places, words)
        precision = max(precision, common / len(said))
        recall = max(recall, common / max(len(words), 1))
    return (1 + _BETA**2) * precision * recall / (recall + _BETA**2 * precision) if recall else 0.0


def _common(length: int, places: dict[str, int], words: Sequence[str]) -> int:
    """The length of a longest common subsequence, a word of the second text at a time.

    Bit i of `row` is 0 where the subsequence grows with word i of the first text (Hyyrö, 2004): the differences between
    neighbours of the usual table, a row of it in one integer.

    Args:
        length: words of the first text.
        places: at which places, as bits, the first text has a word.
        words: the second text.
    """
    full = (1 << length) - 1
    row = full
    for word in words:
        matches = row & places.get(word, 0)
        row = ((row + matches) | (row - matches)) & full
    return length - row.bit_count()


def _numbered(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """All words of all texts as numbers, `[W]`, and how many words each text has, `[T]`."""
    split = [text.split() for text in texts]
    words = list(chain.from_iterable(split))
    numbers = {word: number for number, word in enumerate(dict.fromkeys(words))}
    return (
        np.array(list(map(numbers.__getitem__, words)), dtype=np.int64),
        np.array(list(map(len, split)), dtype=np.int64),
    )


def _ngrams(words: np.ndarray, lengths: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """For each order the n-grams of each text: `[E]` texts in rising order, their n-grams' numbers, and how often."""
    starts = np.arange(len(words))
    texts = np.repeat(np.arange(len(lengths)), lengths)
    ends = np.cumsum(lengths)[texts]
    vocabulary = int(words.max(initial=0)) + 1
    grams = words
    for order in range(1, ORDER + 1):
        if order > 1:
            whole = starts + order <= ends
            starts, texts, ends, grams = starts[whole], texts[whole], ends[whole], grams[whole]
            # An n-gram is the one that is a word shorter, and the word behind that.
            grams = np.unique(grams * vocabulary + words[starts + order - 1], return_inverse=True)[1]
        span = int(grams.max(initial=0)) + 1
        keys, times = np.unique(texts * span + grams, return_counts=True)
        yield keys // span, keys % span, times


def _find(wanted: np.ndarray, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where in the sorted `keys` those of `wanted` are that occur there, and which of `wanted` these are."""
    place = np.searchsorted(keys, wanted)
    found = np.flatnonzero(np.append(keys, -1)[place] == wanted)
    return place[found], found


def _closest(length: np.ndarray, reference_length: np.ndarray, owners: np.ndarray) -> np.ndarray:
    """Of each row's references the length that is closest to the caption's, `[n]`; the shorter of two."""
    order = np.lexsort((reference_length, np.abs(reference_length - length[owners]), owners))
    first = np.searchsorted(owners, np.arange(len(length)))
    return reference_length[order][first]
