"""Idefics3 (arXiv 2408.12637) and SmolVLM (arXiv 2504.05299), with one tile for each image."""

from typing import Any

from unirs.models.importers.hf_family import Family


def idefics3(config: Any, processor: Any) -> Family:  # noqa: ANN401 - of transformers
    """Describes a checkpoint of `Idefics3ForConditionalGeneration` or `SmolVLMForConditionalGeneration`."""
    around = processor.fake_image_token
    return Family(
        layer=-1,
        final_norm=True,
        vision="model.vision_model",
        llm="model.text_model",
        projector={"name": "pixel_shuffle", "scale": config.scale_factor, "mlp": False},
        weights={"model.connector.modality_projection.proj": "projector.expand"},
        image_size=processor.image_processor.max_image_size["longest_edge"],
        before=around + getattr(processor, "global_image_tag", "<global-img>"),
        after=around,
        # The image processor enlarges an image before it scales it to a tile.
        processor_options={"do_image_splitting": False, "do_resize": False},
    )
