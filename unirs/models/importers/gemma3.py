"""Gemma 3 (arXiv 2503.19786): pooled visual tokens, which attend to each other in both directions."""

from typing import Any

from unirs.models.importers.hf_family import Family, State


def gemma3(config: Any, processor: Any) -> Family:  # noqa: ANN401 - of transformers
    """Describes a checkpoint of `Gemma3ForConditionalGeneration`."""
    return Family(
        layer=-1,
        final_norm=True,
        projector={
            "name": "pool",
            "side": round(config.mm_tokens_per_image**0.5),
            "eps": config.vision_config.layer_norm_eps,
        },
        weights={
            "model.multi_modal_projector.mm_soft_emb_norm": "projector.norm",
            "model.multi_modal_projector.mm_input_projection_weight": "projector.expand.weight",
        },
        before=f"\n\n{processor.tokenizer.boi_token}",
        after=f"{processor.tokenizer.eoi_token}\n\n",
        processor_options={"do_pan_and_scan": False},
        convert=_convert,
        bidirectional_images=True,
    )


def _convert(state: State) -> State:
    norm, expand = state["projector.norm.weight"], state["projector.expand.weight"]
    # The original's norm multiplies by 1 + weight, and its projection by the transposed matrix.
    return {**state, "projector.norm.weight": 1 + norm.float(), "projector.expand.weight": expand.T.contiguous()}
