"""A saved model: one folder with weights, config and tokenizer, which loads without the training config or its sources.

`config.json` describes how the components are built, `model.safetensors` holds all their weights, and the tokenizer's
own files lie beside them.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, cast

import msgspec
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from safetensors import SafetensorError
from safetensors.torch import load_model, save_model
from transformers import AutoTokenizer
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from unirs import plugins
from unirs.data.clues import ClueConfig, without_paths
from unirs.errors import DataError, ModelError
from unirs.interfaces import Encoder, MergesAdapters
from unirs.models.llm import check_tokenizer, quantize_llm, rebuild_llm
from unirs.models.model_files import loading, verify_checksums, write_checksums
from unirs.models.quantization import dequantize
from unirs.models.tuning import Lora, has_adapters, merge_adapters
from unirs.models.unirs_model import UniRSModel, create_change, create_encoder
from unirs.ranges import PositiveInt, check_ranges
from unirs.tasks.media import Modality
from unirs.tasks.prompt import PromptTemplate, VisualFormat
from unirs.utils.io import read_json

CONFIG, WEIGHTS = "config.json", "model.safetensors"

_FORMAT = 1


@dataclass(frozen=True)
class PromptConfig:
    """A task's prompt template, and whether its prompts contain a clue."""

    modality: Modality
    prompt: PromptTemplate
    clue: bool = False


@dataclass(frozen=True)
class UniRSConfig:
    """The contents of `config.json`.

    Attributes:
        encoder: plugin name, and the options that build its architecture.
        change: plugin name and options, or None.
        projector: plugin name and options.
        llm: what `unirs.models.llm.rebuild_llm` takes.
        prompts: the prompts of the tasks that the model was trained on, by task.
        max_new_tokens: maximum length of an answer in tokens.
        max_length: maximum length of a sequence in tokens.
        visual_format: text around the visual tokens of a prompt.
        clue: how clues are generated; its `source` and `cache` are neither written nor read.
        foreign_clues: whether the clues of its training were those of another model, its `clue.source`.
        unirs: version of this format.
    """

    encoder: dict[str, Any]
    change: dict[str, Any] | None
    projector: dict[str, Any]
    llm: dict[str, Any]
    prompts: dict[str, PromptConfig]
    max_new_tokens: PositiveInt = 48
    max_length: PositiveInt = 4096
    visual_format: VisualFormat = field(default_factory=VisualFormat)
    clue: ClueConfig = field(default_factory=ClueConfig)
    foreign_clues: bool = False
    unirs: int = _FORMAT

    def __post_init__(self) -> None:
        check_ranges(UniRSConfig, self)


Pretrained = tuple[UniRSModel, PreTrainedTokenizerBase, UniRSConfig]
"""A model, its tokenizer, and the config that it is saved with."""


def is_saved_model(folder: Path) -> bool:
    """Whether a folder holds a saved UniRS model."""
    path = folder / CONFIG
    return path.is_file() and isinstance(content := read_json(path), dict) and "unirs" in content


def write_model(folder: Path, model: UniRSModel, tokenizer: PreTrainedTokenizerBase, config: UniRSConfig) -> None:
    """Writes a model into a folder that exists."""
    values = asdict(config)
    values["clue"] = {name: values["clue"][name] for name in ("max_new_tokens", "batch_size")}
    # Another program's config may hold lone surrogates, which JSON escapes as Python does here.
    content = json.dumps(values, ensure_ascii=False, indent=2) + "\n"
    (folder / CONFIG).write_bytes(content.encode(errors="backslashreplace"))
    if config.llm.get("quantize"):
        model = deepcopy(model)
        dequantize(model.llm)
    # safetensors requires contiguous tensors; it writes tied weights once.
    for parameter in model.parameters():
        parameter.data = parameter.data.contiguous()
    save_model(model, str(folder / WEIGHTS), metadata={"format": "pt"})
    tokenizer.save_pretrained(folder)
    write_checksums(folder)


def download(hub_id: str, options: Mapping[str, Any]) -> Path:
    """Downloads a saved model from the hub; `options` are those of `huggingface_hub.snapshot_download`."""
    try:
        return Path(snapshot_download(hub_id, **options))
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise ModelError(
            f"'{hub_id}' is no folder, and does not load from the hub ({type(error).__name__}: {error}). "
            "Name the folder of a run or of a saved model, or a hub id."
        ) from error


def read_model(folder: Path) -> Pretrained:
    """Reads a model that `write_model` wrote, in evaluation mode and with frozen weights."""
    config = _read_config(folder)
    verify_checksums(folder)
    with loading(folder / CONFIG):
        _check_sources(folder, config)
        encoder = create_encoder(config.encoder)
        model = UniRSModel(encoder, create_change(config.change, encoder), rebuild_llm(config.llm), config.projector)
    path = folder / WEIGHTS
    if not path.is_file():
        raise ModelError(f"{folder} holds a config but no {WEIGHTS}. Save or download the model again.")
    try:
        load_model(model, path)
    except (OSError, RuntimeError, SafetensorError) as error:
        raise ModelError(f"The weights in {path} do not fit the model of its config.json: {error}") from error
    if config.llm.get("quantize"):
        with loading(folder / CONFIG):
            quantize_llm(model.llm, config.llm["quantize"])
    with loading(folder / "tokenizer.json"):
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        check_tokenizer(tokenizer, str(folder))
        rows = model.llm.get_input_embeddings().weight.shape[0]  # type: ignore[index]
        if (largest := max(tokenizer.vocab.values(), default=0)) >= rows:
            raise ModelError(f"The tokenizer has the token id {largest}, but the model has {rows} embeddings.")
    return model.eval().requires_grad_(False), tokenizer, config


def merged(model: UniRSModel, config: UniRSConfig) -> tuple[UniRSModel, UniRSConfig]:
    """A copy of a model whose LoRA adapters are merged into its weights, and the config that builds it."""
    model = deepcopy(model)
    if has_adapters(model.encoder):
        if not isinstance(model.encoder, MergesAdapters):
            raise ModelError(f"The encoder {type(model.encoder).__name__} has adapters, but no method merge_adapters.")
        model.encoder.merge_adapters()
        encoder = {"name": config.encoder["name"], **cast("Encoder", model.encoder).init_config}
        config = replace(config, encoder=encoder)
    dequantize(model.llm)
    config = replace(config, llm=config.llm | {"quantize": None})
    if has_adapters(model.llm):
        merge_adapters(model.llm)
        plain = {"tune": "full", "lora": Lora().as_options(), "new_tokens": []}
        config = replace(config, llm=config.llm | plain)
    return model, config


def _check_sources(folder: Path, config: UniRSConfig) -> None:
    """Checks that the encoder's weights are those of the folder: no file or hub id that the config names is loaded."""
    parameters = inspect.signature(plugins.load("unirs.encoders", str(config.encoder.get("name")))).parameters
    if "pretrained" in parameters and config.encoder.get("pretrained", True) is True:
        raise ModelError(
            f"{folder / CONFIG} names other weights for the encoder than its own. Set its option 'pretrained: given'."
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
    with loading(folder / CONFIG):
        plugins.require_plain(values)
        config = msgspec.convert(values, UniRSConfig)
    return replace(config, clue=without_paths(config.clue))
