"""Builds a model from another UniRS model: its components and tokenizer are kept, and tuning is set anew."""

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import nn
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from unirs.errors import ModelError
from unirs.interfaces import ChangeExtractor, Encoder, as_module
from unirs.models.builder import BuiltModel, ModelConfig, check_components, tune_change
from unirs.models.change_config import split_change
from unirs.models.llm import LLMConfig, load_config, rebuild_llm, set_llm_tuning
from unirs.models.pretrained import UniRSConfig, merged
from unirs.models.tuning import base_state
from unirs.models.unirs_model import UniRSModel, create_change, create_encoder

_ARCHITECTURE = ("model_type", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
"""Options of a language model's config that must be those of the initial model."""


def build_from_init(
    config: ModelConfig, init: UniRSModel, tokenizer: PreTrainedTokenizerBase, saved: UniRSConfig
) -> BuiltModel:
    """Builds a model with the weights of another one, whose LoRA adapters are merged first.

    The config's `encoder` may contain only options to change, such as `tune`; a `change` that the initial model does
    not have is added with random weights.

    Raises:
        ModelError: the config does not fit the initial model; lists all differences.
    """
    init, saved = merged(init, saved)
    options = config.encoder or {}
    encoder_config = options if "name" in options else saved.encoder | options
    encoder = create_encoder(encoder_config)
    change, change_config = cast("ChangeExtractor | None", init.change), saved.change
    change_options, own_change = split_change(config.change)
    if own_change:
        change_config = own_change if "name" in own_change else (saved.change or {}) | own_change
        change = create_change(change_config, encoder)
    differences = [
        *_encoder_differences(encoder_config, encoder, saved, init.encoder),
        *_llm_differences(config.llm, init, tokenizer),
    ]
    if change_config and saved.change and change_config["name"] != saved.change["name"]:
        differences.append(f"change.name is '{change_config['name']}', not '{saved.change['name']}'")
    if config.projector.source is not None:
        differences.append("projector.source is set, but the projector's weights are the initial model's: remove it")
    if (config.projector.name or config.projector.options) and config.projector.plugin != saved.projector:
        differences.append(f"projector is {config.projector.plugin}, not {saved.projector}")
    if not differences:
        differences += _load_weights("encoder", as_module(encoder), init.encoder.state_dict())
        if change is not None and init.change is not None:
            differences += _load_weights("change", as_module(change), init.change.state_dict())
    if differences:
        raise ModelError(f"The config does not fit the initial model '{config.init}': {'; '.join(differences)}.")
    check_components(encoder, change)
    llm = rebuild_llm(saved.llm | {"dtype": config.llm.fixed_dtype}, config.llm.attn_implementation)
    llm.load_state_dict(init.llm.state_dict())
    set_llm_tuning(llm, config.llm, [tokenizer.vocab[token] for token in config.llm.add_tokens])
    model = UniRSModel(encoder, change, llm, saved.projector)
    model.projector.load_state_dict(init.projector.state_dict())
    model.projector.requires_grad_(config.projector.tune == "full").train(config.projector.tune == "full")
    tune_change(model, change_options, pretrained=init.change is not None)
    encoder_config = {"name": encoder_config["name"], **encoder.init_config}
    visual_format = config.visual_format or saved.visual_format
    return BuiltModel(model, tokenizer, encoder_config, change_config, saved.projector, visual_format)


def _encoder_differences(
    options: Mapping[str, Any], encoder: Encoder, saved: UniRSConfig, init: nn.Module
) -> list[str]:
    if options["name"] != saved.encoder["name"]:
        return [f"encoder.name is '{options['name']}', not '{saved.encoder['name']}'"]
    attributes = ((name, getattr(encoder, name), getattr(init, name)) for name in ("image_size", "resize", "grid"))
    return [
        f"the encoder's {name} is {value}, not {expected}" for name, value, expected in attributes if value != expected
    ]


def _llm_differences(config: LLMConfig, init: UniRSModel, tokenizer: PreTrainedTokenizerBase) -> list[str]:
    differences = [
        f"llm.add_tokens has '{token}', which the initial model's tokenizer does not have"
        for token in config.add_tokens
        if token not in tokenizer.vocab
    ]
    options = config.config or {}
    if config.source is not None and config.config is None:
        source = load_config(config)
        options = {name: getattr(source, name) for name in _ARCHITECTURE if hasattr(source, name)}
    own = {key: getattr(init.llm.config, key, None) for key in options}
    return differences + [
        f"the language model's {name} is {value}, not {own[name]}"
        for name, value in options.items()
        if value != own[name]
    ]


def _load_weights(name: str, component: nn.Module, state: Mapping[str, torch.Tensor]) -> list[str]:
    """Copies weights into a component that may have new adapters, or returns how the two differ."""
    weights = {key.replace(".base_layer.", "."): value for key, value in base_state(component).items()}
    shapes, expected = ({key: value.shape for key, value in one.items()} for one in (weights, state))
    wrong = sorted(key for key in shapes.keys() | expected.keys() if shapes.get(key) != expected.get(key))
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        return [f"the weights of '{name}' differ in name or shape: {', '.join(wrong[:3])}{more}"]
    with torch.no_grad():
        for key, value in weights.items():
            value.copy_(state[key])
    return []
