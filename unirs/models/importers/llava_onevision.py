"""LLaVA-OneVision (arXiv 2408.03326), with one tile for each image, as the original encodes several images."""

from typing import Any

from unirs.models.importers.hf_family import Family
from unirs.models.importers.llava import MLP_WEIGHTS, check_mlp


def llava_onevision(config: Any, processor: Any) -> Family:  # noqa: ANN401, ARG001 - of transformers
    """Describes a checkpoint of `LlavaOnevisionForConditionalGeneration`.

    The original encodes a single image twice, whole and as tiles; UniRS encodes it whole, as each of several.
    """
    check_mlp(config)
    return Family(
        layer=config.vision_feature_layer,
        resize_mode="pad",
        projector={"name": "mlp", "newline": True},
        weights={**MLP_WEIGHTS, "model.image_newline": "projector.newline"},
        num_images=(2, 3),
    )
