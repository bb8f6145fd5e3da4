"""Tiny folders in the layouts of VILA-1.5, UniRS and LLaVA, converted, and compared with the classes they come from."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import PIL.Image
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F

from unirs.data.batch import Batch
from unirs.data.collator import collate
from unirs.data.token_tree import TokenTree
from unirs.errors import ModelError
from unirs.inference.api import UniRS
from unirs.models import importers
from unirs.models.convert_weights import read_projector, rename
from unirs.models.llm import train_tokenizer
from unirs.tasks.media import Image
from unirs.tasks.prompt import VISUAL, PromptTemplate
from unirs.tasks.sample import Sample, Turn

if TYPE_CHECKING:
    from transformers.tokenization_utils_base import PreTrainedTokenizerBase

    from unirs.tasks.media import Modality

GOLDEN = Path(__file__).parents[2] / "golden" / "unirs_reference_projector.safetensors"
# As in the golden file.
VISION_WIDTH, LLM_WIDTH = 32, 48
SIDES = {"even": 6, "odd": 7}
PATCH = 4
MEAN, STD = [0.4, 0.6, 0.2], [0.2, 0.3, 0.4]
BEFORE, AFTER = [5, 6, 7], [8, 9, 10, 11]

Folders = Callable[[str], Path]


def tokenizer() -> PreTrainedTokenizerBase:
    return train_tokenizer(["What is shown?", "USER: ASSISTANT:"], 300)


def add_noise(model: nn.Module, seed: int) -> None:
    """Adds noise to the weights, so that every component has a large effect on the logits."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.data.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)


def llama_config() -> transformers.LlamaConfig:
    return transformers.LlamaConfig(
        vocab_size=304,
        hidden_size=LLM_WIDTH,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=512,
    )


def vision_config(config: type[Any], side: int) -> Any:  # noqa: ANN401
    return config(
        hidden_size=VISION_WIDTH,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=2,
        image_size=PATCH * side,
        patch_size=PATCH,
    )


def golden(parity: str) -> dict[str, torch.Tensor]:
    return {key.removeprefix(f"{parity}/"): value for key, value in load_file(GOLDEN).items() if key.startswith(parity)}


def write_vila(folder: Path, parity: str, *, change: bool, root: dict[str, Any] | None = None) -> None:
    side = SIDES[parity]
    vision = transformers.SiglipVisionModel(vision_config(transformers.SiglipVisionConfig, side))
    add_noise(vision, 1)
    vision.save_pretrained(folder / "vision_tower")
    size = {"height": PATCH * side, "width": PATCH * side}
    transformers.SiglipImageProcessor(image_mean=MEAN, image_std=STD, size=size).save_pretrained(
        folder / "vision_tower"
    )
    llm = transformers.LlamaForCausalLM(llama_config())
    add_noise(llm, 2)
    llm.save_pretrained(folder / "llm")
    tokenizer().save_pretrained(folder / "llm")
    weights = {k.replace("weights/", "layers."): v for k, v in golden(parity).items() if k.startswith("weights/")}
    if not change:
        weights = {k.replace("single.", ""): v for k, v in weights.items() if ".single." in k}
    (folder / "mm_projector").mkdir()
    save_file(weights, folder / "mm_projector" / "model.safetensors")
    write_json(folder / "mm_projector" / "config.json", {"mm_projector_type": "mlp_downsample"})
    write_json(folder / "config.json", {"model_type": "llava_llama", "mm_vision_select_layer": -2, **(root or {})})


def write_llava(folder: Path, tower: str, parity: str, strategy: str) -> None:
    side = SIDES[parity]
    config = {"clip": transformers.CLIPVisionConfig, "siglip": transformers.SiglipVisionConfig}[tower]
    text_tokenizer = tokenizer()
    text_tokenizer.add_tokens(["<image>"], special_tokens=True)
    options: dict[str, Any] = {
        "vision_config": vision_config(config, side),
        "text_config": llama_config(),
        "image_token_index": text_tokenizer.convert_tokens_to_ids("<image>"),
        "vision_feature_select_strategy": strategy,
    }
    llava = transformers.LlavaForConditionalGeneration(transformers.LlavaConfig(**options))
    add_noise(llava, 3)
    llava.save_pretrained(folder)
    edge = PATCH * side
    if tower == "clip":
        image_processor: Any = transformers.CLIPImageProcessor(
            size={"shortest_edge": edge}, crop_size={"height": edge, "width": edge}, image_mean=MEAN, image_std=STD
        )
    else:
        image_processor = transformers.SiglipImageProcessor(
            size={"height": edge, "width": edge}, image_mean=MEAN, image_std=STD
        )
    transformers.LlavaProcessor(
        image_processor,
        text_tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy=strategy,
        num_additional_image_tokens=int(tower == "clip"),
        chat_template=LLAVA_TEMPLATE,
    ).save_pretrained(folder)


