"""Builds the model from its config, and checks that its components fit together."""

from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

import torch
from torch import nn
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from unirs import plugins
from unirs.data.processor import Processor
from unirs.errors import ModelError
from unirs.interfaces import ChangeExtractor, Encoder, HasPublishedWeights, as_module
from unirs.models.change_config import ChangeOptions, read_change_weights, split_change
from unirs.models.convert_weights import load_exactly, read_projector
from unirs.models.llm import LLMConfig, build_llm, train_tokenizer
from unirs.models.unirs_model import UniRSModel, create_change, create_encoder
from unirs.tasks.prompt import VisualFormat


@dataclass
class ProjectorConfig:
    """What lies between encoder and language model.

    Attributes:
        name: a projector plugin; by default that of `model.init`, or else `downsample`, the paper's: four tokens become
            one.
        options: the plugin's options.
        source: a VILA-1.5 or UniRS folder `mm_projector` with weights for `downsample`, and for `change_extraction` if
            it has them; random weights if omitted.
        tune: `full` or `frozen`.
    """

    name: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    source: Path | None = None
    tune: Literal["full", "frozen"] = "full"

    def __post_init__(self) -> None:
        plugins.check_plugin("unirs.projectors", self.plugin)

    @property
    def plugin(self) -> dict[str, Any]:
        """The plugin's name and options."""
        return {"name": self.name or "downsample", **self.options}


@dataclass
class ModelConfig:
    """The components of a model, as a training config names them.

    Attributes:
        encoder: `name` of an encoder plugin, and its options.
        llm: the language model.
        change: `name` of a change extractor plugin, its options, and `tune` and `source`; null gives the language model
            both frames of a pair.
        projector: maps vision tokens to the language model's embeddings.
        init: a training run, a saved model or a hub id to start from, instead of the sources of the components.
        trust_remote_code: run code that the config of `init` names by file or dotted path.
        visual_format: text around the visual tokens of a prompt; by default that of `init`, or else a newline after
            the last image.
    """

    encoder: dict[str, Any] | None = None
    llm: LLMConfig = field(default_factory=LLMConfig)
    change: dict[str, Any] | None = None
    projector: ProjectorConfig = field(default_factory=ProjectorConfig)
    init: str | None = None
    trust_remote_code: bool = False
    visual_format: VisualFormat | None = None


class BuiltModel(NamedTuple):
    """A model, its tokenizer (None if it is still to be trained), and what its config needs to be saved."""

    model: UniRSModel
    tokenizer: PreTrainedTokenizerBase | None
    encoder_config: dict[str, Any]
    change_config: dict[str, Any] | None
    projector_config: dict[str, Any]
    visual_format: VisualFormat


def build_model(config: ModelConfig) -> BuiltModel:
    """Builds a model with the weights of its sources."""
    if config.encoder is None:
        raise ModelError("The model has no encoder. Set 'model.encoder', or 'model.init' to start from another model.")
    if config.encoder.get("pretrained") == "given":
        raise ModelError("Encoder option 'pretrained: given' is for saved models only. Use true or false.")
    encoder = create_encoder(config.encoder)
    if not isinstance(encoder, Encoder):
        raise ModelError(
            f"Encoder plugin '{config.encoder['name']}' built a {type(encoder).__name__} without image_size, resize, "
            "grid, embed_dim or init_config."
        )
    change_options, change_config = split_change(config.change)
    change = create_change(change_config, encoder)
    check_components(encoder, change)
    llm, tokenizer = build_llm(config.llm)
    model = UniRSModel(encoder, change, llm, config.projector.plugin)
    pretrained = _load_projector_weights(model, config.projector)
    tune_change(model, change_options, pretrained=pretrained)
    encoder_config = {"name": config.encoder["name"], **encoder.init_config}
    visual_format = config.visual_format or VisualFormat()
    return BuiltModel(model, tokenizer, encoder_config, change_config, config.projector.plugin, visual_format)


