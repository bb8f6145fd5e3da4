"""Checkpoints of other programs read as UniRS models: VILA-1.5, the published UniRS, and Hugging Face's LLaVA.

What a folder holds is told from its files, never from its name.
"""

from pathlib import Path
from typing import Any, Literal, cast

import torch
from huggingface_hub.errors import StrictDataclassError
from jinja2 import TemplateError
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoProcessor,
    LlavaForConditionalGeneration,
    PreTrainedModel,
    ProcessorMixin,
)
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from unirs import plugins
from unirs.errors import ModelError
from unirs.inference.api import UniRS
from unirs.interfaces import Encoder, as_module
from unirs.models.convert_weights import llava_names, load_exactly, read_config, read_projector, rename
from unirs.models.llm import LLMConfig, build_llm, check_loaded, describe_llm
from unirs.models.pretrained import PromptConfig, UniRSConfig, is_saved_model
from unirs.models.projectors import ProjectorName
from unirs.models.unirs_model import UniRSModel
from unirs.tasks.media import Modality, ResizeMode

VICUNA = (
    "{{ bos_token or '' }}A chat between a curious user and an artificial intelligence assistant. The assistant gives "
    "helpful, detailed, and polite answers to the user's questions. {% for message in messages %}"
    "{% if message.role == 'user' %}USER: {{ message.content }} {% else %}ASSISTANT: {{ message.content }}"
    "{{ eos_token }}{% endif %}{% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)
"""The chat template of VILA-1.5's `vicuna_v1` conversation, which its tokenizers do not carry."""

_PARTS = ("llm", "vision_tower", "mm_projector")

_PROMPTS: dict[str, tuple[Modality, str]] = {
    "vqa": ("image", "{question}"),
    "change": ("pair", "Please briefly describe the main changes between the above two remote sensing images."),
    "video": ("video", "What is the event in the video?"),
}

# What `transformers` raises for files that are missing, broken or of another kind.
_UNLOADABLE = (OSError, ValueError, TypeError, LookupError, ImportError, SafetensorError, StrictDataclassError)

# Processors' templates want a message as a list of parts, and leave the start token to their tokenizer.
_AS_PARTS = (
    "{% set all = namespace(messages=[]) %}{% for message in messages %}"
    "{% set part = {'type': 'text', 'text': message.content} %}"
    "{% set all.messages = all.messages + [{'role': message.role, 'content': [part]}] %}"
    "{% endfor %}{% set messages = all.messages %}"
)


def read_checkpoint(source: Path) -> UniRS:
    """Reads a model of any of the known layouts.

    Args:
        source: a VILA-1.5 or UniRS folder (`llm/`, `vision_tower/`, `mm_projector/`), a folder of Hugging Face's
            `LlavaForConditionalGeneration`, or the folder of a UniRS training run.

    Raises:
        ModelError: the folder is none of these, or its weights do not fit; lists the keys.
        UniRSError: a file of it is missing or broken, or the run has no checkpoint.
    """
    if (source / "config.yaml").is_file():
        return UniRS.from_pretrained(source, device="cpu")
    found = [part for part in _PARTS if (source / part / "config.json").is_file()]
    if len(found) == len(_PARTS):
        return _read_vila(source)
    if (source / "config.json").is_file() and read_config(source).get("model_type") == "llava":
        return _read_llava(source)
    if source.is_dir() and is_saved_model(source):
        raise ModelError(f"{source} is a saved UniRS model already.")
    missing = ", ".join(f"{part}/config.json" for part in _PARTS if part not in found)
    raise ModelError(
        f"{source} is no checkpoint that UniRS reads. Looked for: the config.yaml of a training run; a config.json "
        f"with model_type 'llava'; the folders of VILA-1.5 and UniRS, of which it lacks {missing}."
    )


def _read_vila(source: Path) -> UniRS:
    root = read_config(source)
    aspect = root.get("image_aspect_ratio") or "pad"
    if aspect not in ("pad", "resize"):
        raise ModelError(
            f"{source} shows images as '{aspect}'. UniRS reads models that see one whole: 'pad', 'resize'."
        )
    projector, fusion = read_projector(source / "mm_projector", change=True)
    encoder = _build_encoder(
        source=str(source / "vision_tower"),
        layer=root.get("mm_vision_select_layer", -2),
        resize_mode="pad" if aspect == "pad" else "stretch",
        tune="frozen",
    )
    # The published code can put transformer layers before it, unlike ours; its model has none.
    change = {"name": "change_extraction", "n_layers": 0} if fusion else None
    extractor = plugins.create("unirs.change_extractors", change, encoder.grid, encoder.embed_dim) if change else None
    stored = read_config(source / "llm")
    settings = LLMConfig(source=str(source / "llm"), dtype=_dtype(stored.get("dtype") or stored.get("torch_dtype")))
    llm, tokenizer = build_llm(settings)
    model = UniRSModel(encoder, extractor, llm)
    load_exactly(model.projector, projector, source / "mm_projector")
    if fusion is not None:
        load_exactly(as_module(extractor), fusion, source / "mm_projector")
    tokenizer = cast("PreTrainedTokenizerBase", tokenizer)
    tokenizer.chat_template = tokenizer.chat_template or VICUNA
    return _assemble(model, encoder, change, "downsample", tokenizer, settings)


def _read_llava(source: Path) -> UniRS:
    load: Any = LlavaForConditionalGeneration.from_pretrained
    try:
        config = AutoConfig.from_pretrained(source)
        settings = LLMConfig(dtype=_dtype(config.dtype))
        # The class itself knows under which names each version of `transformers` wrote its weights.
        llava, report = load(
            source, dtype=getattr(torch, settings.dtype), output_loading_info=True, ignore_mismatched_sizes=True
        )
        processor = AutoProcessor.from_pretrained(source)
    except _UNLOADABLE as error:
        raise ModelError(f"{source} does not load as LlavaForConditionalGeneration: {error}") from error
    if config.projector_hidden_act != "gelu" or not config.multimodal_projector_bias:
        raise ModelError(f"{source} has a projector without bias, or with another activation than 'gelu'.")
    if not isinstance(config.vision_feature_layer, int):
        raise ModelError(f"{source} uses the vision layers {config.vision_feature_layer}. UniRS reads models with one.")
    pictures = processor.image_processor
    encoder = _build_encoder(
        config=config.vision_config.to_dict(),
        pretrained="given",
        layer=config.vision_feature_layer,
        resize_mode=_resize_mode(pictures),
        mean=list(pictures.image_mean),
        std=list(pictures.image_std),
        tune="frozen",
    )
    config.text_config.tie_word_embeddings = config.tie_word_embeddings
    llm = AutoModelForCausalLM.from_config(config.text_config, dtype=getattr(torch, settings.dtype))
    model = UniRSModel(encoder, None, llm, "mlp")
    vision = next(name for name, part in as_module(encoder).named_modules() if isinstance(part, PreTrainedModel))
    names, own = llava_names(vision, llm.base_model_prefix), model.state_dict()
    missing = rename({key: key for key in report["missing_keys"]}, names)
    # Vision layers after the chosen one are in neither model's way.
    check_loaded(str(source), llava, {**report, "missing_keys": [old for new, old in missing.items() if new in own]})
    state = rename(llava.state_dict(), names)
    state = {key: value for key, value in state.items() if key in own or not key.startswith("encoder.")}
    load_exactly(model, state, source)
    _check_tokens(source, llava, encoder)
    return _assemble(model, encoder, None, "mlp", _text_tokenizer(processor), settings)


def _resize_mode(pictures: object) -> ResizeMode:
    if getattr(pictures, "do_pad", None):
        return "pad"
    return "center_crop" if getattr(pictures, "do_center_crop", None) else "stretch"


def _build_encoder(**options: Any) -> Encoder:  # noqa: ANN401 - the plugin's
    return cast("Encoder", plugins.create("unirs.encoders", {"name": "hf", **options}))


def _dtype(stored: object) -> Literal["float32", "bfloat16"]:
    # float16 overflows in training, and float32 holds all of it.
    return "bfloat16" if str(stored).removeprefix("torch.") == "bfloat16" else "float32"


@torch.no_grad()
def _check_tokens(source: Path, llava: LlavaForConditionalGeneration, encoder: Encoder) -> None:
    frame = torch.zeros(1, 3, *encoder.image_size, dtype=llava.dtype)
    (tokens,) = llava.get_image_features(frame).pooler_output
    if tokens.shape[0] != encoder.grid[0] * encoder.grid[1]:
        raise ModelError(
            f"{source} gives its language model {tokens.shape[0]} tokens a picture, but its grid is "
            f"{encoder.grid[0]}x{encoder.grid[1]}: vision_feature_select_strategy "
            f"'{llava.config.vision_feature_select_strategy}' keeps a class token, or drops a patch."
        )


def _text_tokenizer(processor: ProcessorMixin) -> PreTrainedTokenizerBase:
    """The processor's tokenizer, with a chat template that takes messages of plain text."""
    tokenizer: PreTrainedTokenizerBase = processor.tokenizer
    template = processor.chat_template
    if isinstance(template, dict):
        template = template["default"]
    if template is not None:
        tokenizer.chat_template = template
        # A processor without a template of its own shows its tokenizer's, which takes text already.
        if not _takes_text(tokenizer):
            starts = tokenizer("")["input_ids"] == [tokenizer.bos_token_id] and "bos_token" not in template
            tokenizer.chat_template = ("{{ bos_token }}" if starts else "") + _AS_PARTS + template
    return tokenizer


_SAID = "What is shown?"


def _takes_text(tokenizer: PreTrainedTokenizerBase) -> bool:
    try:
        told = tokenizer.apply_chat_template([{"role": "user", "content": _SAID}], tokenize=False)
    except (TypeError, ValueError, TemplateError):
        return False
    return _SAID in str(told)


def _assemble(
    model: UniRSModel,
    encoder: Encoder,
    change: dict[str, Any] | None,
    projector: ProjectorName,
    tokenizer: PreTrainedTokenizerBase,
    settings: LLMConfig,
) -> UniRS:
    # Only UniRS has seen task tags.
    prompts = {
        name: PromptConfig(kind, name if change else "", instruction) for name, (kind, instruction) in _PROMPTS.items()
    }
    config = UniRSConfig(
        encoder={"name": "hf", **encoder.init_config},
        change=change,
        projector=projector,
        llm=describe_llm(model.llm, settings, tokenizer),
        prompts=prompts,
        max_length=getattr(model.llm.config, "max_position_embeddings", UniRSConfig.max_length),
    )
    return UniRS(model.eval().requires_grad_(False), tokenizer, config)
