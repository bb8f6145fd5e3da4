"""Loads the model of a training run from its folder."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from unirs.data.clues import ClueConfig, without_paths
from unirs.errors import UniRSError
from unirs.models.builder import BuiltModel, ModelConfig, build_model
from unirs.models.checkpoint import find_checkpoint, load_checkpoint
from unirs.models.init_model import build_from_init
from unirs.models.llm import describe_llm
from unirs.models.model_files import loading
from unirs.models.pretrained import Pretrained, PromptConfig, UniRSConfig, download, is_saved_model, read_model
from unirs.plugins import installed_only, is_trusted, require_plain, require_trust
from unirs.ranges import PositiveInt, check_range
from unirs.tasks.config import TaskConfig
from unirs.utils.sources import resolve_source
from unirs.utils.typed_yaml import parser_mode, read_config


@dataclass
class _RunConfig(ModelConfig):
    """The entries of a training config that describe the trained model."""

    clue: ClueConfig = field(default_factory=ClueConfig)
    max_new_tokens: PositiveInt = 48


def is_unirs_model(folder: Path) -> bool:
    """Whether a folder holds a training run or a saved UniRS model."""
    return (folder / "config.yaml").is_file() or (folder / "checkpoints").is_dir() or is_saved_model(folder)


def load_run(run: Path) -> Pretrained:
    """Loads the model of a run with its best weights."""
    file = run / "config.yaml"
    if not file.is_file():
        raise UniRSError(f"{run} is not the folder of a run: it has no config.yaml. Train one with 'unirs fit'.")
    checkpoint = find_checkpoint(run)
    with loading(file):
        config = read_config(file)
        require_plain(config.get("model"))
        require_plain(config.get("data"))
        # The model alone: the run's trainer may name devices that this machine does not have.
        parser = ArgumentParser(exit_on_error=False, parser_mode=parser_mode())
        parser.add_class_arguments(_RunConfig, "model")
        names = {entry.name for entry in fields(_RunConfig)}
        values = {key: value for key, value in config["model"].items() if key in names}
        options: _RunConfig = parser.instantiate(parser.parse_object({"model": values})).model
        clue = options.clue if is_trusted() else without_paths(options.clue)
        built = build(options)
        tasks = {task.name: task for task in map(TaskConfig.from_config, config["data"]["tasks"])}
        max_length = config["data"]["max_length"]
        check_range(PositiveInt, max_length, "data.max_length")
    with loading(checkpoint):
        trained, _ = load_checkpoint(checkpoint, built.model)
    tokenizer = built.tokenizer if trained is None else trained
    if tokenizer is None:
        raise UniRSError(f"{checkpoint} holds no tokenizer. Train the run again.")
    limits = {"max_new_tokens": options.max_new_tokens, "max_length": max_length}
    with loading(file):
        saved = saved_config(options, built, tokenizer, tasks, clue=options.clue, **limits)
    return built.model, tokenizer, replace(saved, clue=clue)


def load_pretrained(source: str | Path, *, trust_remote_code: bool = False, **hub: Any) -> Pretrained:  # noqa: ANN401
    """Loads a trained model, in evaluation mode and with frozen weights.

    The source is the folder of a training run or of a saved model, or a hub id, with options of
    `huggingface_hub.snapshot_download`. Its config may name components and metrics by file or dotted path, and set
    `trust_remote_code`, only with `trust_remote_code`.

    Raises:
        UniRSError: the run has no checkpoint, the weights do not fit (lists the keys), or it is no model at all.
    """
    folder = Path(resolve_source(str(source)))
    with installed_only(source, trust_remote_code=trust_remote_code):
        if (folder / "config.yaml").is_file() or (folder / "checkpoints").is_dir():
            model, tokenizer, config = load_run(folder)
            return model.eval().requires_grad_(False), tokenizer, config
        return read_model(folder if folder.exists() else download(str(source), hub))


def build(config: ModelConfig) -> BuiltModel:
    """Builds the model of a config, from the sources of its components or from another model."""
    if config.trust_remote_code:
        require_trust("model.trust_remote_code")
    if config.init is None:
        return build_model(config)
    return build_from_init(config, *load_pretrained(config.init, trust_remote_code=config.trust_remote_code))


def saved_config(
    config: ModelConfig,
    built: BuiltModel,
    tokenizer: PreTrainedTokenizerBase,
    tasks: Mapping[str, TaskConfig],
    clue: ClueConfig,
    **options: Any,  # noqa: ANN401 - the rest of `UniRSConfig`
) -> UniRSConfig:
    """The config that a model trained on `tasks` is saved with; `options` are other entries of `UniRSConfig`."""
    return UniRSConfig(
        encoder=built.encoder_config,
        change=built.change_config,
        projector=built.projector_config,
        llm=describe_llm(built.model.llm, config.llm, tokenizer),
        prompts={
            name: PromptConfig(one.task.modality, one.task.prompt, one.clue != "never") for name, one in tasks.items()
        },
        visual_format=built.visual_format,
        clue=clue,
        foreign_clues=clue.source is not None,
        **options,
    )
