"""Features of a model's encoder in memory, for a service that is asked several questions about one image."""

from __future__ import annotations

from collections import OrderedDict
from typing import Protocol

import torch

from unirs.tasks.media import Media


class FeatureStore(Protocol):
    """Stores features of media, for loaders and models. `unirs.data.feature_cache.FeatureCache` is one on disk.

    Attributes:
        fingerprint: Of the encoder.
    """

    fingerprint: str

    def get(self, media: Media) -> torch.Tensor | None:
        """The features `[k, L, Dv]` of an input; None if they are missing."""
        ...

    def put(self, media: Media, features: torch.Tensor) -> None:
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

    def __contains__(self, media: Media) -> bool:
        return media.content_key() in self._features

    def get(self, media: Media) -> torch.Tensor | None:
        """See `FeatureStore.get`."""
        key = media.content_key()
        if key not in self._features:
            return None
        self._features.move_to_end(key)
        return self._features[key]

    def put(self, media: Media, features: torch.Tensor) -> None:
        """See `FeatureStore.put`; deletes the least recently used features beyond the budget."""
        key = media.content_key()
        if key not in self._features:
            # A copy: a view would hold the features of its batch.
            self._features[key] = features.detach().to("cpu", copy=True)
            self._size += features.nbytes
        while self._size > self._limit:
            self._size -= self._features.popitem(last=False)[1].nbytes