def build_processor(
    model: UniRSModel,
    tokenizer: PreTrainedTokenizerBase | None,
    visual_format: VisualFormat,
    *,
    vocab_size: int = 0,
    max_length: int = 4096,
) -> Processor:
    """Makes the processor of a model; `vocab_size` limits a tokenizer that is still to be trained."""
    encoder = cast("Encoder", model.encoder)
    return Processor(
        tokenizer=tokenizer,
        image_size=encoder.image_size,
        resize=encoder.resize,
        feature_shape=(encoder.grid[0] * encoder.grid[1], encoder.embed_dim),
        tokens_per_image=model.projector.num_tokens,
        fuse_pairs=model.change is not None,
        supports_tree_attention=model.supports_tree_attention,
        train_tokenizer=None if tokenizer is not None else partial(train_tokenizer, vocab_size=vocab_size),
        max_length=max_length,
        visual_format=visual_format,
        context=model.context,
    )


def tune_change(model: UniRSModel, options: ChangeOptions, *, pretrained: bool) -> None:
    """Loads the weights of the change extractor's `source`, and sets whether it is trained.

    `pretrained`: whether its weights are not random.

    Raises:
        ModelError: the source does not fit, or random weights would be frozen.
    """
    if model.change is None:
        return
    if options.source is not None:
        load_exactly(model.change, read_change_weights(options.source), options.source)
    elif options.tune == "frozen" and not pretrained and any(True for _ in model.change.parameters()):
        raise ModelError("The change extractor is frozen with random weights. Set change.source, or 'tune: full'.")
    # Frozen components are in evaluation mode from the start: Lightning keeps the modes that it finds.
    model.change.requires_grad_(options.tune == "full").train(options.tune == "full")


def _load_projector_weights(model: UniRSModel, config: ProjectorConfig) -> bool:
    """Loads the weights of `projector.source`; returns whether it has those of the change extractor, too."""
    if config.source is None:
        if config.tune == "frozen":
            raise ModelError("The projector is frozen with random weights. Name its 'source', or set 'tune: full'.")
        return False
    projector: object = model.projector
    if not isinstance(projector, HasPublishedWeights):
        raise ModelError(
            f"projector.source holds a 'downsample' projector, not '{config.plugin['name']}'. See 'unirs convert'."
        )
    state, change = read_projector(config.source, change=isinstance(model.change, HasPublishedWeights))
    load_exactly(model.projector, state, config.source)
    if change is not None and model.change is not None:
        load_exactly(model.change, change, config.source)
    model.projector.requires_grad_(config.tune == "full").train(config.tune == "full")
    return change is not None


@torch.no_grad()
def check_components(encoder: Encoder, change: ChangeExtractor | None) -> None:
    """Checks the shapes of the tokens of one black frame, and of a pair of such frames."""
    module = as_module(encoder)
    reference = next(chain(module.parameters(), module.buffers()), torch.empty(0))
    frame = torch.zeros(1, 3, *encoder.image_size, dtype=torch.uint8, device=reference.device)
    modes = [(one, one.training) for one in (encoder, change) if isinstance(one, nn.Module)]
    try:
        for component, _ in modes:
            component.eval()
        tokens = _call(encoder, (frame,), encoder)
        if change is not None:
            _call(change, (tokens, tokens), encoder)
    finally:
        for component, training in modes:
            component.train(training)


def _call(component: Encoder | ChangeExtractor, inputs: tuple[torch.Tensor, ...], encoder: Encoder) -> torch.Tensor:
    name, shapes = type(component).__name__, " and ".join(str(list(one.shape)) for one in inputs)
    height, width = encoder.grid
    try:
        tokens: object = component(*inputs)
    except RuntimeError as error:
        raise ModelError(
            f"{name} does not take inputs of shape {shapes}, for an encoder with a grid of {height}x{width}: {error}"
        ) from error
    if isinstance(tokens, torch.Tensor) and tokens.shape == (1, height * width, encoder.embed_dim):
        return tokens
    actual = list(tokens.shape) if isinstance(tokens, torch.Tensor) else type(tokens).__name__
    shape = f"[1, {height * width}, {encoder.embed_dim}] ([images, grid h*w, dim])"
    raise ModelError(f"{name}, given inputs of shape {shapes}, must return {shape}, but returned {actual}.")
