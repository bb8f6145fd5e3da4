"""What is fuzzed of models: their folders, checkpoints, adapters and caches, and the media that they are given."""

from __future__ import annotations

import shutil
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from tests.fuzz.cases import Target
from tests.fuzz.files import call, write_image, write_json

if TYPE_CHECKING:
    from transformers.tokenization_utils_base import PreTrainedTokenizerBase

    from unirs.tasks.media import Image
    from unirs.training.module import UniRSModule

_LLAMA = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
_MODEL: dict[str, Any] = {
    "encoder": {
        "name": "timm",
        "model": "resnet18",
        "pretrained": False,
        "tune": "full",
        "layer": 1,
        "image_size": 32,
        "options": {"channels": [8, 8, 8, 8]},
    },
    "change": {"name": "concat"},
    "llm": {"config": {"model_type": "llama", **_LLAMA}, "vocab_size": 300},
}
_WORDS = ["yes no red green road field", "Which colour is it?"]


def _module() -> UniRSModule:
    from unirs.models.llm import LLMConfig
    from unirs.training.module import UniRSModule

    return UniRSModule(**_MODEL | {"llm": LLMConfig(**_MODEL["llm"])})


def _run_folder(folder: Path) -> None:
    """A run folder with a checkpoint, without training."""
    import torch

    from unirs.models.checkpoint import FrozenWeights
    from unirs.models.llm import train_tokenizer

    torch.manual_seed(0)
    module = _module()
    (folder / "checkpoints").mkdir(parents=True)
    checkpoint = {"state_dict": module.state_dict(), "global_step": 1}
    FrozenWeights.of(module.model).strip(checkpoint, train_tokenizer(_WORDS, 300))
    torch.save(checkpoint, folder / "checkpoints" / "best.ckpt")
    data = {"tasks": [{"name": "jsonl", "label": "fuzz"}], "max_length": 128}
    write_json(folder, "config.yaml", {"model": _MODEL | {"max_new_tokens": 2}, "data": data})


def _saved_model(folder: Path) -> None:
    from unirs import UniRS

    run = folder / "run"
    _run_folder(run)
    UniRS.from_pretrained(run, device="cpu").save_pretrained(folder / "model")
    shutil.rmtree(run)
    # Damage would not get past them.
    (folder / "model" / "checksums.json").unlink(missing_ok=True)
    shutil.move(folder / "model", folder.with_name("model"))
    shutil.rmtree(folder)
    shutil.move(folder.with_name("model"), folder)


def _load(folder: Path) -> None:
    from unirs import UniRS

    model = UniRS.from_pretrained(folder, device="cpu")
    model.answer(np.zeros((32, 32, 3), np.uint8), "Which colour?", max_new_tokens=2)


def _start_from(folder: Path) -> None:
    from unirs.models.llm import LLMConfig
    from unirs.training.module import UniRSModule

    UniRSModule(init=str(folder), change={"name": "concat", "tune": "full"}, llm=LLMConfig(tune="lora"))


def _load_checkpoint(folder: Path) -> None:
    from unirs.models.checkpoint import load_checkpoint

    load_checkpoint(folder / "checkpoints" / "best.ckpt", _module().model)


# Other programs' models.

_VISION = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
_VISION |= {"image_size": 16, "patch_size": 4}
_CLIP_IMAGES: Any = {"size": {"shortest_edge": 16}, "crop_size": {"height": 16, "width": 16}}


def _tokenizer() -> PreTrainedTokenizerBase:
    from unirs.models.llm import train_tokenizer

    return train_tokenizer(_WORDS, 300)


def _llm(folder: Path) -> None:
    import transformers

    options: dict[str, Any] = {**_LLAMA, "vocab_size": 300, "max_position_embeddings": 256}
    transformers.LlamaForCausalLM(transformers.LlamaConfig(**options)).save_pretrained(folder)
    _tokenizer().save_pretrained(folder)


def _vila(folder: Path) -> None:
    import transformers
    from safetensors.torch import save_file

    from unirs.models.convert_weights import VILA_PROJECTOR, rename
    from unirs.models.projectors import DownsampleProjector

    source = folder / "source"
    vision: Any = _VISION
    tower = transformers.SiglipVisionModel(transformers.SiglipVisionConfig(**vision))
    tower.save_pretrained(source / "vision_tower")
    transformers.SiglipImageProcessor(size={"height": 16, "width": 16}).save_pretrained(source / "vision_tower")
    _llm(source / "llm")
    names = {new.removeprefix("projector."): old for old, new in VILA_PROJECTOR.items()}
    (source / "mm_projector").mkdir()
    weights = rename(DownsampleProjector((4, 4), 16, 16).state_dict(), names)
    save_file(weights, source / "mm_projector" / "model.safetensors")
    write_json(source, "mm_projector/config.json", {"mm_projector_type": "mlp_downsample"})
    write_json(source, "config.json", {"model_type": "llava_llama", "mm_vision_select_layer": -2})


