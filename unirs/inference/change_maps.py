"""Maps of change of image pairs, from the model's change extractor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from unirs.tasks.box_frames import frame_size
from unirs.tasks.media import Media
from unirs.tasks.resize_window import resize_window

if TYPE_CHECKING:
    import numpy as np

    from unirs.data.processor import Processor
    from unirs.models.unirs_model import UniRSModel

_FINER = 4
"""Cells of a resampled map for each cell of the grid, along an axis."""


@torch.no_grad()
def change_maps(model: UniRSModel, processor: Processor, media: Sequence[Media]) -> list[np.ndarray | None]:
    """The map of change of each input: cosine similarity of the two times, float32 `[h, w]`, over the whole image.

    None for media that are no pair, and for change extractors without maps. The model is in evaluation mode.
    """
    maps: list[np.ndarray | None] = []
    device = next(model.parameters()).device
    for one in media:
        if one.modality != "pair" or not model.maps_change:
            maps.append(None)
            continue
        frames = one.load_frames(processor.image_size, processor.resize).to(device)
        maps.append(on_image(model.change_map(model.encoder(frames)).float().cpu().numpy(), one, processor))
    return maps


def on_image(similarity: np.ndarray, media: Media, processor: Processor) -> np.ndarray:
    """Resamples a map from the encoder's frame, which may be padded or cropped, to the image.

    Args:
        similarity: `[h, w]`, on the encoder's grid.
        media: the pair.
        processor: of the model.

    Returns:
        `[h', w']`; 1 where the frame does not show the image.
    """
    import numpy as np

    mode = processor.resize.mode
    if mode == "stretch" or processor.image_size is None:
        return similarity
    size = frame_size(media)
    window = resize_window(size, processor.image_size[::-1], mode)
    inside, indices = [], []
    for axis, cells in ((1, similarity.shape[0]), (0, similarity.shape[1])):
        centers = (np.arange(_FINER * cells) + 0.5) / (_FINER * cells) * size[axis]
        index = np.floor((centers - window[axis]) / window[axis + 2] * cells).astype(int)
        inside.append((index >= 0) & (index < cells))
        indices.append(index.clip(0, cells - 1))
    resampled: np.ndarray = np.where(np.ix_(*inside)[0] & np.ix_(*inside)[1], similarity[np.ix_(*indices)], 1)
    return resampled.astype(np.float32)
