"""Reads checkpoints of vision-language models in transformers, and compares each with the class that it comes from."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from inspect import signature
from pathlib import Path
from typing import Any, cast

import PIL.Image
import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM, AutoProcessor, PreTrainedModel

from unirs.data.prompt_encoder import PromptEncoder
from unirs.errors import ModelError
from unirs.interfaces import Encoder, as_module
from unirs.models.convert_weights import load_exactly, rename
from unirs.models.importers.assemble import assemble, build_encoder, stored_dtype
from unirs.models.importers.chat import convert_chat, render_chat, takes_images
from unirs.models.llm import LLMConfig, check_loaded
from unirs.models.pretrained import Pretrained
from unirs.models.unirs_model import UniRSModel
from unirs.tasks.media import ResizeMode
from unirs.tasks.prompt import PromptTemplate
from unirs.tasks.sample import Sample, Turn

State = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Family:
    """How checkpoints of one family map to a `UniRSModel`.

    Attributes:
        layer: of the vision tower, see the encoder plugin `hf`.
        projector: plugin and options.
        weights: prefixes of the projector's weights, and those that replace them.
        resize_mode: for images that are not square.
        image_size: height and width in pixels of an image, if the image processor's `size` is another one.
        final_norm: whether the vision tower's final norm follows the layer.
        vision, llm: prefixes of the weights of vision tower and language model.
        before, after: text that the processor writes around the visual tokens of an image.
        processor_options: options with which the processor takes an image of the encoder's size as one tile.
        num_images: numbers of images in the prompts that are compared with the original's.
        convert: converts the renamed weights.
        bidirectional_images: whether the visual tokens of an image attend to each other in both directions.
    """

    layer: int
    projector: dict[str, Any]
    weights: Mapping[str, str]
    resize_mode: ResizeMode = "stretch"
    image_size: int | None = None
    final_norm: bool = False
    vision: str = "model.vision_tower"
    llm: str = "model.language_model"
    before: str = ""
    after: str = ""
    processor_options: dict[str, Any] = field(default_factory=dict)
    num_images: tuple[int, ...] = (1, 2)
    convert: Callable[[State], State] = lambda state: state
    bidirectional_images: bool = False


Describe = Callable[[Any, Any], Family]
"""Describes a checkpoint by its config and its processor; raises `ModelError` for options that UniRS does not have."""


def read_family(source: Path, class_name: str, describe: Describe) -> Pretrained:
    """Reads a checkpoint of a class in transformers.

    Raises:
        ModelError: it does not load, has weights or options that do not fit, or its visual tokens or prompts differ
            from those of the original class.
    """
    load: Any = getattr(transformers, class_name).from_pretrained
    try:
        config: Any = AutoConfig.from_pretrained(source, trust_remote_code=False)
        processor: Any = AutoProcessor.from_pretrained(source, trust_remote_code=False)
        family = describe(config, processor)
        settings = LLMConfig(dtype=stored_dtype(config.dtype))
        dtype = getattr(torch, settings.fixed_dtype)
        # The class maps the weight names of earlier versions of `transformers`.
        original, report = load(source, dtype=dtype, output_loading_info=True, ignore_mismatched_sizes=True)
    except ModelError as error:
        raise ModelError(f"{source} {error}") from error
    # Of any class, for files that are missing or damaged.
    except Exception as error:
        raise ModelError(f"{source} does not load as {class_name}: {error}") from error
    encoder = build_encoder(
        config=config.vision_config.to_dict(),
        pretrained="given",
        layer=family.layer,
        final_norm=family.final_norm,
        resize_mode=family.resize_mode,
        **_image_options(source, processor.image_processor, family),
    )
    config.text_config.tie_word_embeddings = config.tie_word_embeddings
    if family.bidirectional_images:
        config.text_config.bidirectional_images = True
    llm = AutoModelForCausalLM.from_config(config.text_config, dtype=dtype)
    model = UniRSModel(encoder, None, llm, family.projector)
    vision = next(name for name, child in as_module(encoder).named_modules() if isinstance(child, PreTrainedModel))
    names = {
        family.vision: f"encoder.{vision}",
        family.llm: f"llm.{llm.base_model_prefix}",
        "lm_head": "llm.lm_head",
        **family.weights,
    }
    expected = model.state_dict()
    missing = rename({key: key for key in report["missing_keys"]}, names)
    # Vision layers after the selected one are not part of the model.
    missing_keys = [old for new, old in missing.items() if new in expected]
    check_loaded(str(source), original, {**report, "missing_keys": missing_keys})
    state = family.convert(rename(original.state_dict(), names))
    load_exactly(
        model, {key: value for key, value in state.items() if key in expected or not key.startswith("encoder.")}, source
    )
    tokenizer, visual_format = convert_chat(source, processor, family.before, family.after, original.generation_config)
    # In float32, as UniRS computes visual tokens.
    for name, component in original.model.named_children():
        if f"model.{name}" != family.llm:
            component.float()
    encode = PromptEncoder(tokenizer, visual_format=visual_format)
    for count in family.num_images:
        _compare_features(source, original.eval(), processor, family, model.eval(), count)
        if takes_images(processor):
            _compare_prompts(source, original.config.image_token_id, processor, family, model, encode, count)
    return assemble(model, None, family.projector, tokenizer, settings, visual_format)


def _image_options(source: Path, resizing: Any, family: Family) -> dict[str, Any]:  # noqa: ANN401 - any image processor
    if not (resizing.do_rescale and resizing.do_normalize and abs(255 * resizing.rescale_factor - 1) < 1e-6):
        raise ModelError(f"{source} does not scale pixels to 0..1 and normalize them: see preprocessor_config.json.")
    size = {} if family.image_size is None else {"image_size": family.image_size}
    return {"mean": list(resizing.image_mean), "std": list(resizing.image_std), **size}


def _frames(model: UniRSModel, count: int) -> torch.Tensor:
    size = cast("Encoder", model.encoder).image_size
    return torch.randint(0, 256, (count, 3, *size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def _process(processor: Any, frames: torch.Tensor, text: str, family: Family) -> Any:  # noqa: ANN401
    images = [PIL.Image.fromarray(frame.permute(1, 2, 0).numpy()) for frame in frames]
    bos = processor.tokenizer.bos_token
    add_bos = bos is None or not text.startswith(bos)
    options = {"add_special_tokens": add_bos, "return_tensors": "pt", **family.processor_options}
    return processor(images=[images], text=[text], **options)


@torch.no_grad()
def _compare_features(
    source: Path,
    original: Any,  # noqa: ANN401 - the class of transformers
    processor: Any,  # noqa: ANN401
    family: Family,
    model: UniRSModel,
    count: int,
) -> None:
    """Compares the visual tokens of images of the encoder's size; raises a `ModelError` if they differ."""
    frames = _frames(model, count)
    inputs = _process(processor, frames, processor.image_token * count, family)
    taken = signature(original.get_image_features).parameters
    features = original.get_image_features(**{key: value for key, value in inputs.items() if key in taken})
    expected = torch.cat([one.flatten(0, -2) for one in features.pooler_output]).float()
    tokens = model.projector(model.encoder(frames)).flatten(0, 1)
    if tokens.shape != expected.shape:
        grid = cast("Encoder", model.encoder).grid
        raise ModelError(
            f"{source} has {len(expected) // count} visual tokens per image, but its grid is {grid[0]}x{grid[1]}, of "
            f"which UniRS makes {model.projector.num_tokens}: it keeps a class token, drops patches, or encodes tiles."
        )
    difference = (tokens - expected).abs().max() / expected.std()
    if not difference < 1e-3:
        raise ModelError(
            f"{source} has other visual tokens than its conversion (by up to {difference:.2g} of their standard "
            "deviation): an option of its vision tower or projector is not converted."
        )


