"""InternVL in Hugging Face's format (arXiv 2404.16821), with one tile for each image."""

from typing import Any

from unirs.errors import ModelError
from unirs.models.importers.hf_family import Family
from unirs.models.importers.llava import check_mlp


def internvl(config: Any, processor: Any) -> Family:  # noqa: ANN401 - of transformers
    """Describes a checkpoint of `InternVLForConditionalGeneration`."""
    check_mlp(config)
    scale = round(1 / config.downsample_ratio)
    if scale * config.downsample_ratio != 1:
        raise ModelError(f"has downsample_ratio {config.downsample_ratio}, which is no reciprocal of an integer.")
    if config.vision_feature_select_strategy != "default":
        raise ModelError("keeps the class token (vision_feature_select_strategy).")
    return Family(
        layer=config.vision_feature_layer,
        # Only the last layer's features are the vision tower's output.
        final_norm=config.vision_feature_layer == -1,
        projector={"name": "pixel_shuffle", "scale": scale, "mlp": True},
        weights={
            "model.multi_modal_projector.layer_norm": "projector.norm",
            "model.multi_modal_projector.linear_1": "projector.expand",
            "model.multi_modal_projector.linear_2": "projector.out.1",
        },
        before=processor.start_image_token,
        after=processor.end_image_token,
        processor_options={"crop_to_patches": False},
    )
