"""A saved model: one folder with weights, config and tokenizer, which loads without the training config or its sources.

`config.json` describes how the components are built, `model.safetensors` holds all their weights, and the tokenizer's
own files lie beside them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, cast

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from safetensors import SafetensorError
from safetensors.torch import load_model, save_model
from transformers import AutoTokenizer
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from unirs import plugins
from unirs.data.clues import ClueConfig
from unirs.errors import DataError, ModelError, did_you_mean
from unirs.interfaces import Encoder, MergesAdapters
from unirs.models.llm import rebuild_llm
from unirs.models.tuning import Lora, has_adapters, merge_adapters
from unirs.models.unirs_model import UniRSModel
from unirs.tasks.media import Modality
from unirs.tasks.prompt import PromptTemplate
from unirs.utils.io import read_json

CONFIG, WEIGHTS = "config.json", "model.safetensors"

_FORMAT = 1


@dataclass(frozen=True)
class PromptConfig:
    """A task's prompt template, and whether its prompts contain a clue."""

    modality: Modality
    task_tag: str
    instruction: str
    clue: bool = False

    @property
    def prompt(self) -> PromptTemplate:
        """The template."""
        return PromptTemplate(self.task_tag, self.instruction)


@dataclass(frozen=True)
class UniRSConfig:
    """The contents of `config.json`.

    Attributes:
        encoder: plugin name, and the options that build its architecture.
        change: plugin name and options, or None.
        projector: name of the projector.
        llm: what `unirs.models.llm.rebuild_llm` takes.
        prompts: the prompts of the tasks that the model was trained on, by task.
        max_new_tokens: maximum length of an answer in tokens.
        max_length: maximum length of a sequence in tokens.
        clue: how clues are generated.
        unirs: version of this format.
    """

    encoder: dict[str, Any]
    change: dict[str, Any] | None
    projector: dict[str, Any]
    llm: dict[str, Any]
    prompts: dict[str, PromptConfig]
    max_new_tokens: int = 48
    max_length: int = 4096
    clue: ClueConfig = field(default_factory=ClueConfig)
    unirs: int = _FORMAT


Pretrained = tuple[UniRSModel, PreTrainedTokenizerBase, UniRSConfig]
"""A model, its tokenizer, and the config that it is saved with."""


def is_saved_model(folder: Path) -> bool:
    """Whether a folder holds a saved UniRS model."""
    path = folder / CONFIG
    return path.is_file() and "unirs" in read_json(path)


