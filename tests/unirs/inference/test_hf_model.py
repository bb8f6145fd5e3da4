from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import PIL.Image
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from tokenizers.processors import TemplateProcessing
from transformers import (
    AutoModelForImageTextToText,
    AutoProcessor,
    CLIPImageProcessor,
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    Idefics3ImageProcessor,
    Idefics3Processor,
    LlamaConfig,
    LlamaForCausalLM,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen2VLImageProcessor,
    Qwen2VLProcessor,
    Qwen2VLVideoProcessor,
)

from unirs.data.clues import CLUE_PROMPTS, ClueCache, clean_clue, generate_clues
from unirs.errors import MediaError, ModelError
from unirs.inference.hf_model import HFImageTextModel
from unirs.inference.hf_processor import ChatPrompt, HFBatch
from unirs.models.llm import train_tokenizer
from unirs.tasks.media import Image, Media, Pair, Video
from unirs.tasks.series import Series

LENGTH = 6
QUESTIONS = ["Is there a road?", "What changed between the two pictures, and where?", "What happens?", "Why?"]
TEXT: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1000,
}
VISION = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}


def template(image: str) -> str:
    return (
        "{% for message in messages %}USER: {% for part in message.content %}"
        f"{{% if part.type == 'image' %}}{image}\n{{% else %}}{{{{ part.text }}}}{{% endif %}}"
        "{% endfor %}{% endfor %}{% if add_generation_prompt %}\nASSISTANT:{% endif %}"
    )


def new_tokenizer(*special: str) -> Any:  # noqa: ANN401 - with attributes that no type knows
    """One that begins each text with its start token, as Llama's does."""
    tokenizer: Any = train_tokenizer(QUESTIONS, 300)
    start = (tokenizer.bos_token, tokenizer.bos_token_id)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(f"{start[0]} $A", special_tokens=[start])
    tokenizer.add_special_tokens({"additional_special_tokens": list(special)})
    return tokenizer


def llava() -> tuple[Any, Any]:
    tokenizer = new_tokenizer("<image>")
    processor = LlavaProcessor(
        CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}),
        tokenizer,
        patch_size=8,
        vision_feature_select_strategy="default",
        chat_template=template("<image>"),
        num_additional_image_tokens=1,
    )
    config = LlavaConfig(
        vision_config={"model_type": "clip_vision_model", "image_size": 32, "patch_size": 8} | VISION,
        text_config={"model_type": "llama", "vocab_size": len(tokenizer)} | TEXT,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
    )
    return LlavaForConditionalGeneration(config), processor


def idefics3() -> tuple[Any, Any]:
    """Splits images into tiles, and has its start token in the template."""
    tokenizer = new_tokenizer("<image>", "<fake_token_around_image>", "<global-img>", "<end_of_utterance>")
    processor = Idefics3Processor(
        Idefics3ImageProcessor(size={"longest_edge": 32}, max_image_size={"longest_edge": 16}),
        tokenizer,
        image_seq_len=4,
        chat_template="{{ bos_token }}" + template("<image>"),
    )
    config = Idefics3Config(
        vision_config={"image_size": 16, "patch_size": 4} | VISION,
        text_config={"model_type": "llama", "vocab_size": len(tokenizer), "pad_token_id": 0} | TEXT,
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        scale_factor=2,
    )
    return Idefics3ForConditionalGeneration(config), processor


def qwen2_vl() -> tuple[Any, Any]:
    """Encodes images in their own shape, with position ids on three axes."""
    special = ("<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>")
    tokenizer = new_tokenizer(*special)
    ids = dict(zip(special, tokenizer.convert_tokens_to_ids(list(special)), strict=True))
    size = {"shortest_edge": 16, "longest_edge": 4096}
    processor = Qwen2VLProcessor(
        Qwen2VLImageProcessor(patch_size=4, size=size),
        tokenizer,
        Qwen2VLVideoProcessor(patch_size=4, size=size),
        chat_template=template("<|vision_start|><|image_pad|><|vision_end|>"),
    )
    config = Qwen2VLConfig(
        vision_config={"depth": 2, "embed_dim": 32, "hidden_size": 32, "num_heads": 2, "patch_size": 4},
        text_config={
            "vocab_size": len(tokenizer),
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]},
        }
        | TEXT,
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
    )
    return Qwen2VLForConditionalGeneration(config), processor