# As the published LLaVA-1.5's.
LLAVA_TEMPLATE = (
    "{% for message in messages %}{{ message['role'].upper() + ': ' }}"
    "{% for part in message['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>\\n' }}{% endfor %}"
    "{% for part in message['content'] | selectattr('type', 'equalto', 'text') %}{{ part['text'] + ' ' }}{% endfor %}"
    "{% endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)


def write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    """Folders by name, each written once; read-only."""
    root = tmp_path_factory.mktemp("foreign")

    def folder(name: str) -> Path:
        path = root / name
        if not path.exists():
            path.mkdir()
            layout, *options = name.split("-")
            if layout == "llava":
                write_llava(path, *options)
            else:
                write_vila(path, *options, change=layout == "unirs")
        return path

    return folder


def read_checkpoint(source: Path) -> UniRS:
    return UniRS(*importers.read_checkpoint(source))


def convert(source: Path, out: Path) -> UniRS:
    read_checkpoint(source).save_pretrained(out)
    return UniRS.from_pretrained(out, device="cpu")


def frames(count: int, side: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(count)
    return torch.randint(0, 256, (count, 3, PATCH * side, PATCH * side), dtype=torch.uint8, generator=generator)


def pixels(media_frames: torch.Tensor) -> torch.Tensor:
    return (media_frames / 255 - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


def batch(modality: Modality, media_frames: torch.Tensor, tokens: int) -> Batch:
    tree = TokenTree()
    tree.add(BEFORE)
    tree.add([0] * tokens, visual=True)
    tree.add(AFTER)
    return collate([media_frames], [modality], [tree], [(0,)])


def published_projector(weights: dict[str, torch.Tensor], tokens: torch.Tensor, side: int) -> torch.Tensor:
    """The projector in VILA's layers, on four neighbours joined to one token, column by column."""
    layers = nn.Sequential(
        nn.Identity(),
        nn.LayerNorm(4 * VISION_WIDTH),
        nn.Linear(4 * VISION_WIDTH, LLM_WIDTH),
        nn.GELU(),
        nn.Linear(LLM_WIDTH, LLM_WIDTH),
    )
    layers.load_state_dict({key.removeprefix("layers."): value for key, value in weights.items()})
    grid = F.pad(tokens.view(-1, side, side, VISION_WIDTH), (0, 0, 0, side % 2, 0, side % 2))
    four = [grid[:, row::2, column::2] for row in range(2) for column in range(2)]
    return layers(torch.cat(four, dim=-1).transpose(1, 2).flatten(1, 2))  # type: ignore[no-any-return]


def logits_around(llm: Any, visual: torch.Tensor) -> torch.Tensor:  # noqa: ANN401
    embed = llm.get_input_embeddings()
    embeds = [embed(torch.tensor([BEFORE])), visual.flatten(0, 1).unsqueeze(0), embed(torch.tensor([AFTER]))]
    return llm(inputs_embeds=torch.cat(embeds, dim=1)).logits  # type: ignore[no-any-return]


@pytest.mark.parametrize("parity", SIDES)
@pytest.mark.parametrize(("modality", "count"), [("image", 1), ("video", 2)])
@torch.no_grad()
def test_logits_of_vila(folders: Folders, tmp_path: Path, parity: str, modality: Modality, count: int) -> None:
    source, side = folders(f"vila-{parity}"), SIDES[parity]
    converted = convert(source, tmp_path / "out")
    media_frames = frames(count, side)
    vision = transformers.SiglipVisionModel.from_pretrained(source / "vision_tower").eval()
    llm = transformers.LlamaForCausalLM.from_pretrained(source / "llm").eval()
    tokens = vision(pixels(media_frames), output_hidden_states=True).hidden_states[-2]
    weights = load_file(source / "mm_projector" / "model.safetensors")
    expected = logits_around(llm, published_projector(weights, tokens, side))
    logits = converted.model(batch(modality, media_frames, count * converted.model.projector.num_tokens))
    assert expected.std() > 0.1
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=0)
    assert converted.config.change is None


@pytest.mark.parametrize("parity", SIDES)
@torch.no_grad()
def test_logits_of_unirs(folders: Folders, tmp_path: Path, parity: str) -> None:
    source, side, published = folders(f"unirs-{parity}"), SIDES[parity], golden(parity)
    model = convert(source, tmp_path / "out").model
    assert model.change is not None
    fused = model.change(published["pair/before"], published["pair/after"])
    torch.testing.assert_close(fused, published["pair/change"], atol=1e-5, rtol=0)
    for path in ("image", "video"):
        projected = model.projector(published[f"{path}/features"])
        torch.testing.assert_close(projected, published[f"{path}/projected"], atol=1e-5, rtol=0)

    media_frames = frames(2, side)
    vision = transformers.SiglipVisionModel.from_pretrained(source / "vision_tower").eval()
    llm = transformers.LlamaForCausalLM.from_pretrained(source / "llm").eval()
    before, after = vision(pixels(media_frames), output_hidden_states=True).hidden_states[-2].split(1)
    weights = {k.replace("single.", ""): v for k, v in load_weights(source / "mm_projector").items() if ".single." in k}
    expected = logits_around(llm, published_projector(weights, model.change(before, after), side))
    logits = model(batch("pair", media_frames, model.projector.num_tokens))
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("layout", ["new", "old"])
@pytest.mark.parametrize("name", ["llava-clip-even-default", "llava-clip-odd-default", "llava-siglip-odd-full"])
@torch.no_grad()
def test_logits_of_llava(folders: Folders, tmp_path: Path, name: str, layout: str) -> None:
    source, side = folders(name), SIDES[name.split("-")[2]]
    if layout == "old":
        source = shutil.copytree(source, tmp_path / "source")
        edit_weights(source, lambda w: {k.replace("tower.", "tower.vision_model."): v for k, v in w.items()})
    original = transformers.LlavaForConditionalGeneration.from_pretrained(source).eval()
    converted = convert(source, tmp_path / "out")
    media_frames = frames(1, side)
    image = [original.config.image_token_index] * side**2
    expected = original(input_ids=torch.tensor([[*BEFORE, *image, *AFTER]]), pixel_values=pixels(media_frames)).logits
    logits = converted.model(batch("image", media_frames, side**2))
    assert expected.std() > 0.1
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", ["llava-clip-even-default", "llava-siglip-odd-full"])
def test_answer_of_llava(folders: Folders, tmp_path: Path, name: str) -> None:
    source, side = folders(name), SIDES[name.split("-")[2]]
    image = PIL.Image.fromarray(frames(1, side)[0].permute(1, 2, 0).numpy())
    image.save(tmp_path / "image.png")
    original = transformers.LlavaForConditionalGeneration.from_pretrained(source).eval()
    processor = transformers.AutoProcessor.from_pretrained(source)
    content = [{"type": "image"}, {"type": "text", "text": "What is shown?"}]
    text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    inputs = processor(images=image, text=text, return_tensors="pt")
    ids = original.generate(**inputs, max_new_tokens=6, do_sample=False, eos_token_id=2, pad_token_id=0)
    expected = processor.tokenizer.decode(ids[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True).strip()

    converted = convert(source, tmp_path / "out")
    assert converted.answer(Image(tmp_path / "image.png"), "What is shown?", max_new_tokens=6) == expected


def test_llava_with_a_text_template(folders: Folders, tmp_path: Path) -> None:
    source = Path(shutil.copytree(folders("llava-clip-even-default"), tmp_path / "llava"))
    (source / "chat_template.jinja").unlink()
    processor = transformers.AutoProcessor.from_pretrained(source)
    template = "{% for message in messages %}{{ 'Q: ' + message['content'] }}{% endfor %}"
    processor.tokenizer.chat_template = template
    processor.tokenizer.save_pretrained(source)
    converted = convert(source, tmp_path / "out")
    assert converted.tokenizer.chat_template == template


@pytest.mark.parametrize(
    ("name", "resize_mode"),
    [
        ("vila-even", "pad"),
        ("unirs-odd", "pad"),
        ("llava-clip-even-default", "center_crop"),
        ("llava-siglip-odd-full", "stretch"),
    ],
)
def test_resize_mode_is_that_of_the_source(folders: Folders, name: str, resize_mode: str) -> None:
    encoder: Any = read_checkpoint(folders(name)).model.encoder
    assert encoder.resize.mode == resize_mode
    if resize_mode == "pad":
        assert encoder.resize.fill == tuple(int(255 * value) for value in MEAN)


def test_vila_that_stretches_images(tmp_path: Path) -> None:
    write_vila(tmp_path, "even", change=False, root={"image_aspect_ratio": "resize"})
    encoder: Any = read_checkpoint(tmp_path).model.encoder
    assert encoder.resize.mode == "stretch"


def test_prompt_of_vila(folders: Folders) -> None:
    converted = read_checkpoint(folders("vila-even"))
    turn = Turn("1", (), {"question": "Is it red?"})
    encoder = converted.processor.prompt_encoder()
    text = encoder.render(converted.config.prompts["vqa"].prompt, turn, 1)
    assert text.startswith("<s>A chat between a curious user and an artificial intelligence assistant.")
    assert text.endswith(" USER: <|visual|>\nIs it red? ASSISTANT:")


@pytest.mark.parametrize("name", ["vila-even", "unirs-even", "llava-clip-even-default"])
def test_newline_after_each_image(folders: Folders, tmp_path: Path, name: str) -> None:
    converted = convert(folders(name), tmp_path / "out")
    frames, tokens = 8, converted.model.projector.num_tokens
    sample = Sample("1", Image(Path("a.png")), (Turn("1", (), {"question": "Is it red?"}),))
    encoder = converted.processor.prompt_encoder()
    ((tree, _),) = encoder.encode_prompts(PromptTemplate("", "{question}"), sample, frames, tokens)
    newline = converted.tokenizer("\n", add_special_tokens=False)["input_ids"]
    expected = ([0] * tokens + newline) * (frames - 1) + [0] * tokens
    start = tree.visual_mask.index(True)
    assert tree.input_ids[start : start + len(expected)] == expected
    assert encoder.render(PromptTemplate("", "{question}"), sample.turns[0], frames).count(f"{VISUAL}\n") == frames


def test_prompts_of_unirs_are_those_of_the_tasks(folders: Folders) -> None:
    from unirs import plugins

    prompts = read_checkpoint(folders("unirs-even")).config.prompts
    tasks = {"change": "levir_cc", "video": "era"}
    for name, task in tasks.items():
        assert prompts[name].prompt == plugins.create("unirs.tasks", {"name": task, "root": Path("none")}).prompt
    assert prompts["vqa"].prompt == PromptTemplate("vqa", "{question}")
    # VILA was not trained with tags.
    assert {prompt.prompt.task_tag for prompt in read_checkpoint(folders("vila-even")).config.prompts.values()} == {""}


def test_bfloat16_is_kept(folders: Folders, tmp_path: Path) -> None:
    source = shutil.copytree(folders("vila-even"), tmp_path / "source")
    transformers.LlamaForCausalLM.from_pretrained(source / "llm", dtype=torch.bfloat16).save_pretrained(source / "llm")
    model = convert(source, tmp_path / "out").model
    assert {parameter.dtype for parameter in model.llm.parameters()} == {torch.bfloat16}
    assert {parameter.dtype for parameter in model.projector.parameters()} == {torch.float32}


def test_convert_command(
    folders: Folders, tmp_path: Path, cli: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli("convert", folders("unirs-even"), tmp_path / "out") == 0
    output = capsys.readouterr().out
    for text in (
        "ChangeExtraction",
        "LlamaForCausalLM",
        "parameters",
        "vqa (image)",
        "change (pair)",
        "video (video)",
    ):
        assert text in output
    # A saved model may be replaced.
    assert cli("convert", folders("vila-odd"), tmp_path / "out") == 0
    assert UniRS.from_pretrained(tmp_path / "out", device="cpu").config.change is None
    assert cli("convert", tmp_path / "out", tmp_path / "again") == 0
    assert same(*(UniRS.from_pretrained(tmp_path / name, device="cpu") for name in ("out", "again")))
    assert cli("convert", tmp_path / "out", tmp_path / "adapter", "--adapter") == 1
    assert "no LoRA adapters" in capsys.readouterr().err
    assert not (tmp_path / "adapter").exists()


def test_convert_a_run(
    tmp_path: Path,
    colours: Path,
    colour_tasks: list[dict[str, Any]],
    cli: Callable[..., int],
    write_config: Callable[..., Path],
) -> None:
    assert cli("fit", "--config", write_config(tmp_path, colour_tasks)) == 0
    assert cli("convert", tmp_path / "run", tmp_path / "out", "--trust-remote-code") == 0
    expected, answer = (
        UniRS.from_pretrained(tmp_path / name, device="cpu", trust_remote_code=True).answer(
            Image(colours / "red.png"), "Which colour?"
        )
        for name in ("run", "out")
    )
    assert answer == expected


def test_projector_alone(folders: Folders) -> None:
    both, alone = (read_projector(folders(f"{layout}-even") / "mm_projector", True) for layout in ("unirs", "vila"))
    assert both[1] is not None
    assert "fuse.weight" in both[1]
    assert alone[1] is None
    assert read_projector(folders("unirs-even") / "mm_projector", False)[1] is None
    assert all(torch.equal(both[0][key], value) for key, value in alone[0].items())


def test_rename_lists_unknown_weights() -> None:
    assert rename({"a.b.weight": 1, "c.bias": 2}, {"a.b": "x", "c": "y.z"}) == {"x.weight": 1, "y.z.bias": 2}
    with pytest.raises(ModelError, match=r"Unknown weights: ab\.weight, d\.e\. Known prefixes: a\.\*\."):
        rename({"a.x": 1, "d.e": 2, "ab.weight": 3}, {"a": "x"})


def load_weights(folder: Path) -> dict[str, torch.Tensor]:
    return dict(load_file(folder / "model.safetensors"))


def edit_weights(
    folder: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]], file: str = "model.safetensors"
) -> None:
    save_file(change(load_file(folder / file)), folder / file, metadata={"format": "pt"})


def edit_config(path: Path, **options: object) -> None:
    write_json(path, json.loads(path.read_text()) | options)


def without(key: str) -> Callable[[Path], None]:
    return lambda folder: edit_weights(folder, lambda w: {k: v for k, v in w.items() if key not in k})


def with_more(key: str) -> Callable[[Path], None]:
    return lambda folder: edit_weights(folder, lambda w: w | {key: torch.zeros(2)})


def narrower(key: str) -> Callable[[Path], None]:
    return lambda folder: edit_weights(
        folder, lambda w: {k: v[..., 1:].clone() if k == key else v for k, v in w.items()}
    )


def cut_short(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def gone(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def options(**changed: object) -> Callable[[Path], None]:
    return lambda folder: edit_config(folder / "config.json", **changed)


LAYER = "layers.0.self_attn.q_proj.weight"
LLAVA = "llava-clip-even-default"
BROKEN: list[tuple[str, str, Callable[[Path], None], str]] = [
    ("vila-even", "vision_tower", gone, "vision_tower"),
    ("vila-even", "vision_tower", cut_short, "vision_tower"),
    ("vila-even", "vision_tower", without(LAYER), LAYER),
    ("vila-even", "vision_tower", with_more("encoder.layers.0.extra"), "encoder.layers.0.extra"),
    ("vila-even", "vision_tower", narrower("encoder.layers.0.mlp.fc1.weight"), "encoder.layers.0.mlp.fc1.weight"),
    ("vila-even", "llm", gone, "llm"),
    ("vila-even", "llm", cut_short, "llm"),
    ("vila-even", "llm", without(LAYER), LAYER),
    ("vila-even", "llm", with_more("model.extra"), "model.extra"),
    ("vila-even", "llm", narrower("lm_head.weight"), "lm_head.weight"),
    ("vila-even", "mm_projector", gone, "mm_projector"),
    ("vila-even", "mm_projector", cut_short, "mm_projector"),
    ("vila-even", "mm_projector", without("layers.4.bias"), "out.bias"),
    ("vila-even", "mm_projector", with_more("layers.6.bias"), "layers.6.bias"),
    ("vila-even", "mm_projector", narrower("layers.2.weight"), "expand.weight"),
    ("vila-even", "mm_projector", options(mm_projector_type="mlp_downsample_2x2_fix"), "mlp_downsample_2x2_fix"),
    ("vila-even", "mm_projector", lambda folder: write_json(folder / "config.json", []), "one JSON object"),
    ("vila-even", "", options(image_aspect_ratio="dynamic"), "dynamic"),
    ("vila-even", "", lambda folder: shutil.rmtree(folder / "mm_projector"), "lacks mm_projector/config.json"),
    ("vila-even", "", lambda folder: (folder / "config.json").unlink(), "config.json does not exist"),
    ("unirs-even", "mm_projector", without("change.Conv1.bias"), "fuse.bias"),
    ("unirs-even", "mm_projector", with_more("layers.change.selftrans.0.0.norm1.weight"), "selftrans.0.0.norm1.weight"),
    ("unirs-even", "mm_projector", narrower("layers.change.h_embedding.weight"), "columns.weight"),
    (LLAVA, "", gone, "does not load"),
    (LLAVA, "", cut_short, "does not load"),
    (LLAVA, "", without("linear_1.bias"), "multi_modal_projector.linear_1.bias"),
    (LLAVA, "", with_more("language_model.model.extra"), "extra"),
    (LLAVA, "", narrower("language_model.lm_head.weight"), "lm_head.weight"),
    (LLAVA, "", options(vision_feature_layer=[-2, -1]), "vision layers [-2, -1]"),
    (LLAVA, "", options(vision_feature_select_strategy="full"), "37 visual tokens per image, but its grid is 6x6"),
    (LLAVA, "", options(projector_hidden_act="relu"), "activation"),
    (LLAVA, "", lambda folder: (folder / "processor_config.json").unlink(), "does not load"),
    (LLAVA, "", options(model_type="llava_next"), "several tiles"),
]


@pytest.mark.parametrize(("name", "folder", "damage", "message"), BROKEN)
def test_broken_folder(
    folders: Folders,
    tmp_path: Path,
    cli: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
    name: str,
    folder: str,
    damage: Callable[[Path], None],
    message: str,
) -> None:
    source = shutil.copytree(folders(name), tmp_path / "source")
    damage(source / folder)
    assert cli("convert", source, tmp_path / "out") == 1
    error = capsys.readouterr().err
    assert "unirs: error: " in error
    assert message in error
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["source"]


def same(one: UniRS, other: UniRS) -> bool:
    expected, state = (model.model.state_dict() for model in (one, other))
    return state.keys() == expected.keys() and all(torch.equal(state[key], expected[key]) for key in expected)


def test_vision_tower_without_head(folders: Folders, tmp_path: Path) -> None:
    source = shutil.copytree(folders("llava-siglip-odd-full"), tmp_path / "source")
    without("vision_tower.head.")(source)
    assert same(read_checkpoint(source), read_checkpoint(folders("llava-siglip-odd-full")))


def test_vision_tower_with_text_tower(folders: Folders, tmp_path: Path) -> None:
    source = shutil.copytree(folders("vila-even"), tmp_path / "source")
    vision = transformers.SiglipVisionModel.from_pretrained(source / "vision_tower")
    text = transformers.SiglipTextConfig(vocab_size=20, hidden_size=32, num_hidden_layers=1, num_attention_heads=2)
    whole = transformers.SiglipModel(transformers.SiglipConfig(text_config=text, vision_config=vision.config))
    whole.vision_model = vision
    whole.save_pretrained(source / "vision_tower")
    assert same(read_checkpoint(source), read_checkpoint(folders("vila-even")))


def test_folder_with_other_files_is_not_replaced(
    folders: Folders, tmp_path: Path, cli: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    assert cli("convert", folders("vila-even"), tmp_path) == 1
    assert "holds something else" in capsys.readouterr().err
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.txt"]


def test_failed_conversion_keeps_the_former_model(folders: Folders, tmp_path: Path, cli: Callable[..., int]) -> None:
    assert cli("convert", folders("vila-even"), tmp_path / "out") == 0
    former = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    source = shutil.copytree(folders("vila-odd"), tmp_path / "source")
    cut_short(source / "llm")
    assert cli("convert", source, tmp_path / "out") == 1
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == former


def test_not_a_checkpoint(tmp_path: Path, cli: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli("convert", tmp_path, tmp_path / "out") == 1
    error = capsys.readouterr().err
    for text in (
        "config.yaml",
        "llava_onevision",
        "llm/config.json, vision_tower/config.json, mm_projector/config.json",
    ):
        assert text in error
