"""LLaVA-1.5 (arXiv 2310.03744): a patch is a visual token, projected by a perceptron."""

from typing import Any

from unirs.errors import ModelError
from unirs.models.importers.hf_family import Family
from unirs.tasks.media import ResizeMode


def llava(config: Any, processor: Any) -> Family:  # noqa: ANN401 - of transformers
    """Describes a checkpoint of `LlavaForConditionalGeneration`."""
    check_mlp(config)
    resizing = processor.image_processor
    crops: ResizeMode = "center_crop" if getattr(resizing, "do_center_crop", None) else "stretch"
    return Family(
        layer=config.vision_feature_layer,
        resize_mode="pad" if getattr(resizing, "do_pad", None) else crops,
        projector={"name": "mlp"},
        weights=MLP_WEIGHTS,
    )


MLP_WEIGHTS = {
    "model.multi_modal_projector.linear_1": "projector.expand",
    "model.multi_modal_projector.linear_2": "projector.out",
}


def check_mlp(config: Any) -> None:  # noqa: ANN401
    """Checks the projector's options and the vision layer; raises `ModelError`."""
    if config.projector_hidden_act != "gelu" or not getattr(config, "multimodal_projector_bias", True):
        raise ModelError("has a projector without bias, or with another activation than 'gelu'.")
    if not isinstance(config.vision_feature_layer, int):
        raise ModelError(f"uses the vision layers {config.vision_feature_layer}. UniRS reads models with one.")
