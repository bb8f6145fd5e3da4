"""A saved model to tamper with, and a trap: code that leaves a file behind if it runs."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from transformers.tokenization_utils_base import PreTrainedTokenizerBase

    from unirs.models.unirs_model import UniRSModel

Edit = Callable[..., Path]


class Trap:
    """Code in several forms that creates the file `mark`, and has not run as long as that is missing."""

    def __init__(self, folder: Path) -> None:
        self.mark = folder / "the_code_ran"
        self.plugin = folder / "plugin.py"
        self.plugin.write_text(f"open({str(self.mark)!r}, 'w').close()\nbuild = print\n")
        self.command = f"touch {self.mark}"

    @property
    def ran(self) -> bool:
        return self.mark.exists()

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return os.system, (self.command,)

    def pickled(self) -> bytes:
        # The protocol of torch.
        return pickle.dumps(self, protocol=2)


@pytest.fixture
def trap(tmp_path: Path) -> Trap:
    folder = tmp_path / "trap"
    folder.mkdir()
    return Trap(folder)


@pytest.fixture
def saved(
    tmp_path: Path, make_model: Callable[..., UniRSModel], tokenizer: PreTrainedTokenizerBase
) -> Callable[..., Path]:
    """Saves a tiny model, and replaces entries of its `config.json`."""
    from unirs.data.clues import ClueConfig
    from unirs.inference.api import UniRS
    from unirs.models.llm import LLMConfig, describe_llm
    from unirs.models.pretrained import PromptConfig, UniRSConfig
    from unirs.tasks.prompt import PromptTemplate

    model = make_model()
    encoder: Any = model.encoder
    config = UniRSConfig(
        encoder={"name": "timm", **encoder.init_config},
        change={"name": "change_extraction"},
        projector={"name": "downsample"},
        llm=describe_llm(model.llm, LLMConfig(), tokenizer),
        prompts={"vqa": PromptConfig("image", PromptTemplate("vqa", "{question}"), clue=True)},
        clue=ClueConfig(cache=str(tmp_path / "the_authors_cache")),
    )
    tokenizer.chat_template = "{% for message in messages %}{{ message.content }}{% endfor %}"
    original = tmp_path / "original"
    UniRS(model, tokenizer, config).save_pretrained(original)

    def edit(**entries: Any) -> Path:  # noqa: ANN401 - any JSON
        folder = tmp_path / "saved"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(original, folder)
        # Who changes the files can write their checksums, too.
        (folder / "checksums.json").unlink()
        content = json.loads((folder / "config.json").read_text())
        for name, value in entries.items():
            content[name] = content[name] | value if isinstance(value, dict) else value
        (folder / "config.json").write_text(json.dumps(content))
        return folder

    return edit


@pytest.fixture
def error(cli: Callable[..., int], capfd: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Calls a command that must fail, and returns its one message."""

    def call(*arguments: object) -> str:
        capfd.readouterr()
        assert cli(*arguments) == 1
        lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith("unirs: error: ")]
        assert len(lines) == 1
        return lines[0]

    return call