FAMILIES: dict[str, Callable[[], tuple[Any, Any]]] = {"llava": llava, "idefics3": idefics3, "qwen2_vl": qwen2_vl}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A tiny random model of each family with its processor; read them only."""
    made = {}
    for name, make in FAMILIES.items():
        # This seed and factor make models whose answers differ between prompts, as a trained model's do.
        torch.manual_seed(1)
        model, processor = make()
        for component in model.modules():
            if isinstance(component, torch.nn.Linear):
                component.weight.data.mul_(8)
        made[name] = tmp_path_factory.mktemp(name)
        model.save_pretrained(made[name])
        processor.save_pretrained(made[name])
    return made


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> list[Media]:
    """An image, a pair and a video, and an image of another shape."""
    root = tmp_path_factory.mktemp("media")
    generator = np.random.default_rng(0)
    for name, size in {"a": (32, 32), "b": (40, 24), "c": (40, 24), "d": (20, 48)}.items():
        PIL.Image.fromarray(generator.integers(0, 256, (*size, 3), dtype=np.uint8)).save(root / f"{name}.png")
    with av.open(str(root / "v.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=8)
        stream.width, stream.height, stream.pix_fmt, stream.thread_count = 64, 32, "yuv420p", 1
        for level in range(0, 250, 60):
            frame = np.full((32, 64, 3), level, dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return [
        Image(root / "a.png"),
        Pair(root / "b.png", root / "c.png"),
        Video(root / "v.mp4", 3),
        Image(root / "d.png"),
    ]


@pytest.fixture(params=list(FAMILIES))
def family(request: pytest.FixtureRequest, folders: dict[str, Path]) -> Path:
    return folders[request.param]


@pytest.fixture
def copy(folders: dict[str, Path], tmp_path: Path) -> Path:
    """A copy of the LLaVA model, to be damaged."""
    return Path(shutil.copytree(folders["llava"], tmp_path / "copy"))


def plainly(folder: Path, one: Media, question: str, length: int = LENGTH) -> list[int]:
    """Token ids, generated as in the documentation of `transformers`."""
    model, processor = AutoModelForImageTextToText.from_pretrained(folder), AutoProcessor.from_pretrained(folder)
    inputs = [
        {"type": "image", "image": PIL.Image.fromarray(frame.permute(1, 2, 0).numpy())} for frame in one.load_frames()
    ]
    inputs = processor.apply_chat_template(
        [{"role": "user", "content": [*inputs, {"type": "text", "text": question}]}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    )
    with torch.inference_mode():
        out = model.generate(**inputs, do_sample=False, max_new_tokens=length)
    return list(out[0, inputs["input_ids"].shape[1] :].tolist())


def text(folder: Path, ids: list[int]) -> str:
    return str(AutoProcessor.from_pretrained(folder).decode(ids, skip_special_tokens=True)).strip()


def test_batched_equals_single_equals_plain_generation(family: Path, media: list[Media]) -> None:
    vlm = HFImageTextModel(str(family))
    together = vlm.generate(media, QUESTIONS, LENGTH)
    alone = [vlm.generate([one], [question], LENGTH)[0] for one, question in zip(media, QUESTIONS, strict=True)]
    assert together == alone
    plain = [plainly(family, one, question) for one, question in zip(media, QUESTIONS, strict=True)]
    assert together == [text(family, ids) for ids in plain]
    assert len(set(together)) == len(media)


def test_answers_depend_on_every_image(family: Path, media: list[Media]) -> None:
    _, pair, video, _ = media
    assert isinstance(pair, Pair)
    inputs: list[Media] = [
        pair,
        Pair(pair.after, pair.before),
        Image(pair.before),
        video,
        Video(Path(video.sources[0]), 2),
    ]
    answers = HFImageTextModel(str(family)).generate(inputs, ["What?"] * len(inputs), 24)
    assert len(set(answers)) == len(inputs)


def test_labels_of_a_series_stand_between_its_images(family: Path, media: list[Media]) -> None:
    series = Series([media[0].load_frames()[0]] * 3, ["2016", "2017", "2018"])
    vlm = HFImageTextModel(str(family))
    inputs = vlm.chat.encode([ChatPrompt(series.load_frames(), "Why?", series.frame_labels)])
    decoded = vlm.chat.tokenizer.decode(inputs["input_ids"][0])
    parts = re.split(r"Image \d, (\d+):", decoded)
    assert parts[1::2] == ["2016", "2017", "2018"]
    bare = vlm.chat.tokenizer.decode(vlm.chat.encode([ChatPrompt(series.load_frames(), "Why?")])["input_ids"][0])
    # Between two labels are the tokens of one image, and nothing else.
    assert parts[2] == parts[4]
    assert "".join(parts[::2]) == bare
    assert vlm.generate([series], ["Why?"], 24) != vlm.generate([Series(series.images)], ["Why?"], 24)


def test_several_questions_about_one_image(family: Path, media: list[Media]) -> None:
    vlm = HFImageTextModel(str(family))
    answers = vlm.generate([media[0]] * 3, ["Why?", "What is there?", "Why?"], 12)
    assert answers[0] == answers[2] != answers[1]
    assert vlm.generate([], [], 12) == []


def test_generates_clues(family: Path, media: list[Media], tmp_path: Path) -> None:
    cache = ClueCache(tmp_path / "clues.sqlite")
    clues = generate_clues(HFImageTextModel(str(family)), media, cache=cache, max_new_tokens=LENGTH)
    answers = HFImageTextModel(str(family)).generate(media, [CLUE_PROMPTS[one.modality] for one in media], LENGTH)
    assert clues == {one: clean_clue(clue) for one, clue in zip(media, answers, strict=True)}


def edit(path: Path, **changes: object) -> None:
    content = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(content | changes))


@pytest.mark.parametrize(
    "wishes",
    [
        {"do_sample": True, "temperature": 9.0, "top_k": 0},
        {"repetition_penalty": 50.0},
        {"no_repeat_ngram_size": 1},
        {"num_beams": 3},
        {"suppress_tokens": list(range(0, 300, 2))},
    ],
    ids=lambda wishes: next(iter(wishes)),
)
def test_checkpoint_does_not_choose_the_decoding(copy: Path, media: list[Media], wishes: dict[str, object]) -> None:
    expected = HFImageTextModel(str(copy)).generate(media, QUESTIONS, 12)
    edit(copy / "generation_config.json", **wishes)
    assert HFImageTextModel(str(copy)).generate(media, QUESTIONS, 12) == expected


def test_every_end_token_ends(copy: Path, media: list[Media]) -> None:
    free = plainly(copy, media[0], QUESTIONS[0], 12)
    first, last = free[0], next(token for token in reversed(free) if token != free[0])
    for ends in (last, [last], [first, last]):
        edit(copy / "generation_config.json", eos_token_id=ends)
        length = 0 if ends == [first, last] else free.index(last)
        # Other answers in the batch are longer, so this one is padded.
        assert HFImageTextModel(str(copy)).generate(media, QUESTIONS[:1] * 4, 12)[0] == text(copy, free[:length])


def test_tokenizer_without_padding(copy: Path, media: list[Media]) -> None:
    expected = HFImageTextModel(str(copy)).generate(media, QUESTIONS, LENGTH)
    edit(copy / "tokenizer_config.json", pad_token=None)
    assert HFImageTextModel(str(copy)).generate(media, QUESTIONS, LENGTH) == expected


def test_no_end_token(copy: Path) -> None:
    edit(copy / "tokenizer_config.json", eos_token=None)
    (copy / "generation_config.json").write_text("{}")
    with pytest.raises(ModelError, match="names no end-of-sequence token"):
        HFImageTextModel(str(copy))


def test_end_token_that_is_no_integer(copy: Path) -> None:
    edit(copy / "generation_config.json", eos_token_id=["2"])
    with pytest.raises(ModelError, match=r"has an eos_token_id that is no integer: \['2'"):
        HFImageTextModel(str(copy))


def test_processor_of_another_model(copy: Path, media: list[Media]) -> None:
    edit(copy / "processor_config.json", patch_size=28)
    with pytest.raises(ModelError, match="does not take the inputs of its processor"):
        HFImageTextModel(str(copy)).generate(media, QUESTIONS, 2)


def test_fingerprint_depends_on_the_weights(copy: Path, folders: dict[str, Path]) -> None:
    same = HFImageTextModel(str(folders["llava"])).fingerprint
    assert HFImageTextModel(str(copy)).fingerprint == same
    weights = load_file(copy / "model.safetensors")
    weights[next(iter(weights))] *= 1.01
    save_file(weights, copy / "model.safetensors", {"format": "pt"})
    assert (
        len({same, HFImageTextModel(str(copy)).fingerprint, HFImageTextModel(str(folders["idefics3"])).fingerprint})
        == 3
    )


def test_weights_keep_their_dtype(folders: dict[str, Path], media: list[Media], tmp_path: Path) -> None:
    copy = shutil.copytree(folders["qwen2_vl"], tmp_path / "copy")
    weights = {key: value.bfloat16() for key, value in load_file(copy / "model.safetensors").items()}
    save_file(weights, copy / "model.safetensors", {"format": "pt"})
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"dtype": "bfloat16"}))
    vlm = HFImageTextModel(str(copy), device=torch.device("cpu"))
    assert vlm.model.dtype == torch.bfloat16
    assert len(vlm.generate(media, QUESTIONS, 2)) == len(media)


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "xpu"])
def test_unavailable_device(folders: dict[str, Path], device: str) -> None:
    with pytest.raises(ModelError, match=f"(?s)does not go to device '{device}'.*such as 'cpu'"):
        HFImageTextModel(str(folders["llava"]), device=device)


def test_inside_a_package(copy: Path, media: list[Media], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(copy.parent.parent))
    package = copy.parent.rename(copy.parent.with_name("holds_a_vlm"))
    (package / "__init__.py").touch()
    assert HFImageTextModel("package:holds_a_vlm/copy").generate(media, QUESTIONS, 2)


def test_missing_and_unexpected_weights(copy: Path) -> None:
    weights = load_file(copy / "model.safetensors")
    key = next(key for key in weights if key.endswith("linear_1.weight"))
    weights["extra.weight"] = weights.pop(key)
    save_file(weights, copy / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=r"do not fit Llava.*missing.*linear_1\.weight.*unexpected.*extra\.weight"):
        HFImageTextModel(str(copy))


def test_weights_of_another_shape(copy: Path) -> None:
    weights = load_file(copy / "model.safetensors")
    key = next(key for key in weights if key.endswith("linear_1.bias"))
    weights[key] = torch.ones(3)
    save_file(weights, copy / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=r"do not fit Llava.*mismatched.*linear_1\.bias"):
        HFImageTextModel(str(copy))


def test_half_a_file(copy: Path) -> None:
    path = copy / "model.safetensors"
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(ModelError, match=r"model '.*copy' does not load \("):
        HFImageTextModel(str(copy))


def test_folder_without_an_image_text_model(copy: Path, tmp_path: Path) -> None:
    language = tmp_path / "language"
    LlamaForCausalLM(LlamaConfig(vocab_size=300, **TEXT)).save_pretrained(language)
    train_tokenizer(QUESTIONS, 300).save_pretrained(language)
    with pytest.raises(ModelError, match=r"language' has no processor of images and text.*Name an image-text-to-text"):
        HFImageTextModel(str(language))
    (tmp_path / "empty").mkdir()
    for wrong in (tmp_path / "empty", tmp_path / "absent"):
        with pytest.raises(ModelError, match=f"(?s)'{wrong}' does not load.*Name a folder or hub id"):
            HFImageTextModel(str(wrong))
    shutil.copy(language / "config.json", copy / "config.json")
    with pytest.raises(ModelError, match=r"(?s)Image-text-to-text model '.*copy' does not load.*LlamaConfig"):
        HFImageTextModel(str(copy))


@pytest.mark.parametrize("gone", ["tokenizer*", "processor_config.json", "*processor_config.json"])
def test_processor_missing(copy: Path, gone: str) -> None:
    for path in copy.glob(gone):
        path.unlink()
    with pytest.raises(ModelError, match=r"(?s)processor.*(does not load|of images and text)"):
        HFImageTextModel(str(copy))


def test_no_chat_template(copy: Path) -> None:
    (copy / "chat_template.jinja").unlink()
    with pytest.raises(ModelError, match=r"copy' has no chat template.*chat_template\.jinja"):
        HFImageTextModel(str(copy))


def test_chat_template_of_the_tokenizer(copy: Path, media: list[Media]) -> None:
    expected = HFImageTextModel(str(copy)).generate(media, QUESTIONS, LENGTH)
    written = (copy / "chat_template.jinja").read_text()
    (copy / "chat_template.jinja").unlink()
    edit(copy / "tokenizer_config.json", chat_template=written)
    assert HFImageTextModel(str(copy)).generate(media, QUESTIONS, LENGTH) == expected


@pytest.mark.parametrize(
    "written",
    [
        "{% for message in messages %}{{ message.content }}{% endfor %}",
        "{{ raise_exception('No images, please') }}",
        "{% for",
    ],
)
def test_chat_template_without_images(copy: Path, media: list[Media], written: str) -> None:
    (copy / "chat_template.jinja").write_text(written)
    with pytest.raises(ModelError, match=r"(?s)processor of '.*copy' does not take 2 images.*What changed"):
        HFImageTextModel(str(copy)).generate(media[1:2], QUESTIONS[1:2], 2)


def test_question_with_an_image_placeholder(family: Path, media: list[Media]) -> None:
    question = "What is <image> or <|image_pad|>?"
    with pytest.raises(ModelError, match=r"does not take 1 images.*without its special tokens"):
        HFImageTextModel(str(family)).generate(media[:1], [question], 2)


def test_more_than_the_model_allows(copy: Path, media: list[Media]) -> None:
    video = Video(Path(media[2].sources[0]), 5)
    length = 5 * 16
    config = json.loads((copy / "config.json").read_text())
    config["text_config"]["max_position_embeddings"] = length
    (copy / "config.json").write_text(json.dumps(config))
    vlm = HFImageTextModel(str(copy))
    with pytest.raises(ModelError, match=rf"more than the {length} that .* allows\. Use fewer frames"):
        vlm.generate([video], ["?"], 2)
    assert vlm.generate(media[:1], ["?"], 2)


def test_answers_end_with_the_context(copy: Path, media: list[Media]) -> None:
    images, questions = [media[0], media[0]], ["?", QUESTIONS[1]]
    vlm = HFImageTextModel(str(copy))
    free = vlm.generate(images, questions, LENGTH)
    lengths = [vlm.chat.encode([ChatPrompt(images[0].load_frames(), one)])["input_ids"].shape[1] for one in questions]
    vlm.chat.context = lengths[1] + 1
    short, long = vlm.generate(images, questions, LENGTH)
    assert short == free[0]
    # The last token is predicted, but takes no position.
    inputs = vlm.chat.encode([ChatPrompt(images[1].load_frames(), questions[1])])
    (cut,) = vlm.complete(HFBatch([inputs], [None], ""), max_new_tokens=LENGTH)  # type: ignore[list-item]
    assert len(cut.token_ids) == 2
    assert cut.text == long != free[1]
    with pytest.raises(ModelError, match=r"A prompt of .* and 41 of the answer are more than"):
        vlm.score_choices(inputs, ["a" * 40])


def test_media_that_do_not_decode(folders: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(MediaError, match=r"no\.png does not exist"):
        HFImageTextModel(str(folders["llava"])).generate([Image(tmp_path / "no.png")], ["?"], 2)


def plain_score(folder: Path, one: Media, question: str, choice: str) -> float:
    """The log-likelihood of a choice, by a forward pass over the prompt with the choice."""
    model, processor = AutoModelForImageTextToText.from_pretrained(folder), AutoProcessor.from_pretrained(folder)
    tokenizer = processor.tokenizer
    answer = torch.tensor([[*tokenizer(choice, add_special_tokens=False).input_ids, tokenizer.eos_token_id]])
    inputs = HFImageTextModel(str(folder)).chat.encode([ChatPrompt(one.load_frames(), question)])
    length = inputs["input_ids"].shape[1]
    for name in ("input_ids", "attention_mask", "mm_token_type_ids", "token_type_ids"):
        if name in inputs:
            more = {"input_ids": answer, "attention_mask": torch.ones_like(answer)}.get(name, torch.zeros_like(answer))
            inputs[name] = torch.cat([inputs[name], more], dim=1)
    with torch.inference_mode():
        logprobs = model(**inputs).logits[0, length - 1 : -1].log_softmax(-1)
    return float(logprobs.gather(1, answer[0].unsqueeze(1)).sum())


def test_choices_score_as_in_a_pass_of_their_own(family: Path, media: list[Media]) -> None:
    vlm, choices = HFImageTextModel(str(family)), ("yes", "no", "a road between the houses", "no")
    scores = []
    for one, question in zip(media, QUESTIONS, strict=True):
        inputs = vlm.chat.encode([ChatPrompt(one.load_frames(), question)])
        scores.append(vlm.score_choices(inputs, choices))
        assert scores[-1] == pytest.approx([plain_score(family, one, question, choice) for choice in choices], abs=1e-3)
        assert vlm.score_choices(inputs, choices[:1]) == pytest.approx(scores[-1][:1], abs=1e-3)
    assert scores[0] != scores[3]


def test_bench_by_loglikelihood(
    folders: dict[str, Path], colours: Path, tmp_path: Path, cli: Callable[..., int]
) -> None:
    plugin = tmp_path / "plugin.py"
    choices = ("red", "green", "blue", "white")
    code = (colours / "plugin.py").read_text()
    plugin.write_text(
        code.replace("metric=VqaAccuracy(),", f"metric=VqaAccuracy(), choices={{'Which colour?': {choices}}},")
    )
    task = {"name": str(plugin), "root": str(colours), "label": "colours"}
    suite = {"title": "Colours", "tasks": [{"title": "Colours", "task": task, "columns": {"accuracy": "Acc."}}]}
    (tmp_path / "suite.yaml").write_text(yaml.safe_dump(suite))
    command = ("bench", "--suite", tmp_path / "suite.yaml", "--model", folders["llava"], "--device", "cpu")
    answers = []
    for name, options in {"one": ("--batch-size", 1), "four": ("--batch-size", 4, "--num-workers", 1)}.items():
        arguments = (*command, "--out", tmp_path / name, "--decoding", "loglikelihood", "--no-baselines", *options)
        assert cli(*arguments) == 0
        path = tmp_path / name / folders["llava"].name / "bench" / "predictions" / "colours.jsonl"
        answers.append([json.loads(line) for line in path.read_text().splitlines()])
    assert answers[0] == answers[1]
    vlm = HFImageTextModel(str(folders["llava"]))
    for row in answers[0]:
        one = Image(Path(row["media"][0]))
        if row["category"] == "Which colour?":
            scores = vlm.score_choices(vlm.chat.encode([ChatPrompt(one.load_frames(), row["prompt"])]), choices)
            assert row["text"] == choices[scores.index(max(scores))]
        else:
            assert row["text"] == vlm.generate([one], [row["prompt"]], 48)[0]


@pytest.mark.parametrize("family", FAMILIES)
def test_bench(folders: dict[str, Path], family: str, colours: Path, tmp_path: Path, cli: Callable[..., int]) -> None:
    plugin = {"name": str(colours / "plugin.py"), "root": str(colours)}
    tasks = [
        {"title": name, "task": {**plugin, "modality": name, "label": name}, "columns": {"accuracy": "Acc."}}
        for name in ("image", "pair", "video")
    ]
    (tmp_path / "suite.yaml").write_text(yaml.safe_dump({"title": "Colours", "tasks": tasks}))
    command = ("bench", "--suite", tmp_path / "suite.yaml", "--model", folders[family], "--device", "cpu")
    assert cli(*command, "--out", tmp_path / "out", "--limit", 1, "--batch-size", 2) == 0
    bench = tmp_path / "out" / folders[family].name / "bench"
    vlm = HFImageTextModel(str(folders[family]))
    inputs: dict[str, Media] = {
        "image": Image(colours / "red.png"),
        "pair": Pair(colours / "red.png", colours / "green.png"),
        "video": Video(colours / "red.mp4", 2),
    }
    for modality, one in inputs.items():
        rows = [json.loads(line) for line in (bench / "predictions" / f"{modality}.jsonl").read_text().splitlines()]
        # The samples do not depend on the limit, so only some media are in this run.
        for row in (row for row in rows if row["media"] == list(one.sources)):
            assert "[" not in row["prompt"]
            assert row["text"] == vlm.generate([one], [row["prompt"]], 48)[0].strip()
    names = {path.name for path in (bench / "predictions").iterdir()}
    assert {"pair.swap_times.jsonl", "video.shuffle_frames.jsonl", "image.blank.jsonl"} <= names
