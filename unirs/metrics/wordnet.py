"""WordNet's synonyms, read from the files of its database."""

from __future__ import annotations

import os
import re
import sys
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from unirs.errors import DataError
from unirs.utils.io import check_regular, read_text

# Suffixes of inflected words and what they become (wordnet.princeton.edu, morphy.7WN).
_ENDINGS = {
    pos: tuple(pair.split(">") for pair in pairs.split())
    for pos, pairs in (
        ("noun", "s> ses>s ves>f xes>x zes>z ches>ch shes>sh men>man ies>y"),
        ("verb", "s> ies>y es>e es> ed>e ed> ing>e ing>"),
        ("adj", "er> est> er>e est>e"),
        ("adv", ""),
    )
}

_REMEDY = (
    "Install it with `python -m nltk.downloader wordnet`, or the system's package (Debian: wordnet-base), or name its "
    "folder: --option wordnet=FOLDER."
)


@dataclass(frozen=True)
class WordNet:
    """Synsets of words by part of speech.

    Attributes:
        synsets: For each part of speech, the synsets (offsets in its data file) of each lemma.
        exceptions: For each part of speech, the base forms of irregular words.
    """

    synsets: Mapping[str, Mapping[str, Set[str]]]
    exceptions: Mapping[str, Mapping[str, tuple[str, ...]]]

    @classmethod
    def load(cls, source: Path | None = None) -> WordNet:
        """Reads a folder or zip file of the database, by default the first of NLTK's and the system's that exists.

        Raises:
            DataError: There is none, or a file of it is missing or damaged.
        """
        if source is None:
            source = next((path for path in _candidates() if path.exists()), None)
        if source is None:
            raise DataError(f"WordNet's database is not found. {_REMEDY}")
        return _read(source)

    def are_synonyms(self, first: str, second: str) -> bool:
        """Whether a synset of one word, in any part of speech and base form, is one of the other."""
        return any(self._of(first, pos) & self._of(second, pos) for pos in _ENDINGS)

    def _of(self, word: str, pos: str) -> set[str]:
        forms = self.exceptions[pos].get(word)
        if forms is None:
            forms = tuple(word[: -len(old)] + new for old, new in _ENDINGS[pos] if word.endswith(old))
        return set().union(*(self.synsets[pos].get(form, ()) for form in (word, *forms)))


@cache
def _read(source: Path) -> WordNet:
    synsets, exceptions = {}, {}
    for pos in _ENDINGS:
        # A line: lemma, part of speech, number of synsets, number and types of pointers, two counts, synsets.
        rows = [(fields[0], frozenset(fields[-int(fields[2]) :])) for fields in _fields(source, f"index.{pos}", 7)]
        synsets[pos] = dict(rows)
        exceptions[pos] = {fields[0]: tuple(fields[1:]) for fields in _fields(source, f"{pos}.exc", 2)}
    return WordNet(synsets, exceptions)


def _fields(source: Path, name: str, least: int) -> Iterator[list[str]]:
    """The fields of each line of a file; lines that start with a space are its license."""
    path = source if source.suffix == ".zip" else source / name
    try:
        if path == source:
            check_regular(path)
            with zipfile.ZipFile(path) as archive:
                text = archive.read(f"{source.stem}/{name}").decode()
        else:
            text = read_text(path)
    except (OSError, KeyError, zipfile.BadZipFile, zlib.error, RuntimeError, UnicodeDecodeError) as error:
        raise DataError(f"{source} is no database of WordNet: {name} cannot be read ({error}). {_REMEDY}") from error
    for number, line in enumerate(text.splitlines(), 1):
        fields = line.split()
        if line.startswith(" ") or not fields:
            continue
        if len(fields) < least or (least > 2 and not re.fullmatch("[0-9]{1,4}", fields[2])):
            raise DataError(f"{source}, {name}, line {number} is no entry of WordNet: {line[:60]!r}. {_REMEDY}")
        yield fields


def _candidates() -> Iterator[Path]:
    """NLTK's folders, in its order, then the system's."""
    folders = [Path(folder) for folder in os.environ.get("NLTK_DATA", "").split(os.pathsep) if folder]
    folders += [Path.home() / "nltk_data"]
    folders += [Path(sys.prefix) / middle / "nltk_data" for middle in ("", "share", "lib")]
    folders += [Path(root) / "nltk_data" for root in ("/usr/share", "/usr/local/share", "/usr/lib", "/usr/local/lib")]
    for folder in folders:
        yield folder / "corpora" / "wordnet"
        yield folder / "corpora" / "wordnet.zip"
    yield Path("/usr/share/wordnet")
