"""Prompt augmentation: descriptions of media by a base VLM, inserted into prompts (paper, prompt augmentation).

Clues are generated once, in batches, and cached on disk by media content, prompt and weights.
"""

from __future__ import annotations

import hashlib
import json
import re
import sqlite3
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

from unirs.errors import DataError, did_you_mean
from unirs.metrics.text import strip_thinking
from unirs.ranges import PositiveInt, check_ranges
from unirs.tasks.media import Media, Modality
from unirs.tasks.prompt import CLUE_END, CLUE_START, VISUAL
from unirs.utils.progress import progress_bar

CLUE_PROMPTS: dict[Modality, str] = {
    "image": "Briefly describe the objects in this aerial picture, how many there are, where they lie, and the land "
    "cover.",
    "pair": "The two pictures show the same place at two times. Briefly describe what differs between them.",
    "video": "These pictures are frames of one aerial video, in order. Briefly describe what happens and who acts.",
    "series": "The pictures show the same place at several times, in order. Briefly describe what they show and what "
    "changes from one to the next.",
}
"""Prompt of the base VLM by modality."""

_MARKERS = re.compile("|".join(map(re.escape, (CLUE_START, CLUE_END, VISUAL))))

# Seconds that a process waits for the lock of another writer.
_TIMEOUT = 60.0


class BaseVLM(Protocol):
    """A model that generates texts about media."""

    @property
    def fingerprint(self) -> str:
        """Hash of its weights; changes with the model and with training."""
        ...

    def generate(self, media: Sequence[Media], questions: Sequence[str], max_new_tokens: int) -> list[str]:
        """Completes one prompt about each of the media, in one batch."""
        ...


class ClueCache:
    """Clues in one SQLite file, which any number of processes may read and write at once.

    LMDB was measured at two to three times the speed; a base VLM takes far longer for a clue than either store.

    The file is created with its folder. All methods raise a `DataError` if it is damaged or cannot be used.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def get_many(self, keys: Iterable[str]) -> dict[str, str]:
        """The cached clues by key, without those that do not have their checksum."""
        query = "SELECT clue, crc32 FROM checked_clues WHERE key = ?"
        with self._open() as file:
            rows = ((key, file.execute(query, (key,)).fetchone()) for key in keys)
            return {key: row[0] for key, row in rows if row is not None and row[1] == _checksum(key, row[0])}

    def put_many(self, clues: Mapping[str, str]) -> None:
        """Stores clues by key in one transaction: an interruption stores none of them."""
        with self._open() as file, file:
            rows = ((key, clue, _checksum(key, clue)) for key, clue in clues.items())
            file.executemany("INSERT OR REPLACE INTO checked_clues VALUES (?, ?, ?)", rows)

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        # Opened on each call, since a forked process must not use its parent's connection.
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(self.path, timeout=_TIMEOUT, isolation_level="IMMEDIATE")) as file:
                file.text_factory = partial(str, encoding="utf-8", errors="replace")
                columns = "key TEXT PRIMARY KEY, clue TEXT NOT NULL, crc32 INTEGER NOT NULL"
                file.execute(f"CREATE TABLE IF NOT EXISTS checked_clues ({columns})")
                yield file
        except (OSError, sqlite3.OperationalError) as error:
            remedy = "Name one in a folder that can be written, and that no other program holds."
            raise DataError(f"The clue cache {self.path} cannot be used ({error}). {remedy}") from error
        except sqlite3.DatabaseError as error:
            remedy = "Delete the file; its clues are generated anew."
            raise DataError(f"The clue cache {self.path} is damaged ({error}). {remedy}") from error


def _checksum(key: str, clue: object) -> int:
    return zlib.crc32(f"{key} {clue}".encode(errors="replace"))


def clean_clue(text: str) -> str:
    """The text on one line, without blocks of reasoning and the markers of a prompt."""
    # Replaced by a space, since the text around a marker could form another marker.
    return " ".join(_MARKERS.sub(" ", strip_thinking(text)).split())


def generate_clues(
    vlm: BaseVLM,
    media: Sequence[Media],
    *,
    cache: ClueCache | None,
    prompts: Mapping[Modality, str] = CLUE_PROMPTS,
    batch_size: int = 8,
    max_new_tokens: int = 48,
    progress: bool = True,
) -> dict[Media, str]:
    """Generates a clue of one line for each of the media, or reads it from the cache.

    Media of equal content are described once, in batches of one modality. Clues are stored after each batch.

    Raises:
        DataError: media cannot be read, a modality has no prompt, or the cache is damaged.
    """
    weights = vlm.fingerprint
    keys: dict[Media, str] = {}
    for one in dict.fromkeys(media):
        if one.modality not in prompts:
            raise DataError(f"There is no clue prompt for {one.modality} media. {did_you_mean(one.modality, prompts)}")
        identity = json.dumps((one.content_key(), prompts[one.modality], weights, max_new_tokens))
        keys[one] = hashlib.sha256(identity.encode()).hexdigest()
    clues = cache.get_many(set(keys.values())) if cache else {}
    missing: dict[Modality, dict[str, Media]] = {}
    for one, key in keys.items():
        if key not in clues:
            missing.setdefault(one.modality, {})[key] = one
    batches = [
        dict(items[start : start + batch_size])
        for items in (list(wanted.items()) for wanted in missing.values())
        for start in range(0, len(items), batch_size)
    ]
    with progress_bar("clues", sum(map(len, batches)), unit="media", show=progress and bool(batches)) as advance:
        for batch in batches:
            chunk = list(batch.values())
            completions = vlm.generate(chunk, [prompts[one.modality] for one in chunk], max_new_tokens)
            new = dict(zip(batch, map(clean_clue, completions), strict=True))
            if cache:
                cache.put_many(new)
            clues |= new
            advance(len(batch))
    return {one: clues[key] for one, key in keys.items()}


@dataclass(frozen=True)
class ClueConfig:
    """Settings of prompt augmentation.

    Attributes:
        source: a UniRS run or saved model, or a Hugging Face image-text-to-text model (hub id or folder); null for the
            model itself with its adapters off.
        max_new_tokens: maximum length of a clue in tokens.
        batch_size: media described at once.
        cache: file with the clues of all runs, by media content, prompt and weights.
    """

    source: str | None = None
    max_new_tokens: PositiveInt = 48
    batch_size: PositiveInt = 8
    cache: str = "runs/clues.sqlite"

    def __post_init__(self) -> None:
        check_ranges(ClueConfig, self, "clue.")


def without_paths(config: ClueConfig) -> ClueConfig:
    """The config with defaults for `source` and `cache`: those of a model's author load and write what he chooses."""
    return ClueConfig(max_new_tokens=config.max_new_tokens, batch_size=config.batch_size)