def _llava(folder: Path) -> None:
    import transformers

    tokenizer, vision = _tokenizer(), _VISION
    tokenizer.add_tokens(["<image>"], special_tokens=True)
    options: dict[str, Any] = {
        "vision_config": {"model_type": "clip_vision_model", **vision},
        "text_config": {"model_type": "llama", **_LLAMA, "vocab_size": 304, "max_position_embeddings": 256},
        "image_token_index": tokenizer.convert_tokens_to_ids("<image>"),
    }
    llava = transformers.LlavaForConditionalGeneration(transformers.LlavaConfig(**options))
    llava.save_pretrained(folder / "source")
    transformers.LlavaProcessor(
        transformers.CLIPImageProcessor(**_CLIP_IMAGES),
        tokenizer,
        patch_size=4,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template="{% for message in messages %}{% for part in message.content %}{{ part.text or '<image>' }}"
        "{% endfor %}{% endfor %}",
    ).save_pretrained(folder / "source")


def _convert(folder: Path) -> None:
    call("convert", folder / "source", folder / "out")


def _answer_zero_shot(folder: Path) -> None:
    import torch

    from unirs.inference.hf_model import HFImageTextModel
    from unirs.tasks.media import Image

    model = HFImageTextModel(str(folder / "source"))
    model.generate([Image(torch.zeros(3, 16, 16, dtype=torch.uint8))], ["Which colour?"], 2)


def _adapter(folder: Path) -> None:
    from unirs.models.llm import LLMConfig, build_llm
    from unirs.models.tuning import write_adapter

    _llm(folder / "base")
    model, tokenizer = build_llm(LLMConfig(source=str(folder / "base"), tune="lora"))
    (folder / "adapter").mkdir()
    write_adapter(folder / "adapter", model)
    assert tokenizer is not None
    tokenizer.save_pretrained(folder / "adapter")
    # Relative to the working folder, as cases are copies.
    path = folder / "adapter" / "adapter_config.json"
    path.write_text(path.read_text().replace(str(folder / "base"), "base"))


def _load_adapter(folder: Path) -> None:
    from unirs.models.llm import LLMConfig, build_llm

    build_llm(LLMConfig(source=str(folder / "adapter")))


# Media, and caches.


@cache
def _valid_model() -> TemporaryDirectory[str]:
    folder = TemporaryDirectory(prefix="fuzz-model-")
    _saved_model(Path(folder.name) / "valid")
    return folder


def _media(folder: Path) -> None:
    for index, ending in enumerate(("png", "jpg", "tif")):
        write_image(folder, f"media/{index}.{ending}", 40 * index)


def _predict(folder: Path) -> None:
    model = Path(_valid_model().name) / "valid"
    call("predict", model, folder / "media", "--question", "Which?", "--out", folder / "answers.jsonl")


_SHAPE = (2, 3)


def _cached_image() -> Image:
    import torch

    from unirs.tasks.media import Image

    return Image(torch.zeros(3, 8, 8, dtype=torch.uint8))


def _features() -> Any:  # noqa: ANN401 - torch is imported late
    import torch

    return torch.arange(6, dtype=torch.float32).view(1, *_SHAPE)


def _feature_cache(folder: Path) -> None:
    from unirs.data.feature_cache import FeatureCache

    FeatureCache(folder, "0" * 16, _SHAPE, 10**6).put(_cached_image(), _features())


def _read_features(folder: Path) -> None:
    from unirs.data.feature_cache import FeatureCache

    cached, image = FeatureCache(folder, "0" * 16, _SHAPE, 10**6), _cached_image()
    found = cached.get(image)
    assert found is None or found.equal(_features())
    cached.put(image, _features())


def _clue_cache(folder: Path) -> None:
    from unirs.data.clues import ClueCache

    ClueCache(folder / "clues.sqlite").put_many({"a": "a road", "b": "a field"})


def _read_clues(folder: Path) -> None:
    from unirs.data.clues import ClueCache

    cached = ClueCache(folder / "clues.sqlite")
    found = cached.get_many(["a", "b"])
    assert found.items() <= {"a": "a road", "b": "a field"}.items()
    cached.put_many({"a": "a road"})
    assert cached.get_many("a") == {"a": "a road"}


MODEL_TARGETS = (
    Target("saved_model", _saved_model, _load, 4),
    Target("run_folder", _run_folder, _load, 4),
    Target("init", _saved_model, _start_from, 4),
    Target("checkpoint", _run_folder, _load_checkpoint, 4),
    Target("vila", _vila, _convert, 2),
    Target("llava", _llava, _convert, 2),
    Target("zero_shot", _llava, _answer_zero_shot, 2),
    Target("adapter", _adapter, _load_adapter, 2),
    Target("predict", _media, _predict, 2),
    Target("feature_cache", _feature_cache, _read_features),
    Target("clue_cache", _clue_cache, _read_clues),
)
