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
from unirs.errors import DataError, ModelError
from unirs.files import read_json
from unirs.llm import rebuild_llm
from unirs.media import MediaKind
from unirs.model import UniRSModel
from unirs.projector import ProjectorKind
from unirs.prompt import Prompt

CONFIG, WEIGHTS = "config.json", "model.safetensors"
_FORMAT = 1


@dataclass(frozen=True)
class SavedPrompt:
    """A task's prompt, and whether it holds a clue."""

    kind: MediaKind
    tag: str
    instruction: str
    clue: bool = False

    @property
    def prompt(self) -> Prompt:
        """The template."""
        return Prompt(self.tag, self.instruction)


@dataclass(frozen=True)
class ClueSource:
    """Who says the clues.

    Attributes:
        source: a UniRS run or saved model, or a Hugging Face image-text-to-text model (hub id or folder); null asks the
            model itself with its adapters off.
        max_new_tokens: the longest clue in tokens.
        batch_size: media described at once.
        cache: the file that keeps clues for all runs, by media content, question and weights.
    """

    source: str | None = None
    max_new_tokens: int = 48
    batch_size: int = 8
    cache: str = "runs/clues.sqlite"


@dataclass(frozen=True)
class SavedConfig:
    """What `config.json` holds.

    Attributes:
        encoder: plugin name and the options that build its architecture.
        change: plugin name and options, or None.
        projector: which one.
        llm: what `unirs.llm.rebuild_llm` takes.
        prompts: of each task that the model was trained on.
        max_new_tokens: the longest answer in tokens.
        max_length: the longest sequence in tokens.
        clue: who says clues.
        unirs: version of this format.
    """

    encoder: dict[str, Any]
    change: dict[str, Any] | None
    projector: ProjectorKind
    llm: dict[str, Any]
    prompts: dict[str, SavedPrompt]
    max_new_tokens: int = 48
    max_length: int = 4096
    clue: ClueSource = field(default_factory=ClueSource)
    unirs: int = _FORMAT


def is_saved(folder: Path) -> bool:
    """Whether a folder holds a saved UniRS model."""
    path = folder / CONFIG
    return path.is_file() and "unirs" in read_json(path)


def write_saved(folder: Path, model: UniRSModel, tokenizer: PreTrainedTokenizerBase, config: SavedConfig) -> None:
    """Writes a model into a folder that exists."""
    (folder / CONFIG).write_text(json.dumps(asdict(config), ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    # Contiguous, since safetensors holds nothing else; tied weights are written once.
    for parameter in model.parameters():
        parameter.data = parameter.data.contiguous()
    save_model(model, str(folder / WEIGHTS), metadata={"format": "pt"})
    tokenizer.save_pretrained(folder)


def read_saved(folder: Path) -> tuple[UniRSModel, PreTrainedTokenizerBase, SavedConfig]:
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


def build_model(config: SavedConfig) -> UniRSModel:
    """The model that a config describes, with weights that are still to be loaded."""
    encoder = plugins.build("unirs.encoders", config.encoder)
    change = None
    if config.change is not None:
        change = plugins.build("unirs.change_extractors", config.change, encoder.grid, encoder.dim)
    return UniRSModel(encoder, change, rebuild_llm(config.llm), config.projector)


def _read_config(folder: Path) -> SavedConfig:
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
    unknown = values.keys() ^ {entry.name for entry in fields(SavedConfig)}
    if unknown:
        raise ModelError(f"{folder / CONFIG} has missing or unknown entries: {', '.join(sorted(unknown))}.")
    prompts: Mapping[str, Any] = values["prompts"]
    return SavedConfig(
        **values
        | {
            "prompts": {name: SavedPrompt(**prompt) for name, prompt in prompts.items()},
            "clue": ClueSource(**values["clue"]),
        }
    )
