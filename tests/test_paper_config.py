"""The paper's recipe, `configs/unirs_3b*.yaml`, with tiny models of the classes in its checkpoint."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
import yaml
from safetensors.torch import save_file

from unirs.inference.api import UniRS
from unirs.models.llm import train_tokenizer
from unirs.models.projectors import DownsampleProjector
from unirs.tasks.media import Pair
from unirs.tasks.prompt import VisualFormat

ROOT = Path(__file__).parents[1]
VISION_WIDTH, LLM_WIDTH = 32, 48
NAMES = {"norm": "layers.1", "expand": "layers.2", "out": "layers.4"}


def write_checkpoint(folder: Path) -> None:
    """VILA-1.5-3B in small: the same files and classes, and the same 27x27 grid."""
    torch.manual_seed(0)
    vision = transformers.SiglipVisionConfig(
        hidden_size=VISION_WIDTH,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=384,
        patch_size=14,
    )
    transformers.SiglipVisionModel(vision).save_pretrained(folder / "vision_tower")
    transformers.SiglipImageProcessor(size={"height": 384, "width": 384}).save_pretrained(folder / "vision_tower")
    llm = transformers.LlamaConfig(
        vocab_size=320,
        hidden_size=LLM_WIDTH,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=4096,
    )
    transformers.LlamaForCausalLM(llm).save_pretrained(folder / "llm")
    train_tokenizer(["Is there a road? yes no This is a video about fire."], 300).save_pretrained(folder / "llm")
    projector = DownsampleProjector((27, 27), VISION_WIDTH, LLM_WIDTH).state_dict()
    weights = {f"{NAMES[key.split('.')[0]]}.{key.split('.')[1]}": value for key, value in projector.items()}
    (folder / "mm_projector").mkdir()
    save_file(weights, folder / "mm_projector" / "model.safetensors")
    (folder / "mm_projector" / "config.json").write_text('{"mm_projector_type": "mlp_downsample"}')
    (folder / "config.json").write_text('{"model_type": "llava_llama", "mm_vision_select_layer": -2}')


def write_conversations(root: Path, synthetic: Path) -> None:
    """GeoChat-Instruct as its archive unpacks."""
    images = root / "share/softwares/kartik/GeoChat_finetuning/final_images_llava"
    images.mkdir(parents=True)
    dialogue = [("human", "<image>\nIs there a road?"), ("gpt", "Yes."), ("human", "Where?"), ("gpt", "In the north.")]
    rows = []
    for path in sorted((synthetic / "rsvqa_lr" / "Images_LR").iterdir())[:8]:
        shutil.copy(path, images)
        conversation = [{"from": role, "value": text} for role, text in dialogue]
        rows.append({"id": path.stem, "image": path.name, "conversations": conversation})
    (root / "GeoChat_Instruct.json").write_text(json.dumps(rows))


def scaled_down(name: str, folder: Path, synthetic: Path) -> Path:
    """A recipe with a test's data and machine; model, optimiser, loss and lengths stay as they are written."""
    config: dict[str, Any] = yaml.safe_load((ROOT / "configs" / name).read_text(encoding="utf-8"))
    for task in config["data"]["tasks"]:
        if task["name"] != "geochat_instruct":
            task["root"] = str(synthetic / task["name"])
    config["data"] |= {"num_workers": 0, "val_samples": 1}
    config["trainer"] |= {"accelerator": "cpu", "max_epochs": 1, "limit_train_batches": 2, "enable_progress_bar": False}
    path = folder / name
    path.write_text(yaml.safe_dump(config))
    return path


# Lightning's model summary warns that it assumes float32 weights, which is correct here.
@pytest.mark.filterwarnings("ignore:Precision bf16-mixed is not supported by the model summary")
def test_recipe_trains_both_stages(
    tmp_path: Path, synthetic: Path, cli: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_checkpoint(tmp_path / "checkpoints" / "VILA1.5-3b")
    write_conversations(tmp_path / "data" / "geochat_instruct", synthetic)
    assert cli("convert", "checkpoints/VILA1.5-3b", "checkpoints/vila1.5-3b") == 0
    start = UniRS.from_pretrained(tmp_path / "checkpoints" / "vila1.5-3b", device="cpu").model.state_dict()

    assert cli("fit", "--config", scaled_down("unirs_3b_change.yaml", tmp_path, synthetic)) == 0
    first = UniRS.from_pretrained(tmp_path / "runs" / "unirs_3b_change", device="cpu").model.state_dict()
    # Only the change extractor is trained.
    for name, value in start.items():
        assert torch.equal(first[name], value.to(first[name].dtype)), name

    recipe = scaled_down("unirs_3b.yaml", tmp_path, synthetic)
    tasks = {task["name"]: task for task in yaml.safe_load(recipe.read_text())["data"]["tasks"]}
    assert {name: task["weight"] for name, task in tasks.items()} == {"geochat_instruct": 1, "levir_cc": 5, "era": 10}
    assert cli("fit", "--config", recipe) == 0
    trained = UniRS.from_pretrained(tmp_path / "runs" / "unirs_3b", device="cpu")
    encoder: Any = trained.model.encoder
    assert encoder.grid == (27, 27)
    assert encoder.resize.mode == "pad"
    assert trained.model.projector.num_tokens == 196
    assert trained.processor.visual_format == VisualFormat(after="\n", end="")
    # Only the language model is trained.
    for name, value in trained.model.state_dict().items():
        if not name.startswith("llm."):
            expected = first[name] if name.startswith("change.") else start[name]
            assert torch.equal(value, expected.to(value.dtype)), name
        elif value.ndim > 1:
            assert not torch.equal(value, start[name]), name
    change: Any = trained.model.change
    assert not change.single
    assert change.fuse.weight.shape == (VISION_WIDTH, 2 * VISION_WIDTH, 1, 1)
    pair = next((synthetic / "levir_cc" / "images" / "test" / "A").iterdir())
    trained.answer(Pair(pair, pair.parents[1] / "B" / pair.name), max_new_tokens=4)
