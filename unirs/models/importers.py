"""Reads checkpoints of other programs as UniRS models: VILA-1.5, the published UniRS, and Hugging Face's LLaVA.

The layout is recognised by a folder's files, never by its name.
"""

from pathlib import Path
from typing import Any, Literal, cast

import torch
from jinja2 import TemplateError
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
from unirs.interfaces import Encoder, as_module
from unirs.models.convert_weights import llava_names, load_exactly, read_config, read_projector, rename
from unirs.models.llm import LLMConfig, build_llm, check_loaded, check_tokenizer, describe_llm
from unirs.models.model_files import loading
from unirs.models.pretrained import Pretrained, PromptConfig, UniRSConfig
from unirs.models.unirs_model import UniRSModel, create_change, create_encoder
from unirs.tasks.media import Modality, ResizeMode
from unirs.tasks.prompt import PromptTemplate, VisualFormat
from unirs.utils.sources import resolve_source

VICUNA = (
    "{{ bos_token or '' }}A chat between a curious user and an artificial intelligence assistant. The assistant gives "
    "helpful, detailed, and polite answers to the user's questions. {% for message in messages %}"
    "{% if message.role == 'user' %}USER: {{ message.content }} {% else %}ASSISTANT: {{ message.content }}"
    "{{ eos_token }}{% endif %}{% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)
"""The chat template of VILA-1.5's `vicuna_v1` conversation, which its tokenizers do not contain."""

_VILA_FOLDERS = ("llm", "vision_tower", "mm_projector")

_PROMPTS: dict[str, tuple[Modality, str]] = {
    "vqa": ("image", "{question}"),
    "change": ("pair", "Please briefly describe the main changes between the above two remote sensing images."),
    "video": ("video", "What is the event in the video?"),
}

# Chat templates of processors take a message's content as a list.
_CONTENT_LISTS = (
    "{% set all = namespace(messages=[]) %}{% for message in messages %}"
    "{% set text = {'type': 'text', 'text': message.content} %}"
    "{% set all.messages = all.messages + [{'role': message.role, 'content': [text]}] %}"
    "{% endfor %}{% set messages = all.messages %}"
)


def read_checkpoint(source: Path) -> Pretrained:
    """Reads another program's checkpoint as a model in evaluation mode with frozen weights.

    Raises:
        ModelError: the folder has none of the layouts, or its weights do not fit; lists the keys.
        DataError: a file of it is missing or broken.
    """
    missing = [f"{name}/config.json" for name in _VILA_FOLDERS if not (source / name / "config.json").is_file()]
    with loading(source):
        resolve_source(str(source))
        if not missing:
            return _read_vila(source)
        if (source / "config.json").is_file() and read_config(source).get("model_type") == "llava":
            return _read_llava(source)
    raise ModelError(
        f"{source} is no checkpoint that UniRS reads. A training run has a config.yaml; a saved "
        "model has UniRS's config.json; LLaVA has a config.json with model_type 'llava'; of the folders of VILA-1.5 "
        f"and UniRS it lacks {', '.join(missing)}."
    )


def _read_vila(source: Path) -> Pretrained:
    root = read_config(source)
    aspect = root.get("image_aspect_ratio") or "pad"
    if aspect not in ("pad", "resize"):
        raise ModelError(
            f"{source} has image_aspect_ratio '{aspect}'. UniRS reads models that encode whole images: 'pad', 'resize'."
        )
    projector, fusion = read_projector(source / "mm_projector", change=True)
    encoder = _build_encoder(
        source=str(source / "vision_tower"),
        layer=root.get("mm_vision_select_layer", -2),
        resize_mode="pad" if aspect == "pad" else "stretch",
    )
    # The published code has an option for transformer layers that differ from ours; the published model has none.
    change = {"name": "change_extraction", "n_layers": 0} if fusion else None
    stored = read_config(source / "llm")
    settings = LLMConfig(source=str(source / "llm"), dtype=_dtype(stored.get("dtype") or stored.get("torch_dtype")))
    llm, built = build_llm(settings)
    tokenizer = cast("PreTrainedTokenizerBase", built)
    model = UniRSModel(encoder, create_change(change, encoder), llm)
    load_exactly(model.projector, projector, source / "mm_projector")
    if fusion is not None:
        load_exactly(as_module(model.change), fusion, source / "mm_projector")
    tokenizer.chat_template = tokenizer.chat_template or VICUNA
    return _assemble(model, change, "downsample", tokenizer, settings)


def _read_llava(source: Path) -> Pretrained:
    load: Any = LlavaForConditionalGeneration.from_pretrained
    try:
        config = AutoConfig.from_pretrained(source, trust_remote_code=False)
        settings = LLMConfig(dtype=_dtype(config.dtype))
        dtype = getattr(torch, settings.dtype)
        # The class maps the weight names of earlier versions of `transformers`.
        llava, report = load(source, dtype=dtype, output_loading_info=True, ignore_mismatched_sizes=True)
        processor = AutoProcessor.from_pretrained(source, trust_remote_code=False)
    # Of any class, for files that are missing or damaged.
    except Exception as error:
        raise ModelError(f"{source} does not load as LlavaForConditionalGeneration: {error}") from error
    if config.projector_hidden_act != "gelu" or not config.multimodal_projector_bias:
        raise ModelError(f"{source} has a projector without bias, or with another activation than 'gelu'.")
    if not isinstance(config.vision_feature_layer, int):
        raise ModelError(f"{source} uses the vision layers {config.vision_feature_layer}. UniRS reads models with one.")
    resizing = processor.image_processor
    crops: ResizeMode = "center_crop" if getattr(resizing, "do_center_crop", None) else "stretch"
    encoder = _build_encoder(
        config=config.vision_config.to_dict(),
        pretrained="given",
        layer=config.vision_feature_layer,
        resize_mode="pad" if getattr(resizing, "do_pad", None) else crops,
        mean=list(resizing.image_mean),
        std=list(resizing.image_std),
    )
    config.text_config.tie_word_embeddings = config.tie_word_embeddings
    llm = AutoModelForCausalLM.from_config(config.text_config, dtype=dtype)
    model = UniRSModel(encoder, None, llm, "mlp")
    vision = next(name for name, child in as_module(encoder).named_modules() if isinstance(child, PreTrainedModel))
    names, expected = llava_names(vision, llm.base_model_prefix), model.state_dict()
    missing = rename({key: key for key in report["missing_keys"]}, names)
    # Vision layers after the selected one are not part of the model.
    missing_keys = [old for new, old in missing.items() if new in expected]
    check_loaded(str(source), llava, {**report, "missing_keys": missing_keys})
    state = rename(llava.state_dict(), names)
    state = {key: value for key, value in state.items() if key in expected or not key.startswith("encoder.")}
    load_exactly(model, state, source)
    _check_tokens(source, llava, encoder)
    return _assemble(model, None, "mlp", _text_tokenizer(processor), settings)


def _build_encoder(**options: Any) -> Encoder:  # noqa: ANN401 - the plugin's
    return create_encoder({"name": _encoder_plugin(), **options, "tune": "frozen"})


def _encoder_plugin() -> str:
    names = list(plugins.list_plugins("unirs.vision_towers"))
    if len(names) != 1:
        raise ModelError(
            f"Checkpoints need one installed encoder plugin of the group 'unirs.vision_towers', which reads vision "
            f"towers in Hugging Face's format. Installed: {', '.join(names) or 'none'}."
        )
    return names[0]


def _dtype(stored: object) -> Literal["float32", "bfloat16"]:
    # float16 overflows in training; float32 represents all its values.
    return "bfloat16" if str(stored).removeprefix("torch.") == "bfloat16" else "float32"


@torch.no_grad()
def _check_tokens(source: Path, llava: LlavaForConditionalGeneration, encoder: Encoder) -> None:
    frame = torch.zeros(1, 3, *encoder.image_size, dtype=llava.dtype)
    (tokens,) = llava.get_image_features(frame).pooler_output
    if tokens.shape[0] != encoder.grid[0] * encoder.grid[1]:
        raise ModelError(
            f"{source} has {tokens.shape[0]} visual tokens per image, but its grid is "
            f"{encoder.grid[0]}x{encoder.grid[1]}: vision_feature_select_strategy "
            f"'{llava.config.vision_feature_select_strategy}' keeps a class token, or drops a patch."
        )


def _text_tokenizer(processor: ProcessorMixin) -> PreTrainedTokenizerBase:
    """The processor's tokenizer, with a chat template that takes plain text as a message's content."""
    tokenizer: PreTrainedTokenizerBase = processor.tokenizer
    template = processor.chat_template
    if isinstance(template, dict):
        template = template["default"]
    if template is None:
        return tokenizer
    tokenizer.chat_template = template
    content = "What is shown?"
    try:
        rendered = str(tokenizer.apply_chat_template([{"role": "user", "content": content}], tokenize=False))
    except (TypeError, ValueError, TemplateError):
        rendered = ""
    # A processor without a template has its tokenizer's, which takes plain text.
    if content not in rendered:
        # The template of a processor may leave the start token to the tokenizer.
        add_bos = tokenizer("")["input_ids"] == [tokenizer.bos_token_id] and "bos_token" not in template
        tokenizer.chat_template = ("{{ bos_token }}" if add_bos else "") + _CONTENT_LISTS + template
    return tokenizer


def _assemble(
    model: UniRSModel,
    change: dict[str, Any] | None,
    projector: str,
    tokenizer: PreTrainedTokenizerBase,
    settings: LLMConfig,
) -> Pretrained:
    check_tokenizer(tokenizer, tokenizer.name_or_path)
    config = UniRSConfig(
        encoder={"name": _encoder_plugin(), **cast("Encoder", model.encoder).init_config},
        change=change,
        projector={"name": projector},
        llm=describe_llm(model.llm, settings, tokenizer),
        # Only UniRS, which has a change extractor, was trained with task tags.
        prompts={
            name: PromptConfig(modality, PromptTemplate(name if change else "", instruction))
            for name, (modality, instruction) in _PROMPTS.items()
        },
        # Of all three: `"<image>\\n" * n` precedes the text.
        visual_format=VisualFormat(after="\n", end=""),
        max_length=model.context or UniRSConfig.max_length,
    )
    return model.eval().requires_grad_(False), tokenizer, config