def _compare_prompts(
    source: Path,
    image_token_id: int,
    processor: Any,  # noqa: ANN401
    family: Family,
    model: UniRSModel,
    encoder: PromptEncoder,
    count: int,
) -> None:
    """Compares the token ids of a prompt with `count` images; raises a `ModelError` if they differ."""
    question = "Is there a road?"
    ids = _process(processor, _frames(model, count), render_chat(processor, count, question), family)["input_ids"][0]
    expected = ids.masked_fill(ids == image_token_id, 0).tolist()
    sample = Sample("", cast("Any", None), (Turn("", (), {"question": question}),))
    ((tree, _),) = encoder.encode_prompts(PromptTemplate("", "{question}"), sample, count, model.projector.num_tokens)
    if tree.input_ids != expected:
        raise ModelError(
            f"{source}: the prompt with {count} image(s) has other token ids than the original processor's "
            f"({_differing(processor.tokenizer.decode, tree.input_ids, expected)}): its chat template, or its "
            "tokenizer, does not treat the texts around an image separately."
        )


def _differing(decode: Callable[[list[int]], str], ids: list[int], expected: list[int]) -> str:
    pairs = enumerate(zip(ids, expected, strict=False))
    start = next((index for index, (one, other) in pairs if one != other), min(len(ids), len(expected)))
    shown = slice(max(0, start - 2), start + 8)
    return f"{decode(ids[shown])!r} instead of {decode(expected[shown])!r}"
