"""Tiny models with random weights of each family that `unirs convert` reads, with processors as published."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import nn

from unirs.models.llm import train_tokenizer

SIDE, PATCH = 24, 4
MEAN, STD = [0.4, 0.6, 0.2], [0.2, 0.3, 0.4]
QUESTION = "What is shown?"
VISION: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 2}
TEXT: dict[str, Any] = VISION | {"hidden_size": 48, "num_hidden_layers": 2}
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% for part in message['content'] if part['type'] == 'image' %}{{ '<image>' + after }}{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] }}{% endfor %}"
    "{{ '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def tokenizer(*special: str, eos: str = "<|im_end|>", **named: str) -> Any:  # noqa: ANN401
    trained = train_tokenizer(["What is shown?", "user: assistant:", "Is there a road?"], 320)
    text = transformers.PreTrainedTokenizerFast(
        tokenizer_object=trained.backend_tokenizer,
        clean_up_tokenization_spaces=False,
        pad_token=trained.pad_token,
        bos_token=trained.bos_token,
        eos_token=eos,
        model_specific_special_tokens=named,
    )
    text.add_tokens([*special, *named.values()], special_tokens=True)
    return text


def add_noise(model: nn.Module) -> None:
    """Adds noise to the weights, so that every component has a large effect on the logits."""
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.data.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)


def text_config(config: type[Any], vocabulary: int, **options: Any) -> Any:  # noqa: ANN401
    common = {"vocab_size": vocabulary, "max_position_embeddings": 2048, "num_key_value_heads": 2}
    return config(**TEXT, **common, pad_token_id=0, bos_token_id=1, **options)


def save(folder: Path, model: Any, processor: Any) -> None:  # noqa: ANN401
    add_noise(model)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


def sentencepiece_tokenizer(*special: str) -> Any:  # noqa: ANN401
    """A tokenizer as Llama's: it prepends a space to a text, but not to texts after special tokens."""
    tokens = Tokenizer(models.BPE(byte_fallback=True))
    tokens.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tokens.decoder = decoders.Metaspace(prepend_scheme="first")
    names = ["<pad>", "<s>", "</s>", *[f"<0x{byte:02X}>" for byte in range(256)]]
    trainer = trainers.BpeTrainer(vocab_size=600, special_tokens=names, show_progress=False)
    trainer.initial_alphabet = [chr(code) for code in range(32, 127)]
    tokens.train_from_iterator(["USER: What is shown? ASSISTANT:", "Is there a road, or a river?"], trainer)
    named = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>"}
    text = transformers.PreTrainedTokenizerFast(tokenizer_object=tokens, **named)
    text.add_tokens(list(special), special_tokens=True)
    return text


def write_llava(folder: Path) -> None:
    text = sentencepiece_tokenizer("<image>")
    config = transformers.LlavaConfig(
        vision_config=transformers.CLIPVisionConfig(**VISION, image_size=SIDE, patch_size=PATCH),
        text_config=text_config(transformers.LlamaConfig, len(text)),
        image_token_index=text.convert_tokens_to_ids("<image>"),
    )
    edges: dict[str, Any] = {"size": {"shortest_edge": SIDE}, "crop_size": {"height": SIDE, "width": SIDE}}
    processor = transformers.LlavaProcessor(
        transformers.CLIPImageProcessor(**edges, image_mean=MEAN, image_std=STD),
        text,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=LLAVA_TEMPLATE,
    )
    save(folder, transformers.LlavaForConditionalGeneration(config), processor)


