"""Training that starts from another UniRS model."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from unirs import Image, UniRS
from unirs.errors import ModelError, PluginError
from unirs.models.llm import LLMConfig
from unirs.models.tuning import Lora, has_adapters
from unirs.tasks.prompt import VisualFormat
from unirs.training.module import UniRSModule


@pytest.fixture(scope="module")
def saved(learnt_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("init") / "model"
    UniRS.from_pretrained(learnt_run, device="cpu", trust_remote_code=True).save_pretrained(folder)
    return folder


def test_components_and_tokenizer_are_kept(learnt_run: Path, saved: Path) -> None:
    expected = UniRS.from_pretrained(saved, device="cpu")
    for init in (learnt_run, saved):
        module = UniRSModule(init=str(init), encoder={"tune": "full"}, trust_remote_code=init == learnt_run)
        state = module.model.state_dict()
        assert state.keys() == expected.model.state_dict().keys()
        assert all(torch.equal(value, state[key]) for key, value in expected.model.state_dict().items())
        assert module.processor.require_tokenizer().vocab == expected.tokenizer.vocab
        assert all(parameter.requires_grad for parameter in module.model.parameters())


def test_code_of_the_initial_model_runs_only_if_it_is_trusted(saved: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(saved, tmp_path / "copy", ignore=shutil.ignore_patterns("checksums.json")))
    plugin = tmp_path / "plugin.py"
    plugin.write_text("from unirs.models.change_extractors import ChangeExtraction as build\n")
    config = json.loads((copy / "config.json").read_text())
    config["change"]["name"] = str(plugin)
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(PluginError, match=r"not an installed plugin.*--model\.trust_remote_code true"):
        UniRSModule(init=str(copy))
    module = UniRSModule(init=str(copy), trust_remote_code=True)
    assert module.model.state_dict().keys() == UniRSModule(init=str(saved)).model.state_dict().keys()


def test_text_around_images_is_kept(saved: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(saved, tmp_path / "copy", ignore=shutil.ignore_patterns("checksums.json")))
    config = json.loads((copy / "config.json").read_text())
    config["visual_format"] = {"before": "<", "after": ">", "end": ""}
    (copy / "config.json").write_text(json.dumps(config))
    module = UniRSModule(init=str(copy))
    assert module.processor.visual_format == VisualFormat("<", ">", "")
    module.to_inference().save_pretrained(tmp_path / "again")
    again = UniRS.from_pretrained(tmp_path / "again", device="cpu")
    assert again.processor.visual_format == VisualFormat("<", ">", "")
    changed = UniRSModule(init=str(copy), visual_format=VisualFormat(after="\n", end=""))
    assert changed.processor.visual_format == VisualFormat(after="\n", end="")


def test_tuning_is_set_anew(saved: Path, colours: Path) -> None:
    lora = {"tune": "lora", "lora": {"r": 2}}
    first = UniRSModule(init=str(saved), encoder=lora, llm=LLMConfig(tune="lora", lora=Lora(r=2)))
    assert has_adapters(first.model.encoder)
    assert has_adapters(first.model.llm)
    image = Image(colours / "red.png")
    model = UniRS(first.model.eval(), first.processor.require_tokenizer(), UniRS.from_pretrained(saved).config)
    (answer,) = model.predict([image], "Which colour?")
    (expected,) = UniRS.from_pretrained(saved, device="cpu").predict([image], "Which colour?")
    assert answer.text == expected.text
    assert answer.logprobs == pytest.approx(expected.logprobs, abs=1e-4)


def test_fit_starts_from_a_model(
    saved: Path,
    colours: Path,
    colour_tasks: list[dict[str, Any]],
    tmp_path: Path,
    cli: Callable[..., int],
    write_config: Callable[..., Path],
) -> None:
    config = write_config(tmp_path, colour_tasks)
    options = yaml.safe_load(config.read_text())
    # Adapters of the language model learn; nothing moves far from the initial model.
    options["model"] = {"llm": {"tune": "lora"}, "optim": {"lr": 1.0e-6}}
    config.write_text(yaml.safe_dump(options))
    assert cli("fit", "--config", config, "--model.init", saved) == 0
    # A run that started from another model is itself one to answer with, and to start from.
    run = UniRS.from_pretrained(tmp_path / "run", device="cpu", trust_remote_code=True)
    assert run.answer(Image(colours / "red.png"), "Which colour?") == "red"
    again = UniRSModule(init=str(tmp_path / "run"), trust_remote_code=True)
    assert not has_adapters(again.model)


def test_all_differences_are_listed_in_one_message(saved: Path, tiny_model: dict[str, Any]) -> None:
    llm = LLMConfig(config=tiny_model["llm"]["config"] | {"hidden_size": 64}, add_tokens=["<clue>"])
    with pytest.raises(ModelError) as caught:
        UniRSModule(
            init=str(saved), encoder=tiny_model["encoder"] | {"image_size": 96}, change={"name": "difference"}, llm=llm
        )
    message = str(caught.value)
    for words in (
        "image_size is (96, 96), not (64, 64)",
        "change.name is 'difference', not 'change_extraction'",
        "hidden_size is 64, not 32",
        "'<clue>'",
    ):
        assert words in message


def test_encoder_with_other_weights_is_an_error(saved: Path, tiny_model: dict[str, Any]) -> None:
    encoder = tiny_model["encoder"] | {"options": {"channels": [16, 24, 32, 64]}}
    with pytest.raises(ModelError, match="weights of 'encoder' differ in name or shape"):
        UniRSModule(init=str(saved), encoder=encoder)


def test_neither_encoder_nor_initial_model() -> None:
    with pytest.raises(ModelError, match=r"Set 'model\.encoder', or 'model\.init'"):
        UniRSModule()
