"""Common code of the importers: encoder, precision, and the config of a converted model."""

from typing import Any, Literal, cast

from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from unirs import plugins
from unirs.errors import ModelError
from unirs.interfaces import Encoder
from unirs.models.llm import LLMConfig, check_tokenizer, describe_llm
from unirs.models.pretrained import Pretrained, PromptConfig, UniRSConfig
from unirs.models.unirs_model import UniRSModel, create_encoder
from unirs.tasks.media import Modality
from unirs.tasks.prompt import PromptTemplate, VisualFormat

_PROMPTS: dict[str, tuple[Modality, str]] = {
    "vqa": ("image", "{question}"),
    "change": ("pair", "Please briefly describe the main changes between the above two remote sensing images."),
    "video": ("video", "What is the event in the video?"),
}


def build_encoder(**options: Any) -> Encoder:  # noqa: ANN401 - the plugin's
    """Builds a frozen encoder that reads vision towers in Hugging Face's format."""
    return create_encoder({"name": _encoder_plugin(), **options, "tune": "frozen"})


def stored_dtype(stored: object) -> Literal["float32", "bfloat16"]:
    """The dtype of a converted language model: float16 overflows in training, and float32 represents all its values."""
    return "bfloat16" if str(stored).removeprefix("torch.") == "bfloat16" else "float32"


def assemble(
    model: UniRSModel,
    change: dict[str, Any] | None,
    projector: dict[str, Any],
    tokenizer: PreTrainedTokenizerBase,
    settings: LLMConfig,
    visual_format: VisualFormat,
) -> Pretrained:
    """The converted model, frozen and in evaluation mode, with the config that it is saved with."""
    check_tokenizer(tokenizer, tokenizer.name_or_path)
    config = UniRSConfig(
        encoder={"name": _encoder_plugin(), **cast("Encoder", model.encoder).init_config},
        change=change,
        projector=projector,
        llm=describe_llm(model.llm, settings, tokenizer),
        # Only UniRS, which has a change extractor, was trained with task tags.
        prompts={
            name: PromptConfig(modality, PromptTemplate(name if change else "", instruction))
            for name, (modality, instruction) in _PROMPTS.items()
        },
        visual_format=visual_format,
        max_length=model.context or UniRSConfig.max_length,
    )
    return model.eval().requires_grad_(False), tokenizer, config


def _encoder_plugin() -> str:
    names = list(plugins.list_plugins("unirs.vision_towers"))
    if len(names) != 1:
        raise ModelError(
            f"Checkpoints need one installed encoder plugin of the group 'unirs.vision_towers', which reads vision "
            f"towers in Hugging Face's format. Installed: {', '.join(names) or 'none'}."
        )
    return names[0]
