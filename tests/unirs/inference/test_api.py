import json
import math
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as Pillow
from safetensors.torch import load_file, save_file

from unirs import Image, Media, Pair, UniRS, Video
from unirs.errors import ModelError, PluginError, UniRSError


@pytest.fixture(scope="module")
def model(learnt_run: Path) -> UniRS:
    return UniRS.from_pretrained(learnt_run, device="cpu", trust_remote_code=True)


@pytest.fixture(scope="module")
def saved(model: UniRS, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved model; read it only."""
    folder = tmp_path_factory.mktemp("saved") / "model"
    model.save_pretrained(folder)
    return folder


@pytest.fixture
def copy(saved: Path, tmp_path: Path) -> Path:
    """A saved model to be damaged."""
    return Path(shutil.copytree(saved, tmp_path / "copy", ignore=shutil.ignore_patterns("checksums.json")))


@pytest.fixture
def all_kinds(colours: Path) -> list[Media]:
    return [
        Pair(colours / "red.png", colours / "green.png"),
        Image(colours / "blue.png"),
        Video(colours / "white.mp4", 2),
    ]


EXPECTED = ["from red to green", "blue", "a white video"]
QUESTIONS = ["What happens?", "Which colour?", "What happens?"]


def test_one_question(model: UniRS, colours: Path) -> None:
    # As a user writes it, with paths as text.
    assert model.answer(Pair(f"{colours}/red.png", f"{colours}/green.png"), "What happens?") == "from red to green"
    assert model.answer(Pair(f"{colours}/red.png", f"{colours}/green.png")) == "from red to green"


def test_a_list_has_the_answers_of_its_items(model: UniRS, all_kinds: list[Media]) -> None:
    assert model.answer(all_kinds, QUESTIONS) == EXPECTED
    assert [model.answer(one, question) for one, question in zip(all_kinds, QUESTIONS, strict=True)] == EXPECTED
    assert model.answer(all_kinds, QUESTIONS, batch_size=2) == EXPECTED


def test_the_model_is_not_changed(model: UniRS, all_kinds: list[Media]) -> None:
    model.model.train()
    model.answer(all_kinds, QUESTIONS)
    assert model.model.training
    model.model.eval()


def test_probabilities_of_the_tokens(model: UniRS, all_kinds: list[Media]) -> None:
    for answer in model.predict(all_kinds, QUESTIONS):
        assert len(answer.tokens) == len(answer.logprobs) > 1
        assert answer.tokens[-1] == "</s>"
        assert "".join(answer.tokens[:-1]).replace("Ġ", " ").strip() == answer.text
        # It has these by heart.
        assert 0.5 < math.exp(sum(answer.logprobs)) <= 1
    (short,) = model.predict(all_kinds[:1], QUESTIONS[0], max_new_tokens=1)
    assert len(short.tokens) == len(short.logprobs) == 1
    assert model.predict(all_kinds[:1], QUESTIONS[0], details=False)[0].tokens == ()


def test_change_map(model: UniRS, colours: Path, all_kinds: list[Media]) -> None:
    same = Pair(colours / "red.png", colours / "red.png")
    pair, image, video, unchanged = model.predict([*all_kinds, same], [*QUESTIONS, "What happens?"])
    assert pair.change_map is not None
    assert unchanged.change_map is not None
    assert pair.change_map.dtype == np.float32
    assert pair.change_map.shape == (4, 4)
    assert np.abs(unchanged.change_map - 1).max() < 1e-5
    assert pair.change_map.mean() < 0.99
    assert image.change_map is None
    assert video.change_map is None


def test_a_given_clue(model: UniRS, all_kinds: list[Media]) -> None:
    (answer,) = model.predict(all_kinds[1:2], "Which colour?", clue="a blue square", details=False)
    assert "[vqa] <clue>a blue square</clue> Which colour?" in answer.prompt
    assert answer.clue == "a blue square"


def test_unsuitable_questions(model: UniRS, all_kinds: list[Media]) -> None:
    with pytest.raises(UniRSError, match="2 questions for 3 media"):
        model.answer(all_kinds, QUESTIONS[:2])
    with pytest.raises(UniRSError, match="needs a question"):
        model.answer(all_kinds[1])
    with pytest.raises(UniRSError, match=r"no task 'imag' for image media.*Did you mean 'image'"):
        model.answer(all_kinds[1], "Which colour?", task="imag")


def test_a_saved_model_needs_nothing_else(saved: Path, colours: Path, tmp_path: Path) -> None:
    assert {"config.json", "model.safetensors", "tokenizer.json", "README.md"} <= {p.name for p in saved.iterdir()}
    program = (
        "from unirs import Pair, UniRS\n"
        f"model = UniRS.from_pretrained({str(saved)!r}, device='cpu')\n"
        f"print(model.answer(Pair({str(colours / 'red.png')!r}, {str(colours / 'green.png')!r}), 'What happens?'))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.strip() == "from red to green"
    assert list(tmp_path.iterdir()) == []


def test_saved_and_loaded_is_the_same(model: UniRS, saved: Path, all_kinds: list[Media], tmp_path: Path) -> None:
    loaded = UniRS.from_pretrained(saved, device="cpu")
    assert loaded.config == model.config
    assert {key: value.tolist() for key, value in loaded.model.state_dict().items()} == {
        key: value.tolist() for key, value in model.model.state_dict().items()
    }
    first, again = model.predict(all_kinds, QUESTIONS), loaded.predict(all_kinds, QUESTIONS)
    assert [answer.logprobs for answer in first] == [answer.logprobs for answer in again]
    loaded.save_pretrained(tmp_path / "again")
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        assert (tmp_path / "again" / name).read_bytes() == (saved / name).read_bytes()


def test_saving_replaces_saved_models_only(model: UniRS, copy: Path, tmp_path: Path) -> None:
    (copy / "model.safetensors").write_bytes(b"old")
    model.save_pretrained(copy)
    assert UniRS.from_pretrained(copy, device="cpu").config == model.config
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years of work")
    with pytest.raises(UniRSError, match="mine holds something else"):
        model.save_pretrained(tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.tex").read_text() == "years of work"


def test_predict_takes_a_saved_model(
    saved: Path, colours: Path, cli: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli("predict", saved, colours / "red.png", colours / "green.png") == 0
    assert "from red to green" in capsys.readouterr().out


def damage(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda weights: weights.pop("projector.out.weight"), r'Missing key.*"projector\.out\.weight"'),
        (lambda weights: weights.update(extra=torch.ones(1)), r'Unexpected key.*"extra"'),
        (lambda weights: weights.update({"projector.out.bias": torch.ones(1)}), r"projector\.out\.bias"),
    ],
)
def test_weights_of_another_model(copy: Path, change: Callable[[dict[str, Any]], object], message: str) -> None:
    damage(copy, change)
    with pytest.raises(ModelError, match=f"(?s)do not fit.*{message}"):
        UniRS.from_pretrained(copy)


def test_grid_of_another_encoder(copy: Path) -> None:
    config = json.loads((copy / "config.json").read_text())
    config["encoder"]["image_size"] = 96
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=r"(?s)do not fit.*change\.rows\.weight"):
        UniRS.from_pretrained(copy)


def test_folders_without_a_model(copy: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match="empty is not a saved UniRS model"):
        UniRS.from_pretrained(tmp_path / "empty")
    with pytest.raises(ModelError, match=r"is no folder, and does not load from the hub"):
        UniRS.from_pretrained(tmp_path / "absent")
    weights = (copy / "model.safetensors").read_bytes()
    (copy / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(ModelError, match="do not fit"):
        UniRS.from_pretrained(copy)
    (copy / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"holds a config but no model\.safetensors"):
        UniRS.from_pretrained(copy)
    config = json.loads((copy / "config.json").read_text())
    for values, message in [
        (config | {"unirs": 99}, "is of format 99"),
        (config | {"colour": "red"}, "unknown entries: colour"),
        ({"model_type": "llama"}, "another program's"),
    ]:
        (copy / "config.json").write_text(json.dumps(values))
        with pytest.raises(ModelError, match=message):
            UniRS.from_pretrained(copy)


@pytest.mark.parametrize("component", ["encoder", "change", "projector"])
def test_code_named_by_a_saved_model_is_not_run(copy: Path, tmp_path: Path, component: str) -> None:
    plugin = tmp_path / "plugin.py"
    plugin.write_text(
        f"open({str(tmp_path / 'ran')!r}, 'w').close()\n"
        "from unirs.models.change_extractors import Difference as build\n"
    )
    config = json.loads((copy / "config.json").read_text())
    for name in ("os:system", "a:b.py", str(plugin), f"{plugin}:build"):
        (copy / "config.json").write_text(json.dumps(config | {component: config[component] | {"name": name}}))
        with pytest.raises(PluginError, match=r"not an installed plugin.*trust_remote_code=True"):
            UniRS.from_pretrained(copy, device="cpu")
    assert not (tmp_path / "ran").exists()


def test_trusted_code(model: UniRS, copy: Path, tmp_path: Path) -> None:
    (tmp_path / "plugin.py").write_text("from unirs.models.change_extractors import ChangeExtraction as build\n")
    config = json.loads((copy / "config.json").read_text())
    change = config["change"] | {"name": str(tmp_path / "plugin.py")}
    (copy / "config.json").write_text(json.dumps(config | {"change": change}))
    loaded = UniRS.from_pretrained(copy, device="cpu", trust_remote_code=True)
    assert type(loaded.model.change) is type(model.model.change)


def test_push_to_hub_uploads_a_saved_model(
    model: UniRS, monkeypatch: pytest.MonkeyPatch, colours: Path, tmp_path: Path
) -> None:
    class Hub:
        """Records uploads instead of sending them."""

        def __init__(self, **_: object) -> None:
            pass

        def create_repo(self, repo_id: str, **_: object) -> Any:  # noqa: ANN401 - huggingface_hub's own
            return SimpleNamespace(repo_id=repo_id)

        def upload_folder(self, *, repo_id: str, folder_path: Path, **_: object) -> str:
            shutil.copytree(folder_path, tmp_path / repo_id.replace("/", "_"))
            return "pushed"

    monkeypatch.setattr("huggingface_hub.hub_mixin.HfApi", Hub)
    assert model.push_to_hub("somebody/colours") == "pushed"
    loaded = UniRS.from_pretrained(tmp_path / "somebody_colours", device="cpu")
    assert loaded.answer(Image(colours / "blue.png"), "Which colour?") == "blue"


def test_media_of_a_notebook(model: UniRS, colours: Path) -> None:
    red, green, blue = (colours / f"{name}.png" for name in ("red", "green", "blue"))
    pixels = np.asarray(Pillow.open(blue))
    for image in (str(blue), Pillow.open(blue), pixels, torch.from_numpy(pixels.copy())):
        assert model.answer(image, "Which colour?") == "blue"
    assert model.answer((str(red), Pillow.open(green)), "What happens?") == "from red to green"
    assert model.answer([str(blue), (red, green)], ["Which colour?", "What happens?"]) == ["blue", "from red to green"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"choices": "yes"}, "choices is 'yes'"),
        ({"choices": []}, r"choices is \[\]"),
        ({"choices": ["a", ""]}, "choices is"),
        ({"choices": ["a", "a"]}, "choices repeats"),
        ({"max_new_tokens": 0}, "max_new_tokens is 0"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"batch_size": True}, "batch_size is True"),
        ({"question": " "}, "question is text"),
        ({"question": 3}, "question"),
        ({"media": []}, "list of media is empty"),
        ({"media": b"bytes"}, r"not clearly media.*Image\("),
    ],
)
def test_options_out_of_range(model: UniRS, colours: Path, options: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {"media": Image(colours / "blue.png"), "question": "Which colour?"} | options
    with pytest.raises(UniRSError, match=message):
        model.answer(**arguments)


def test_options_of_loading_and_saving(model: UniRS, saved: Path, tmp_path: Path) -> None:
    with pytest.raises(UniRSError, match=r"no option 'devcie'.*Did you mean 'device'"):
        UniRS.from_pretrained(saved, devcie="cpu")
    with pytest.raises(UniRSError, match="no option 'torch_dtype'"):
        UniRS.from_pretrained(saved, torch_dtype="auto")
    with pytest.raises(UniRSError, match=r"do not apply to the folder.*revision"):
        UniRS.from_pretrained(saved, revision="main")
    with pytest.raises(ModelError, match="does not go to device 'gpu'"):
        UniRS.from_pretrained(saved, device="gpu")
    with pytest.raises(UniRSError, match=r"no option 'push_to_hup'.*Did you mean 'push_to_hub'"):
        model.save_pretrained(tmp_path / "model", push_to_hup=True)
