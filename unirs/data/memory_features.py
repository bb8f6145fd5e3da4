"""Features of a model's encoder in memory, for a service that is asked several questions about one image."""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple, Protocol

import torch


class FeatureKey(NamedTuple):
    """Identifies an input in a feature store, by what its content was when its frames were decoded.

    Attributes:
        digest: Its `Media.content_key`.
        sources: Its `Media.sources`, for messages.
    """

    digest: str
    sources: tuple[str, ...]

    def content_key(self) -> str:
        """See `Media.content_key`."""
        return self.digest

    def __str__(self) -> str:
        return ", ".join(self.sources)


class Keyed(Protocol):
    """A `Media`, or a `FeatureKey` of one."""

    def content_key(self) -> str:
        """See `Media.content_key`."""
        ...


class FeatureStore(Protocol):
    """Stores features of media, for loaders and models. `unirs.data.feature_cache.FeatureCache` is one on disk.

    Attributes:
        fingerprint: Of the encoder.
    """

    fingerprint: str

    def get(self, media: Keyed) -> torch.Tensor | None:
        """The features `[k, L, Dv]` of an input; None if they are missing."""
        ...

    def put(self, media: Keyed, features: torch.Tensor) -> None:
        """Stores the features `[k, L, Dv]` of an input."""
        ...


class MemoryFeatureCache:
    """Features of the most recently used media, of one model whose weights do not change.

    Args:
        limit: Budget in bytes.
        fingerprint: Of the encoder.
    """

    def __init__(self, limit: int, fingerprint: str = "") -> None:
        self.fingerprint = fingerprint
        self._limit, self._size = limit, 0
        self._features: OrderedDict[str, torch.Tensor] = OrderedDict()

    def __contains__(self, media: Keyed) -> bool:
        return media.content_key() in self._features

    def get(self, media: Keyed) -> torch.Tensor | None:
        """See `FeatureStore.get`."""
        key = media.content_key()
        if key not in self._features:
            return None
        self._features.move_to_end(key)
        return self._features[key]

    def put(self, media: Keyed, features: torch.Tensor) -> None:
        """See `FeatureStore.put`; deletes the least recently used features beyond the budget."""
        key = media.content_key()
        if key not in self._features:
            # A copy: a view would hold the features of its batch.
            self._features[key] = features.detach().to("cpu", copy=True)
            self._size += features.nbytes
        while self._size > self._limit:
            self._size -= self._features.popitem(last=False)[1].nbytes
