"""METEOR 1.5 by the Java program that pycocoevalcap ships, as sums over rows."""

import functools
import logging
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np

_STAGE_WEIGHTS = (1.0, 0.6, 0.8, 0.6)
"""Exact, stem, synonym and paraphrase matches: METEOR 1.5's for English, as are the parameters below."""
_ALPHA, _BETA, _GAMMA, _DELTA = 0.85, 0.2, 0.6, 0.75

_FIELDS = 23
_SECONDS_TO_START, _SECONDS_A_ROW = 300.0, 0.2

_logger = logging.getLogger(__name__)


def meteor_rows(captions: Sequence[str], references: Sequence[Sequence[str]]) -> np.ndarray | None:
    """Aligns captions with their references; starts in some seconds, and takes milliseconds per row.

    All texts are tokens separated by single spaces.

    Returns:
        float64 `[n, 7]`, the summands of `meteor_value`. None if Java is missing or fails, after a warning in the log,
        once per process and cause.
    """
    java = shutil.which("java")
    if java is None:
        _warn_once("METEOR is omitted: there is no `java` on the PATH. Install a Java runtime to compute it.")
        return None
    lines = [" ||| ".join(["SCORE", *texts, caption]) for caption, texts in zip(captions, references, strict=True)]
    try:
        return _additive(_run(java, lines))
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        _warn_once(f"METEOR is omitted: Java failed ({_reason(error)}). It needs 2 GB of memory; run `java -version`.")
        return None


def meteor_value(sums: np.ndarray) -> np.ndarray:
    """The corpus score of summed rows (Denkowski and Lavie, 2014, section 2), equal to the Java program's.

    Args:
        sums: `[..., 7]`, sums over rows of `meteor_rows`.

    Returns:
        `[...]` in 0..1; nan if no row was summed.
    """
    matched, length, matched_reference, length_reference, chunks, words, count = np.moveaxis(sums, -1, 0)
    # 1 / ((1 - alpha) / precision + alpha / recall), without its divisions by zero.
    denominator = (1 - _ALPHA) * length * matched_reference + _ALPHA * length_reference * matched
    mean = _quotient(matched * matched_reference, denominator)
    score = mean * (1 - _GAMMA * _quotient(chunks, words) ** _BETA)
    return np.where(count > 0, score, np.nan)


def _run(java: str, lines: Sequence[str]) -> np.ndarray:
    """Float64 `[n, 23]`, the program's own statistics of each line."""
    from pycocoevalcap.meteor import meteor

    jar = Path(meteor.__file__).with_name(meteor.METEOR_JAR)
    # pycocoevalcap's own wrapper exchanges single lines with the program and hangs when Java dies. Its options:
    options = ["-Xmx2G", "-Dfile.encoding=UTF-8", "-jar", str(jar), "-", "-", "-stdio", "-l", "en", "-norm"]
    done = subprocess.run(  # noqa: S603 (no part of the command comes from data)
        [java, *options],
        input="\n".join(lines) + "\n",
        capture_output=True,
        encoding="utf-8",
        check=True,
        cwd=jar.parent,
        timeout=_SECONDS_TO_START + _SECONDS_A_ROW * len(lines),
    )
    numbers = np.array([[float(number) for number in line.split()] for line in done.stdout.splitlines()])
    if numbers.shape != (len(lines), _FIELDS):
        raise ValueError(f"it returned {numbers.shape} numbers for {len(lines)} rows")
    return numbers


def _additive(numbers: np.ndarray) -> np.ndarray:
    """`[n, 23]` -> `[n, 7]`: weighted matches and length, of caption and reference, chunks, matched words, 1."""
    lengths, functions = numbers[:, 0:2], numbers[:, 2:4]
    # By stage: content words of caption and reference, then function words of both.
    stages = numbers[:, 4:20].reshape(-1, len(_STAGE_WEIGHTS), 2, 2)
    matches = np.einsum("nswt,s,w->nt", stages, _STAGE_WEIGHTS, (_DELTA, 1 - _DELTA))
    weighted = _DELTA * (lengths - functions) + (1 - _DELTA) * functions
    chunks, words = numbers[:, 20], numbers[:, 21:23].mean(axis=1)
    # A caption that matches its whole reference has no fragmentation penalty.
    whole = (stages.sum(axis=(1, 2)) == lengths).all(axis=1) & (chunks == 1)
    columns = [matches[:, 0], weighted[:, 0], matches[:, 1], weighted[:, 1], np.where(whole, 0, chunks), words]
    return np.stack([*columns, np.ones(len(numbers))], axis=1)


def _quotient(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """The quotient; 0 if the denominator is 0."""
    quotient: np.ndarray = np.divide(numerator, denominator, out=np.zeros(numerator.shape), where=denominator > 0)
    return quotient


def _reason(error: Exception) -> str:
    lines = (error.stderr or "").strip().splitlines() if isinstance(error, subprocess.CalledProcessError) else []
    return lines[0] if lines else str(error)


@functools.cache
def _warn_once(message: str) -> None:
    _logger.warning(message)
