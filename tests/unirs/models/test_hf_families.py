"""Tiny models of each family of transformers, converted, and compared with the classes they come from."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import PIL.Image
import pytest
import torch
import transformers

from tests.unirs.models.hf_families import FAMILIES, QUESTION, SIDE
from unirs.data.collator import collate, pack_rows
from unirs.errors import ModelError
from unirs.inference.api import UniRS
from unirs.models.importers.chat import render_chat
from unirs.models.importers.reader import FAMILIES as CLASSES
from unirs.models.importers.reader import read_checkpoint
from unirs.tasks.media import Image, Media, Pair, Video
from unirs.tasks.prompt import PromptTemplate
from unirs.tasks.sample import Sample, Turn

Folders = Callable[[str], Path]
Models = Callable[[str], "tuple[Original, UniRS]"]

QUESTIONS = (QUESTION, "Is there a road, or a river?")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    """Folders by family, each written once; read-only."""
    root = tmp_path_factory.mktemp("families")

    def folder(name: str) -> Path:
        path = root / name
        if not path.exists():
            path.mkdir()
            torch.manual_seed(0)
            FAMILIES[name](path)
        return path

    return folder


@pytest.fixture(scope="module")
def models(folders: Folders, tmp_path_factory: pytest.TempPathFactory) -> Models:
    """The original class and the converted model of each family; read-only."""
    made: dict[str, tuple[Original, UniRS]] = {}

    def pair(name: str) -> tuple[Original, UniRS]:
        if name not in made:
            made[name] = Original(folders(name)), convert(folders(name), tmp_path_factory.mktemp(name))
        return made[name]

    return pair


def convert(source: Path, out: Path) -> UniRS:
    UniRS(*read_checkpoint(source)).save_pretrained(out)
    return UniRS.from_pretrained(out, device="cpu")


def random_frames(count: int, size: int = SIDE) -> torch.Tensor:
    generator = torch.Generator().manual_seed(count)
    return torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=generator)


class Original:
    """The class that a checkpoint comes from, with its own processor."""

    def __init__(self, source: Path) -> None:
        self.name = json.loads((source / "config.json").read_text())["model_type"]
        class_name, describe = CLASSES[self.name]
        self.model: Any = getattr(transformers, class_name).from_pretrained(source).eval()
        self.processor: Any = transformers.AutoProcessor.from_pretrained(source)
        self.options = describe(self.model.config, self.processor).processor_options

    def inputs(self, frames: torch.Tensor, question: str) -> Any:  # noqa: ANN401
        images = [PIL.Image.fromarray(frame.permute(1, 2, 0).numpy()) for frame in frames]
        text = render_chat(self.processor, len(frames), question)
        bos = not text.startswith(self.processor.tokenizer.bos_token)
        return self.processor(images=[images], text=[text], add_special_tokens=bos, return_tensors="pt", **self.options)

    def token_ids(self, frames: torch.Tensor, question: str) -> list[int]:
        ids = self.inputs(frames, question)["input_ids"][0]
        return cast("list[int]", ids.masked_fill(ids == self.model.config.image_token_id, 0).tolist())

    @torch.no_grad()
    def logits(self, frames: torch.Tensor, question: str) -> torch.Tensor:
        return cast("torch.Tensor", self.model(**self.inputs(frames, question)).logits)

    def answer(self, frames: torch.Tensor, question: str, end: int) -> tuple[int, ...]:
        inputs = self.inputs(frames, question)
        ids = self.model.generate(**inputs, max_new_tokens=8, do_sample=False, eos_token_id=end, pad_token_id=0)
        answer = ids[0, inputs["input_ids"].shape[1] :].tolist()
        return tuple(answer[: answer.index(end)] if end in answer else answer)


def sample(*questions: str) -> Sample:
    return Sample("", cast("Any", None), tuple(Turn(q, (), {"question": q}) for q in questions))


def trees(converted: UniRS, count: int, *questions: str) -> Any:  # noqa: ANN401
    processor = converted.processor
    prompt, tokens = PromptTemplate("", "{question}"), processor.tokens_per_image
    return processor.prompt_encoder().encode_prompts(prompt, sample(*questions), count, tokens)


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("name", FAMILIES)
@torch.no_grad()
def test_logits_and_token_ids(models: Models, name: str, count: int) -> None:
    if name == "llava_onevision" and count == 1:
        pytest.skip("the original encodes one image as tiles")
    original, converted = models(name)
    frames = random_frames(count)
    ((tree, _),) = trees(converted, count, QUESTION)
    assert tree.input_ids == original.token_ids(frames, QUESTION)
    expected = original.logits(frames, QUESTION)
    logits = converted.model(collate([frames], ["video"], [tree], [(0,)]))
    assert expected.std() > 0.1
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=0)


@torch.no_grad()
def test_one_image_of_llava_onevision_is_one_tile(models: Models) -> None:
    original, converted = models("llava_onevision")
    frames = random_frames(1)
    ids = original.inputs(frames, QUESTION)["input_ids"]
    is_image = ids == original.model.config.image_token_id
    # The visual tokens of the first of two images, in the prompt of one.
    two = original.inputs(torch.cat([frames, frames]), QUESTION)
    two = {key: two[key] for key in ("pixel_values", "image_sizes", "batch_num_images")}
    features = original.model.get_image_features(**two)
    features.pooler_output = features.pooler_output[:1]
    drop = is_image.cumsum(1) > len(features.pooler_output[0])
    expected = original.model(input_ids=ids[~(drop & is_image)][None], mm_encoder_outputs={"image": features}).logits
    ((tree, _),) = trees(converted, 1, QUESTION)
    logits = converted.model(collate([frames], ["image"], [tree], [(0,)]))
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", FAMILIES)
@torch.no_grad()
def test_questions_that_share_an_image_in_a_packed_row(models: Models, name: str) -> None:
    original, converted = models(name)
    frames = [random_frames(8), random_frames(2), random_frames(3)]
    encoded = [trees(converted, len(one), *QUESTIONS)[0] for one in frames]
    rows, row_media = pack_rows([tree for tree, _ in encoded])
    assert len(rows) == 2
    logits = converted.model(collate(frames, ["video"] * 3, rows, row_media))
    for row, (tree, media) in enumerate(zip(rows, row_media, strict=True)):
        order = [(one, QUESTIONS[turn]) for one in media for turn in encoded[one][1]]
        for (one, question), end in zip(order, tree.prompt_ends, strict=True):
            expected = original.logits(frames[one], question)[0, -1]
            torch.testing.assert_close(logits[row, end], expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", FAMILIES)
def test_answers(models: Models, name: str) -> None:
    original, converted = models(name)
    frames = random_frames(3)
    images = list(frames.permute(0, 2, 3, 1).numpy())
    media: list[tuple[Media, int]] = [(Pair(images[0], images[1]), 2), (Video(images), 3)]
    if name != "llava_onevision":
        media.append((Image(images[0]), 1))
    end = converted.tokenizer.eos_token_id
    expected = [original.answer(frames[:count], QUESTION, cast("int", end)) for _, count in media]
    completions = converted.predict([one for one, _ in media], QUESTION, max_new_tokens=8)
    assert [one.token_ids for one in completions] == expected
    assert any(expected)


def test_end_token_of_gemma3_is_that_of_a_turn(models: Models) -> None:
    tokenizer = models("gemma3")[1].tokenizer
    assert tokenizer.convert_ids_to_tokens(tokenizer.eos_token_id) == "<end_of_turn>"


@pytest.mark.parametrize("name", ["smolvlm", "gemma3", "llava_onevision"])
@torch.no_grad()
def test_bfloat16(folders: Folders, tmp_path: Path, name: str) -> None:
    original = Original(folders(name))
    original.model.to(torch.bfloat16).save_pretrained(tmp_path / "source")
    original.processor.save_pretrained(tmp_path / "source")
    model = convert(tmp_path / "source", tmp_path / "out").model
    assert {parameter.dtype for parameter in model.llm.parameters()} == {torch.bfloat16}
    assert {parameter.dtype for parameter in model.projector.parameters()} == {torch.float32}


@torch.no_grad()
def test_visual_tokens_of_gemma3_attend_in_both_directions(models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    original, converted = models("gemma3")
    assert converted.model.bidirectional_images
    monkeypatch.setattr(converted.model.llm.config, "bidirectional_images", False)
    frames = random_frames(1)
    ((tree, _),) = trees(converted, 1, QUESTION)
    logits = converted.model(collate([frames], ["image"], [tree], [(0,)]))
    assert (logits - original.logits(frames, QUESTION)).abs().max() > 0.01


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("llava_onevision", {"projector_hidden_act": "relu"}, "another activation"),
    ("llava_onevision", {"vision_feature_layer": [-2, -1]}, "uses the vision layers"),
    ("llava_onevision", {"vision_feature_select_strategy": "default"}, "drops patches"),
    ("internvl", {"projector_hidden_act": "silu"}, "another activation"),
    ("internvl", {"vision_feature_select_strategy": "full"}, "keeps the class token"),
    ("internvl", {"vision_feature_layer": [1, 2]}, "uses the vision layers"),
    ("internvl", {"downsample_ratio": 0.75}, "no reciprocal of an integer"),
    ("idefics3", {"model_type": "paligemma"}, "attend to the question"),
    ("idefics3", {"model_type": "qwen2_vl"}, "M-RoPE"),
    ("idefics3", {"model_type": "qwen2_5_vl"}, "window attention"),
    ("idefics3", {"model_type": "qwen3_vl"}, "DeepStack"),
    ("idefics3", {"model_type": "llava_next"}, "several tiles"),
    ("idefics3", {"model_type": "llama"}, "no checkpoint that UniRS reads"),
]


@pytest.mark.parametrize(("name", "options", "reason"), REFUSED)
def test_refused(
    folders: Folders,
    tmp_path: Path,
    cli: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
    name: str,
    options: dict[str, Any],
    reason: str,
) -> None:
    source = Path(shutil.copytree(folders(name), tmp_path / "source"))
    config = source / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | options))
    assert cli("convert", source, tmp_path / "out") == 1
    error = capsys.readouterr().err
    assert str(source) in error
    assert reason in error
    assert not (tmp_path / "out").exists()


TEMPLATES = [
    # A number before each image.
    ("{{ '<image>' }}", "{{ loop.index ~ ': <image>' }}", "differently from one"),
    ("{{ '<image>' }}", "{{ ('' if loop.first else ' and ') ~ '<image>' }}", "differently from one"),
]


@pytest.mark.parametrize(("text", "other", "reason"), TEMPLATES)
def test_template_for_several_images_is_refused(
    folders: Folders,
    tmp_path: Path,
    cli: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
    text: str,
    other: str,
    reason: str,
) -> None:
    source = Path(shutil.copytree(folders("idefics3"), tmp_path / "source"))
    path = source / "chat_template.jinja"
    assert text in path.read_text()
    path.write_text(path.read_text().replace(text, other))
    assert cli("convert", source, tmp_path / "out") == 1
    assert reason in capsys.readouterr().err


def test_other_token_ids_than_the_originals_are_refused(folders: Folders, tmp_path: Path) -> None:
    source = Path(shutil.copytree(folders("idefics3"), tmp_path / "source"))
    path = source / "processor_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"image_seq_len": 4}))
    with pytest.raises(ModelError, match=r"the prompt with 1 image\(s\) has other token ids"):
        read_checkpoint(source)


def test_another_normalization_is_carried_over(folders: Folders, tmp_path: Path) -> None:
    source = Path(shutil.copytree(folders("internvl"), tmp_path / "source"))
    path = source / "processor_config.json"
    values = json.loads(path.read_text())
    values["image_processor"] |= {"image_mean": [0.1, 0.2, 0.3]}
    path.write_text(json.dumps(values))
    encoder: Any = read_checkpoint(source)[0].encoder
    torch.testing.assert_close(encoder.mean.flatten() / 255, torch.tensor([0.1, 0.2, 0.3]))
    values["image_processor"] |= {"do_normalize": False}
    path.write_text(json.dumps(values))
    with pytest.raises(ModelError, match="does not scale pixels"):
        read_checkpoint(source)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_converted_model_is_trained_with_change_extraction_and_adapters(
    folders: Folders,
    tmp_path: Path,
    synthetic: Path,
    cli: Callable[..., int],
    name: str,
) -> None:
    UniRS(*read_checkpoint(folders(name))).save_pretrained(tmp_path / "start")
    tasks = [{"name": task, "root": str(synthetic / task)} for task in ("rsvqa_lr", "levir_cc", "era")]
    config: dict[str, Any] = {
        "model": {
            "init": str(tmp_path / "start"),
            "encoder": {"tune": "lora", "lora": {"r": 2}},
            "change": {"name": "change_extraction"},
            "llm": {"tune": "lora", "lora": {"r": 2}},
            "max_new_tokens": 2,
        },
        "data": {"tasks": [{**task, **({"num_frames": 2} if task["name"] == "era" else {})} for task in tasks]},
        "trainer": {
            "default_root_dir": str(tmp_path / "run"),
            "max_epochs": 1,
            "limit_train_batches": 1,
            "limit_val_batches": 1,
            "accelerator": "cpu",
            "devices": 1,
            "enable_progress_bar": False,
            "logger": False,
        },
    }
    config["data"] |= {"batch_size": 6, "eval_batch_size": 4, "num_workers": 0, "max_length": 2048, "val_samples": 2}
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config))
    assert cli("fit", "--config", path) == 0
    trained = UniRS.from_pretrained(tmp_path / "run", device="cpu")
    assert trained.config.change == {"name": "change_extraction"}
    assert trained.config.visual_format == UniRS.from_pretrained(tmp_path / "start", device="cpu").config.visual_format
    state = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    assert all(torch.isfinite(value).all() for value in state.values())
    adapted = [key for key in state if key.startswith(("model.encoder.", "model.llm."))]
    assert adapted
    assert all("lora_" in key for key in adapted)
