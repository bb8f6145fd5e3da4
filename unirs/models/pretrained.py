"""A saved model: one folder with weights, config and tokenizer that needs neither the training config nor its sources.

`config.json` says how to build the parts, `model.safetensors` holds all their weights, and the tokenizer's own files
lie beside them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_model, save_model
from transformers import AutoTokenizer
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from unirs import plugins
from unirs.data.clues import ClueConfig
from unirs.errors import DataError, ModelError
from unirs.models.llm import rebuild_llm
from unirs.models.projectors import ProjectorName
from unirs.models.unirs_model import UniRSModel
from unirs.tasks.media import Modality
from unirs.tasks.prompt import PromptTemplate
from unirs.utils.io import read_json

CONFIG, WEIGHTS = "config.json", "model.safetensors"

_FORMAT = 1


@dataclass(frozen=True)
class PromptConfig:
    """A task's prompt, and whether it holds a clue."""

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
    """What `config.json` holds.

    Attributes:
        encoder: plugin name and the options that build its architecture.
        change: plugin name and options, or None.
        projector: which one.
        llm: what `unirs.models.llm.rebuild_llm` takes.
        prompts: of each task that the model was trained on.
        max_new_tokens: the longest answer in tokens.
        max_length: the longest sequence in tokens.
        clue: who says clues.
        unirs: version of this format.
    """

    encoder: dict[str, Any]
    change: dict[str, Any] | None
    projector: ProjectorName
    llm: dict[str, Any]
    prompts: dict[str, PromptConfig]
    max_new_tokens: int = 48
    max_length: int = 4096
    clue: ClueConfig = field(default_factory=ClueConfig)
    unirs: int = _FORMAT


def is_saved_model(folder: Path) -> bool:
    """Whether a folder holds a saved UniRS model."""
    path = folder / CONFIG
    return path.is_file() and "unirs" in read_json(path)


def write_model(folder: Path, model: UniRSModel, tokenizer: PreTrainedTokenizerBase, config: UniRSConfig) -> None:
    """Writes a model into a folder that exists."""
    (folder / CONFIG).write_text(json.dumps(asdict(config), ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    # Contiguous, since safetensors holds nothing else; tied weights are written once.
    for parameter in model.parameters():
        parameter.data = parameter.data.contiguous()
    save_model(model, str(folder / WEIGHTS), metadata={"format": "pt"})
    tokenizer.save_pretrained(folder)


def read_model(folder: Path) -> tuple[UniRSModel, PreTrainedTokenizerBase, UniRSConfig]:
    """Reads what `write_saved` wrote, in evaluation mode and without gradients.

    Raises:
        ModelError: the folder is no saved model, is of a newer format, or its weights do not fit; lists the keys.
    """
    config = _read_config(folder)
    model = build_model(config)
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
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError) as error:
        raise ModelError(f"The tokenizer in {folder} does not load: {error}") from error
    return model.eval().requires_grad_(False), tokenizer, config


def build_model(config: UniRSConfig) -> UniRSModel:
    """The model that a config describes, with weights that are still to be loaded."""
    encoder = plugins.create("unirs.encoders", config.encoder)
    change = None
    if config.change is not None:
        change = plugins.create("unirs.change_extractors", config.change, encoder.grid, encoder.embed_dim)
    return UniRSModel(encoder, change, rebuild_llm(config.llm), config.projector)


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