# As the published LLaVA-1.5's.
LLAVA_TEMPLATE = (
    "{% for message in messages %}{{ message['role'].upper() + ': ' }}"
    "{% for part in message['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>\n' }}{% endfor %}"
    "{% for part in message['content'] | selectattr('type', 'equalto', 'text') %}{{ part['text'] + ' ' }}{% endfor %}"
    "{% endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)


def write_llava_onevision(folder: Path) -> None:
    text = tokenizer("<|im_start|>", "<image>", "<video>")
    pinpoints = [[SIDE, SIDE], [SIDE, 2 * SIDE], [2 * SIDE, SIDE]]
    vision = transformers.SiglipVisionConfig(**VISION, image_size=SIDE, patch_size=PATCH, vision_use_head=False)
    config = transformers.LlavaOnevisionConfig(
        vision_config=vision,
        text_config=text_config(transformers.Qwen2Config, len(text)),
        image_token_index=text.convert_tokens_to_ids("<image>"),
        video_token_index=text.convert_tokens_to_ids("<video>"),
        image_grid_pinpoints=pinpoints,
    )
    size = {"height": SIDE, "width": SIDE}
    images = transformers.LlavaOnevisionImageProcessor(
        size=size, image_mean=MEAN, image_std=STD, image_grid_pinpoints=pinpoints
    )
    processor = transformers.LlavaOnevisionProcessor(
        images,
        text,
        transformers.LlavaOnevisionVideoProcessor(),
        num_image_tokens=(SIDE // PATCH) ** 2,
        vision_feature_select_strategy="full",
        chat_template=CHATML.replace(" + after", "").replace("{{ part['text'] }}", "{{ '\\n' + part['text'] }}"),
    )
    save(folder, transformers.LlavaOnevisionForConditionalGeneration(config), processor)


IDEFICS3_TEMPLATE = (
    "<|im_start|>{% for message in messages %}{{ message['role'] | capitalize }}"
    "{% if message['content'][0]['type'] == 'image' %}{{ ':' }}{% else %}{{ ': ' }}{% endif %}"
    "{% for line in message['content'] %}{% if line['type'] == 'text' %}{{ line['text'] }}"
    "{% elif line['type'] == 'image' %}{{ '<image>' }}{% endif %}{% endfor %}<end_of_utterance>\n"
    "{% endfor %}{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)


def write_idefics3(
    folder: Path, prefix: str = "Idefics3", *, side: int = SIDE, patch: int = PATCH, scale: int = 2
) -> None:
    markers = ("<fake_token_around_image>", "<image>", "<global-img>", "<|im_start|>")
    text = tokenizer(
        *markers, *[f"<row_{i + 1}_col_{j + 1}>" for i in range(6) for j in range(6)], eos="<end_of_utterance>"
    )
    vision = getattr(transformers, f"{prefix}VisionConfig", None) or transformers.models.smolvlm.SmolVLMVisionConfig
    config = getattr(transformers, f"{prefix}Config")(
        vision_config=vision(**VISION, image_size=side, patch_size=patch).to_dict(),
        text_config=text_config(transformers.LlamaConfig, len(text)),
        image_token_id=text.convert_tokens_to_ids("<image>"),
        scale_factor=scale,
    )
    edges = {"size": {"longest_edge": 4 * side}, "max_image_size": {"longest_edge": side}}
    images = getattr(transformers, f"{prefix}ImageProcessor")(**edges, image_mean=MEAN, image_std=STD)
    more = [transformers.SmolVLMVideoProcessor()] if prefix == "SmolVLM" else []
    tokens = (side // patch // scale) ** 2
    processor = getattr(transformers, f"{prefix}Processor")(
        images, text, *more, image_seq_len=tokens, chat_template=IDEFICS3_TEMPLATE
    )
    save(folder, getattr(transformers, f"{prefix}ForConditionalGeneration")(config), processor)


def write_smolvlm(folder: Path, **options: int) -> None:
    write_idefics3(folder, "SmolVLM", **options)


def write_internvl(folder: Path) -> None:
    named = {
        "start_image_token": "<img>",
        "end_image_token": "</img>",
        "context_image_token": "<IMG_CONTEXT>",
        "video_token": "<video>",
    }
    text = tokenizer("<|im_start|>", **named)
    config = transformers.InternVLConfig(
        vision_config=transformers.InternVLVisionConfig(**VISION, image_size=SIDE, patch_size=PATCH),
        text_config=text_config(transformers.Qwen2Config, len(text)),
        image_token_id=text.convert_tokens_to_ids("<IMG_CONTEXT>"),
        image_seq_length=(SIDE // PATCH // 2) ** 2,
    )
    size = {"height": SIDE, "width": SIDE}
    processor = transformers.InternVLProcessor(
        transformers.GotOcr2ImageProcessor(size=size, image_mean=MEAN, image_std=STD),
        text,
        transformers.InternVLVideoProcessor(),
        image_seq_length=config.image_seq_length,
        chat_template=CHATML.replace("<image>", "<IMG_CONTEXT>").replace("after", "'\\n'"),
    )
    save(folder, transformers.InternVLForConditionalGeneration(config), processor)


GEMMA3_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<start_of_turn>' + ('model' if message['role'] == 'assistant' else message['role']) + '\n' }}"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}{{ '<start_of_image>' }}"
    "{% else %}{{ part['text'] | trim }}{% endif %}{% endfor %}{{ '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)


def write_gemma3(folder: Path) -> None:
    named = {"boi_token": "<start_of_image>", "eoi_token": "<end_of_image>", "image_token": "<image_soft_token>"}
    text = tokenizer("<start_of_turn>", "<end_of_turn>", eos="</s>", **named)
    config = transformers.Gemma3Config(
        vision_config=transformers.SiglipVisionConfig(
            **VISION, image_size=SIDE, patch_size=PATCH, vision_use_head=False
        ),
        text_config=text_config(
            transformers.Gemma3TextConfig, len(text), head_dim=24, sliding_window=16, sliding_window_pattern=2
        ),
        mm_tokens_per_image=9,
        boi_token_index=text.convert_tokens_to_ids("<start_of_image>"),
        eoi_token_index=text.convert_tokens_to_ids("<end_of_image>"),
        image_token_index=text.convert_tokens_to_ids("<image_soft_token>"),
    )
    size = {"height": SIDE, "width": SIDE}
    processor = transformers.Gemma3Processor(
        transformers.Gemma3ImageProcessor(size=size, image_mean=MEAN, image_std=STD),
        text,
        chat_template=GEMMA3_TEMPLATE,
        image_seq_length=9,
    )
    model = transformers.Gemma3ForConditionalGeneration(config)
    model.generation_config.eos_token_id = [text.eos_token_id, text.convert_tokens_to_ids("<end_of_turn>")]
    save(folder, model, processor)


FAMILIES: dict[str, Callable[[Path], None]] = {
    "llava": write_llava,
    "llava_onevision": write_llava_onevision,
    "idefics3": write_idefics3,
    "smolvlm": write_smolvlm,
    "internvl": write_internvl,
    "gemma3": write_gemma3,
}
