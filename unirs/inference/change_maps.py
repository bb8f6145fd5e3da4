"""Maps of change of image pairs, from the model's change extractor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from unirs.tasks.media import Media

if TYPE_CHECKING:
    import numpy as np

    from unirs.data.processor import Processor
    from unirs.models.unirs_model import UniRSModel


@torch.no_grad()
def change_maps(model: UniRSModel, processor: Processor, media: Sequence[Media]) -> list[np.ndarray | None]:
    """The map of change of each input: cosine similarity of the two times on the encoder's grid, float32 `[h, w]`.

    None for media that are no pair, and for change extractors without maps. The model is in evaluation mode.
    """
    maps: list[np.ndarray | None] = []
    device = next(model.parameters()).device
    for one in media:
        if one.modality != "pair" or not model.maps_change:
            maps.append(None)
            continue
        frames = one.load_frames(processor.image_size, processor.resize).to(device)
        maps.append(model.change_map(model.encoder(frames)).float().cpu().numpy())
    return maps