def write_model(folder: Path, model: UniRSModel, tokenizer: PreTrainedTokenizerBase, config: UniRSConfig) -> None:
    """Writes a model into a folder that exists."""
    (folder / CONFIG).write_text(json.dumps(asdict(config), ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    # safetensors requires contiguous tensors; it writes tied weights once.
    for parameter in model.parameters():
        parameter.data = parameter.data.contiguous()
    save_model(model, str(folder / WEIGHTS), metadata={"format": "pt"})
    tokenizer.save_pretrained(folder)


def download(hub_id: str, options: Mapping[str, Any]) -> Path:
    """Downloads a saved model from the hub.

    Args:
        hub_id: of the model.
        options: what `huggingface_hub.snapshot_download` takes.

    Raises:
        ModelError: the hub has no such model, or cannot be reached.
    """
    try:
        return Path(snapshot_download(hub_id, **options))
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise ModelError(
            f"'{hub_id}' is no folder, and does not load from the hub ({type(error).__name__}: {error}). "
            "Name the folder of a run or of a saved model, or a hub id."
        ) from error


def read_model(folder: Path, *, trust_remote_code: bool = False) -> Pretrained:
    """Reads a model that `write_model` wrote, in evaluation mode and with frozen weights.

    Args:
        folder: of the saved model.
        trust_remote_code: also import components that the config names by file or dotted path.

    Raises:
        ModelError: the folder holds no saved model, one of another format, or one that names code that is not
            trusted; or the weights do not fit (lists the keys).
        PluginError: a component's plugin does not load, or does not take its options.
    """
    config = _read_config(folder)
    if not trust_remote_code:
        _check_trusted(folder, config)
    model = _build(config)
    path = folder / WEIGHTS
    if not path.is_file():
        raise ModelError(f"{folder} holds a config but no {WEIGHTS}. Save or download the model again.")
    try:
        missing, unexpected = load_model(model, path, strict=False)
    except (RuntimeError, SafetensorError) as error:
        raise ModelError(f"The weights in {path} do not fit the model of its config.json: {error}") from error
    if missing or unexpected:
        wrong = {"missing": sorted(missing), "unexpected": sorted(unexpected)}
        raise ModelError(f"The weights in {path} do not fit the model of its config.json: {wrong}.")
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise ModelError(f"The tokenizer in {folder} does not load: {error}") from error
    return model.eval().requires_grad_(False), tokenizer, config


def merged(model: UniRSModel, config: UniRSConfig) -> tuple[UniRSModel, UniRSConfig]:
    """A copy of a model whose LoRA adapters are merged into its weights, and the config that builds it.

    Raises:
        ModelError: the encoder has adapters and cannot merge them.
    """
    model = deepcopy(model)
    if has_adapters(model.encoder):
        if not isinstance(model.encoder, MergesAdapters):
            raise ModelError(f"The encoder {type(model.encoder).__name__} has adapters, but no method merge_adapters.")
        model.encoder.merge_adapters()
        init_config = cast("Encoder", model.encoder).init_config
        config = replace(config, encoder={"name": config.encoder["name"], **init_config})
    if has_adapters(model.llm):
        merge_adapters(model.llm)
        plain = {"tune": "full", "lora": Lora().as_options(), "new_tokens": []}
        config = replace(config, llm=config.llm | plain)
    return model, config


def _build(config: UniRSConfig) -> UniRSModel:
    encoder = plugins.create("unirs.encoders", config.encoder)
    change = None
    if config.change is not None:
        change = plugins.create("unirs.change_extractors", config.change, encoder.grid, encoder.embed_dim)
    return UniRSModel(encoder, change, rebuild_llm(config.llm), config.projector)


def _check_trusted(folder: Path, config: UniRSConfig) -> None:
    components: tuple[tuple[plugins.Group, dict[str, Any] | None], ...] = (
        ("unirs.encoders", config.encoder),
        ("unirs.change_extractors", config.change),
    )
    for group, options in components:
        name, installed = "" if options is None else options.get("name"), plugins.list_plugins(group)
        if options is not None and name not in installed:
            raise ModelError(
                f"{folder / CONFIG} names '{name}' of group '{group}', which is not an installed plugin. "
                f"{did_you_mean(str(name), installed)} Install the plugin's package. A file or dotted path is run only "
                "with trust_remote_code=True (--trust-remote-code; for fit, --model.trust_remote_code true): set it if "
                "you trust the code."
            )


def _read_config(folder: Path) -> UniRSConfig:
    try:
        values = read_json(folder / CONFIG)
    except DataError as error:
        raise ModelError(f"{folder} is not a saved UniRS model: {error}") from error
    if not isinstance(values, dict) or "unirs" not in values:
        raise ModelError(
            f"{folder} is not a saved UniRS model: its {CONFIG} is another program's. See 'unirs convert'."
        )
    if values["unirs"] != _FORMAT:
        raise ModelError(f"{folder} is of format {values['unirs']}, this UniRS reads {_FORMAT}. Update UniRS.")
    unknown = values.keys() ^ {entry.name for entry in fields(UniRSConfig)}
    if unknown:
        raise ModelError(f"{folder / CONFIG} has missing or unknown entries: {', '.join(sorted(unknown))}.")
    prompts: Mapping[str, Any] = values["prompts"]
    return UniRSConfig(
        **values
        | {
            "prompts": {name: PromptConfig(**prompt) for name, prompt in prompts.items()},
            "clue": ClueConfig(**values["clue"]),
        }
    )
